// SPDX-License-Identifier: BSD-2-Clause

#include "dragon_optim/csrc/cuda/total_norm.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace dragon_optim {

void CudaTotalNorm::Begin(double order, size_t count) {
  if (!cuda::HasNormOrder(order)) {
    throw std::invalid_argument("Invalid order of a norm on a GPU: " + std::to_string(order) +
                                " (need 2, 1, 0, inf or -inf)");
  }
  order_ = order;
  count_ = static_cast<int64_t>(count);
  memory_ = nullptr;
  tensors_.clear();
  lists_.clear();
}

// Nothing is launched before all are known: memory for the blocks is asked for once.
void CudaTotalNorm::Add(DType dtype, const std::vector<Gradient>& gradients, const std::vector<int64_t>& places) {
  for (size_t i = 0; i < gradients.size(); ++i) tensors_.push_back({gradients[i].size, gradients[i].grad, places[i]});
  lists_.push_back({dtype, static_cast<int64_t>(gradients.size())});
}

// Once for a norm. The dtypes take their turns in the same memory: a stream does one thing after the other.
void CudaTotalNorm::Launch() {
  if (memory_ != nullptr) return;
  int64_t block_bytes = 0;
  const cuda::NormTensor* tensors = tensors_.data();
  for (const List& list : lists_) {
    block_bytes = std::max(block_bytes, cuda::NormTermsWorkspace(tensors, list.count));
    tensors += list.count;
  }
  const int64_t kept_bytes = (1 + count_) * static_cast<int64_t>(sizeof(double));
  memory_ = static_cast<double*>(device_.Scratch(kept_bytes + block_bytes).data);
  const cuda::Workspace blocks = {Terms() + count_, block_bytes};
  tensors = tensors_.data();
  for (const List& list : lists_) {
    cuda::NormTerms(list.dtype, order_, tensors, list.count, Terms(), blocks, device_.Stream());
    tensors += list.count;
  }
}

double CudaTotalNorm::Read(DType dtype) {
  Launch();
  Write(dtype, memory_);
  double wide = 0;
  float narrow = 0;
  if (dtype == DType::kFloat64) {
    device_.Download(&wide, memory_, sizeof(wide));
    return wide;
  }
  device_.Download(&narrow, memory_, sizeof(narrow));
  return narrow;
}

void CudaTotalNorm::Write(DType dtype, void* result) {
  Launch();
  cuda::NormOfTerms(order_, Terms(), count_, dtype, result, device_.Stream());
}

}  // namespace dragon_optim
