// SPDX-License-Identifier: BSD-2-Clause
//
// The derivative of THE formula, for one element, in reverse: from what flows back to the results of a step to what
// flows back to all that it was given. The values in between are computed anew by the functions of formula.h, so that
// nothing has to be kept of a step but what went into it.

#ifndef DRAGON_OPTIM_KERNELS_FORMULA_GRADIENT_H_
#define DRAGON_OPTIM_KERNELS_FORMULA_GRADIENT_H_

#include "kernels/formula.h"

namespace dragon_optim {

// One element's share in the derivatives by the constants of the formula, which are sums over all elements.
enum RMSpropShare {
  kShareLr,
  kShareAlpha,  // also through weight, which is 1 - alpha
  kShareEpsInside,
  kShareEpsOutside,
  kShareMomentum,
  kShareWeightDecay,
  kShareGradScale,
  kShareClipFactor,  // times the factor: a sum of products with the scaled gradient
  kShareClipValue,
  kShareParamScale,
  kRMSpropShares,
};

template <typename T>
struct RMSpropShares {
  T value[kRMSpropShares];
};

// The derivative by the root's argument. Where it is 0 so is the gradient, and has been in every step so far: there the
// step is a straight line in the gradient, of slope 1 / eps, and nothing flows through the root. NaN stays NaN.
template <typename T>
DRAGON_OPTIM_FORMULA T SqrtGradient(T root, T from_root) {
  return root == 0 ? T(0) : from_root / (root + root);
}

// Back through both running means, to what they were: in `back`, which holds what flows back to what they became.
// `e` is as before the step, `new_grad_avg` as after it. Returns what flows back to the gradient.
template <int kVariant, typename T>
DRAGON_OPTIM_FORMULA T MeanSquareGradient(const RMSpropScalars<T>& s, T g, const RMSpropElement<T>& e, T new_grad_avg,
                                          T from_mean_square, RMSpropElement<T>& back, RMSpropShares<T>& shares) {
  constexpr RMSpropVariant variant = VariantAt(kVariant);
  const T from_square_avg = back.square_avg + from_mean_square;
  T to_g = (2 * s.weight) * g * from_square_avg;
  shares.value[kShareAlpha] = from_square_avg * (e.square_avg - g * g);
  back.square_avg = from_square_avg * s.alpha;
  if constexpr (variant.centered != Centered::kNo) {
    const T from_grad_avg = back.grad_avg - 2 * new_grad_avg * from_mean_square;
    to_g = to_g + s.weight * from_grad_avg;
    shares.value[kShareAlpha] = shares.value[kShareAlpha] + from_grad_avg * (e.grad_avg - g);
    back.grad_avg = s.one_minus_weight * from_grad_avg;
  }
  return to_g;
}

// Back through scale, clipping and direction, but not through the norm that decides the clip factor: see
// rmsprop_backward.cc.
template <typename T>
DRAGON_OPTIM_FORMULA T PreparedGradientGradient(const RMSpropScalars<T>& s, T clip_factor, T g, T from_g,
                                                RMSpropShares<T>& shares) {
  const T scaled = g * s.grad_scale;
  const T clipped = scaled * clip_factor;
  const T from_bounded = from_g * s.direction;
  const bool below = clipped < -s.clip_value;
  const bool above = clipped > s.clip_value;
  shares.value[kShareClipValue] = above ? from_bounded : (below ? -from_bounded : T(0));
  const T from_clipped = below || above ? T(0) : from_bounded;
  shares.value[kShareClipFactor] = from_clipped * scaled;
  const T from_scaled = from_clipped * clip_factor;
  shares.value[kShareGradScale] = from_scaled * g;
  return from_scaled * s.grad_scale;
}

// Back through one step of one element. `e` is as before the step; `back` holds what flows back to what it became, and
// afterwards what flows back to what it was. Returns what flows back to the gradient.
template <int kVariant, typename T>
DRAGON_OPTIM_FORMULA T UpdateElementGradient(const RMSpropScalars<T>& s, T clip_factor, T grad,
                                             const RMSpropElement<T>& e, RMSpropElement<T>& back,
                                             RMSpropShares<T>& shares) {
  constexpr RMSpropVariant variant = VariantAt(kVariant);
  // The step, up to the quotient.
  T g = grad;
  if constexpr (variant.extras) g = PreparedGradient(s, clip_factor, g);
  if constexpr (variant.l2_decay) g = Fma(e.param, s.weight_decay, g);
  RMSpropElement<T> after = e;
  const T root = Sqrt(MeanSquare(variant, s, g, after) + s.eps_inside);
  const T denominator = root + s.eps_outside;
  const T quotient = g / denominator;

  // The step, from its end.
  const T from_param = back.param;
  T from_quotient;
  if constexpr (variant.momentum == Momentum::kNone) {
    from_quotient = s.negative_lr * from_param;
    shares.value[kShareLr] = -quotient * from_param;
    shares.value[kShareMomentum] = 0;
  } else {
    const T decayed = e.momentum_buffer * s.momentum;
    T from_buffer;
    if constexpr (variant.momentum == Momentum::kPlain) {
      from_buffer = back.momentum_buffer + s.negative_lr * from_param;
      from_quotient = from_buffer;
      shares.value[kShareLr] = -(decayed + quotient) * from_param;
    } else {
      from_buffer = back.momentum_buffer - from_param;
      from_quotient = s.lr * from_buffer;
      shares.value[kShareLr] = quotient * from_buffer;
    }
    shares.value[kShareMomentum] = from_buffer * e.momentum_buffer;
    back.momentum_buffer = s.momentum * from_buffer;
  }
  shares.value[kShareParamScale] = from_param * e.param;
  back.param = from_param * s.param_scale;

  const T to_quotient = from_quotient / denominator;
  const T from_denominator = -to_quotient * quotient;
  const T from_mean_square = SqrtGradient(root, from_denominator);
  shares.value[kShareEpsOutside] = from_denominator;
  shares.value[kShareEpsInside] = from_mean_square;
  T to_g = to_quotient + MeanSquareGradient<kVariant>(s, g, e, after.grad_avg, from_mean_square, back, shares);

  shares.value[kShareWeightDecay] = to_g * e.param;
  if constexpr (variant.l2_decay) back.param = back.param + s.weight_decay * to_g;
  if constexpr (variant.extras) return PreparedGradientGradient(s, clip_factor, grad, to_g, shares);
  shares.value[kShareClipValue] = 0;
  shares.value[kShareClipFactor] = 0;
  shares.value[kShareGradScale] = to_g * grad;
  return to_g;
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_FORMULA_GRADIENT_H_
