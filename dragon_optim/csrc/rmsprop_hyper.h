// SPDX-License-Identifier: BSD-2-Clause
//
// The hyper-parameters of RMSprop as the operators are given them.

#ifndef DRAGON_OPTIM_CSRC_RMSPROP_HYPER_H_
#define DRAGON_OPTIM_CSRC_RMSPROP_HYPER_H_

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/rmsprop.h"

namespace dragon_optim {

// A row of `hyper`; dragon_optim/rmsprop.py writes it in this order.
enum HyperField {
  kLr,
  kAlpha,
  kEps,
  kWeightDecay,
  kMomentum,
  kGradScale,
  kClipNorm,
  kClipValue,
  kCentered,
  kMaximize,
  kLrInMomentum,
  kEpsInsideSqrt,
  kDecoupledWeightDecay,
  kInitialSquareAvg,
  kNumHyperFields,
};

inline RMSpropOptions MakeOptions(const double* hyper) {
  RMSpropOptions options;
  options.lr = hyper[kLr];
  options.alpha = hyper[kAlpha];
  options.eps = hyper[kEps];
  options.weight_decay = hyper[kWeightDecay];
  options.momentum = hyper[kMomentum];
  options.grad_scale = hyper[kGradScale];
  options.clip_norm = hyper[kClipNorm];
  options.clip_value = hyper[kClipValue];
  options.centered = hyper[kCentered] != 0;
  options.maximize = hyper[kMaximize] != 0;
  options.lr_in_momentum = hyper[kLrInMomentum] != 0;
  options.eps_inside_sqrt = hyper[kEpsInsideSqrt] != 0;
  options.decoupled_weight_decay = hyper[kDecoupledWeightDecay] != 0;
  return options;
}

// Throws unless a segment has the states that its row of hyper-parameters needs: a subclass that names too few, or a
// graph that was fed, or written, by hand.
inline void CheckRMSpropStates(const double* hyper, DType dtype, const std::vector<std::string>& states) {
  const auto has = [&](const char* name) { return std::find(states.begin(), states.end(), name) != states.end(); };
  if (has("square_avg") && (!(hyper[kMomentum] > 0) || has("momentum_buffer")) &&
      (hyper[kCentered] == 0 || has("grad_avg")) && (dtype != DType::kFloat16 || has("master_param"))) {
    return;
  }
  throw std::invalid_argument(
      "DragonOptimRMSprop: a state that the hyper-parameters need is not among its edges; see state_names(). Nothing "
      "was changed");
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_RMSPROP_HYPER_H_
