// SPDX-License-Identifier: BSD-2-Clause
//
// The edges of an update, as the check operator and the update operators share them.
//
//   inputs   hyper      float64 (groups, fields): the hyper-parameters
//            mask       int64 (slots): 1 where a parameter takes part in this step, if it has a gradient
//            grad...    the gradients, or the sums that sum_grad() made
//   outputs  for each segment: param..., then one list for each state of the segment
//            steps      int64 (slots): updates so far
//
// A segment is a list of parameters of one group and one dtype. A slot is a parameter's index in its optimizer. Nothing
// is looked up by name, so an operator runs as well in an eager graph as in a captured or exported one.

#ifndef DRAGON_OPTIM_CSRC_SEGMENTS_H_
#define DRAGON_OPTIM_CSRC_SEGMENTS_H_

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/tensors.h"

namespace dragon_optim {

struct Segment {
  int64_t group;         // row of `hyper`
  int64_t size;          // parameters
  int64_t num_states;    // state lists behind the parameters
  int64_t first;         // index of its first parameter among those of all segments
  int64_t first_output;  // index of its first parameter among the outputs
  DType dtype;           // of the parameters
};

template <class Context>
class SegmentedOp : public dragon::Operator<Context> {
 public:
  SegmentedOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        slots_(Integers(def, "slots")),
        positions_(Integers(def, "positions")),
        hyper_size_(Integer(def, "hyper_size")),
        summed_(Integer(def, "summed") != 0),
        device_(this->ctx()) {
    const auto groups = Integers(def, "groups");
    const auto sizes = Integers(def, "sizes");
    const auto num_states = Integers(def, "num_states");
    const auto dtypes = Integers(def, "dtypes");
    valid_ = AllAtLeast(0, {groups, sizes, num_states, dtypes, slots_});
    int64_t first = 0, first_output = 0;
    for (size_t i = 0; i < std::min({groups.size(), sizes.size(), num_states.size(), dtypes.size()}); ++i) {
      segments_.push_back({groups[i], sizes[i], num_states[i], first, first_output, static_cast<DType>(dtypes[i])});
      // The bounds keep the sums from wrapping round.
      valid_ = valid_ && dtypes[i] <= static_cast<int64_t>(DType::kFloat64) && num_states[i] <= kMaxStates &&
               sizes[i] <= static_cast<int64_t>(slots_.size()) - first;
      if (!valid_) return;
      first += sizes[i];
      first_output += sizes[i] * (1 + num_states[i]);
    }
    num_outputs_ = first_output;
    num_slots_ = slots_.empty() ? 0 : *std::max_element(slots_.begin(), slots_.end()) + 1;
  }

 protected:
  static constexpr int64_t kFirstGrad = 2;
  static constexpr int64_t kMaxStates = 16;

  // The dtype that a gradient of this segment must have.
  DType GradDType(const Segment& segment) const { return summed_ ? ArithmeticDType(segment.dtype) : segment.dtype; }

  Tensor* Grad(const Segment& segment, int64_t i) { return this->inputs_[kFirstGrad + segment.first + i]; }
  Tensor* Param(const Segment& segment, int64_t i) { return this->outputs_[segment.first_output + i]; }
  Tensor* State(const Segment& segment, int64_t state, int64_t i) {
    return this->outputs_[segment.first_output + segment.size * (1 + state) + i];
  }
  int64_t Slot(const Segment& segment, int64_t i) const { return slots_[segment.first + i]; }

  // Whether this parameter is to be updated now.
  bool TakesPart(const int64_t* mask, const Segment& segment, int64_t i) {
    return mask[Slot(segment, i)] != 0 && HasData(*Grad(segment, i));
  }

  const double* Hyper() { return static_cast<const double*>(Data<dragon::CPUContext>(this->inputs_[0])); }
  const int64_t* Mask() { return static_cast<const int64_t*>(Data<dragon::CPUContext>(this->inputs_[1])); }
  Tensor* Steps() { return this->outputs_[num_outputs_]; }
  int64_t* MutableSteps() { return static_cast<int64_t*>(MutableData<dragon::CPUContext>(Steps())); }

  // Throws unless the edges fit the arguments: a graph written by hand, or one whose workspace was cleared.
  void CheckEdges() {
    const auto tensors = static_cast<int64_t>(slots_.size());
    if (!valid_ || static_cast<int64_t>(this->inputs_.size()) != kFirstGrad + tensors ||
        static_cast<int64_t>(this->outputs_.size()) != num_outputs_ + 1 || segments_.empty() ||
        segments_.back().first + segments_.back().size != tensors) {
      throw std::invalid_argument(this->type() + ": the inputs and outputs do not fit the arguments of the operator");
    }
    auto* hyper = this->inputs_[0];
    CheckControl(hyper, hyper->template IsType<double>(), "float64", hyper_size_, "hyper-parameters");
    CheckControl(this->inputs_[1], IsInt64(this->inputs_[1]), "int64", num_slots_, "mask");
    CheckControl(Steps(), IsInt64(Steps()), "int64", num_slots_, "step counts");
  }

  // Throws if something is wrong with a parameter that takes part, its gradient or its states; or, with `absent` too,
  // with the states of one whose gradient another rank of a process group may have. Writes nothing. `missing_bytes` are
  // needed on the device beside what is found here.
  void CheckSegments(bool absent = false, int64_t missing_bytes = 0) {
    const int64_t* mask = Mask();
    for (const auto& segment : segments_) {
      for (int64_t i = 0; i < segment.size; ++i) {
        const bool takes_part = TakesPart(mask, segment, i);
        if (!takes_part && !absent) continue;
        CheckParam(segment, i);
        missing_bytes += device_.BytesToCome(Param(segment, i));
        if (takes_part) {
          CheckGrad(segment, i);
          missing_bytes += device_.BytesToCome(Grad(segment, i));
        }
        for (int64_t state = 0; state < segment.num_states; ++state) missing_bytes += CheckState(segment, state, i);
      }
    }
    device_.ProbeMemory(missing_bytes);
  }

  std::vector<Segment> segments_;
  std::vector<int64_t> slots_;
  std::vector<int64_t> positions_;  // of each parameter in its group, for messages
  int64_t hyper_size_;
  int64_t num_outputs_ = 0;
  int64_t num_slots_ = 0;
  bool summed_;
  Device<Context> device_;

 private:
  std::string Name(const Segment& segment, int64_t i) const {
    const auto at = static_cast<size_t>(segment.first + i);
    const auto position = at < positions_.size() ? positions_[at] : static_cast<int64_t>(at);
    return "parameter " + std::to_string(position) + " of group " + std::to_string(segment.group);
  }

  void CheckParam(const Segment& segment, int64_t i) {
    auto* param = Param(segment, i);
    DType dtype;
    if (!HasData(*param)) {
      throw std::runtime_error(Name(segment, i) + " has no data: was its workspace cleared? Nothing was changed");
    }
    if (!FloatingDType(param, &dtype) || dtype != segment.dtype) {
      throw std::runtime_error(Name(segment, i) + " is " + Describe(param) + " now, but was " +
                               DTypeName(segment.dtype) +
                               " when its state was made: make a new optimizer, or clear its state by "
                               "`optimizer.state.clear()`. Nothing was changed");
    }
  }

  void CheckGrad(const Segment& segment, int64_t i) {
    auto* grad = Grad(segment, i);
    auto* param = Param(segment, i);
    DType dtype;
    const bool fits = FloatingDType(grad, &dtype) && dtype == GradDType(segment);
    if (fits && grad->dims() == param->dims()) return;
    throw std::invalid_argument("the gradient of " + Name(segment, i) + " is " + Describe(grad) +
                                ", but the parameter is " + Describe(param) +
                                "; compute it anew by backward(), or clear it by zero_grad(set_to_none=True). "
                                "Nothing was changed");
  }

  // The bytes that the state still needs on the device.
  int64_t CheckState(const Segment& segment, int64_t state, int64_t i) {
    auto* tensor = State(segment, state, i);
    auto* param = Param(segment, i);
    const DType arithmetic = ArithmeticDType(segment.dtype);
    if (!HasData(*tensor)) return device_.Footprint(Numel(*param) * ItemSize(arithmetic));
    DType dtype;
    const bool fits = FloatingDType(tensor, &dtype) && dtype == arithmetic;
    if (fits && tensor->dims() == param->dims()) return device_.BytesToCome(tensor);
    throw std::invalid_argument("a state of " + Name(segment, i) + " is " + Describe(tensor) +
                                ", but the parameter is " + Describe(param) +
                                "; clear it by `del optimizer.state[parameter]`. Nothing was changed");
  }

  bool valid_ = false;  // whether the arguments can be meant

  void CheckControl(Tensor* tensor, bool type_fits, const char* type, int64_t least, const char* what) {
    if (!HasData(*tensor)) {
      throw std::runtime_error(this->type() + ": the tensor of " + what + " is gone; was the workspace cleared?");
    }
    if (!type_fits || Numel(*tensor) < least) {
      throw std::invalid_argument(this->type() + ": the tensor of " + what + " is " + Describe(tensor) +
                                  ", but must be " + type + " and have " + std::to_string(least) +
                                  " elements. Nothing was changed");
    }
  }
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_SEGMENTS_H_
