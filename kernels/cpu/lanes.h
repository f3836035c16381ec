// SPDX-License-Identifier: BSD-2-Clause
//
// Eight running sums of squares, as gradient.h orders them: one register, two, or an array. Written out because
// compilers unroll the eight lanes instead of vectorising them.

#ifndef DRAGON_OPTIM_KERNELS_CPU_LANES_H_
#define DRAGON_OPTIM_KERNELS_CPU_LANES_H_

#include "kernels/formula.h"
#include "kernels/gradient.h"

#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace dragon_optim {
namespace {

constexpr int kLanes = kNormLanes;

#if defined(__AVX512F__)

class SquareSums {
 public:
  void Add(const float* grad, float scale) {
    Add(__builtin_convertvector(_mm256_loadu_ps(grad) * _mm256_set1_ps(scale), __m512d));
  }
  void Add(const double* grad, double scale) { Add(_mm512_loadu_pd(grad) * _mm512_set1_pd(scale)); }
  void Store(double* sums) const { _mm512_storeu_pd(sums, sums_); }

 private:
  void Add(__m512d values) { sums_ = _mm512_fmadd_pd(values, values, sums_); }

  __m512d sums_ = _mm512_setzero_pd();
};

#elif defined(__AVX2__)

class SquareSums {
 public:
  void Add(const float* grad, float scale) {
    const __m128 factor = _mm_set1_ps(scale);
    Add(_mm256_cvtps_pd(_mm_loadu_ps(grad) * factor), _mm256_cvtps_pd(_mm_loadu_ps(grad + 4) * factor));
  }
  void Add(const double* grad, double scale) {
    const __m256d factor = _mm256_set1_pd(scale);
    Add(_mm256_loadu_pd(grad) * factor, _mm256_loadu_pd(grad + 4) * factor);
  }
  void Store(double* sums) const {
    _mm256_storeu_pd(sums, low_);
    _mm256_storeu_pd(sums + 4, high_);
  }

 private:
  void Add(__m256d low, __m256d high) {
    low_ = _mm256_fmadd_pd(low, low, low_);
    high_ = _mm256_fmadd_pd(high, high, high_);
  }

  __m256d low_ = _mm256_setzero_pd();
  __m256d high_ = _mm256_setzero_pd();
};

#else

class SquareSums {
 public:
  template <typename T>
  void Add(const T* grad, T scale) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const double value = grad[lane] * scale;
      sums_[lane] = Fma(value, value, sums_[lane]);
    }
  }
  void Store(double* sums) const { __builtin_memcpy(sums, sums_, sizeof(sums_)); }

 private:
  double sums_[kLanes] = {};
};

#endif

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_LANES_H_
