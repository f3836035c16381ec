// SPDX-License-Identifier: BSD-2-Clause
//
// The life of a gradient between backward passes: DragonOptimAccumulate (sum_grad) and DragonOptimZeroGrad (zero_grad).

#include <algorithm>
#include <stdexcept>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"

namespace dragon_optim {

namespace {

const int64_t* Flags(Tensor* tensor, int64_t least, const std::string& type) {
  if (IsInt64(tensor) && HasData(*tensor) && Numel(*tensor) >= least) {
    return static_cast<const int64_t*>(Data<dragon::CPUContext>(tensor));
  }
  throw std::runtime_error(type + ": a tensor of flags is gone (" + Describe(tensor) + "); was the workspace cleared?");
}

}  // namespace

// inputs   fresh    int64 (slots): 1 where a backward pass has written the gradient since the last sum
//          grad..., param...
// outputs  sum...   of the dtype of the arithmetic
//          summed   int64 (slots): 1 where the sum of this round has begun
template <class Context>
class AccumulateOp final : public dragon::Operator<Context> {
 public:
  AccumulateOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        slots_(Integers(def, "slots")),
        only_check_(Integer(def, "only_check") != 0),
        device_(this->ctx()) {
    for (int64_t slot : slots_) num_slots_ = std::max(num_slots_, slot + 1);
  }

  void RunOnDevice() override {
    const size_t size = slots_.size();
    if (!AllAtLeast(0, {slots_}) || this->inputs_.size() != 1 + 2 * size || this->outputs_.size() != size + 1) {
      throw std::invalid_argument("DragonOptimAccumulate: the inputs and outputs do not fit the arguments");
    }
    const int64_t* fresh = Flags(this->inputs_[0], num_slots_, this->type());
    auto* summed = const_cast<int64_t*>(Flags(this->outputs_[size], num_slots_, this->type()));
    int64_t missing_bytes = 0;
    for (size_t i = 0; i < size; ++i) {
      if (TakesPart(fresh, i)) missing_bytes += Check(i, summed[slots_[i]] != 0);
    }
    device_.ProbeMemory(missing_bytes);
    if (only_check_) return;
    for (DType dtype : {DType::kFloat16, DType::kFloat32, DType::kFloat64}) Add(dtype, fresh, summed);
    for (size_t i = 0; i < size; ++i) {
      if (TakesPart(fresh, i)) summed[slots_[i]] = 1;
    }
  }

 private:
  Tensor* Grad(size_t i) { return this->inputs_[1 + i]; }
  Tensor* Param(size_t i) { return this->inputs_[1 + slots_.size() + i]; }
  Tensor* Sum(size_t i) { return this->outputs_[i]; }
  bool TakesPart(const int64_t* fresh, size_t i) { return fresh[slots_[i]] != 0 && HasData(*Grad(i)); }

  bool SumFits(size_t i, DType dtype) {
    DType sum_dtype;
    return HasData(*Sum(i)) && FloatingDType(Sum(i), &sum_dtype) && sum_dtype == ArithmeticDType(dtype) &&
           Sum(i)->dims() == Grad(i)->dims();
  }

  // Throws unless the gradient fits its parameter and the sum it joins. Returns the bytes that both still need on the
  // device.
  int64_t Check(size_t i, bool begun) {
    DType dtype, param_dtype;
    const bool fits = FloatingDType(Grad(i), &dtype) && FloatingDType(Param(i), &param_dtype) && dtype == param_dtype &&
                      Grad(i)->dims() == Param(i)->dims() && (!begun || SumFits(i, dtype));
    if (!fits) {
      throw std::invalid_argument("sum_grad(): a gradient is " + Describe(Grad(i)) + ", but its parameter is " +
                                  Describe(Param(i)) + (begun ? " and its sum " + Describe(Sum(i)) : "") +
                                  "; nothing was summed");
    }
    const int64_t bytes = Numel(*Grad(i)) * ItemSize(ArithmeticDType(dtype));
    return device_.BytesToCome(Grad(i)) + (SumFits(i, dtype) ? device_.BytesToCome(Sum(i)) : device_.Footprint(bytes));
  }

  void Add(DType dtype, const int64_t* fresh, const int64_t* summed) {
    tensors_.clear();
    for (size_t i = 0; i < slots_.size(); ++i) {
      DType grad_dtype;
      if (!TakesPart(fresh, i) || !FloatingDType(Grad(i), &grad_dtype) || grad_dtype != dtype) continue;
      if (!SumFits(i, dtype)) Allocate<Context>(Sum(i), *Grad(i), ArithmeticDType(dtype));
      const int32_t first = summed[slots_[i]] == 0;
      tensors_.push_back({Numel(*Grad(i)), Data<Context>(Grad(i)), MutableData<Context>(Sum(i)), first});
    }
    if (tensors_.empty()) return;
    device_.Accumulate(dtype, tensors_);
  }

  std::vector<int64_t> slots_;
  bool only_check_;  // find what is wrong, write nothing
  Device<Context> device_;
  int64_t num_slots_ = 0;
  std::vector<AccumulateTensor> tensors_;  // kept between runs: no allocation once warm
};

// inputs   mode     int64 (1): 0 fills the gradients with zeros, 1 takes them away and gives their memory back
// outputs  grad...
template <class Context>
class ZeroGradOp final : public dragon::Operator<Context> {
 public:
  ZeroGradOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), device_(this->ctx()) {}

  void RunOnDevice() override {
    if (this->inputs_.size() != 1) throw std::invalid_argument("DragonOptimZeroGrad: needs one input, the mode");
    const bool take_away = Flags(this->inputs_[0], 1, this->type())[0] != 0;
    for (auto* grad : this->outputs_) {
      if (!HasData(*grad)) continue;
      if (take_away) {
        grad->Reset();
      } else if (void* data = MutableData<Context>(grad)) {
        device_.Zero(data, grad->nbytes());
      }
    }
  }

 private:
  Device<Context> device_;
};

DRAGON_OPTIM_OPERATOR(Accumulate, AccumulateOp)
DRAGON_OPTIM_OPERATOR(ZeroGrad, ZeroGradOp)

}  // namespace dragon_optim
