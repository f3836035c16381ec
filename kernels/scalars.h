// SPDX-License-Identifier: BSD-2-Clause
//
// From the options as the user wrote them to the constants and the variant of the formula, once per call: on the host,
// or on a device whose memory holds the options.

#ifndef DRAGON_OPTIM_KERNELS_SCALARS_H_
#define DRAGON_OPTIM_KERNELS_SCALARS_H_

#include <limits>

#include "kernels/formula.h"
#include "kernels/rmsprop.h"

namespace dragon_optim {

static constexpr double kInfinity = std::numeric_limits<double>::infinity();

DRAGON_OPTIM_FORMULA bool ClipsNorm(const RMSpropOptions& options) { return options.clip_norm > 0; }
DRAGON_OPTIM_FORMULA bool ClipsValue(const RMSpropOptions& options) {
  return options.clip_value > 0 && !ClipsNorm(options);
}

DRAGON_OPTIM_FORMULA bool DecaysParam(const RMSpropOptions& options) {
  return options.decoupled_weight_decay && options.weight_decay != 0;
}

// Arithmetic between options is done in double; only its result is rounded to T. The one exception is 1 - weight.
template <typename T>
DRAGON_OPTIM_FORMULA RMSpropScalars<T> MakeScalars(const RMSpropOptions& options) {
  const auto round = [](double value) { return static_cast<T>(value); };
  RMSpropScalars<T> s;
  s.lr = round(options.lr);
  s.negative_lr = -s.lr;
  s.alpha = round(options.alpha);
  s.weight = round(1 - options.alpha);
  s.one_minus_weight = 1 - s.weight;
  s.eps_inside = round(options.eps_inside_sqrt ? options.eps : -0.0);
  s.eps_outside = round(options.eps_inside_sqrt ? -0.0 : options.eps);
  s.momentum = round(options.momentum);
  s.weight_decay = round(options.weight_decay);
  s.grad_scale = round(options.grad_scale);
  s.clip_value = round(ClipsValue(options) ? options.clip_value : kInfinity);
  s.direction = round(options.maximize ? -1 : 1);
  s.param_scale = round(DecaysParam(options) ? 1 - options.lr * options.weight_decay : 1);
  return s;
}

template <typename T>
DRAGON_OPTIM_FORMULA RMSpropVariant ChooseVariant(const RMSpropOptions& options, const RMSpropScalars<T>& scalars) {
  RMSpropVariant variant = {Momentum::kNone, Centered::kNo, false, false};
  if (options.momentum > 0) variant.momentum = options.lr_in_momentum ? Momentum::kLrInside : Momentum::kPlain;
  if (options.centered) {
    const bool is_small = scalars.weight > T(-0.5) && scalars.weight < T(0.5);
    variant.centered = is_small ? Centered::kSmallWeight : Centered::kLargeWeight;
  }
  variant.l2_decay = options.weight_decay != 0 && !options.decoupled_weight_decay;
  variant.extras =
      scalars.grad_scale != 1 || ClipsNorm(options) || ClipsValue(options) || options.maximize || DecaysParam(options);
  return variant;
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_SCALARS_H_
