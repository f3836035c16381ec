// SPDX-License-Identifier: BSD-2-Clause
//
// What clipping and summing need from a gradient.

#ifndef DRAGON_OPTIM_KERNELS_GRADIENT_H_
#define DRAGON_OPTIM_KERNELS_GRADIENT_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace dragon_optim {

struct Gradient {
  int64_t size;
  const void* grad;
};

// One gradient and the running sum it is added to. `first` starts the sum: it is overwritten instead of added to.
struct AccumulateTensor {
  int64_t size;
  const void* grad;
  void* sum;
  int32_t first;
};

// sum = first ? grad : sum + grad, for `count` tensors. Sums are of ArithmeticDType(grad_dtype).
void Accumulate(DType grad_dtype, const AccumulateTensor* tensors, int64_t count, int threads);

// The blocks of the squared norm's summation order, and the running sums of each.
constexpr int kNormBlock = 4096;
constexpr int kNormLanes = 8;

// The sum of squares of round(scale * grad) in double, in the one summation order that every device and thread count
// keeps: blocks of 4096 elements; in a block eight running sums, element i into sum i mod 8 by fma(g, g, sum), then
// ((0+1)+(2+3))+((4+5)+(6+7)); block sums in index order.
double SquaredNorm(DType grad_dtype, const void* grad, int64_t size, double scale, int threads);

// Whether any element of `count` gradients is infinite or NaN: a step with a loss scale is then left out.
bool HasNonFinite(DType grad_dtype, const Gradient* gradients, int64_t count, int threads);

// Sets every element of an array of `dtype` (kFloat32 or kFloat64) to `value`, rounded once.
void Fill(DType dtype, void* data, int64_t size, double value);

// Conversions between float16 and float32, round to nearest even; NaN keeps its sign and the top of its payload.
void HalfToFloat(const void* source, void* destination, int64_t size);
void FloatToHalf(const void* source, void* destination, int64_t size);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_GRADIENT_H_
