// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/clip.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/gradient_dtypes.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/work_list.h"

namespace dragon_optim {
namespace {

// Calls change(loops, first element, elements) for all ranges of all tensors.
template <typename Change>
void ForEachRange(DType grad_dtype, const ClipTensor* tensors, int64_t count, int threads, const Change& change) {
  thread_local std::vector<WorkPosition> starts;
  const ScopedIeeeFloatMode float_mode;
  const ClipLoops& loops = ClipLoopsOf(ActiveKernels(), grad_dtype);
  const int64_t item_size = ItemSize(grad_dtype);
  const WorkList<ClipTensor> work(tensors, count, kLineElements, threads, starts);
  work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
    change(loops, static_cast<char*>(tensors[i].grad) + begin * item_size, end - begin);
  });
}

double Larger(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::max(a, b); }
double Smaller(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : std::min(a, b); }
double Sum(double a, double b) { return a + b; }

}  // namespace

void NormTerms(DType grad_dtype, double order, const Gradient* gradients, int64_t count, int threads, double* terms) {
  if (std::isnan(order)) throw std::invalid_argument("Invalid order of a norm: NaN");
  const ScopedIeeeFloatMode float_mode;
  const KernelTable& kernels = ActiveKernels();
  const ClipLoops& loops = ClipLoopsOf(kernels, grad_dtype);
  const auto terms_of = [&](const auto& block_term, double first, const auto& combine) {
    BlockTerms(grad_dtype, gradients, count, threads, block_term, first, combine, terms);
  };
  if (order == 2) {
    WithGradientLoops(kernels, grad_dtype, [&](const auto& squares, int64_t) {
      terms_of([&](const void* grad, int64_t size) { return squares.block_squares(grad, size, 1); }, 0, Sum);
    });
  } else if (order == 1) {
    terms_of(loops.block_magnitudes, 0, Sum);
  } else if (order == 0) {
    terms_of([&](const void* grad, int64_t size) { return loops.block_largest(grad, size) == 0 ? 0.0 : 1.0; }, 0,
             Larger);
  } else if (std::isinf(order)) {
    order > 0 ? terms_of(loops.block_largest, 0, Larger) : terms_of(loops.block_smallest, HUGE_VAL, Smaller);
  } else {
    terms_of([&](const void* grad, int64_t size) { return loops.block_powers(grad, size, order); }, 0, Sum);
  }
}

double NormOfTerms(double order, const double* terms, int64_t count) {
  if (count == 0) return 0;
  const ScopedIeeeFloatMode float_mode;
  double result = terms[0];
  for (int64_t i = 1; i < count; ++i) {
    result = !std::isinf(order) ? result + terms[i] : order > 0 ? Larger(result, terms[i]) : Smaller(result, terms[i]);
  }
  if (std::isinf(order) || order == 0 || order == 1) return result;
  return order == 2 ? std::sqrt(result) : std::pow(result, 1 / order);
}

void Scale(DType grad_dtype, const ClipTensor* tensors, int64_t count, double factor, int threads) {
  ForEachRange(grad_dtype, tensors, count, threads,
               [&](const ClipLoops& loops, void* grad, int64_t size) { loops.scale(grad, size, factor); });
}

void Clamp(DType grad_dtype, const ClipTensor* tensors, int64_t count, double limit, int threads) {
  ForEachRange(grad_dtype, tensors, count, threads,
               [&](const ClipLoops& loops, void* grad, int64_t size) { loops.clamp(grad, size, limit); });
}

}  // namespace dragon_optim
