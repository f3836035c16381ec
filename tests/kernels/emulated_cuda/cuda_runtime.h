// SPDX-License-Identifier: BSD-2-Clause
//
// As much of CUDA as kernels/cuda/ uses, on the CPU: in front of the real headers this one lets g++ compile the same
// sources. A block's threads take turns, each running from barrier to barrier; memory is the host's. What it cannot
// show: races between threads, the memory model, the compiler of the device, speed.

#ifndef EMULATED_CUDA_RUNTIME_H_
#define EMULATED_CUDA_RUNTIME_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <tuple>
#include <type_traits>

#ifndef CUDART_VERSION
#define CUDART_VERSION 13000
#endif

#define __global__
#define __device__
#define __host__
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__ &  // one copy for all threads, as on a device

struct CUstream_st;
using cudaStream_t = CUstream_st*;

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorMisalignedAddress = 716
};
enum cudaDeviceAttr { cudaDevAttrMultiProcessorCount = 16, cudaDevAttrMaxThreadsPerMultiProcessor = 39 };

struct dim3 {
  unsigned x, y, z;
  explicit dim3(unsigned size) : x(size), y(1), z(1) {}
};

struct EmulatedIndex {
  unsigned x, y, z;
};
extern EmulatedIndex threadIdx, blockIdx, gridDim;

void __syncthreads();

cudaError_t cudaDriverGetVersion(int* version);
cudaError_t cudaGetDevice(int* device);
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device);
cudaError_t cudaGetLastError();
const char* cudaGetErrorString(cudaError_t error);
const char* cudaGetErrorName(cudaError_t error);

// `thread` is what each thread of the launch does.
cudaError_t EmulateLaunch(unsigned grid, unsigned block, size_t argument_bytes, cudaStream_t stream,
                          const std::function<void()>& thread);

// The arguments are copied here, as CUDA copies them: the kernel may run when the caller has gone on.
template <typename... Parameters, size_t... kIndices>
std::function<void()> EmulatedCall(void (*kernel)(Parameters...), void** pointers, std::index_sequence<kIndices...>) {
  using Arguments = std::tuple<std::remove_cv_t<std::remove_reference_t<Parameters>>...>;
  const auto arguments =
      std::make_shared<Arguments>(*static_cast<std::tuple_element_t<kIndices, Arguments>*>(pointers[kIndices])...);
  return [kernel, arguments] { kernel(std::get<kIndices>(*arguments)...); };
}

template <typename... Parameters>
cudaError_t cudaLaunchKernel(void (*kernel)(Parameters...), dim3 grid, dim3 block, void** arguments, size_t,
                             cudaStream_t stream) {
  const size_t bytes = (size_t{0} + ... + sizeof(std::remove_reference_t<Parameters>));
  return EmulateLaunch(grid.x, block.x, bytes, stream,
                       EmulatedCall(kernel, arguments, std::index_sequence_for<Parameters...>()));
}

#endif  // EMULATED_CUDA_RUNTIME_H_
