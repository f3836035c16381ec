// SPDX-License-Identifier: BSD-2-Clause
//
// From a dtype to its format.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_FORMAT_OF_H_
#define DRAGON_OPTIM_KERNELS_CUDA_FORMAT_OF_H_

#include "kernels/dtype.h"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {

// Calls use(format).
template <typename Use>
void WithFormat(DType dtype, const Use& use) {
  switch (dtype) {
    case DType::kFloat16:
      return use(Float16());
    case DType::kFloat32:
      return use(Float32());
    case DType::kFloat64:
      return use(Float64());
    case DType::kBFloat16:
      return use(BFloat16());
  }
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_FORMAT_OF_H_
