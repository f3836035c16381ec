// SPDX-License-Identifier: BSD-2-Clause
//
// What can be seen of wrong arguments before anything is launched. All throw std::invalid_argument.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_CHECKS_H_
#define DRAGON_OPTIM_KERNELS_CUDA_CHECKS_H_

#include <cstdint>

#include "kernels/cuda/gradient.h"
#include "kernels/dtype.h"

namespace dragon_optim {
namespace cuda {

constexpr int64_t kNoTensor = -1;

void CheckSize(int64_t size, int64_t tensor);

// Neither null nor between two elements.
void CheckArray(const void* data, int64_t item_size, const char* name, int64_t tensor = kNoTensor);

void CheckGradients(DType grad_dtype, const Gradient* gradients, int64_t count);
void CheckWorkspace(const Workspace& workspace, int64_t needed_bytes);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_CHECKS_H_
