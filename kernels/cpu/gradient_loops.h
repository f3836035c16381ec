// SPDX-License-Identifier: BSD-2-Clause
//
// Sums over gradients. Included once by each instruction set's file, under the rules of update_loops.h.

#ifndef DRAGON_OPTIM_KERNELS_CPU_GRADIENT_LOOPS_H_
#define DRAGON_OPTIM_KERNELS_CPU_GRADIENT_LOOPS_H_

#include "kernels/cpu/conversion_loops.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lanes.h"

namespace dragon_optim {
namespace {

template <typename T>
double BlockSquares(const void* data, int64_t size, T scale) {
  const T* grad = static_cast<const T*>(data);
  SquareSums square_sums;
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) square_sums.Add(grad + i, scale);
  double sums[kLanes];
  square_sums.Store(sums);
  for (int lane = 0; i + lane < size; ++lane) {
    const double value = grad[i + lane] * scale;
    sums[lane] = Fma(value, value, sums[lane]);
  }
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

template <typename Format>
double ShortBlockSquares(const void* grad, int64_t size, float scale) {
  float converted[kNormBlock];
  DecodeLoop(Format(), static_cast<const uint16_t*>(grad), converted, size);
  return BlockSquares<float>(converted, size, scale);
}

template <typename T>
void AccumulateLoop(const void* grad_data, void* sum_data, int64_t size, bool first) {
  const T* __restrict__ grad = static_cast<const T*>(grad_data);
  T* __restrict__ sum = static_cast<T*>(sum_data);
  if (first) {
    __builtin_memcpy(sum, grad, size * sizeof(T));
    return;
  }
#pragma GCC ivdep
  for (int64_t i = 0; i < size; ++i) sum[i] = sum[i] + grad[i];
}

template <typename Format>
void AccumulateShortLoop(const void* grad_data, void* sum_data, int64_t size, bool first) {
  const uint16_t* grad = static_cast<const uint16_t*>(grad_data);
  float* sum = static_cast<float*>(sum_data);
  if (first) return DecodeLoop(Format(), grad, sum, size);
  constexpr int64_t kBlock = 512;  // fits the first-level cache
  for (int64_t begin = 0; begin < size; begin += kBlock) {
    const int64_t block = size - begin < kBlock ? size - begin : kBlock;
    float converted[kBlock];
    DecodeLoop(Format(), grad + begin, converted, block);
    AccumulateLoop<float>(converted, sum + begin, block, false);
  }
}

// Looks through it to the end: a loop that may leave early is not vectorised.
template <typename Format>
bool HasNonFiniteLoop(const void* data, int64_t size) {
  using Bits = typename Format::Bits;
  const auto* values = static_cast<const Bits*>(data);
  Bits found = 0;
  for (int64_t i = 0; i < size; ++i) found |= static_cast<Bits>((values[i] & Format::kExponent) == Format::kExponent);
  return found != 0;
}

template <typename T>
void FillLoop(T* data, int64_t size, T value) {
  for (int64_t i = 0; i < size; ++i) data[i] = value;
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_GRADIENT_LOOPS_H_
