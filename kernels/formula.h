// SPDX-License-Identifier: BSD-2-Clause
//
// THE formula: RMSprop for one element. The arithmetic of this project stands here and nowhere else; vector bodies,
// tails, instruction sets, dtypes and devices all call it.
//
// Each line rounds once per operation, to nearest, in T; Fma rounds product and sum together. Compile without
// contraction of a * b + c (-ffp-contract=off, nvcc -fmad=false) and without fast-math, or the bits change.

#ifndef DRAGON_OPTIM_KERNELS_FORMULA_H_
#define DRAGON_OPTIM_KERNELS_FORMULA_H_

#include "kernels/variant.h"

#if defined(__CUDACC__)
#define DRAGON_OPTIM_FORMULA static DRAGON_OPTIM_HOST_DEVICE __forceinline__
#else
#define DRAGON_OPTIM_FORMULA static inline __attribute__((always_inline))
#endif

namespace dragon_optim {

// The hyper-parameters, each rounded once to T. See MakeScalars.
template <typename T>
struct RMSpropScalars {
  T lr;
  T negative_lr;
  T alpha;
  T weight;            // 1 - alpha, rounded after the subtraction
  T one_minus_weight;  // subtracted in T
  T eps_inside;        // added below the root; -0, which changes nothing, where eps stands outside
  T eps_outside;       // and the reverse
  T momentum;
  T weight_decay;
  T grad_scale;
  T clip_value;   // infinity where it is off
  T direction;    // -1 to maximize
  T param_scale;  // decoupled weight decay
};

template <typename T>
struct RMSpropElement {
  T param;
  T square_avg;
  T grad_avg;
  T momentum_buffer;
};

#if defined(__CUDA_ARCH__)
DRAGON_OPTIM_FORMULA float Fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
DRAGON_OPTIM_FORMULA double Fma(double a, double b, double c) { return __fma_rn(a, b, c); }
DRAGON_OPTIM_FORMULA float Sqrt(float a) { return __fsqrt_rn(a); }
DRAGON_OPTIM_FORMULA double Sqrt(double a) { return __dsqrt_rn(a); }
#else
DRAGON_OPTIM_FORMULA float Fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
DRAGON_OPTIM_FORMULA double Fma(double a, double b, double c) { return __builtin_fma(a, b, c); }
DRAGON_OPTIM_FORMULA float Sqrt(float a) { return __builtin_sqrtf(a); }
DRAGON_OPTIM_FORMULA double Sqrt(double a) { return __builtin_sqrt(a); }
#endif

// Scale, clip, turn round. Written with comparisons that a NaN fails, so that NaN stays NaN.
template <typename T>
DRAGON_OPTIM_FORMULA T PreparedGradient(const RMSpropScalars<T>& s, T clip_factor, T g) {
  g = g * s.grad_scale;
  g = g * clip_factor;
  g = g < -s.clip_value ? -s.clip_value : g;
  g = g > s.clip_value ? s.clip_value : g;
  return g * s.direction;
}

// A variant, or a part of it, that is known to the compiler leaves no choice in what follows: all of it is inlined.

// Updates both running means and returns the mean square whose root the gradient is divided by.
template <typename T>
DRAGON_OPTIM_FORMULA T MeanSquare(const RMSpropVariant& variant, const RMSpropScalars<T>& s, T g,
                                  RMSpropElement<T>& e) {
  e.square_avg = e.square_avg * s.alpha;
  e.square_avg = Fma(s.weight * g, g, e.square_avg);
  T mean_square = e.square_avg;
  if (variant.centered != Centered::kNo) {
    const T distance = g - e.grad_avg;
    if (variant.centered == Centered::kSmallWeight) {
      e.grad_avg = Fma(s.weight, distance, e.grad_avg);
    } else {
      e.grad_avg = Fma(-distance, s.one_minus_weight, g);
    }
    mean_square = Fma(-e.grad_avg, e.grad_avg, mean_square);
  }
  return mean_square;
}

// One step for one element. `clip_factor` is that of the element's tensor.
template <typename T>
DRAGON_OPTIM_FORMULA void UpdateElement(const RMSpropVariant& variant, const RMSpropScalars<T>& s, T clip_factor, T g,
                                        RMSpropElement<T>& e) {
  if (variant.extras) g = PreparedGradient(s, clip_factor, g);
  if (variant.l2_decay) g = Fma(e.param, s.weight_decay, g);
  const T denominator = Sqrt(MeanSquare(variant, s, g, e) + s.eps_inside) + s.eps_outside;
  if (variant.extras) e.param = e.param * s.param_scale;
  if (variant.momentum == Momentum::kNone) {
    e.param = e.param + (s.negative_lr * g) / denominator;
  } else {
    e.momentum_buffer = e.momentum_buffer * s.momentum;
    if (variant.momentum == Momentum::kPlain) {
      e.momentum_buffer = e.momentum_buffer + g / denominator;
      e.param = Fma(e.momentum_buffer, s.negative_lr, e.param);
    } else {
      e.momentum_buffer = e.momentum_buffer + (s.lr * g) / denominator;
      e.param = e.param - e.momentum_buffer;
    }
  }
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_FORMULA_H_
