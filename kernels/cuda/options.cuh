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

// The options of a call whose numbers lie in device memory.
__device__ __forceinline__ RMSpropOptions CurrentOptions(const UpdateSettings& settings) {
  const double* numbers = settings.numbers;
  RMSpropOptions options = settings.options;
  options.lr = numbers[kLr];
  options.alpha = numbers[kAlpha];
  options.eps = numbers[kEps];
  options.weight_decay = numbers[kWeightDecay];
  options.momentum = settings.parts.momentum ? numbers[kMomentum] : 0;
  options.grad_scale = numbers[kGradScale];
  options.clip_norm = settings.parts.clip_norm ? numbers[kClipNorm] : 0;
  options.clip_value = numbers[kClipValue];
  return options;
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_OPTIONS_CUH_
