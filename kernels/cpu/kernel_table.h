// SPDX-License-Identifier: BSD-2-Clause
//
// What one instruction set offers: pointers to loops over contiguous memory, without threads or choices inside.

#ifndef DRAGON_OPTIM_KERNELS_CPU_KERNEL_TABLE_H_
#define DRAGON_OPTIM_KERNELS_CPU_KERNEL_TABLE_H_

#include <cstdint>

#include "kernels/formula.h"
#include "kernels/gradient.h"
#include "kernels/rmsprop.h"
#include "kernels/rmsprop_backward.h"

namespace dragon_optim {

// The blocks of the sums of RMSpropBackward; see rmsprop_backward.h.
constexpr int64_t kBackwardBlock = 512;

// Updates a range of one tensor: all pointers stand at its first element.
template <typename T>
using UpdateLoop = void (*)(const RMSpropScalars<T>& scalars, T clip_factor, const RMSpropTensor& range);

// Goes back through the update of a range that begins with a block. `sums` holds kRMSpropShares sums for each block.
template <typename T>
using BackwardLoop = void (*)(const RMSpropScalars<T>& scalars, T clip_factor, const RMSpropBackwardTensor& range,
                              double* sums);

// The loops for one dtype of gradients, T being the dtype of the arithmetic.
template <typename T>
struct GradientLoops {
  // One block of the squared norm; size <= kNormBlock.
  double (*block_squares)(const void* grad, int64_t size, T scale);
  void (*accumulate)(const void* grad, void* sum, int64_t size, bool first);
  bool (*has_non_finite)(const void* grad, int64_t size);
};

// The loops of clip.h for one dtype of gradients. A block has at most kNormBlock elements.
struct ClipLoops {
  double (*block_magnitudes)(const void* grad, int64_t size);            // their sum
  double (*block_powers)(const void* grad, int64_t size, double order);  // the sum of magnitude ^ order
  double (*block_largest)(const void* grad, int64_t size);               // magnitude; NaN where there is one
  double (*block_smallest)(const void* grad, int64_t size);
  void (*scale)(void* grad, int64_t size, double factor);
  void (*clamp)(void* grad, int64_t size, double limit);
};

// The loop for parameters in a short format, which runs `update` on the master parameters. The gradient has the format
// of the parameter, or float32 in the second.
using UpdateShortLoop = void (*)(UpdateLoop<float> update, const RMSpropScalars<float>& scalars, float clip_factor,
                                 const RMSpropTensor& range);
struct ShortLoops {
  UpdateShortLoop update;
  UpdateShortLoop update_float_grad;
};

struct KernelTable {
  const char* name;
  UpdateLoop<float> update_float[kRMSpropVariants];
  UpdateLoop<double> update_double[kRMSpropVariants];
  ShortLoops float16;
  ShortLoops bfloat16;
  BackwardLoop<float> backward_float[kRMSpropVariants];
  BackwardLoop<double> backward_double[kRMSpropVariants];
  // destination += factor * source
  void (*add_multiple_float)(double factor, const void* source, void* destination, int64_t size);
  void (*add_multiple_double)(double factor, const void* source, void* destination, int64_t size);
  GradientLoops<float> float16_grad;
  GradientLoops<float> bfloat16_grad;
  GradientLoops<float> float_grad;
  GradientLoops<double> double_grad;
  ClipLoops float16_clip;
  ClipLoops bfloat16_clip;
  ClipLoops float_clip;
  ClipLoops double_clip;
  void (*half_to_float)(const uint16_t* source, float* destination, int64_t size);
  void (*float_to_half)(const float* source, uint16_t* destination, int64_t size);
  void (*fill_float)(float* data, int64_t size, float value);
  void (*fill_double)(double* data, int64_t size, double value);
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_KERNEL_TABLE_H_
