// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cpu/norm.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gradient_dtypes.h"
#include "kernels/cpu/work_list.h"

namespace dragon_optim {
namespace {

// Lives from call to call, so that a step that was made once allocates nothing.
struct Scratch {
  std::vector<WorkPosition> starts;
  std::vector<int64_t> first_block;  // of each gradient, in block_sums
  std::vector<double> block_sums;
  std::vector<double> norms;
};

void NumberBlocks(const std::vector<Gradient>& gradients, Scratch& scratch) {
  scratch.first_block.assign(1, 0);
  for (const Gradient& gradient : gradients) {
    scratch.first_block.push_back(scratch.first_block.back() + (gradient.size + kNormBlock - 1) / kNormBlock);
  }
  scratch.block_sums.resize(scratch.first_block.back());
}

// Adds up the blocks of each gradient, in index order.
void SumBlocks(Scratch& scratch) {
  const size_t count = scratch.first_block.size() - 1;
  scratch.norms.assign(count, 0);
  for (size_t i = 0; i < count; ++i) {
    for (int64_t block = scratch.first_block[i]; block < scratch.first_block[i + 1]; ++block) {
      scratch.norms[i] += scratch.block_sums[block];
    }
  }
}

}  // namespace

const std::vector<double>& SquaredNorms(DType grad_dtype, double scale, const std::vector<Gradient>& gradients,
                                        int threads) {
  thread_local Scratch scratch;
  NumberBlocks(gradients, scratch);
  const int64_t* first_block = scratch.first_block.data();
  double* block_sums = scratch.block_sums.data();
  // A part holds whole blocks, so that no block is added up in two pieces.
  const WorkList<Gradient> work(gradients.data(), gradients.size(), kNormBlock, threads, scratch.starts);
  WithGradientLoops(ActiveKernels(), grad_dtype, [&](const auto& loops, int64_t item_size) {
    work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
      for (int64_t block = begin; block < end; block += kNormBlock) {
        const int64_t size = end - block < kNormBlock ? end - block : kNormBlock;
        const void* grad = static_cast<const char*>(gradients[i].grad) + block * item_size;
        block_sums[first_block[i] + block / kNormBlock] = loops.block_squares(grad, size, scale);
      }
    });
  });
  SumBlocks(scratch);
  return scratch.norms;
}

}  // namespace dragon_optim
