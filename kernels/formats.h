// SPDX-License-Identifier: BSD-2-Clause
//
// How numbers are stored, and what they are computed in: short formats are decoded to float32 and encoded again,
// rounded to nearest even; a NaN keeps its sign and the top of its payload, and becomes quiet.

#ifndef DRAGON_OPTIM_KERNELS_FORMATS_H_
#define DRAGON_OPTIM_KERNELS_FORMATS_H_

#include <cstdint>

#include "kernels/formula.h"

namespace dragon_optim {
namespace {  // internal linkage, as in formula.h

// kExponent is the exponent's bits: all of them are set in infinities and NaNs, and in nothing else.
struct Float16 {
  using Stored = uint16_t;
  using Arithmetic = float;
  using Bits = uint16_t;
  static constexpr Bits kExponent = 0x7c00;
};

struct BFloat16 {
  using Stored = uint16_t;
  using Arithmetic = float;
  using Bits = uint16_t;
  static constexpr Bits kExponent = 0x7f80;
};

struct Float32 {
  using Stored = float;
  using Arithmetic = float;
  using Bits = uint32_t;
  static constexpr Bits kExponent = 0x7f800000u;
};

struct Float64 {
  using Stored = double;
  using Arithmetic = double;
  using Bits = uint64_t;
  static constexpr Bits kExponent = 0x7ff0000000000000u;
};

}  // namespace

DRAGON_OPTIM_FORMULA uint32_t BitsOf(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof(bits));
  return bits;
}

DRAGON_OPTIM_FORMULA float FloatOf(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof(value));
  return value;
}

#if defined(__CUDA_ARCH__)
// One instruction each; its NaN is always the same one.
DRAGON_OPTIM_FORMULA float Decode(Float16, uint16_t half) {
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(half));
  return value;
}

DRAGON_OPTIM_FORMULA uint16_t Encode(Float16, float value) {
  uint16_t half;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(half) : "f"(value));
  return half;
}
#else
// These select between all cases instead of branching, so that the compiler can vectorise a loop of them.
DRAGON_OPTIM_FORMULA float Decode(Float16, uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16;
  const uint32_t magnitude = half & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23);
  const uint32_t subnormal = BitsOf(static_cast<float>(static_cast<int32_t>(magnitude)) * 0x1p-24f);
  const uint32_t infinity_or_nan = (magnitude << 13) | 0x7f800000u | (magnitude > 0x7c00u ? 0x00400000u : 0u);
  const uint32_t finite = magnitude < 0x0400u ? subnormal : normal;
  return FloatOf(sign | (magnitude >= 0x7c00u ? infinity_or_nan : finite));
}

DRAGON_OPTIM_FORMULA uint16_t Encode(Float16, float value) {
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
#endif

// The upper half of a float32.
DRAGON_OPTIM_FORMULA float Decode(BFloat16, uint16_t stored) {
  const uint32_t bits = static_cast<uint32_t>(stored) << 16;
  return FloatOf(bits | ((bits & 0x7fffffffu) > 0x7f800000u ? 0x00400000u : 0u));
}

DRAGON_OPTIM_FORMULA uint16_t Encode(BFloat16, float value) {
  const uint32_t bits = BitsOf(value);
  const uint32_t number = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // a carry into the exponent is right
  const uint32_t nan = (bits >> 16) | 0x0040u;
  return static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? nan : number);
}

DRAGON_OPTIM_FORMULA float Decode(Float32, float value) { return value; }
DRAGON_OPTIM_FORMULA double Decode(Float64, double value) { return value; }
DRAGON_OPTIM_FORMULA float Encode(Float32, float value) { return value; }
DRAGON_OPTIM_FORMULA double Encode(Float64, double value) { return value; }

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_FORMATS_H_
