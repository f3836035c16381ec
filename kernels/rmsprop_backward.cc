// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/rmsprop_backward.h"

#include <cmath>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/dispatch.h"
#include "kernels/cpu/float_mode.h"
#include "kernels/cpu/norm.h"
#include "kernels/cpu/work_list.h"
#include "kernels/formula_gradient.h"
#include "kernels/scalars.h"

namespace dragon_optim {
namespace {

// Lives from call to call, so that one that was made once allocates nothing.
struct Scratch {
  std::vector<Gradient> gradients;
  std::vector<double> norms;         // of each scaled gradient; only where it may be clipped by it
  std::vector<int64_t> first_block;  // of each tensor, in block_sums
  std::vector<double> block_sums;    // kRMSpropShares for each block
  std::vector<WorkPosition> starts;
};

struct Call {
  DType dtype;
  const RMSpropOptions& options;
  const RMSpropBackwardTensor* tensors;
  int64_t count;
  int threads;
};

void TakeNorms(const Call& call, Scratch& scratch) {
  scratch.norms.clear();
  if (!ClipsNorm(call.options)) return;
  scratch.gradients.clear();
  for (int64_t i = 0; i < call.count; ++i) scratch.gradients.push_back({call.tensors[i].size, call.tensors[i].grad});
  scratch.norms = SquaredNorms(call.dtype, call.options.grad_scale, scratch.gradients, call.threads);
  for (double& value : scratch.norms) value = std::sqrt(value);
}

bool IsClipped(const Call& call, const Scratch& scratch, int64_t i) {
  return !scratch.norms.empty() && scratch.norms[i] > call.options.clip_norm;
}

double ClipFactor(const Call& call, const Scratch& scratch, int64_t i) {
  return IsClipped(call, scratch, i) ? call.options.clip_norm / scratch.norms[i] : 1;
}

void NumberBlocks(const Call& call, Scratch& scratch) {
  scratch.first_block.assign(1, 0);
  for (int64_t i = 0; i < call.count; ++i) {
    const int64_t blocks = (call.tensors[i].size + kBackwardBlock - 1) / kBackwardBlock;
    scratch.first_block.push_back(scratch.first_block.back() + blocks);
  }
  scratch.block_sums.resize(scratch.first_block.back() * kRMSpropShares);
}

RMSpropBackwardTensor Range(const RMSpropBackwardTensor& t, int64_t begin, int64_t end, int64_t item_size) {
  const int64_t bytes = begin * item_size;
  return {end - begin,
          Advance(t.grad, bytes),
          Advance(t.param, bytes),
          Advance(t.square_avg, bytes),
          Advance(t.momentum_buffer, bytes),
          Advance(t.grad_avg, bytes),
          Advance(t.from_param, bytes),
          Advance(t.from_square_avg, bytes),
          Advance(t.from_momentum_buffer, bytes),
          Advance(t.from_grad_avg, bytes),
          Advance(t.to_grad, bytes),
          Advance(t.to_param, bytes),
          Advance(t.to_square_avg, bytes),
          Advance(t.to_momentum_buffer, bytes),
          Advance(t.to_grad_avg, bytes)};
}

// Back through everything but the norms.
template <typename T>
void RunLoops(const Call& call, const BackwardLoop<T> (&loops)[kRMSpropVariants], bool by_options, Scratch& scratch) {
  const auto scalars = MakeScalars<T>(call.options);
  RMSpropVariant variant = ChooseVariant(call.options, scalars);
  // A weight decay of 0 changes nothing, but has a derivative.
  if (by_options && !call.options.decoupled_weight_decay) variant.l2_decay = true;
  const auto loop = loops[VariantIndex(variant)];
  // A part holds whole blocks, so that no block is added up in two pieces.
  const WorkList<RMSpropBackwardTensor> work(call.tensors, call.count, kBackwardBlock, call.threads, scratch.starts);
  work.ForEachRange([&](int64_t i, int64_t begin, int64_t end) {
    double* sums = &scratch.block_sums[(scratch.first_block[i] + begin / kBackwardBlock) * kRMSpropShares];
    loop(scalars, static_cast<T>(ClipFactor(call, scratch, i)), Range(call.tensors[i], begin, end, sizeof(T)), sums);
  });
}

struct TensorSums {
  double value[kRMSpropShares];
};

// The blocks of one tensor, in index order.
TensorSums SumBlocks(const Scratch& scratch, int64_t i) {
  TensorSums sums = {};
  for (int64_t block = scratch.first_block[i]; block < scratch.first_block[i + 1]; ++block) {
    for (int share = 0; share < kRMSpropShares; ++share) {
      sums.value[share] += scratch.block_sums[block * kRMSpropShares + share];
    }
  }
  return sums;
}

// Back through the norm of a clipped gradient. The clipped gradient is c * s * g / norm(s * g): besides by its own
// element, each depends on all others, along the gradient itself.
void AddThroughNorm(const Call& call, const Scratch& scratch, const KernelTable& kernels, int64_t i, double along) {
  const RMSpropBackwardTensor& tensor = call.tensors[i];
  const double norm = scratch.norms[i], scale = call.options.grad_scale;
  if (tensor.to_grad == nullptr) return;
  const double factor = -along * (call.options.clip_norm / norm) / (norm * norm) * (scale * scale);
  const auto add_multiple = call.dtype == DType::kFloat64 ? kernels.add_multiple_double : kernels.add_multiple_float;
  add_multiple(factor, tensor.grad, tensor.to_grad, tensor.size);
}

void AddToOptions(const RMSpropOptions& options, const TensorSums& sums, bool clipped, double norm,
                  RMSpropOptionsGradient& result) {
  const double* sum = sums.value;
  result.lr += sum[kShareLr];
  result.alpha += sum[kShareAlpha];
  result.eps += sum[options.eps_inside_sqrt ? kShareEpsInside : kShareEpsOutside];
  result.momentum += sum[kShareMomentum];
  if (options.decoupled_weight_decay) {  // the parameter was multiplied by 1 - lr * weight_decay
    result.lr -= options.weight_decay * sum[kShareParamScale];
    result.weight_decay -= options.lr * sum[kShareParamScale];
  } else {
    result.weight_decay += sum[kShareWeightDecay];
  }
  if (clipped) {  // to a length that does not depend on the scale
    result.clip_norm += sum[kShareClipFactor] / norm;
  } else {
    result.grad_scale += sum[kShareGradScale];
  }
  if (ClipsValue(options)) result.clip_value += sum[kShareClipValue];
}

}  // namespace

void RMSpropBackward(DType dtype, const RMSpropOptions& options, const RMSpropBackwardTensor* tensors, int64_t count,
                     int threads, RMSpropOptionsGradient* to_options) {
  thread_local Scratch scratch;
  if (IsShort(dtype)) {
    throw std::invalid_argument("Invalid dtype of a differentiable update (need float32 or float64)");
  }
  const ScopedIeeeFloatMode float_mode;
  const KernelTable& kernels = ActiveKernels();
  const Call call = {dtype, options, tensors, count, threads};
  TakeNorms(call, scratch);
  NumberBlocks(call, scratch);
  if (dtype == DType::kFloat64) {
    RunLoops<double>(call, kernels.backward_double, to_options != nullptr, scratch);
  } else {
    RunLoops<float>(call, kernels.backward_float, to_options != nullptr, scratch);
  }
  if (to_options != nullptr) *to_options = {};
  for (int64_t i = 0; i < count; ++i) {
    const bool clipped = IsClipped(call, scratch, i);
    if (!clipped && to_options == nullptr) continue;
    const TensorSums sums = SumBlocks(scratch, i);
    if (clipped) AddThroughNorm(call, scratch, kernels, i, sums.value[kShareClipFactor]);
    if (to_options != nullptr) AddToOptions(options, sums, clipped, clipped ? scratch.norms[i] : 0, *to_options);
  }
}

}  // namespace dragon_optim
