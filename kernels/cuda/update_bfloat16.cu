// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/update_kernel.cuh"

namespace dragon_optim {
namespace cuda {

void UpdateBFloat16(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings, cudaStream_t stream) {
  LaunchUpdate<BFloat16, BFloat16>(tensors, count, settings, stream);
}

void UpdateBFloat16FloatGrad(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings,
                             cudaStream_t stream) {
  LaunchUpdate<BFloat16, Float32>(tensors, count, settings, stream);
}

}  // namespace cuda
}  // namespace dragon_optim
