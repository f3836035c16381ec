// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cpu/norm.h"

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/gradient_dtypes.h"

namespace dragon_optim {

const std::vector<double>& SquaredNorms(DType grad_dtype, double scale, const std::vector<Gradient>& gradients,
                                        int threads) {
  thread_local std::vector<double> norms;
  norms.resize(gradients.size());
  WithGradientLoops(ActiveKernels(), grad_dtype, [&](const auto& loops, int64_t) {
    BlockTerms(
        grad_dtype, gradients.data(), static_cast<int64_t>(gradients.size()), threads,
        [&](const void* grad, int64_t size) { return loops.block_squares(grad, size, scale); }, 0,
        [](double sum, double squares) { return sum + squares; }, norms.data());
  });
  return norms;
}

}  // namespace dragon_optim
