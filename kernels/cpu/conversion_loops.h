// SPDX-License-Identifier: BSD-2-Clause
//
// Short formats <-> float32, for contiguous memory. The F16C instructions give the same bits as the functions of
// formats.h. Included by each instruction set's file, under the rules of update_loops.h.

#ifndef DRAGON_OPTIM_KERNELS_CPU_CONVERSION_LOOPS_H_
#define DRAGON_OPTIM_KERNELS_CPU_CONVERSION_LOOPS_H_

#include <cstdint>

#include "kernels/formats.h"

#if defined(__F16C__)
#include <immintrin.h>
#endif

namespace dragon_optim {
namespace {

inline void DecodeLoop(Float16 format, const uint16_t* __restrict__ source, float* __restrict__ destination,
                       int64_t size) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= size; i += 8) {
    const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(source + i));
    _mm256_storeu_ps(destination + i, _mm256_cvtph_ps(halves));
  }
#endif
  for (; i < size; ++i) destination[i] = Decode(format, source[i]);
}

inline void EncodeLoop(Float16 format, const float* __restrict__ source, uint16_t* __restrict__ destination,
                       int64_t size) {
  int64_t i = 0;
#if defined(__F16C__)
  for (; i + 8 <= size; i += 8) {
    const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(source + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(destination + i), halves);
  }
#endif
  for (; i < size; ++i) destination[i] = Encode(format, source[i]);
}

inline void DecodeLoop(BFloat16 format, const uint16_t* __restrict__ source, float* __restrict__ destination,
                       int64_t size) {
  for (int64_t i = 0; i < size; ++i) destination[i] = Decode(format, source[i]);
}

inline void EncodeLoop(BFloat16 format, const float* __restrict__ source, uint16_t* __restrict__ destination,
                       int64_t size) {
  for (int64_t i = 0; i < size; ++i) destination[i] = Encode(format, source[i]);
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_CONVERSION_LOOPS_H_
