// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/rmsprop.h"

#include <stdexcept>
#include <vector>

#include "kernels/cpu/float_mode.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/update.h"
#include "kernels/scalars.h"

namespace dragon_optim {
namespace cuda {
namespace {

UpdateLauncher Launcher(DType dtype, DType grad_dtype) {
  if (grad_dtype == dtype) {
    switch (dtype) {
      case DType::kFloat16:
        return UpdateFloat16;
      case DType::kFloat32:
        return UpdateFloat32;
      case DType::kFloat64:
        return UpdateFloat64;
      case DType::kBFloat16:
        return UpdateBFloat16;
    }
  }
  if (IsShort(dtype) && grad_dtype == DType::kFloat32) {
    return dtype == DType::kFloat16 ? UpdateFloat16FloatGrad : UpdateBFloat16FloatGrad;
  }
  throw std::invalid_argument(
      "Invalid dtype of the gradients (need that of the parameters, or float32 with float16 and bfloat16)");
}

// Whether all tensors that are not empty have a momentum buffer, or none has.
bool HaveMomentumBuffers(const RMSpropTensor* tensors, int64_t count) {
  int64_t with = 0, without = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (tensors[i].size > 0) ++(tensors[i].momentum_buffer != nullptr ? with : without);
  }
  if (with > 0 && without > 0) {
    throw std::invalid_argument("Invalid momentum_buffer: some tensors have one (need all or none)");
  }
  return with > 0;
}

void CheckTensors(DType dtype, DType grad_dtype, bool has_momentum, bool centered, const RMSpropTensor* tensors,
                  int64_t count) {
  const int64_t item = ItemSize(dtype), state_item = ItemSize(ArithmeticDType(dtype));
  for (int64_t i = 0; i < count; ++i) {
    const RMSpropTensor& tensor = tensors[i];
    CheckSize(tensor.size, i);
    if (tensor.size == 0) continue;
    CheckArray(tensor.grad, ItemSize(grad_dtype), "grad", i);
    CheckArray(tensor.param, item, "param", i);
    CheckArray(tensor.square_avg, state_item, "square_avg", i);
    if (has_momentum) CheckArray(tensor.momentum_buffer, state_item, "momentum_buffer", i);
    if (centered) CheckArray(tensor.grad_avg, state_item, "grad_avg", i);
    if (IsShort(dtype)) CheckArray(tensor.master_param, state_item, "master_param", i);
  }
}

}  // namespace

int64_t RMSpropWorkspace(const RMSpropOptions& options, const RMSpropTensor* tensors, int64_t count) {
  if (!ClipsNorm(options)) return 0;
  int64_t numbers = count;  // a clip factor for each tensor, then the sums of its blocks
  for (int64_t i = 0; i < count; ++i) numbers += NormBlocks(tensors[i].size);
  return numbers * static_cast<int64_t>(sizeof(double));
}

void RMSpropUpdate(DType dtype, DType grad_dtype, const RMSpropOptions& options, const DeviceInputs& inputs,
                   const RMSpropTensor* tensors, int64_t count, const Workspace& workspace, cudaStream_t stream) {
  thread_local std::vector<Gradient> gradients;  // lives from call to call, to be allocated once
  const ScopedIeeeFloatMode float_mode;          // for the constants, which the host rounds
  const UpdateLauncher launch = Launcher(dtype, grad_dtype);
  const bool has_momentum = inputs.numbers == nullptr ? options.momentum > 0 : HaveMomentumBuffers(tensors, count);
  const bool clips_norm = ClipsNorm(options);
  CheckTensors(dtype, grad_dtype, has_momentum, options.centered != 0, tensors, count);
  if (inputs.numbers != nullptr) CheckArray(inputs.numbers, sizeof(double), "numbers");
  if (inputs.skip != nullptr) CheckArray(inputs.skip, sizeof(int32_t), "skip");
  double* clip_factors = nullptr;
  if (clips_norm) {
    CheckWorkspace(workspace, RMSpropWorkspace(options, tensors, count));
    clip_factors = static_cast<double*>(workspace.data);
    gradients.clear();
    for (int64_t i = 0; i < count; ++i) gradients.push_back({tensors[i].size, tensors[i].grad});
    LaunchNorms(grad_dtype, gradients.data(), count, {options.grad_scale, options.clip_norm, inputs.numbers},
                clip_factors + count, clip_factors, stream);
  }
  launch(tensors, count, {options, inputs.numbers, clip_factors, inputs.skip, {has_momentum, clips_norm}}, stream);
}

}  // namespace cuda
}  // namespace dragon_optim
