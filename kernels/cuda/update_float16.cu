// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/update_kernel.cuh"

namespace dragon_optim {
namespace cuda {

void UpdateFloat16(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings, cudaStream_t stream) {
  LaunchUpdate<Float16, Float16>(tensors, count, settings, stream);
}

void UpdateFloat16FloatGrad(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings,
                            cudaStream_t stream) {
  LaunchUpdate<Float16, Float32>(tensors, count, settings, stream);
}

}  // namespace cuda
}  // namespace dragon_optim
