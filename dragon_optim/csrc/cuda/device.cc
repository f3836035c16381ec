// SPDX-License-Identifier: BSD-2-Clause

#include "dragon_optim/csrc/cuda/device.h"

#include <cmath>
#include <new>

#include "kernels/cuda/clip.h"
#include "kernels/cuda/launch.h"

namespace dragon_optim {

// Dragon has chosen the device before it runs an operator, but not in our copy of CUDA's runtime if there are two.
cudaStream_t CudaDevice::Stream() {
  cuda::Check(cudaSetDevice(context_->device()), "choosing the device");
  return context_->cuda_stream();
}

// Allocated and freed again: what the driver calls free may not be had in one piece. It waits for the device, but
// memory is missing in the first steps only.
void CudaDevice::ProbeMemory(int64_t bytes) {
  if (bytes <= 0) return;
  cuda::Check(cudaSetDevice(context_->device()), "choosing the device");
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, static_cast<size_t>(bytes));
  if (status == cudaErrorMemoryAllocation) {
    cudaGetLastError();  // the next one to ask must not think it is his
    throw std::bad_alloc();
  }
  cuda::Check(status, "asking for memory");
  cuda::Check(cudaFree(memory), "giving memory back");
}

// Dragon's tensors take multiples of 512 bytes, and the driver gives large ones whole pages.
int64_t CudaDevice::Footprint(int64_t bytes) {
  constexpr int64_t kLarge = int64_t{1} << 20;
  const int64_t unit = bytes >= kLarge ? 2 * kLarge : 512;
  return (bytes + unit - 1) / unit * unit;
}

bool CudaDevice::Holds(Tensor* tensor) {
  const auto* memory = tensor->memory();
  if (memory == nullptr) return false;
  const auto state = memory->state();
  const bool is_on_a_device = state == dragon::UnifiedMemory::STATE_AT_CUDA || state == dragon::UnifiedMemory::SYNCED;
  return is_on_a_device && memory->device() == context_->device();
}

int64_t CudaDevice::BytesToCome(Tensor* tensor) {
  const auto* memory = tensor->memory();
  if (memory == nullptr || Holds(tensor)) return 0;
  if (memory->size("cuda", context_->device()) > 0) return 0;  // there is an old copy to overwrite
  return Footprint(static_cast<int64_t>(memory->size()));
}

int64_t CudaDevice::NormScratch(int64_t size) {
  RMSpropTensor tensor{};
  tensor.size = size;
  RMSpropOptions options{};
  options.clip_norm = 1;
  return cuda::RMSpropWorkspace(options, &tensor, 1);
}

cuda::Workspace CudaDevice::Scratch(int64_t bytes) {
  if (bytes == 0) return {nullptr, 0};
  if (static_cast<int64_t>(scratch_.capacity()) < bytes) ProbeMemory(bytes);
  scratch_.Reshape({bytes / static_cast<int64_t>(sizeof(double))});
  SetDType(&scratch_, DType::kFloat64);
  return {scratch_.raw_mutable_data<dragon::CUDAContext>(), bytes};
}

// The options travel as an argument of the launch: nothing is copied to the device for them.
void CudaDevice::Update(DType dtype, DType grad_dtype, const RMSpropOptions& options,
                        const std::vector<RMSpropTensor>& tensors) {
  const auto count = static_cast<int64_t>(tensors.size());
  const cuda::Workspace scratch = Scratch(cuda::RMSpropWorkspace(options, tensors.data(), count));
  cuda::RMSpropUpdate(dtype, grad_dtype, options, {nullptr, nullptr}, tensors.data(), count, scratch, Stream());
}

void CudaDevice::Accumulate(DType grad_dtype, const std::vector<AccumulateTensor>& tensors) {
  cuda::Accumulate(grad_dtype, tensors.data(), static_cast<int64_t>(tensors.size()), Stream());
}

void CudaDevice::Fill(DType dtype, void* data, int64_t size, double value) {
  if (value == 0 && !std::signbit(value)) return Zero(data, static_cast<size_t>(size * ItemSize(dtype)));
  cuda::Fill(dtype, data, size, value, Stream());
}

// A sum that begins is its first gradient, in the dtype of the arithmetic.
void CudaDevice::HalfToFloat(const void* source, void* destination, int64_t size) {
  const AccumulateTensor tensor = {size, source, destination, 1};
  cuda::Accumulate(DType::kFloat16, &tensor, 1, Stream());
}

void CudaDevice::Scale(DType dtype, const std::vector<ClipTensor>& tensors, double factor) {
  cuda::Scale(dtype, tensors.data(), static_cast<int64_t>(tensors.size()), factor, Stream());
}

void CudaDevice::ScaleToNorm(DType dtype, const std::vector<ClipTensor>& tensors, double max_norm, DType norm_dtype,
                             const void* norm) {
  cuda::ScaleToNorm(dtype, tensors.data(), static_cast<int64_t>(tensors.size()), max_norm, norm_dtype, norm, Stream());
}

void CudaDevice::Clamp(DType dtype, const std::vector<ClipTensor>& tensors, double limit) {
  cuda::Clamp(dtype, tensors.data(), static_cast<int64_t>(tensors.size()), limit, Stream());
}

bool CudaDevice::HasNonFinite(DType dtype, const std::vector<Gradient>& gradients) {
  auto* flag = static_cast<int32_t*>(Scratch(sizeof(double)).data);
  Zero(flag, sizeof(int32_t));
  cuda::FindNonFinite(dtype, gradients.data(), static_cast<int64_t>(gradients.size()), flag, Stream());
  int32_t found = 0;
  Download(&found, flag, sizeof(found));
  return found != 0;
}

void CudaDevice::Zero(void* data, size_t bytes) {
  if (bytes == 0) return;
  cuda::Check(cudaMemsetAsync(data, 0, bytes, Stream()), "filling with zeros");
}

void CudaDevice::Upload(void* destination, const void* source, size_t bytes) {
  Copy(destination, source, bytes, cudaMemcpyHostToDevice, "a copy to the device");
}

void CudaDevice::Download(void* destination, const void* source, size_t bytes) {
  Copy(destination, source, bytes, cudaMemcpyDeviceToHost, "a copy from the device");
}

// Waits also on the way to the device: the driver makes a copy of its own of most memory of the host first, not of all.
void CudaDevice::Copy(void* destination, const void* source, size_t bytes, cudaMemcpyKind kind, const char* what) {
  const cudaStream_t stream = Stream();
  cuda::Check(cudaMemcpyAsync(destination, source, bytes, kind, stream), what);
  cuda::Check(cudaStreamSynchronize(stream), what);
}

}  // namespace dragon_optim
