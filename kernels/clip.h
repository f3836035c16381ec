// SPDX-License-Identifier: BSD-2-Clause
//
// Norms over a whole list of gradients, and what clips gradients in place.

#ifndef DRAGON_OPTIM_KERNELS_CLIP_H_
#define DRAGON_OPTIM_KERNELS_CLIP_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/gradient.h"

namespace dragon_optim {

// A gradient that is written to. No two of a list may share memory.
struct ClipTensor {
  int64_t size;
  void* grad;
};

// What each gradient adds to the norm of this order, in double:
//   2           the sum of its squares, as SquaredNorm
//   infinity    its largest magnitude, -infinity its smallest: NaN where an element is NaN
//   0           1 where an element is not zero, else 0
//   any other   the sum of magnitude ^ order, in the summation order of SquaredNorm, with additions in the place of fma
// A gradient without elements adds what changes nothing. NaN is no order: std::invalid_argument.
void NormTerms(DType grad_dtype, double order, const Gradient* gradients, int64_t count, int threads, double* terms);

// The norm of this order from the terms of all gradients, taken in index order. Without any terms: 0.
double NormOfTerms(double order, const double* terms, int64_t count);

// grad = grad * factor, the factor rounded once to the dtype of the arithmetic.
void Scale(DType grad_dtype, const ClipTensor* tensors, int64_t count, double factor, int threads);

// grad = min(max(grad, -limit), limit), the limit rounded once to the dtype of the arithmetic. NaN stays NaN.
void Clamp(DType grad_dtype, const ClipTensor* tensors, int64_t count, double limit, int threads);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CLIP_H_
