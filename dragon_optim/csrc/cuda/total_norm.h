// SPDX-License-Identifier: BSD-2-Clause
//
// What total_norm.h promises, on a GPU: the terms stay there, and only Read waits for it.

#ifndef DRAGON_OPTIM_CSRC_CUDA_TOTAL_NORM_H_
#define DRAGON_OPTIM_CSRC_CUDA_TOTAL_NORM_H_

#include <cstdint>
#include <vector>

#include "dragon_optim/csrc/cuda/device.h"
#include "kernels/cuda/clip.h"
#include "kernels/gradient.h"

namespace dragon_optim {

class CudaTotalNorm {
 public:
  explicit CudaTotalNorm(CudaDevice& device) : device_(device) {}

  void Begin(double order, size_t count);
  void Add(DType dtype, const std::vector<Gradient>& gradients, const std::vector<int64_t>& places);
  double Read(DType dtype);
  void Write(DType dtype, void* result);

 private:
  // In the scratch memory: a norm to read, the terms of all gradients, and of what is left to a dtype its blocks.
  double* Terms() { return memory_ + 1; }
  void Launch();

  CudaDevice& device_;
  double order_ = 2;
  int64_t count_ = 0;
  double* memory_ = nullptr;
  std::vector<cuda::NormTensor> tensors_;
  struct List {
    DType dtype;
    int64_t count;
  };
  std::vector<List> lists_;
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_CUDA_TOTAL_NORM_H_
