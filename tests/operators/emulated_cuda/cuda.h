// SPDX-License-Identifier: BSD-2-Clause
//
// What Dragon's headers and our operators want of CUDA beside what the kernels do: on the CPU, over the emulation in
// tests/kernels/emulated_cuda/. Nearly all of it only has to be declared.

#ifndef EMULATED_CUDA_H_
#define EMULATED_CUDA_H_

#include <cuda_runtime.h>

#define CUDA_VERSION CUDART_VERSION

constexpr cudaError_t cudaErrorMemoryAllocation = static_cast<cudaError_t>(2);
constexpr cudaError_t cudaErrorInsufficientDriver = static_cast<cudaError_t>(35);
constexpr cudaError_t cudaErrorNoDevice = static_cast<cudaError_t>(100);
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2, cudaMemcpyDefault = 4 };
constexpr unsigned cudaStreamDefault = 0, cudaStreamNonBlocking = 1;

struct cudaDeviceProp {
  int major;
};

cudaError_t cudaGetDeviceCount(int* count);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device);
cudaError_t cudaSetDevice(int device);
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags);
cudaError_t cudaStreamSynchronize(cudaStream_t stream);
cudaError_t cudaMalloc(void** memory, size_t bytes);
cudaError_t cudaMallocHost(void** memory, size_t bytes);
cudaError_t cudaFree(void* memory);
cudaError_t cudaFreeHost(void* memory);
cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream);
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);

#endif  // EMULATED_CUDA_H_
