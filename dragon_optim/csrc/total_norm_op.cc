// SPDX-License-Identifier: BSD-2-Clause
//
// The norm of all gradients together: DragonOptimTotalNorm.

#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "dragon_optim/csrc/clip_gradients.h"
#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"
#include "dragon_optim/csrc/total_norm.h"

namespace dragon_optim {

// inputs   grad...
// outputs  norm    float64 where a gradient is, else float32; of no dimensions
// arguments  order               a number, as a string: "2.0", "inf". On a GPU only 2, 1, 0, inf and -inf
//            error_if_nonfinite  1: throws where the norm is infinite or NaN. It waits for a GPU
template <class Context>
class TotalNormOp final : public dragon::Operator<Context> {
 public:
  TotalNormOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        gradients_(def, 0),
        order_text_(String(def, "order")),
        error_if_nonfinite_(Integer(def, "error_if_nonfinite") != 0),
        device_(this->ctx()),
        norm_(device_) {}

  void RunOnDevice() override {
    char* end = nullptr;
    const double order = std::strtod(order_text_.c_str(), &end);
    if (order_text_.empty() || *end != '\0' || std::isnan(order)) {
      throw std::invalid_argument("Invalid order of a norm: '" + order_text_ + "' (need a number)");
    }
    if (this->outputs_.size() != 1) throw std::invalid_argument("DragonOptimTotalNorm: needs one output, the norm");
    gradients_.Find(this->inputs_);
    Tensor* result = this->outputs_[0];
    device_.ProbeMemory(gradients_.BytesToCome(device_) + ResultBytesToCome(result));
    Measure(order);
    const DType dtype = gradients_.Has(DType::kFloat64) ? DType::kFloat64 : DType::kFloat32;
    if (error_if_nonfinite_ && !std::isfinite(norm_.Read(dtype))) {
      throw std::runtime_error("The total norm of order " + order_text_ +
                               " for gradients from `parameters` is non-finite, so it cannot be clipped. To disable "
                               "this error and scale the gradients by the non-finite norm anyway, set "
                               "`error_if_nonfinite=False`");
    }
    result->Reshape({});
    SetDType(result, dtype);
    norm_.Write(dtype, result->raw_mutable_data<Context>());
  }

 private:
  int64_t ResultBytesToCome(Tensor* result) {
    constexpr int64_t kMost = sizeof(double);
    return static_cast<int64_t>(result->capacity()) < kMost ? device_.Footprint(kMost) : device_.BytesToCome(result);
  }

  void Measure(double order) {
    norm_.Begin(order, gradients_.size());
    for (DType dtype : kClipDTypes) {
      list_.clear();
      places_.clear();
      gradients_.OfDType(dtype, [&](size_t place, Tensor* grad) {
        list_.push_back({Numel(*grad), Data<Context>(grad)});
        places_.push_back(static_cast<int64_t>(place));
      });
      if (!list_.empty()) norm_.Add(dtype, list_, places_);
    }
  }

  ClipGradients<Context> gradients_;
  std::string order_text_;
  bool error_if_nonfinite_;
  Device<Context> device_;
  TotalNorm<Context> norm_;
  std::vector<Gradient> list_;  // kept between runs: no allocation once warm
  std::vector<int64_t> places_;
};

DRAGON_OPTIM_OPERATOR(TotalNorm, TotalNormOp)

}  // namespace dragon_optim
