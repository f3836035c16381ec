// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/rmsprop.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/work_list.h"
#include "kernels/scalars.h"

namespace dragon_optim {
namespace {

struct Scratch {
  std::vector<Gradient> gradients;
  std::vector<double> clip_factors;
  std::vector<WorkPosition> starts;
};

Scratch& ThreadScratch() {
  thread_local Scratch scratch;
  return scratch;
}

// The tensors of one call and what holds for all of them.
struct Call {
  const KernelTable& kernels;
  DType dtype;
  DType grad_dtype;
  const RMSpropOptions& options;
  const RMSpropTensor* tensors;
  int64_t count;
  int threads;
};

RMSpropTensor Range(const Call& call, int64_t i, int64_t begin, int64_t end) {
  const RMSpropTensor& tensor = call.tensors[i];
  const int64_t state_begin = begin * ItemSize(ArithmeticDType(call.dtype));
  return {end - begin,
          static_cast<const char*>(tensor.grad) + begin * ItemSize(call.grad_dtype),
          Advance(tensor.param, begin * ItemSize(call.dtype)),
          Advance(tensor.square_avg, state_begin),
          Advance(tensor.momentum_buffer, state_begin),
          Advance(tensor.grad_avg, state_begin),
          Advance(tensor.master_param, state_begin)};
}

// The factor of each tensor that brings its norm down to clip_norm; 1 where it is not above it, or NaN.
const double* ClipFactors(const Call& call, Scratch& scratch) {
  scratch.gradients.clear();
  for (int64_t i = 0; i < call.count; ++i) scratch.gradients.push_back({call.tensors[i].size, call.tensors[i].grad});
  scratch.clip_factors = SquaredNorms(call.grad_dtype, call.options.grad_scale, scratch.gradients, call.threads);
  const double clip_norm = call.options.clip_norm;
  for (double& value : scratch.clip_factors) {
    const double norm = std::sqrt(value);
    value = norm > clip_norm ? clip_norm / norm : 1;
  }
  return scratch.clip_factors.data();
}

// Calls loop(clip_factor, range) for all ranges of all tensors, in parallel.
template <typename T, typename Loop>
void ForEachRange(const Call& call, const Loop& loop) {
  Scratch& scratch = ThreadScratch();
  const double* clip_factors = ClipsNorm(call.options) ? ClipFactors(call, scratch) : nullptr;
  const WorkList<RMSpropTensor> work(call.tensors, call.count, kLineElements, call.threads, scratch.starts);
  work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
    const T clip_factor = clip_factors == nullptr ? T(1) : static_cast<T>(clip_factors[i]);
    loop(clip_factor, Range(call, i, begin, end));
  });
}

void UpdateDouble(const Call& call) {
  const auto scalars = MakeScalars<double>(call.options);
  const auto update = call.kernels.update_double[VariantIndex(ChooseVariant(call.options, scalars))];
  ForEachRange<double>(call,
                       [&](double clip_factor, const RMSpropTensor& range) { update(scalars, clip_factor, range); });
}

void UpdateFloat(const Call& call) {
  const auto scalars = MakeScalars<float>(call.options);
  const auto update = call.kernels.update_float[VariantIndex(ChooseVariant(call.options, scalars))];
  if (call.dtype == DType::kFloat32) {
    return ForEachRange<float>(
        call, [&](float clip_factor, const RMSpropTensor& range) { update(scalars, clip_factor, range); });
  }
  const ShortLoops& loops = call.dtype == DType::kFloat16 ? call.kernels.float16 : call.kernels.bfloat16;
  const auto update_short = call.grad_dtype == call.dtype ? loops.update : loops.update_float_grad;
  ForEachRange<float>(
      call, [&](float clip_factor, const RMSpropTensor& range) { update_short(update, scalars, clip_factor, range); });
}

}  // namespace

void RMSpropUpdate(DType dtype, DType grad_dtype, const RMSpropOptions& options, const RMSpropTensor* tensors,
                   int64_t count, int threads) {
  if (grad_dtype != dtype && !(IsShort(dtype) && grad_dtype == DType::kFloat32)) {
    throw std::invalid_argument(
        "Invalid dtype of the gradients (need that of the parameters, or float32 with float16 and bfloat16)");
  }
  const ScopedIeeeFloatMode float_mode;
  const Call call = {ActiveKernels(), dtype, grad_dtype, options, tensors, count, threads};
  if (dtype == DType::kFloat64) return UpdateDouble(call);
  UpdateFloat(call);
}

}  // namespace dragon_optim
