// SPDX-License-Identifier: BSD-2-Clause
//
// What clipping, summing and loss scaling need from gradients, on a GPU. As in kernels/gradient.h, with its bits; the
// rules of kernels/cuda/rmsprop.h hold here too.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_GRADIENT_H_
#define DRAGON_OPTIM_KERNELS_CUDA_GRADIENT_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/gradient.h"

namespace dragon_optim {
namespace cuda {

// Device memory that a call may write to until the stream has passed it.
struct Workspace {
  void* data;
  int64_t bytes;
};

// sum = first ? grad : sum + grad. Sums are of ArithmeticDType(grad_dtype).
void Accumulate(DType grad_dtype, const AccumulateTensor* tensors, int64_t count, cudaStream_t stream);

// *found = 1 where an element of any gradient is infinite or NaN; else *found is left as it is. In device memory.
void FindNonFinite(DType grad_dtype, const Gradient* gradients, int64_t count, int32_t* found, cudaStream_t stream);

// norms[i] = the sum of squares of round(scale * grads[i]), in the summation order of kernels/gradient.h. In device
// memory, as is the workspace.
void SquaredNorms(DType grad_dtype, const Gradient* gradients, int64_t count, double scale, double* norms,
                  const Workspace& workspace, cudaStream_t stream);
int64_t SquaredNormsWorkspace(const Gradient* gradients, int64_t count);

// Sets every element of an array of `dtype` (kFloat32 or kFloat64) to `value`, rounded once.
void Fill(DType dtype, void* data, int64_t size, double value, cudaStream_t stream);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_GRADIENT_H_
