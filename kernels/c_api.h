/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The kernels as flat C functions over raw pointers: what tests and benchmarks call through ctypes. Structures are
 * those of rmsprop.h, rmsprop_backward.h, gradient.h and clip.h, field for field. Functions that return int give 0, or
 * 1 after an error whose text is in dragon_optim_last_error() of the same thread. */

#ifndef DRAGON_OPTIM_KERNELS_C_API_H_
#define DRAGON_OPTIM_KERNELS_C_API_H_

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct dragon_optim_rmsprop_options {
  double lr, alpha, eps, weight_decay, momentum, grad_scale, clip_norm, clip_value;
  int32_t centered, maximize, lr_in_momentum, eps_inside_sqrt, decoupled_weight_decay;
};

struct dragon_optim_rmsprop_tensor {
  int64_t size;
  const void* grad;
  void *param, *square_avg, *momentum_buffer, *grad_avg, *master_param;
};

struct dragon_optim_rmsprop_backward_tensor {
  int64_t size;
  const void *grad, *param, *square_avg, *momentum_buffer, *grad_avg;
  const void *from_param, *from_square_avg, *from_momentum_buffer, *from_grad_avg;
  void *to_grad, *to_param, *to_square_avg, *to_momentum_buffer, *to_grad_avg;
};

struct dragon_optim_rmsprop_options_gradient {
  double lr, alpha, eps, weight_decay, momentum, grad_scale, clip_norm, clip_value;
};

struct dragon_optim_gradient {
  int64_t size;
  const void* grad;
};

struct dragon_optim_accumulate_tensor {
  int64_t size;
  const void* grad;
  void* sum;
  int32_t first;
};

struct dragon_optim_clip_tensor {
  int64_t size;
  void* grad;
};

/* dtype codes: 0 float16, 1 float32, 2 float64, 3 bfloat16 */
int dragon_optim_rmsprop(int dtype, int grad_dtype, const struct dragon_optim_rmsprop_options* options,
                         const struct dragon_optim_rmsprop_tensor* tensors, int64_t count, int threads);
int dragon_optim_rmsprop_backward(int dtype, const struct dragon_optim_rmsprop_options* options,
                                  const struct dragon_optim_rmsprop_backward_tensor* tensors, int64_t count,
                                  int threads, struct dragon_optim_rmsprop_options_gradient* to_options);
int dragon_optim_accumulate(int grad_dtype, const struct dragon_optim_accumulate_tensor* tensors, int64_t count,
                            int threads);
int dragon_optim_squared_norm(int grad_dtype, const void* grad, int64_t size, double scale, int threads,
                              double* result);
/* *found: 1 where an element of any gradient is infinite or NaN, else 0 */
int dragon_optim_has_non_finite(int grad_dtype, const struct dragon_optim_gradient* gradients, int64_t count,
                                int threads, int32_t* found);
int dragon_optim_norm_terms(int grad_dtype, double order, const struct dragon_optim_gradient* gradients, int64_t count,
                            int threads, double* terms);
int dragon_optim_norm_of_terms(double order, const double* terms, int64_t count, double* norm);
int dragon_optim_scale(int grad_dtype, const struct dragon_optim_clip_tensor* tensors, int64_t count, double factor,
                       int threads);
int dragon_optim_clamp(int grad_dtype, const struct dragon_optim_clip_tensor* tensors, int64_t count, double limit,
                       int threads);
int dragon_optim_fill(int dtype, void* data, int64_t size, double value);
int dragon_optim_half_to_float(const void* source, void* destination, int64_t size);
int dragon_optim_float_to_half(const void* source, void* destination, int64_t size);

/* The instruction set in use: "baseline", "avx2" or "avx512". The widest one that the CPU has, unless the environment
 * variable DRAGON_OPTIM_ISA or dragon_optim_set_isa names another. NULL where DRAGON_OPTIM_ISA names one that is
 * unknown, not compiled in, or not on this CPU (the reason: dragon_optim_last_error). */
const char* dragon_optim_isa(void);
int dragon_optim_set_isa(const char* name);

/* The instruction sets compiled into this library, separated by commas, narrowest first; and those of them the CPU has.
 */
const char* dragon_optim_compiled_isas(void);
const char* dragon_optim_supported_isas(void);

const char* dragon_optim_last_error(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* DRAGON_OPTIM_KERNELS_C_API_H_ */
