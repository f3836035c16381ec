// SPDX-License-Identifier: BSD-2-Clause
//
// The options of a call as a device sees them.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_
#define DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_

#include "kernels/cuda/update.h"
#include "kernels/scalars.h"

namespace dragon_optim {
namespace cuda {

// `numbers`, where it is not null, are the doubles of RMSpropOptions, in its order.
__device__ __forceinline__ RMSpropOptions CurrentOptions(const RMSpropOptions& given, const double* numbers,
                                                         const UpdateParts& parts) {
  RMSpropOptions options = given;
  if (numbers != nullptr) {
    options.lr = numbers[0];
    options.alpha = numbers[1];
    options.eps = numbers[2];
    options.weight_decay = numbers[3];
    options.momentum = numbers[4];
    options.grad_scale = numbers[5];
    options.clip_norm = numbers[6];
    options.clip_value = numbers[7];
  }
  if (!parts.momentum) options.momentum = 0;
  if (!parts.clip_norm) options.clip_norm = 0;
  return options;
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_
