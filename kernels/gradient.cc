// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/gradient.h"

#include <atomic>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/gradient_dtypes.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/work_list.h"

namespace dragon_optim {
void Accumulate(DType grad_dtype, const AccumulateTensor* tensors, int64_t count, int threads) {
  thread_local std::vector<WorkPosition> starts;
  const ScopedIeeeFloatMode float_mode;
  const WorkList<AccumulateTensor> work(tensors, count, kLineElements, threads, starts);
  const int64_t sum_item_size = ItemSize(ArithmeticDType(grad_dtype));
  WithGradientLoops(ActiveKernels(), grad_dtype, [&](const auto& loops, int64_t item_size) {
    work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
      const char* grad = static_cast<const char*>(tensors[i].grad) + begin * item_size;
      char* sum = static_cast<char*>(tensors[i].sum) + begin * sum_item_size;
      loops.accumulate(grad, sum, end - begin, tensors[i].first != 0);
    });
  });
}

double SquaredNorm(DType grad_dtype, const void* grad, int64_t size, double scale, int threads) {
  thread_local std::vector<Gradient> gradients;
  const ScopedIeeeFloatMode float_mode;
  gradients.assign(1, {size, grad});
  return SquaredNorms(grad_dtype, scale, gradients, threads)[0];
}

bool HasNonFinite(DType grad_dtype, const Gradient* gradients, int64_t count, int threads) {
  thread_local std::vector<WorkPosition> starts;
  std::atomic<bool> found{false};
  const WorkList<Gradient> work(gradients, count, kLineElements, threads, starts);
  WithGradientLoops(ActiveKernels(), grad_dtype, [&](const auto& loops, int64_t item_size) {
    work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
      const char* grad = static_cast<const char*>(gradients[i].grad) + begin * item_size;
      if (loops.has_non_finite(grad, end - begin)) found.store(true, std::memory_order_relaxed);
    });
  });
  return found.load(std::memory_order_relaxed);
}

void Fill(DType dtype, void* data, int64_t size, double value) {
  const ScopedIeeeFloatMode float_mode;
  switch (dtype) {
    case DType::kFloat32:
      return ActiveKernels().fill_float(static_cast<float*>(data), size, static_cast<float>(value));
    case DType::kFloat64:
      return ActiveKernels().fill_double(static_cast<double*>(data), size, value);
    case DType::kFloat16:
    case DType::kBFloat16:
      throw std::invalid_argument("Invalid dtype to fill (need float32 or float64)");
  }
}

void HalfToFloat(const void* source, void* destination, int64_t size) {
  const ScopedIeeeFloatMode float_mode;
  ActiveKernels().half_to_float(static_cast<const uint16_t*>(source), static_cast<float*>(destination), size);
}

void FloatToHalf(const void* source, void* destination, int64_t size) {
  const ScopedIeeeFloatMode float_mode;
  ActiveKernels().float_to_half(static_cast<const float*>(source), static_cast<uint16_t*>(destination), size);
}

}  // namespace dragon_optim
