// SPDX-License-Identifier: BSD-2-Clause
//
// float16 <-> float32, rounded to nearest even; a NaN keeps its sign and the top of its payload, and becomes quiet.
// That is what the F16C instructions do; the software form gives the same bits.

#ifndef DRAGON_OPTIM_KERNELS_CPU_HALF_H_
#define DRAGON_OPTIM_KERNELS_CPU_HALF_H_

#include <cstdint>

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace dragon_optim {
namespace {

inline __attribute__((always_inline)) uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

inline __attribute__((always_inline)) float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

// Selects between all cases instead of branching, so that the compiler can vectorise a loop of it.
inline __attribute__((always_inline)) float SoftwareHalfToFloat(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t subnormal = BitsOf(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t infinity_or_nan = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x00400000u : 0u);
  const uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
  return FloatOf(sign | (magnitude >= 0x7c00u ? infinity_or_nan : finite));
}

inline __attribute__((always_inline)) uint16_t SoftwareFloatToHalf(float value) {
  const uint32_t sign = (BitsOf(value) >> 16) & 0x8000u;
  const uint32_t magnitude = BitsOf(value) & 0x7fffffffu;
  const uint32_t normal = (magnitude - (112u << 23) + 0x0fffu + ((magnitude >> 13) & 1u)) >> 13;
  // One ulp of 0.5f is the smallest float16, so the addition rounds as the result must be.
  const uint32_t subnormal = BitsOf(FloatOf(magnitude) + 0.5f) - BitsOf(0.5f);
  const uint32_t nan = 0x7e00u | ((magnitude >> 13) & 0x03ffu);
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t number = magnitude >= 0x477ff000u ? 0x7c00u : finite;  // 65520 and above round to infinity
  return static_cast<uint16_t>(sign | (magnitude > 0x7f800000u ? nan : number));
}

void HalfToFloatLoop(const uint16_t* __restrict__ source, float* __restrict__ destination, int64_t size) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= size; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
    _mm256_storeu_ps(destination + i, _mm256_cvtph_ps(halves));
  }
#endif
  for (; i < size; ++i) destination[i] = SoftwareHalfToFloat(source[i]);
}

void FloatToHalfLoop(const float* __restrict__ source, uint16_t* __restrict__ destination, int64_t size) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= size; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(destination + i), halves);
  }
#endif
  for (; i < size; ++i) destination[i] = SoftwareFloatToHalf(source[i]);
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_HALF_H_
