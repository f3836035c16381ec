// SPDX-License-Identifier: BSD-2-Clause
//
// Squared norms of a list of gradients, in the summation order that gradient.h promises.

#ifndef DRAGON_OPTIM_KERNELS_CPU_NORM_H_
#define DRAGON_OPTIM_KERNELS_CPU_NORM_H_

#include <cstdint>
#include <vector>

#include "kernels/dtype.h"
#include "kernels/gradient.h"

namespace dragon_optim {

// The squared norm of each round(scale * gradient). The result lives until the same thread's next call.
const std::vector<double>& SquaredNorms(DType grad_dtype, double scale, const std::vector<Gradient>& gradients,
                                        int threads);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_NORM_H_
