// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimCheck: everything that can be wrong with a step, found before the first write. It stands in front of the
// update operators of all groups, which then cannot fail: that is how a step is all or nothing.

#include <cmath>

#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/segments.h"

namespace dragon_optim {

template <class Context>
class CheckOp final : public SegmentedOp<Context> {
 public:
  CheckOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : SegmentedOp<Context>(def, ws), positions_(Integers(def, "positions")) {}

  void RunOnDevice() override {
    this->CheckEdges();
    CheckHyper();
    const int64_t* mask = this->Mask();
    int64_t missing_bytes = 0;
    for (const auto& segment : this->segments_) {
      for (int64_t i = 0; i < segment.size; ++i) {
        if (!this->TakesPart(mask, segment, i)) continue;
        CheckParam(segment, i);
        CheckGrad(segment, i);
        for (int64_t state = 0; state < segment.num_states; ++state) {
          missing_bytes += CheckState(segment, state, i);
        }
      }
    }
    ProbeMemory(missing_bytes);
  }

 private:
  std::string Name(const Segment& segment, int64_t i) const {
    const auto at = static_cast<size_t>(segment.first + i);
    const auto position = at < positions_.size() ? positions_[at] : static_cast<int64_t>(at);
    return "parameter " + std::to_string(position) + " of group " + std::to_string(segment.group);
  }

  // The ranges are Python's business, which knows the names. A NaN here is a graph fed by hand.
  void CheckHyper() {
    const double* hyper = this->Hyper();
    for (int64_t i = 0; i < this->hyper_size_; ++i) {
      if (std::isnan(hyper[i])) throw std::invalid_argument("a hyper-parameter is NaN; nothing was changed");
    }
  }

  void CheckParam(const Segment& segment, int64_t i) {
    auto* param = this->Param(segment, i);
    DType dtype;
    if (!HasData(*param)) {
      throw std::runtime_error(Name(segment, i) + " has no data: was its workspace cleared? Nothing was changed");
    }
    if (!FloatingDType(param, &dtype) || dtype != segment.dtype) {
      throw std::runtime_error(Name(segment, i) + " is " + Describe(param) + " now, but was " +
                               DTypeName(segment.dtype) + " when its state was made: make a new optimizer, or clear its state by "
                               "`optimizer.state.clear()`. Nothing was changed");
    }
  }

  void CheckGrad(const Segment& segment, int64_t i) {
    auto* grad = this->Grad(segment, i);
    auto* param = this->Param(segment, i);
    DType dtype;
    const bool fits = FloatingDType(grad, &dtype) && dtype == this->GradDType(segment);
    if (fits && grad->dims() == param->dims()) return;
    throw std::invalid_argument("the gradient of " + Name(segment, i) + " is " + Describe(grad) +
                                ", but the parameter is " + Describe(param) +
                                "; compute it anew by backward(), or clear it by zero_grad(set_to_none=True). "
                                "Nothing was changed");
  }

  // The bytes that the state still needs.
  int64_t CheckState(const Segment& segment, int64_t state, int64_t i) {
    auto* tensor = this->State(segment, state, i);
    auto* param = this->Param(segment, i);
    const DType arithmetic = ArithmeticDType(segment.dtype);
    if (!HasData(*tensor)) return Numel(*param) * ItemSize(arithmetic);
    DType dtype;
    const bool fits = FloatingDType(tensor, &dtype) && dtype == arithmetic;
    if (fits && tensor->dims() == param->dims()) return 0;
    throw std::invalid_argument("a state of " + Name(segment, i) + " is " + Describe(tensor) +
                                ", but the parameter is " + Describe(param) +
                                "; clear it by `del optimizer.state[parameter]`. Nothing was changed");
  }

  std::vector<int64_t> positions_;
};

template <>
dragon::OperatorBase* Operators<dragon::CPUContext>::Check(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new CheckOp<dragon::CPUContext>(def, ws);
}

}  // namespace dragon_optim
