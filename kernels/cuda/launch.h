// SPDX-License-Identifier: BSD-2-Clause
//
// Launches whose errors are exceptions.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_LAUNCH_H_
#define DRAGON_OPTIM_KERNELS_CUDA_LAUNCH_H_

#include <cuda_runtime.h>

#include <cstdint>
#include <stdexcept>

namespace dragon_optim {
namespace cuda {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws CudaError, and then takes the error back from the runtime: the next one to ask must not think it is his.
void Check(cudaError_t status, const char* what);

// Whether the driver takes more than 4096 bytes of launch arguments: since CUDA 12.1. An older one may run what a newer
// toolkit has built.
bool TakesLongArguments();

// How many blocks of `threads` threads to launch for `blocks` blocks' work; the kernel loops over the rest. Several
// times what the current device can hold at once, so that blocks that are done early make room for others.
int GridSize(int64_t blocks, int threads);

template <typename Type>
struct Same {
  using type = Type;
};

// Runs the kernel on `stream` without waiting for it. Nothing is launched for no work.
template <typename... Parameters>
void Launch(const char* name, void (*kernel)(Parameters...), int64_t blocks, int threads, cudaStream_t stream,
            const typename Same<Parameters>::type&... arguments) {
  if (blocks == 0) return;
  void* pointers[] = {const_cast<void*>(static_cast<const void*>(&arguments))...};
  Check(cudaLaunchKernel(kernel, dim3(GridSize(blocks, threads)), dim3(threads), pointers, 0, stream), name);
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_LAUNCH_H_
