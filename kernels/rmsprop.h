// SPDX-License-Identifier: BSD-2-Clause
//
// What an RMSprop kernel is given, and the call that runs it.

#ifndef DRAGON_OPTIM_KERNELS_RMSPROP_H_
#define DRAGON_OPTIM_KERNELS_RMSPROP_H_

#include <cstdint>

#include "kernels/dtype.h"

namespace dragon_optim {

// The hyper-parameters as the user wrote them. They stay double up to the kernel, which rounds each of them once, to
// the dtype of the arithmetic.
struct RMSpropOptions {
  double lr;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
  double grad_scale;
  double clip_norm;   // L2 norm of each tensor on its own; 0 is off
  double clip_value;  // 0 is off; ignored where clip_norm is on
  int32_t centered;
  int32_t maximize;
  int32_t lr_in_momentum;
  int32_t eps_inside_sqrt;
  int32_t decoupled_weight_decay;
};

// One parameter with its gradient and states. `size` counts elements. Buffers that the options do not use may be null:
// momentum_buffer with momentum 0, grad_avg without centered, master_param unless the dtype is short (IsShort).
// The gradient is only read. No two buffers overlap, within a tensor or between the tensors of one call.
struct RMSpropTensor {
  int64_t size;
  const void* grad;
  void* param;
  void* square_avg;
  void* momentum_buffer;
  void* grad_avg;
  void* master_param;
};

// Updates `count` tensors of one dtype, on up to `threads` threads (values below 1 count as 1).
//
// `dtype` is the parameters'; states are of ArithmeticDType(dtype). `grad_dtype` is `dtype`, or kFloat32 with short
// parameters (a sum of short gradients is kept in float32). The same bits come out for every instruction set, thread
// count and division of the work into lists.
void RMSpropUpdate(DType dtype, DType grad_dtype, const RMSpropOptions& options, const RMSpropTensor* tensors,
                   int64_t count, int threads);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_RMSPROP_H_
