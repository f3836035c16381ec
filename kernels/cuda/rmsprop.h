// SPDX-License-Identifier: BSD-2-Clause
//
// RMSpropUpdate on a GPU.
//
// All functions of this folder launch on the caller's stream, on the current device, and return: they wait for nothing,
// allocate no device memory and copy none, so that they can be captured in a CUDA graph (after such a call outside of
// it, of the same dtypes, options and number of tensors, which loads the kernels). The lists of tensors are read before
// they return; arrays are in device memory. The bits are those of the CPU, whatever the alignment, the list and the
// device. Wrong arguments throw std::invalid_argument before anything is launched; a failed launch throws CudaError,
// and where a long list takes several, those before it have been done.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_RMSPROP_H_
#define DRAGON_OPTIM_KERNELS_CUDA_RMSPROP_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/gradient.h"
#include "kernels/dtype.h"
#include "kernels/rmsprop.h"

namespace dragon_optim {
namespace cuda {

// What a call may read from device memory when it runs, instead of being given it; any may be null.
struct DeviceInputs {
  // The eight numbers of RMSpropOptions, in its order, instead of those in `options`: they can change between the runs
  // of a captured graph. `options` still says which parts there are. Its flags count; the norms are taken where its
  // clip_norm is above 0, else the clip_norm in device memory is off; and with momentum buffers on all tensors momentum
  // can be switched on and off, without any it is off.
  const double* numbers;
  // Where this is not 0, as FindNonFinite may have left it, nothing is updated.
  const int32_t* skip;
};

// As kernels/rmsprop.h has it. `workspace` is used where a norm is clipped.
void RMSpropUpdate(DType dtype, DType grad_dtype, const RMSpropOptions& options, const DeviceInputs& inputs,
                   const RMSpropTensor* tensors, int64_t count, const Workspace& workspace, cudaStream_t stream);

// How many bytes of workspace such a call needs.
int64_t RMSpropWorkspace(const RMSpropOptions& options, const RMSpropTensor* tensors, int64_t count);

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_RMSPROP_H_
