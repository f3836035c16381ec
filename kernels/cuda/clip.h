// SPDX-License-Identifier: BSD-2-Clause
//
// Norms over a whole list of gradients, and what clips gradients in place, on a GPU. As in kernels/clip.h, with its
// bits; the rules of kernels/cuda/rmsprop.h hold here too.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_CLIP_H_
#define DRAGON_OPTIM_KERNELS_CUDA_CLIP_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/clip.h"
#include "kernels/cuda/gradient.h"
#include "kernels/dtype.h"

namespace dragon_optim {
namespace cuda {

// Gradients of one dtype after the other come to one norm, in the order of their places.
struct NormTensor {
  int64_t size;
  const void* grad;
  int64_t place;  // of its term
};

// Whether there are norms of this order here: 2, 1, 0, infinity and -infinity. The others take powers of the C
// library, which the device would round otherwise.
bool HasNormOrder(double order);

// terms[place] = what each gradient adds to the norm, as kernels/clip.h says it. Terms and workspace are in device
// memory.
void NormTerms(DType grad_dtype, double order, const NormTensor* tensors, int64_t count, double* terms,
               const Workspace& workspace, cudaStream_t stream);
int64_t NormTermsWorkspace(const NormTensor* tensors, int64_t count);

// *norm = the norm of this order from the terms of all gradients, of `dtype` (kFloat32 or kFloat64), rounded once. In
// device memory.
void NormOfTerms(double order, const double* terms, int64_t count, DType dtype, void* norm, cudaStream_t stream);

// grad = grad * min(max_norm / (*norm + 1e-6), 1), the factor computed in double and rounded once to the dtype of the
// arithmetic: NaN where the norm is, and where it is 1 nothing is written. `norm` is in device memory, of norm_dtype.
void ScaleToNorm(DType grad_dtype, const ClipTensor* tensors, int64_t count, double max_norm, DType norm_dtype,
                 const void* norm, cudaStream_t stream);

// grad = grad * factor, the factor rounded once to the dtype of the arithmetic.
void Scale(DType grad_dtype, const ClipTensor* tensors, int64_t count, double factor, cudaStream_t stream);

// grad = min(max(grad, -limit), limit), the limit rounded once to the dtype of the arithmetic. NaN stays NaN.
void Clamp(DType grad_dtype, const ClipTensor* tensors, int64_t count, double limit, cudaStream_t stream);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_CLIP_H_
