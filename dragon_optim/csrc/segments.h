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
        hyper_size_(Integer(def, "hyper_size")),
        summed_(Integer(def, "summed") != 0) {
    const auto groups = Integers(def, "groups");
    const auto sizes = Integers(def, "sizes");
    const auto num_states = Integers(def, "num_states");
    const auto dtypes = Integers(def, "dtypes");
    int64_t first = 0, first_output = 0;
    for (size_t i = 0; i < std::min({groups.size(), sizes.size(), num_states.size(), dtypes.size()}); ++i) {
      segments_.push_back({groups[i], sizes[i], num_states[i], first, first_output, static_cast<DType>(dtypes[i])});
      first += sizes[i];
      first_output += sizes[i] * (1 + num_states[i]);
    }
    num_outputs_ = first_output;
    num_slots_ = slots_.empty() ? 0 : *std::max_element(slots_.begin(), slots_.end()) + 1;
  }

 protected:
  static constexpr int64_t kFirstGrad = 2;

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
    if (static_cast<int64_t>(this->inputs_.size()) != kFirstGrad + tensors ||
        static_cast<int64_t>(this->outputs_.size()) != num_outputs_ + 1 || segments_.empty() ||
        segments_.back().first + segments_.back().size != tensors) {
      throw std::invalid_argument(this->type() + ": the inputs and outputs do not fit the arguments of the operator");
    }
    CheckControl(this->inputs_[0], this->inputs_[0]->template IsType<double>(), hyper_size_, "hyper-parameters");
    CheckControl(this->inputs_[1], IsInt64(this->inputs_[1]), num_slots_, "mask");
    CheckControl(Steps(), IsInt64(Steps()), num_slots_, "step counts");
  }

  std::vector<Segment> segments_;
  std::vector<int64_t> slots_;
  int64_t hyper_size_;
  int64_t num_outputs_ = 0;
  int64_t num_slots_ = 0;
  bool summed_;

 private:
  void CheckControl(Tensor* tensor, bool type_fits, int64_t least, const char* what) {
    if (!type_fits || !HasData(*tensor) || Numel(*tensor) < least) {
      throw std::runtime_error(this->type() + ": the tensor of " + what + " is gone (" + Describe(tensor) +
                               "); was the workspace cleared?");
    }
  }
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_SEGMENTS_H_
