// SPDX-License-Identifier: BSD-2-Clause
//
// Clipping over all gradients together: DragonOptimClipNorm and DragonOptimClipValue.

#include <stdexcept>
#include <string>
#include <type_traits>

#include "dragon_optim/csrc/clip_gradients.h"
#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"
#include "kernels/formats.h"

namespace dragon_optim {

namespace {

// The value of a tensor of one element. Throws where it is none, and unless it is 0 or more.
double Limit(Tensor* tensor, const std::string& name) {
  const double value = HostNumber(tensor, name);
  if (!(value >= 0)) throw std::invalid_argument("Invalid " + name + ": " + std::to_string(value) + " (need >= 0)");
  return value;
}

// The dtype of a tensor of one float. Throws where it is none.
DType DTypeOfNumber(Tensor* tensor, const std::string& name) {
  DType dtype;
  if (!HasData(*tensor) || Numel(*tensor) != 1 || !FloatingDType(tensor, &dtype)) {
    throw std::invalid_argument(name + " is " + Describe(tensor) + ", but must be a tensor of one float");
  }
  return dtype;
}

// Its value. Waits for a GPU that it lies on.
double Number(Tensor* tensor, DType dtype) {
  const void* data = Data<dragon::CPUContext>(tensor);
  if (dtype == DType::kFloat64) return *static_cast<const double*>(data);
  if (dtype == DType::kFloat32) return *static_cast<const float*>(data);
  return Decode(Float16(), *static_cast<const uint16_t*>(data));
}

}  // namespace

// inputs   max_norm  float64, one element
//          norm      what DragonOptimTotalNorm gave
//          grad...
// outputs  grad...   the same: multiplied by min(max_norm / (norm + 1e-6), 1)
// argument only_check  1: throws where it would, and writes nothing
template <class Context>
class ClipNormOp final : public dragon::Operator<Context> {
 public:
  ClipNormOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        gradients_(def, 2),
        only_check_(Integer(def, "only_check") != 0),
        device_(this->ctx()) {}

  void RunOnDevice() override {
    gradients_.FindInPlace(this->inputs_, this->outputs_);
    const double max_norm = Limit(this->inputs_[0], "max_norm value");
    Tensor* norm = this->inputs_[1];
    const DType dtype = DTypeOfNumber(norm, "the total norm");
    device_.ProbeMemory(gradients_.BytesToCome(device_));
    if (device_.Holds(norm)) {
      if (!only_check_) ScaleOnDevice(max_norm, dtype, norm);
      return;
    }
    const double ratio = max_norm / (Number(norm, dtype) + 1e-6);
    if (only_check_ || ratio >= 1) return;  // NaN is not: it goes into the gradients, as the norm that it came from
    gradients_.ChangeInPlace(
        [&](DType list_dtype, const std::vector<ClipTensor>& list) { device_.Scale(list_dtype, list, ratio); });
  }

 private:
  // The same without a look at the norm: nothing waits for the device.
  void ScaleOnDevice(double max_norm, DType dtype, Tensor* norm) {
    if constexpr (!std::is_same<Context, dragon::CPUContext>::value) {
      const void* data = Data<Context>(norm);
      gradients_.ChangeInPlace([&](DType list_dtype, const std::vector<ClipTensor>& list) {
        device_.ScaleToNorm(list_dtype, list, max_norm, dtype, data);
      });
    }
  }

  ClipGradients<Context> gradients_;
  bool only_check_;
  Device<Context> device_;
};

// inputs   clip_value  float64, one element
//          grad...
// outputs  grad...     the same, between -clip_value and clip_value
// argument only_check  as above
template <class Context>
class ClipValueOp final : public dragon::Operator<Context> {
 public:
  ClipValueOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        gradients_(def, 1),
        only_check_(Integer(def, "only_check") != 0),
        device_(this->ctx()) {}

  void RunOnDevice() override {
    gradients_.FindInPlace(this->inputs_, this->outputs_);
    const double limit = Limit(this->inputs_[0], "clip_value value");
    device_.ProbeMemory(gradients_.BytesToCome(device_));
    if (only_check_) return;
    gradients_.ChangeInPlace(
        [&](DType dtype, const std::vector<ClipTensor>& list) { device_.Clamp(dtype, list, limit); });
  }

 private:
  ClipGradients<Context> gradients_;
  bool only_check_;
  Device<Context> device_;
};

DRAGON_OPTIM_OPERATOR(ClipNorm, ClipNormOp)
DRAGON_OPTIM_OPERATOR(ClipValue, ClipValueOp)

}  // namespace dragon_optim
