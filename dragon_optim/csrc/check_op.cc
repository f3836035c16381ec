// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimCheck: everything that can be wrong with a step, found before the first write. It stands in front of the
// update operators of all groups, which then cannot fail: that is how a step is all or nothing.

#include <algorithm>
#include <cmath>

#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/rmsprop_hyper.h"
#include "dragon_optim/csrc/segments.h"

namespace dragon_optim {

template <class Context>
class CheckOp final : public SegmentedOp<Context> {
 public:
  CheckOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : SegmentedOp<Context>(def, ws),
        absent_(Integer(def, "absent") != 0),
        is_rmsprop_(String(def, "update") == "DragonOptimRMSprop") {
    if (is_rmsprop_) TakeStates(Strings(def, "states"));
  }

  void RunOnDevice() override {
    this->CheckEdges();
    CheckHyper();
    if (is_rmsprop_) CheckStates();
    const int64_t scratch = is_rmsprop_ ? Scratch() : 0;
    this->CheckSegments(absent_, scratch > scratch_ ? scratch : 0);
    scratch_ = std::max(scratch_, scratch);
  }

 private:
  // The ranges are Python's business, which knows the names. A NaN here is a graph fed by hand.
  void CheckHyper() {
    const double* hyper = this->Hyper();
    for (int64_t i = 0; i < this->hyper_size_; ++i) {
      if (std::isnan(hyper[i])) throw std::invalid_argument("a hyper-parameter is NaN; nothing was changed");
    }
  }

  // `names` are those of all segments, one after another.
  void TakeStates(const std::vector<std::string>& names) {
    size_t first = 0;
    for (const auto& segment : this->segments_) {
      const size_t end = std::min(names.size(), first + static_cast<size_t>(segment.num_states));
      states_.emplace_back(names.begin() + static_cast<std::ptrdiff_t>(first),
                           names.begin() + static_cast<std::ptrdiff_t>(end));
      first = end;
    }
    all_states_ = first == names.size();
  }

  // What the updates ask of their rows and states: found here, none of them has run when another one throws.
  void CheckStates() {
    for (size_t i = 0; i < states_.size(); ++i) {
      const auto& segment = this->segments_[i];
      const bool states_fit = all_states_ && static_cast<int64_t>(states_[i].size()) == segment.num_states;
      if (!states_fit || segment.group >= this->hyper_size_ / kNumHyperFields) {
        throw std::invalid_argument(this->type() + ": the arguments of the operator do not fit each other");
      }
      CheckRMSpropStates(this->Hyper() + segment.group * kNumHyperFields, segment.dtype, states_[i]);
    }
  }

  // What the updates need for the norms of gradients. They keep what they have.
  int64_t Scratch() {
    int64_t bytes = 0;
    for (const auto& segment : this->segments_) {
      if (!(this->Hyper()[segment.group * kNumHyperFields + kClipNorm] > 0)) continue;
      for (int64_t i = 0; i < segment.size; ++i) {
        if (absent_ || this->TakesPart(this->Mask(), segment, i)) {
          bytes += this->device_.NormScratch(Numel(*this->Param(segment, i)));
        }
      }
    }
    return bytes;
  }

  bool absent_;                                   // also look at parameters without a gradient
  bool is_rmsprop_;                               // the updates behind it are DragonOptimRMSprop
  std::vector<std::vector<std::string>> states_;  // then: those of each segment
  bool all_states_ = true;
  int64_t scratch_ = 0;  // as much as there was once
};

DRAGON_OPTIM_OPERATOR(Check, CheckOp)

}  // namespace dragon_optim
