// SPDX-License-Identifier: BSD-2-Clause
//
// From a gradient's dtype to its loops.

#ifndef DRAGON_OPTIM_KERNELS_CPU_GRADIENT_DTYPES_H_
#define DRAGON_OPTIM_KERNELS_CPU_GRADIENT_DTYPES_H_

#include <cstdint>

#include "kernels/cpu/kernel_table.h"
#include "kernels/dtype.h"

namespace dragon_optim {

// Calls use(loops, item size), where loops are GradientLoops<double> for kFloat64, else GradientLoops<float>.
template <typename Use>
void WithGradientLoops(const KernelTable& kernels, DType grad_dtype, const Use& use) {
  switch (grad_dtype) {
    case DType::kFloat16:
      return use(kernels.float16_grad, ItemSize(grad_dtype));
    case DType::kBFloat16:
      return use(kernels.bfloat16_grad, ItemSize(grad_dtype));
    case DType::kFloat32:
      return use(kernels.float_grad, ItemSize(grad_dtype));
    case DType::kFloat64:
      return use(kernels.double_grad, ItemSize(grad_dtype));
  }
}

inline const ClipLoops& ClipLoopsOf(const KernelTable& kernels, DType grad_dtype) {
  switch (grad_dtype) {
    case DType::kFloat16:
      return kernels.float16_clip;
    case DType::kBFloat16:
      return kernels.bfloat16_clip;
    case DType::kFloat32:
      return kernels.float_clip;
    case DType::kFloat64:
      break;
  }
  return kernels.double_clip;
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_GRADIENT_DTYPES_H_
