// SPDX-License-Identifier: BSD-2-Clause
//
// What device.h promises, on a GPU. Errors of CUDA throw; Dragon's own macros around it would end the process.

#ifndef DRAGON_OPTIM_CSRC_CUDA_DEVICE_H_
#define DRAGON_OPTIM_CSRC_CUDA_DEVICE_H_

#include <vector>

#include "dragon_optim/csrc/tensors.h"
#include "kernels/clip.h"
#include "kernels/cuda/rmsprop.h"

namespace dragon_optim {

class CudaDevice {
 public:
  explicit CudaDevice(dragon::CUDAContext* context) : context_(context) {}

  void ProbeMemory(int64_t bytes);
  static int64_t Footprint(int64_t bytes);
  int64_t BytesToCome(Tensor* tensor);
  static int64_t NormScratch(int64_t size);
  void Update(DType dtype, DType grad_dtype, const RMSpropOptions& options, const std::vector<RMSpropTensor>& tensors);
  void Accumulate(DType grad_dtype, const std::vector<AccumulateTensor>& tensors);
  void Fill(DType dtype, void* data, int64_t size, double value);
  void HalfToFloat(const void* source, void* destination, int64_t size);
  bool Holds(Tensor* tensor);
  void Scale(DType dtype, const std::vector<ClipTensor>& tensors, double factor);
  // By a norm in device memory.
  void ScaleToNorm(DType dtype, const std::vector<ClipTensor>& tensors, double max_norm, DType norm_dtype,
                   const void* norm);
  void Clamp(DType dtype, const std::vector<ClipTensor>& tensors, double limit);
  bool HasNonFinite(DType dtype, const std::vector<Gradient>& gradients);
  void Zero(void* data, size_t bytes);
  // Both wait for the device: the memory of the host is the caller's again when they return.
  void Upload(void* destination, const void* source, size_t bytes);
  void Download(void* destination, const void* source, size_t bytes);

  // The stream to launch on; its device is the current one from then on.
  cudaStream_t Stream();
  // Memory for one operator's launches, of whole doubles.
  cuda::Workspace Scratch(int64_t bytes);

 private:
  void Copy(void* destination, const void* source, size_t bytes, cudaMemcpyKind kind, const char* what);

  dragon::CUDAContext* context_;
  Tensor scratch_;  // allocated when a norm or a flag is first asked for, and again only where the gradients have grown
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_CUDA_DEVICE_H_
