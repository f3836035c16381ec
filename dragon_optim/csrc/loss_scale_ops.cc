// SPDX-License-Identifier: BSD-2-Clause
//
// What a loss scale needs from all gradients together: DragonOptimFindNonFinite and DragonOptimScale.

#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "dragon_optim/csrc/clip_gradients.h"
#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"

namespace dragon_optim {

// inputs   grad...
// outputs  found  int64, one element, in main memory: becomes 1 where an element of a gradient is infinite or NaN,
//                 and is left as it is elsewhere. It waits for a GPU
template <class Context>
class FindNonFiniteOp final : public dragon::Operator<Context> {
 public:
  FindNonFiniteOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), gradients_(def, 0), device_(this->ctx()) {}

  void RunOnDevice() override {
    if (this->outputs_.size() != 1) {
      throw std::invalid_argument("DragonOptimFindNonFinite: needs one output, the flag");
    }
    Tensor* found = this->outputs_[0];
    if (!HasData(*found) || Numel(*found) != 1 || !IsInt64(found)) {
      throw std::runtime_error("the flag is " + Describe(found) +
                               ", but must be int64 of one element; was the workspace cleared?");
    }
    gradients_.Find(this->inputs_);
    device_.ProbeMemory(gradients_.BytesToCome(device_));
    for (DType dtype : kClipDTypes) {
      list_.clear();
      gradients_.OfDType(dtype, [&](size_t, Tensor* grad) { list_.push_back({Numel(*grad), Data<Context>(grad)}); });
      if (list_.empty() || !device_.HasNonFinite(dtype, list_)) continue;
      *static_cast<int64_t*>(MutableData<dragon::CPUContext>(found)) = 1;
      return;
    }
  }

 private:
  ClipGradients<Context> gradients_;
  Device<Context> device_;
  std::vector<Gradient> list_;  // kept between runs: no allocation once warm
};

// inputs   factor   float64, one element
//          grad...
// outputs  grad...  the same, multiplied by the factor, which is rounded once to the dtype of the arithmetic
template <class Context>
class ScaleOp final : public dragon::Operator<Context> {
 public:
  ScaleOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), gradients_(def, 1), device_(this->ctx()) {}

  void RunOnDevice() override {
    gradients_.FindInPlace(this->inputs_, this->outputs_);
    const double factor = HostNumber(this->inputs_[0], "factor");
    if (!std::isfinite(factor)) throw std::invalid_argument("Invalid factor: " + std::to_string(factor));
    device_.ProbeMemory(gradients_.BytesToCome(device_));
    gradients_.ChangeInPlace(
        [&](DType dtype, const std::vector<ClipTensor>& list) { device_.Scale(dtype, list, factor); });
  }

 private:
  ClipGradients<Context> gradients_;
  Device<Context> device_;
};

DRAGON_OPTIM_OPERATOR(FindNonFinite, FindNonFiniteOp)
DRAGON_OPTIM_OPERATOR(Scale, ScaleOp)

}  // namespace dragon_optim
