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
      : SegmentedOp<Context>(def, ws), absent_(Integer(def, "absent") != 0) {}

  void RunOnDevice() override {
    this->CheckEdges();
    CheckHyper();
    this->CheckSegments(absent_);
  }

 private:
  // The ranges are Python's business, which knows the names. A NaN here is a graph fed by hand.
  void CheckHyper() {
    const double* hyper = this->Hyper();
    for (int64_t i = 0; i < this->hyper_size_; ++i) {
      if (std::isnan(hyper[i])) throw std::invalid_argument("a hyper-parameter is NaN; nothing was changed");
    }
  }

  bool absent_;  // also look at parameters without a gradient
};

DRAGON_OPTIM_OPERATOR(Check, CheckOp)

}  // namespace dragon_optim
