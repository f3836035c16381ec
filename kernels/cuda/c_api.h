/* SPDX-License-Identifier: BSD-2-Clause
 *
 * The CUDA kernels as flat C functions: a library of its own, which needs neither the CPU's kernels nor a GPU to be
 * loaded. Structures and dtype codes are those of kernels/c_api.h; what the functions do stands in kernels/cuda/
 * rmsprop.h, gradient.h and clip.h. `stream` is a cudaStream_t (null: the default stream). Arrays are in device memory.
 * Functions that return int give 0, or 1 after an error whose text is in dragon_optim_cuda_last_error() of the same
 * thread. */

#ifndef DRAGON_OPTIM_KERNELS_CUDA_C_API_H_
#define DRAGON_OPTIM_KERNELS_CUDA_C_API_H_

#include "kernels/c_api.h"

#ifdef __cplusplus
extern "C" {
#endif

/* `numbers` and `skip` are in device memory and may be null; `workspace` may be where its size is 0. */
int dragon_optim_cuda_rmsprop(int dtype, int grad_dtype, const struct dragon_optim_rmsprop_options* options,
                              const double* numbers, const int32_t* skip,
                              const struct dragon_optim_rmsprop_tensor* tensors, int64_t count, void* workspace,
                              int64_t workspace_bytes, void* stream);
int64_t dragon_optim_cuda_rmsprop_workspace(const struct dragon_optim_rmsprop_options* options,
                                            const struct dragon_optim_rmsprop_tensor* tensors, int64_t count);

int dragon_optim_cuda_accumulate(int grad_dtype, const struct dragon_optim_accumulate_tensor* tensors, int64_t count,
                                 void* stream);

/* Sets *found, in device memory, to 1 or leaves it as it is. */
int dragon_optim_cuda_find_non_finite(int grad_dtype, const struct dragon_optim_gradient* gradients, int64_t count,
                                      int32_t* found, void* stream);

/* `norms`, in device memory, gets the squared norm of each gradient. */
int dragon_optim_cuda_squared_norms(int grad_dtype, const struct dragon_optim_gradient* gradients, int64_t count,
                                    double scale, double* norms, void* workspace, int64_t workspace_bytes,
                                    void* stream);
int64_t dragon_optim_cuda_squared_norms_workspace(const struct dragon_optim_gradient* gradients, int64_t count);

/* `dtype` is float32 or float64; the value is rounded once. */
int dragon_optim_cuda_fill(int dtype, void* data, int64_t size, double value, void* stream);

/* Of norms over a whole list. `order` is 2, 1, 0, infinity or -infinity; `terms` and `norm` are in device memory. */
struct dragon_optim_cuda_norm_tensor {
  int64_t size;
  const void* grad;
  int64_t place; /* of its term */
};

int dragon_optim_cuda_norm_terms(int grad_dtype, double order, const struct dragon_optim_cuda_norm_tensor* tensors,
                                 int64_t count, double* terms, void* workspace, int64_t workspace_bytes, void* stream);
int64_t dragon_optim_cuda_norm_terms_workspace(const struct dragon_optim_cuda_norm_tensor* tensors, int64_t count);

/* `norm` gets float32 or float64. */
int dragon_optim_cuda_norm_of_terms(double order, const double* terms, int64_t count, int dtype, void* norm,
                                    void* stream);

/* In place; the first by a norm in device memory, of any dtype. Where that is small enough it writes nothing. */
int dragon_optim_cuda_scale_to_norm(int grad_dtype, const struct dragon_optim_clip_tensor* tensors, int64_t count,
                                    double max_norm, int norm_dtype, const void* norm, void* stream);
int dragon_optim_cuda_scale(int grad_dtype, const struct dragon_optim_clip_tensor* tensors, int64_t count,
                            double factor, void* stream);
int dragon_optim_cuda_clamp(int grad_dtype, const struct dragon_optim_clip_tensor* tensors, int64_t count, double limit,
                            void* stream);

/* The architectures compiled into this library, separated by commas; "compute_..." is for all later ones. */
const char* dragon_optim_cuda_architectures(void);

const char* dragon_optim_cuda_last_error(void);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* DRAGON_OPTIM_KERNELS_CUDA_C_API_H_ */
