// SPDX-License-Identifier: BSD-2-Clause
//
// What the operators have done on the device that they run on. Every operator has a Device of its own; on a GPU the
// work is left to the stream of the operator's context. Only HasNonFinite, Upload and Download wait for it.

#ifndef DRAGON_OPTIM_CSRC_DEVICE_H_
#define DRAGON_OPTIM_CSRC_DEVICE_H_

#include <cstring>
#include <vector>

#include "dragon_optim/csrc/tensors.h"
#include "kernels/clip.h"
#include "kernels/gradient.h"
#include "kernels/rmsprop.h"

#ifdef USE_CUDA
#include "dragon_optim/csrc/cuda/device.h"
#endif

namespace dragon_optim {

template <class Context>
class Device;

template <>
class Device<dragon::CPUContext> {
 public:
  explicit Device(dragon::CPUContext*) {}

  // Throws std::bad_alloc if `bytes` cannot be had now. Dragon's allocator would end the process instead.
  static void ProbeMemory(int64_t bytes) { dragon_optim::ProbeMemory(bytes); }

  // What new memory of this size takes of that of the device.
  static int64_t Footprint(int64_t bytes) { return bytes; }

  // What the memory of a tensor, which has some, will take of the device when it is used there: 0 where it is already.
  static int64_t BytesToCome(Tensor*) { return 0; }

  // What the norm of a gradient of so many elements needs of the device.
  static int64_t NormScratch(int64_t) { return 0; }

  static void Update(DType dtype, DType grad_dtype, const RMSpropOptions& options,
                     const std::vector<RMSpropTensor>& tensors) {
    RMSpropUpdate(dtype, grad_dtype, options, tensors.data(), static_cast<int64_t>(tensors.size()), NumThreads());
  }

  static void Accumulate(DType grad_dtype, const std::vector<AccumulateTensor>& tensors) {
    dragon_optim::Accumulate(grad_dtype, tensors.data(), static_cast<int64_t>(tensors.size()), NumThreads());
  }

  static void Fill(DType dtype, void* data, int64_t size, double value) {
    dragon_optim::Fill(dtype, data, size, value);
  }

  static void HalfToFloat(const void* source, void* destination, int64_t size) {
    dragon_optim::HalfToFloat(source, destination, size);
  }

  // Whether the newest values of a tensor lie in memory of the device, apart from the main memory.
  static bool Holds(Tensor*) { return false; }

  static void Scale(DType dtype, const std::vector<ClipTensor>& tensors, double factor) {
    dragon_optim::Scale(dtype, tensors.data(), static_cast<int64_t>(tensors.size()), factor, NumThreads());
  }

  static void Clamp(DType dtype, const std::vector<ClipTensor>& tensors, double limit) {
    dragon_optim::Clamp(dtype, tensors.data(), static_cast<int64_t>(tensors.size()), limit, NumThreads());
  }

  // Whether an element of any gradient is infinite or NaN. Waits for a GPU.
  static bool HasNonFinite(DType dtype, const std::vector<Gradient>& gradients) {
    return dragon_optim::HasNonFinite(dtype, gradients.data(), static_cast<int64_t>(gradients.size()), NumThreads());
  }

  static void Zero(void* data, size_t bytes) { std::memset(data, 0, bytes); }

  // Between the main memory and the device's.
  static void Upload(void* destination, const void* source, size_t bytes) { std::memcpy(destination, source, bytes); }
  static void Download(void* destination, const void* source, size_t bytes) { std::memcpy(destination, source, bytes); }
};

#ifdef USE_CUDA
template <>
class Device<dragon::CUDAContext> : public CudaDevice {
 public:
  using CudaDevice::CudaDevice;
};
#endif

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_DEVICE_H_
