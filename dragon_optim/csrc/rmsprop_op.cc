// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimRMSprop: one update of a list of parameters; the kernel does the arithmetic. The argument `checked` says
// that DragonOptimCheck has run before it in the same graph; without it the operator checks by itself.

#include <algorithm>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/rmsprop_hyper.h"
#include "dragon_optim/csrc/segments.h"
#include "kernels/rmsprop.h"

namespace dragon_optim {

template <class Context>
class RMSpropOp final : public SegmentedOp<Context> {
 public:
  RMSpropOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : SegmentedOp<Context>(def, ws), checked_(Integer(def, "checked") != 0), states_(Strings(def, "states")) {
    for (const auto& name : states_) members_.push_back(Member(name));
  }

  void RunOnDevice() override {
    this->CheckEdges();
    CheckArguments();
    const auto& segment = this->segments_[0];
    const double* hyper = this->Hyper() + segment.group * kNumHyperFields;
    CheckRMSpropStates(hyper, segment.dtype, states_);
    if (!checked_) this->CheckSegments();
    const int64_t* mask = this->Mask();
    int64_t* steps = this->MutableSteps();
    tensors_.clear();
    for (int64_t i = 0; i < segment.size; ++i) {
      if (!this->TakesPart(mask, segment, i)) continue;
      tensors_.push_back(Gather(segment, i, hyper));
      ++steps[this->Slot(segment, i)];
    }
    try {
      this->device_.Update(segment.dtype, this->GradDType(segment), MakeOptions(hyper), tensors_);
    } catch (...) {  // a GPU may refuse a launch
      for (int64_t i = 0; i < segment.size; ++i) steps[this->Slot(segment, i)] -= this->TakesPart(mask, segment, i);
      throw;
    }
  }

 private:
  using StateMember = void* RMSpropTensor::*;

  static StateMember Member(const std::string& name) {
    if (name == "square_avg") return &RMSpropTensor::square_avg;
    if (name == "momentum_buffer") return &RMSpropTensor::momentum_buffer;
    if (name == "grad_avg") return &RMSpropTensor::grad_avg;
    if (name == "master_param") return &RMSpropTensor::master_param;
    throw std::invalid_argument("DragonOptimRMSprop has no state named '" + name + "'");
  }

  // Only a graph written by hand can fail here.
  void CheckArguments() const {
    const auto& segment = this->segments_[0];
    const bool row_exists = segment.group < this->hyper_size_ / kNumHyperFields;
    const bool states_fit = static_cast<int64_t>(members_.size()) == segment.num_states;
    if (this->segments_.size() == 1 && row_exists && states_fit) return;
    throw std::invalid_argument("DragonOptimRMSprop: the arguments of the operator do not fit each other");
  }

  RMSpropTensor Gather(const Segment& segment, int64_t i, const double* hyper) {
    auto* param = this->Param(segment, i);
    RMSpropTensor tensor{};
    tensor.size = Numel(*param);
    tensor.grad = Data<Context>(this->Grad(segment, i));
    tensor.param = MutableData<Context>(param);
    for (int64_t state = 0; state < segment.num_states; ++state) {
      const auto member = members_[static_cast<size_t>(state)];
      auto* memory = this->State(segment, state, i);
      if (!HasData(*memory)) Initialise(memory, param, segment.dtype, member, hyper[kInitialSquareAvg]);
      tensor.*member = MutableData<Context>(memory);
    }
    return tensor;
  }

  // A state is made at the first gradient of its parameter, not before.
  void Initialise(Tensor* memory, Tensor* param, DType dtype, StateMember member, double initial_square_avg) {
    const DType arithmetic = ArithmeticDType(dtype);
    void* data = Allocate<Context>(memory, *param, arithmetic);
    if (member == &RMSpropTensor::master_param) {
      this->device_.HalfToFloat(Data<Context>(param), data, Numel(*param));
    } else {
      this->device_.Fill(arithmetic, data, Numel(*param),
                         member == &RMSpropTensor::square_avg ? initial_square_avg : 0.0);
    }
  }

  bool checked_;  // DragonOptimCheck stands before it in the graph
  std::vector<std::string> states_;
  std::vector<StateMember> members_;    // of each name in states_
  std::vector<RMSpropTensor> tensors_;  // kept between runs: no allocation once warm
};

DRAGON_OPTIM_OPERATOR(RMSprop, RMSpropOp)

}  // namespace dragon_optim
