// SPDX-License-Identifier: BSD-2-Clause
//
// The update of a range of one tensor. Included once by each instruction set's file; all of it has internal linkage.
// Nothing of the standard library's templates may be used here: the linker would keep one copy for all instruction
// sets.

#ifndef DRAGON_OPTIM_KERNELS_CPU_UPDATE_LOOPS_H_
#define DRAGON_OPTIM_KERNELS_CPU_UPDATE_LOOPS_H_

#include "kernels/cpu/conversion_loops.h"
#include "kernels/cpu/kernel_table.h"

namespace dragon_optim {
namespace {

// Vector body and tail are this one loop, so the bits of an element do not depend on where it stands.
template <typename T, int kVariant>
void UpdateRange(const RMSpropScalars<T>& shared_scalars, T clip_factor, const RMSpropTensor& range) {
  constexpr RMSpropVariant variant = VariantAt(kVariant);
  constexpr bool has_momentum = variant.momentum != Momentum::kNone;
  constexpr bool has_grad_avg = variant.centered != Centered::kNo;
  const RMSpropScalars<T> scalars = shared_scalars;  // a copy that no store can alias
  const int64_t size = range.size;
  const T* __restrict__ grad = static_cast<const T*>(range.grad);
  T* __restrict__ param = static_cast<T*>(range.param);
  T* __restrict__ square_avg = static_cast<T*>(range.square_avg);
  [[maybe_unused]] T* __restrict__ momentum_buffer = static_cast<T*>(range.momentum_buffer);
  [[maybe_unused]] T* __restrict__ grad_avg = static_cast<T*>(range.grad_avg);
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) {
    RMSpropElement<T> element = {param[i], square_avg[i], 0, 0};
    if constexpr (has_grad_avg) element.grad_avg = grad_avg[i];
    if constexpr (has_momentum) element.momentum_buffer = momentum_buffer[i];
    UpdateElement(variant, scalars, clip_factor, grad[i], element);
    param[i] = element.param;
    square_avg[i] = element.square_avg;
    if constexpr (has_grad_avg) grad_avg[i] = element.grad_avg;
    if constexpr (has_momentum) momentum_buffer[i] = element.momentum_buffer;
  }
}

// Elements of a tensor in a short format that are converted, updated and converted back while they are in the
// first-level cache.
constexpr int64_t kShortBlock = 512;

// A parameter that was overwritten since the last step is not what its master rounds to: there the parameter counts.
template <typename Format>
void RefreshMaster(Format format, const uint16_t* __restrict__ param, float* __restrict__ master_param, int64_t size) {
  uint16_t expected[kShortBlock];
  float given[kShortBlock];
  EncodeLoop(format, master_param, expected, size);
  DecodeLoop(format, param, given, size);
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) master_param[i] = expected[i] == param[i] ? master_param[i] : given[i];
}

template <typename T>
void* At(void* data, int64_t element) {
  return data == nullptr ? nullptr : static_cast<T*>(data) + element;
}

// The part of a tensor in a short format from `begin` on, as a float32 tensor that holds the master parameters.
RMSpropTensor MasterBlock(const RMSpropTensor& range, int64_t begin, int64_t size, const float* grad) {
  return {size,
          grad,
          At<float>(range.master_param, begin),
          At<float>(range.square_avg, begin),
          At<float>(range.momentum_buffer, begin),
          At<float>(range.grad_avg, begin),
          nullptr};
}

template <typename Format, bool kFloatGrad>
void UpdateShortRange(UpdateLoop<float> update, const RMSpropScalars<float>& scalars, float clip_factor,
                      const RMSpropTensor& range) {
  constexpr Format format;
  for (int64_t begin = 0; begin < range.size; begin += kShortBlock) {
    const int64_t size = range.size - begin < kShortBlock ? range.size - begin : kShortBlock;
    uint16_t* param = static_cast<uint16_t*>(range.param) + begin;
    float* master_param = static_cast<float*>(range.master_param) + begin;
    float converted[kShortBlock];
    const float* grad = converted;
    if constexpr (kFloatGrad) {
      grad = static_cast<const float*>(range.grad) + begin;
    } else {
      DecodeLoop(format, static_cast<const uint16_t*>(range.grad) + begin, converted, size);
    }
    RefreshMaster(format, param, master_param, size);
    update(scalars, clip_factor, MasterBlock(range, begin, size, grad));
    EncodeLoop(format, master_param, param, size);
  }
}

template <typename T, int kVariant = 0>
constexpr void FillUpdateLoops(UpdateLoop<T> (&loops)[kRMSpropVariants]) {
  loops[kVariant] = &UpdateRange<T, kVariant>;
  if constexpr (kVariant + 1 < kRMSpropVariants) FillUpdateLoops<T, kVariant + 1>(loops);
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_UPDATE_LOOPS_H_
