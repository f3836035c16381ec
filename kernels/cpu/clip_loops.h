// SPDX-License-Identifier: BSD-2-Clause
//
// What norms of other orders than 2 add up, and what clips in place. Included once by each instruction set's file,
// under the rules of update_loops.h.

#ifndef DRAGON_OPTIM_KERNELS_CPU_CLIP_LOOPS_H_
#define DRAGON_OPTIM_KERNELS_CPU_CLIP_LOOPS_H_

#include "kernels/cpu/conversion_loops.h"
#include "kernels/cpu/kernel_table.h"
#include "kernels/cpu/lanes.h"

namespace dragon_optim {
namespace {

template <typename Format>
constexpr bool kIsShortFormat = sizeof(typename Format::Stored) != sizeof(typename Format::Arithmetic);

// The eight running sums of a block, in pairs.
inline double SumOfLanes(const double* sums) {
  return ((sums[0] + sums[1]) + (sums[2] + sums[3])) + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

// Calls loop(elements in the dtype of the arithmetic) for a block.
template <typename Format, typename Loop>
double OfDecodedBlock(const void* grad, int64_t size, const Loop& loop) {
  if constexpr (kIsShortFormat<Format>) {
    float converted[kNormBlock];
    DecodeLoop(Format(), static_cast<const uint16_t*>(grad), converted, size);
    return loop(converted);
  } else {
    return loop(static_cast<const typename Format::Arithmetic*>(grad));
  }
}

// Registers of GCC's own kind: compilers unroll the eight lanes of a plain loop instead of vectorising them.
template <typename T>
struct EightLanes {
  typedef T Values __attribute__((vector_size(kLanes * sizeof(T))));
};
using EightSums = EightLanes<double>::Values;

template <typename T>
double MagnitudeSum(const T* grad, int64_t size) {
  typename EightLanes<T>::Values values;
  EightLanes<int64_t>::Values bits;
  EightSums widened, lanes = {};
  int64_t i = 0;
  for (; i + kLanes <= size; i += kLanes) {
    __builtin_memcpy(&values, grad + i, sizeof(values));
    widened = __builtin_convertvector(values, EightSums);
    __builtin_memcpy(&bits, &widened, sizeof(bits));
    bits &= INT64_MAX;
    __builtin_memcpy(&widened, &bits, sizeof(bits));
    lanes += widened;
  }
  double sums[kLanes];
  __builtin_memcpy(sums, &lanes, sizeof(sums));
  for (int lane = 0; i + lane < size; ++lane) sums[lane] += __builtin_fabs(static_cast<double>(grad[i + lane]));
  return SumOfLanes(sums);
}

template <typename Format>
double BlockMagnitudes(const void* grad, int64_t size) {
  return OfDecodedBlock<Format>(grad, size, [&](const auto* values) { return MagnitudeSum(values, size); });
}

// One call of the C library for each element, on every instruction set: its result is the same for all of them.
template <typename Format>
double BlockPowers(const void* grad, int64_t size, double order) {
  return OfDecodedBlock<Format>(grad, size, [&](const auto* values) {
    double sums[kLanes] = {};
    for (int64_t i = 0; i < size; ++i) {
      sums[i % kLanes] += __builtin_pow(__builtin_fabs(static_cast<double>(values[i])), order);
    }
    return SumOfLanes(sums);
  });
}

template <typename Format>
double NumberOf(typename Format::Bits bits) {
  typename Format::Stored stored;
  __builtin_memcpy(&stored, &bits, sizeof(bits));
  return Decode(Format(), stored);
}

// Without the sign, bits are in the order of the numbers that they stand for, and NaNs come last.
template <typename Format>
struct Extremes {
  using Bits = typename Format::Bits;

  Extremes(const void* data, int64_t size) {
    constexpr Bits kMagnitude = static_cast<Bits>(~Bits{0}) >> 1;
    const auto* values = static_cast<const Bits*>(data);
    for (int64_t i = 0; i < size; ++i) {
      const Bits magnitude = values[i] & kMagnitude;
      largest = magnitude > largest ? magnitude : largest;
      smallest = magnitude < smallest ? magnitude : smallest;
    }
  }

  Bits largest = 0;
  Bits smallest = Format::kExponent;  // infinity
};

template <typename Format>
double BlockLargest(const void* grad, int64_t size) {
  return NumberOf<Format>(Extremes<Format>(grad, size).largest);
}

template <typename Format>
double BlockSmallest(const void* grad, int64_t size) {
  const Extremes<Format> extremes(grad, size);
  return NumberOf<Format>(extremes.largest > Format::kExponent ? extremes.largest : extremes.smallest);
}

// grad = change(grad), computed in the dtype of the arithmetic.
template <typename Format, typename Change>
void ChangeInPlace(void* data, int64_t size, const Change& change) {
  using T = typename Format::Arithmetic;
  if constexpr (kIsShortFormat<Format>) {
    constexpr int64_t kBlock = 512;  // fits the first-level cache
    auto* grad = static_cast<uint16_t*>(data);
    for (int64_t begin = 0; begin < size; begin += kBlock) {
      const int64_t block = size - begin < kBlock ? size - begin : kBlock;
      float converted[kBlock];
      DecodeLoop(Format(), grad + begin, converted, block);
      for (int64_t i = 0; i < block; ++i) converted[i] = change(converted[i]);
      EncodeLoop(Format(), converted, grad + begin, block);
    }
  } else {
    T* grad = static_cast<T*>(data);
    for (int64_t i = 0; i < size; ++i) grad[i] = change(grad[i]);
  }
}

template <typename Format>
void ScaleLoop(void* data, int64_t size, double factor) {
  using T = typename Format::Arithmetic;
  const T rounded = static_cast<T>(factor);
  ChangeInPlace<Format>(data, size, [rounded](T value) { return value * rounded; });
}

template <typename Format>
void ClampLoop(void* data, int64_t size, double limit) {
  using T = typename Format::Arithmetic;
  const T most = static_cast<T>(limit), least = -most;
  ChangeInPlace<Format>(data, size, [most, least](T value) {
    const T not_below = value < least ? least : value;
    return not_below > most ? most : not_below;
  });
}

template <typename Format>
constexpr ClipLoops MakeClipLoops() {
  return {&BlockMagnitudes<Format>, &BlockPowers<Format>, &BlockLargest<Format>,
          &BlockSmallest<Format>,   &ScaleLoop<Format>,   &ClampLoop<Format>};
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_CLIP_LOOPS_H_
