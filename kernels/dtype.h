// SPDX-License-Identifier: BSD-2-Clause

#ifndef DRAGON_OPTIM_KERNELS_DTYPE_H_
#define DRAGON_OPTIM_KERNELS_DTYPE_H_

#include <cstdint>

namespace dragon_optim {

enum class DType : int32_t { kFloat16 = 0, kFloat32 = 1, kFloat64 = 2, kBFloat16 = 3 };

// Whether parameters of this dtype are updated in float32, through master parameters.
inline bool IsShort(DType dtype) { return dtype == DType::kFloat16 || dtype == DType::kBFloat16; }

// The dtype in which the update of a parameter is computed and its state is kept.
inline DType ArithmeticDType(DType dtype) { return IsShort(dtype) ? DType::kFloat32 : dtype; }

inline int64_t ItemSize(DType dtype) { return IsShort(dtype) ? 2 : dtype == DType::kFloat32 ? 4 : 8; }

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_DTYPE_H_
