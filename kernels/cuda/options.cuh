// SPDX-License-Identifier: BSD-2-Clause
//
// The options of a call as a device sees them.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_
#define DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_

#include <cstddef>

#include "kernels/cuda/update.h"
#include "kernels/scalars.h"

namespace dragon_optim {
namespace cuda {

// The places of the doubles of RMSpropOptions.
enum Number { kLr, kAlpha, kEps, kWeightDecay, kMomentum, kGradScale, kClipNorm, kClipValue };

static_assert(offsetof(RMSpropOptions, clip_value) == kClipValue * sizeof(double), "in the order of the enumeration");

// `numbers`, where it is not null, are the doubles of RMSpropOptions, in its order.
__device__ __forceinline__ RMSpropOptions CurrentOptions(const RMSpropOptions& given, const double* numbers,
                                                         const UpdateParts& parts) {
  RMSpropOptions options = given;
  if (numbers != nullptr) {
    options.lr = numbers[kLr];
    options.alpha = numbers[kAlpha];
    options.eps = numbers[kEps];
    options.weight_decay = numbers[kWeightDecay];
    options.momentum = numbers[kMomentum];
    options.grad_scale = numbers[kGradScale];
    options.clip_norm = numbers[kClipNorm];
    options.clip_value = numbers[kClipValue];
  }
  if (!parts.momentum) options.momentum = 0;
  if (!parts.clip_norm) options.clip_norm = 0;
  return options;
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_
