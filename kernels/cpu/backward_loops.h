// SPDX-License-Identifier: BSD-2-Clause
//
// The way back through an update, for a range of one tensor. Included once by each instruction set's file, under the
// rules of update_loops.h.

#ifndef DRAGON_OPTIM_KERNELS_CPU_BACKWARD_LOOPS_H_
#define DRAGON_OPTIM_KERNELS_CPU_BACKWARD_LOOPS_H_

#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lanes.h"
#include "kernels/formula_gradient.h"

namespace dragon_optim {
namespace {

// Where a buffer is missing, a block of zeros is read, or of anything written, in its place: one loop for all.
template <typename T>
struct BackwardBlock {
  T zeros[kBackwardBlock] = {};
  T unwanted[5][kBackwardBlock];
  T shares[kRMSpropShares][kBackwardBlock];
};

template <typename T>
double SumOfLanes(const T* values, int64_t size) {
  double sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += values[i + lane];
  }
  for (int lane = 0; i + lane < size; ++lane) sums[lane] += values[i + lane];
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <typename T, int kVariant>
void BackwardBlockLoop(const RMSpropScalars<T>& shared_scalars, T clip_factor, const RMSpropBackwardTensor& range,
                       BackwardBlock<T>& block) {
  constexpr RMSpropVariant variant = VariantAt(kVariant);
  constexpr bool has_momentum = variant.momentum != Momentum::kNone;
  constexpr bool has_grad_avg = variant.centered != Centered::kNo;
  const RMSpropScalars<T> scalars = shared_scalars;  // a copy that no store can alias
  const auto given = [&](const void* data) { return data == nullptr ? block.zeros : static_cast<const T*>(data); };
  const auto wanted = [&](void* data, int place) {
    return data == nullptr ? block.unwanted[place] : static_cast<T*>(data);
  };
  const T* __restrict__ grad = static_cast<const T*>(range.grad);
  const T* __restrict__ param = static_cast<const T*>(range.param);
  const T* __restrict__ square_avg = static_cast<const T*>(range.square_avg);
  [[maybe_unused]] const T* __restrict__ momentum_buffer = static_cast<const T*>(range.momentum_buffer);
  [[maybe_unused]] const T* __restrict__ grad_avg = static_cast<const T*>(range.grad_avg);
  const T* __restrict__ from_param = given(range.from_param);
  const T* __restrict__ from_square_avg = given(range.from_square_avg);
  [[maybe_unused]] const T* __restrict__ from_momentum_buffer = given(range.from_momentum_buffer);
  [[maybe_unused]] const T* __restrict__ from_grad_avg = given(range.from_grad_avg);
  T* __restrict__ to_grad = wanted(range.to_grad, 0);
  T* __restrict__ to_param = wanted(range.to_param, 1);
  T* __restrict__ to_square_avg = wanted(range.to_square_avg, 2);
  [[maybe_unused]] T* __restrict__ to_momentum_buffer = wanted(range.to_momentum_buffer, 3);
  [[maybe_unused]] T* __restrict__ to_grad_avg = wanted(range.to_grad_avg, 4);
#pragma GCC ivdep
  for (int64_t i = 0; i < range.size; ++i) {
    RMSpropElement<T> element = {param[i], square_avg[i], 0, 0};
    RMSpropElement<T> back = {from_param[i], from_square_avg[i], 0, 0};
    if constexpr (has_grad_avg) element.grad_avg = grad_avg[i];
    if constexpr (has_grad_avg) back.grad_avg = from_grad_avg[i];
    if constexpr (has_momentum) element.momentum_buffer = momentum_buffer[i];
    if constexpr (has_momentum) back.momentum_buffer = from_momentum_buffer[i];
    RMSpropShares<T> shares;
    to_grad[i] = UpdateElementGradient<kVariant>(scalars, clip_factor, grad[i], element, back, shares);
    to_param[i] = back.param;
    to_square_avg[i] = back.square_avg;
    if constexpr (has_grad_avg) to_grad_avg[i] = back.grad_avg;
    if constexpr (has_momentum) to_momentum_buffer[i] = back.momentum_buffer;
    for (int share = 0; share < kRMSpropShares; ++share) block.shares[share][i] = shares.value[share];
  }
}

template <typename T>
RMSpropBackwardTensor BlockOf(const RMSpropBackwardTensor& range, int64_t begin, int64_t size) {
  const auto in = [begin](const void* data) -> const void* {
    return data == nullptr ? nullptr : static_cast<const T*>(data) + begin;
  };
  const auto out = [begin](void* data) -> void* { return data == nullptr ? nullptr : static_cast<T*>(data) + begin; };
  return {size,
          in(range.grad),
          in(range.param),
          in(range.square_avg),
          in(range.momentum_buffer),
          in(range.grad_avg),
          in(range.from_param),
          in(range.from_square_avg),
          in(range.from_momentum_buffer),
          in(range.from_grad_avg),
          out(range.to_grad),
          out(range.to_param),
          out(range.to_square_avg),
          out(range.to_momentum_buffer),
          out(range.to_grad_avg)};
}

template <typename T, int kVariant>
void BackwardRange(const RMSpropScalars<T>& scalars, T clip_factor, const RMSpropBackwardTensor& range, double* sums) {
  BackwardBlock<T> block;
  for (int64_t begin = 0; begin < range.size; begin += kBackwardBlock, sums += kRMSpropShares) {
    const int64_t size = range.size - begin < kBackwardBlock ? range.size - begin : kBackwardBlock;
    BackwardBlockLoop<T, kVariant>(scalars, clip_factor, BlockOf<T>(range, begin, size), block);
    for (int share = 0; share < kRMSpropShares; ++share) sums[share] = SumOfLanes(block.shares[share], size);
  }
}

template <typename T>
void AddMultipleLoop(double factor, const void* source_data, void* destination_data, int64_t size) {
  const T* __restrict__ source = static_cast<const T*>(source_data);
  T* __restrict__ destination = static_cast<T*>(destination_data);
  const T rounded = static_cast<T>(factor);
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) destination[i] = Fma(rounded, source[i], destination[i]);
}

template <typename T, int kVariant = 0>
constexpr void FillBackwardLoops(BackwardLoop<T> (&loops)[kRMSpropVariants]) {
  loops[kVariant] = &BackwardRange<T, kVariant>;
  if constexpr (kVariant + 1 < kRMSpropVariants) FillBackwardLoops<T, kVariant + 1>(loops);
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_BACKWARD_LOOPS_H_
