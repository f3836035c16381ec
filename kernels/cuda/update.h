// SPDX-License-Identifier: BSD-2-Clause
//
// What the update kernels are given, and who launches them, one per dtype of parameters and gradients.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_UPDATE_H_
#define DRAGON_OPTIM_KERNELS_CUDA_UPDATE_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/rmsprop.h"

namespace dragon_optim {
namespace cuda {

// What the buffers at hand allow for, whatever the options in device memory say.
struct UpdateParts {
  int32_t momentum;
  int32_t clip_norm;
};

struct UpdateSettings {
  RMSpropOptions options;
  const double* numbers;       // in device memory; null: those of `options`
  const double* clip_factors;  // in device memory, one for each tensor; null where no norm is clipped
  const int32_t* skip;         // in device memory; nothing is updated where it is not 0. May be null
  UpdateParts parts;
};

using UpdateLauncher = void (*)(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings,
                                cudaStream_t stream);

void UpdateFloat32(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);
void UpdateFloat64(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);
void UpdateFloat16(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);
void UpdateFloat16FloatGrad(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);
void UpdateBFloat16(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);
void UpdateBFloat16FloatGrad(const RMSpropTensor*, int64_t, const UpdateSettings&, cudaStream_t);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_UPDATE_H_
