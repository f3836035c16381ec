// SPDX-License-Identifier: BSD-2-Clause
//
// Which form of the formula a call needs. Every form is compiled on its own, so that no choice is left inside the loop.

#ifndef DRAGON_OPTIM_KERNELS_VARIANT_H_
#define DRAGON_OPTIM_KERNELS_VARIANT_H_

#if defined(__CUDACC__)
#define DRAGON_OPTIM_HOST_DEVICE __host__ __device__
#else
#define DRAGON_OPTIM_HOST_DEVICE
#endif

namespace dragon_optim {

enum class Momentum { kNone, kPlain, kLrInside };

// The running mean of the gradient is a linear interpolation; it starts from the end that is nearer, so that a
// weight below 0.5 in magnitude (the weight is 1 - alpha) rounds differently from a larger one.
enum class Centered { kNo, kSmallWeight, kLargeWeight };

struct RMSpropVariant {
  Momentum momentum;
  Centered centered;
  bool l2_decay;
  // Any of gradient scale, clipping, maximize and decoupled weight decay. Those of them that are off act as exact
  // identities (a factor 1, a limit of infinity), so that one form serves all their combinations.
  bool extras;
};

constexpr int kRMSpropVariants = 3 * 3 * 2 * 2;

// Internal linkage here and in formula.h: a function shared between files that are compiled for different instruction
// sets could be taken from the wrong one.
DRAGON_OPTIM_HOST_DEVICE static constexpr int VariantIndex(const RMSpropVariant& variant) {
  const int states = static_cast<int>(variant.momentum) * 3 + static_cast<int>(variant.centered);
  return (states * 2 + (variant.l2_decay ? 1 : 0)) * 2 + (variant.extras ? 1 : 0);
}

DRAGON_OPTIM_HOST_DEVICE static constexpr RMSpropVariant VariantAt(int index) {
  return {static_cast<Momentum>(index / 12), static_cast<Centered>(index / 4 % 3), index / 2 % 2 == 1, index % 2 == 1};
}

static_assert(VariantIndex(VariantAt(kRMSpropVariants - 1)) == kRMSpropVariants - 1, "index and variant must agree");
static_assert(VariantIndex(VariantAt(17)) == 17, "index and variant must agree");

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_VARIANT_H_
