// SPDX-License-Identifier: BSD-2-Clause
//
// The derivative of RMSpropUpdate: what a kernel is given, and the call that runs it.

#ifndef DRAGON_OPTIM_KERNELS_RMSPROP_BACKWARD_H_
#define DRAGON_OPTIM_KERNELS_RMSPROP_BACKWARD_H_

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/rmsprop.h"

namespace dragon_optim {

// One parameter of a step. `grad` to `grad_avg` are what the step was given: the values before it. `from_...` are the
// derivatives of some number by the results of the step; null is zero. `to_...` are its derivatives by what the step
// was given, and are written; null is not wanted. All are arrays of `size` elements, and none overlaps another.
struct RMSpropBackwardTensor {
  int64_t size;
  const void *grad, *param, *square_avg, *momentum_buffer, *grad_avg;
  const void *from_param, *from_square_avg, *from_momentum_buffer, *from_grad_avg;
  void *to_grad, *to_param, *to_square_avg, *to_momentum_buffer, *to_grad_avg;
};

// The derivatives by the options that are numbers, summed over all elements of a call.
struct RMSpropOptionsGradient {
  double lr;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
  double grad_scale;
  double clip_norm;
  double clip_value;
};

// Goes back through RMSpropUpdate(dtype, dtype, options, ...). `dtype` is kFloat32 or kFloat64. `to_options` may be
// null. A clip by norm is gone through as well, so that each element of a gradient has its part in all the others.
//
// At a border (of a clip, or a root of 0) the derivative is that of the side on which nothing is clipped, and 0 through
// the root. The same bits come out for every instruction set, thread count and division of the work: the sums are made
// of blocks of 512 elements, each of eight running sums in double, in index order.
void RMSpropBackward(DType dtype, const RMSpropOptions& options, const RMSpropBackwardTensor* tensors, int64_t count,
                     int threads, RMSpropOptionsGradient* to_options);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_RMSPROP_BACKWARD_H_
