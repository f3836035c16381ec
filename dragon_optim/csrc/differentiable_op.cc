// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimDifferentiableRMSprop: one update of a list of parameters that writes its results to new tensors, and
// DragonOptimDifferentiableRMSpropGradient: the way back through it.
//
//   inputs   hyper      float64 (fields): a row of hyper-parameters, as DragonOptimRMSprop reads it
//            scalar...  of one element each: the tensors that hyper-parameters come from. Their values are those of
//                       `hyper`: a tensor may have been overwritten when the way back is gone
//            param...   float32 or float64, all of one dtype
//            grad...
//            state...   for each name in `states` one list; a tensor without data is a state that starts now
//   outputs  param..., state...: what they become
//
// The gradient operator has these inputs, then what flows back to the outputs, and what flows back to the inputs as
// outputs: Dragon's GenericGradientMaker. An empty name stands for what is zero, or not wanted.

#include <algorithm>
#include <cstring>

#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/rmsprop_hyper.h"
#include "dragon_optim/csrc/tensors.h"
#include "kernels/gradient.h"
#include "kernels/rmsprop_backward.h"

namespace dragon_optim {

namespace {

// A hyper-parameter that may be a tensor on the tape.
struct ScalarField {
  const char* name;
  HyperField field;
  double RMSpropOptionsGradient::* gradient;
  bool off_at_zero;
};

constexpr ScalarField kScalarFields[] = {
    {"lr", kLr, &RMSpropOptionsGradient::lr, false},
    {"alpha", kAlpha, &RMSpropOptionsGradient::alpha, false},
    {"eps", kEps, &RMSpropOptionsGradient::eps, false},
    {"weight_decay", kWeightDecay, &RMSpropOptionsGradient::weight_decay, false},
    {"momentum", kMomentum, &RMSpropOptionsGradient::momentum, true},
    {"grad_scale", kGradScale, &RMSpropOptionsGradient::grad_scale, false},
    {"clip_norm", kClipNorm, &RMSpropOptionsGradient::clip_norm, true},
    {"clip_value", kClipValue, &RMSpropOptionsGradient::clip_value, true},
};

const ScalarField& FindScalarField(const std::string& name) {
  for (const ScalarField& field : kScalarFields) {
    if (name == field.name) return field;
  }
  throw std::invalid_argument(name + " cannot be differentiated: give a number, or a tensor that requires no gradient");
}

enum State { kSquareAvg, kMomentumBuffer, kGradAvg, kNumStates };
constexpr const char* kStateNames[kNumStates] = {"square_avg", "momentum_buffer", "grad_avg"};

State FindState(const std::string& name) {
  for (int state = 0; state < kNumStates; ++state) {
    if (name == kStateNames[state]) return static_cast<State>(state);
  }
  throw std::invalid_argument("DragonOptimDifferentiableRMSprop has no state named '" + name + "'");
}

}  // namespace

// The edges that both operators have. Nothing of a run is kept for the next: the way back may come much later, or
// never.
template <class Context>
class DifferentiableOp : public dragon::Operator<Context> {
 public:
  DifferentiableOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        scalar_names_(Strings(def, "scalars")),
        state_names_(Strings(def, "states")) {}

 protected:
  // Reads and checks the inputs, `outputs` being the number of the results of the step. Writes nothing.
  void TakeInputs(int64_t inputs, int64_t outputs) {
    const int64_t lists = 1 + NumStates();
    count_ = outputs / lists;
    if (count_ < 1 || outputs != count_ * lists || inputs != FirstParam() + count_ * (1 + lists)) {
      throw std::invalid_argument(this->type() + ": the inputs and outputs do not fit the arguments of the operator");
    }
    TakeHyper();
    TakeStates();
    for (int64_t i = 0; i < count_; ++i) CheckParam(i);
  }

  int64_t FirstParam() const { return 1 + static_cast<int64_t>(scalar_names_.size()); }
  int64_t NumStates() const { return static_cast<int64_t>(state_names_.size()); }
  Tensor* Param(int64_t i) { return this->inputs_[FirstParam() + i]; }
  Tensor* Grad(int64_t i) { return this->inputs_[FirstParam() + count_ + i]; }
  // `place` counts in state_names_.
  Tensor* State(int64_t place, int64_t i) { return this->inputs_[FirstParam() + (2 + place) * count_ + i]; }

  double InitialValue(int64_t place) const { return states_[place] == kSquareAvg ? initial_square_avg_ : 0; }

  std::vector<std::string> scalar_names_, state_names_;
  std::vector<int> states_;  // of each name
  RMSpropOptions options_;
  double initial_square_avg_ = 0;
  DType dtype_ = DType::kFloat32;
  int64_t count_ = 0;

 private:
  void TakeHyper() {
    auto* hyper = this->inputs_[0];
    if (!hyper->template IsType<double>() || !HasData(*hyper) || Numel(*hyper) < kNumHyperFields) {
      throw std::invalid_argument(this->type() + ": the hyper-parameters are " + Describe(hyper));
    }
    double row[kNumHyperFields];
    std::memcpy(row, Data<dragon::CPUContext>(hyper), sizeof(row));
    for (size_t i = 0; i < scalar_names_.size(); ++i) {
      const ScalarField& field = FindScalarField(scalar_names_[i]);
      CheckScalar(field, this->inputs_[1 + i], row[field.field]);
    }
    options_ = MakeOptions(row);
    initial_square_avg_ = row[kInitialSquareAvg];
  }

  void CheckScalar(const ScalarField& field, Tensor* tensor, double value) {
    DType dtype;
    if (!FloatingDType(tensor, &dtype) || dtype == DType::kFloat16 || !HasData(*tensor) || Numel(*tensor) != 1) {
      throw std::invalid_argument(std::string(field.name) + " is " + Describe(tensor) +
                                  ", but must be float32 or float64 and of one element to be differentiated");
    }
    if (field.off_at_zero && value == 0) {
      throw std::invalid_argument(std::string(field.name) + " is 0, which turns it off, and has no derivative there: " +
                                  "give a positive value, or a tensor that requires no gradient");
    }
  }

  void TakeStates() {
    states_.clear();
    for (const auto& name : state_names_) states_.push_back(FindState(name));
    const auto has = [this](int state) { return std::find(states_.begin(), states_.end(), state) != states_.end(); };
    if (has(kSquareAvg) && (has(kMomentumBuffer) || !(options_.momentum > 0)) && (has(kGradAvg) || !options_.centered))
      return;
    throw std::invalid_argument(this->type() + ": a state that the hyper-parameters need is not among its edges");
  }

  void CheckParam(int64_t i) {
    auto* param = Param(i);
    DType dtype;
    if (!HasData(*param) || !FloatingDType(param, &dtype) || dtype == DType::kFloat16 || (i > 0 && dtype != dtype_)) {
      throw std::invalid_argument(this->type() + ": parameter " + std::to_string(i) + " is " + Describe(param) +
                                  " (need float32 or float64, the same for all)");
    }
    dtype_ = dtype;
    CheckLike(Grad(i), *param, "the gradient", i);
    for (int64_t place = 0; place < NumStates(); ++place) {
      if (HasData(*State(place, i))) CheckLike(State(place, i), *param, state_names_[place].c_str(), i);
    }
  }

  void CheckLike(Tensor* tensor, const Tensor& param, const char* what, int64_t i) {
    DType dtype;
    if (HasData(*tensor) && FloatingDType(tensor, &dtype) && dtype == dtype_ && tensor->dims() == param.dims()) return;
    throw std::invalid_argument(this->type() + ": " + what + " of parameter " + std::to_string(i) + " is " +
                                Describe(tensor) + ", unlike the parameter");
  }
};

template <class Context>
class DifferentiableRMSpropOp final : public DifferentiableOp<Context> {
 public:
  using DifferentiableOp<Context>::DifferentiableOp;

  void RunOnDevice() override {
    this->TakeInputs(this->inputs_.size(), this->outputs_.size());
    CheckOutputs();
    tensors_.clear();
    for (int64_t i = 0; i < this->count_; ++i) tensors_.push_back(Prepare(i));
    RMSpropUpdate(this->dtype_, this->dtype_, this->options_, tensors_.data(), this->count_, NumThreads());
  }

 private:
  void CheckOutputs() {
    int64_t bytes = 0;
    for (int64_t i = 0; i < this->count_; ++i) {
      bytes += Numel(*this->Param(i)) * ItemSize(this->dtype_) * (1 + this->NumStates());
    }
    for (auto* output : this->outputs_) {
      if (std::find(this->inputs_.begin(), this->inputs_.end(), output) == this->inputs_.end()) continue;
      throw std::invalid_argument(this->type() + ": the tensor '" + output->name() +
                                  "' is input and output, but the results must be new tensors");
    }
    ProbeMemory(bytes);
  }

  // The results, filled with what they start from: the update itself is the one that changes its tensors in place.
  RMSpropTensor Prepare(int64_t i) {
    RMSpropTensor tensor{};
    tensor.size = Numel(*this->Param(i));
    tensor.grad = Data<Context>(this->Grad(i));
    tensor.param = Copied(this->outputs_[i], this->Param(i));
    for (int64_t place = 0; place < this->NumStates(); ++place) {
      tensor.*kMembers[this->states_[place]] = Started(this->outputs_[(1 + place) * this->count_ + i], place, i);
    }
    return tensor;
  }

  void* Copied(Tensor* result, Tensor* source) {
    void* data = Allocate<Context>(result, *source, this->dtype_);
    const auto bytes = static_cast<size_t>(Numel(*source) * ItemSize(this->dtype_));
    if (bytes > 0) std::memcpy(data, Data<Context>(source), bytes);
    return data;
  }

  void* Started(Tensor* result, int64_t place, int64_t i) {
    auto* state = this->State(place, i);
    if (HasData(*state)) return Copied(result, state);
    void* data = Allocate<Context>(result, *this->Param(i), this->dtype_);
    Fill(this->dtype_, data, Numel(*this->Param(i)), this->InitialValue(place));
    return data;
  }

  static constexpr void* RMSpropTensor::* kMembers[kNumStates] = {
      &RMSpropTensor::square_avg, &RMSpropTensor::momentum_buffer, &RMSpropTensor::grad_avg};
  std::vector<RMSpropTensor> tensors_;
};

template <class Context>
class DifferentiableRMSpropGradientOp final : public DifferentiableOp<Context> {
 public:
  using DifferentiableOp<Context>::DifferentiableOp;

  void RunOnDevice() override {
    const auto results = static_cast<int64_t>(this->inputs_.size()) - static_cast<int64_t>(this->outputs_.size());
    this->TakeInputs(this->outputs_.size(), results);
    tensors_.clear();
    for (int64_t i = 0; i < this->count_; ++i) tensors_.push_back(Gather(i));
    RMSpropOptionsGradient to_options;
    RMSpropBackward(this->dtype_, this->options_, tensors_.data(), this->count_, NumThreads(),
                    this->scalar_names_.empty() ? nullptr : &to_options);
    starts_.clear();
    for (size_t i = 0; i < this->scalar_names_.size(); ++i) {
      WriteScalar(1 + i, to_options.*FindScalarField(this->scalar_names_[i]).gradient);
    }
    if (this->outputs_[0]->has_name()) SetZero(0);
  }

 private:
  RMSpropBackwardTensor Gather(int64_t i) {
    const int64_t first = this->FirstParam(), count = this->count_;
    RMSpropBackwardTensor tensor{};
    tensor.size = Numel(*this->Param(i));
    tensor.param = Data<Context>(this->Param(i));
    tensor.grad = Data<Context>(this->Grad(i));
    tensor.from_param = Arriving(i, i);
    tensor.to_param = Leaving(first + i, i);
    tensor.to_grad = Leaving(first + count + i, i);
    for (int64_t place = 0; place < this->NumStates(); ++place) {
      const Members& members = kMembers[this->states_[place]];
      tensor.*members.given = Given(place, i);
      tensor.*members.from = Arriving((1 + place) * count + i, i);
      tensor.*members.to = Leaving(first + (2 + place) * count + i, i);
      // A state that is kept, but not used with these hyper-parameters, has not changed.
      if (tensor.*members.to != nullptr && !IsUsed(this->states_[place])) {
        CopyOrZero(tensor.*members.to, tensor.*members.from, tensor.size);
        tensor.*members.to = nullptr;
      }
    }
    return tensor;
  }

  bool IsUsed(int state) const {
    return state == kSquareAvg || (state == kMomentumBuffer ? this->options_.momentum > 0 : this->options_.centered);
  }

  void CopyOrZero(void* to, const void* from, int64_t size) {
    const auto bytes = static_cast<size_t>(size * ItemSize(this->dtype_));
    if (from != nullptr) {
      std::memcpy(to, from, bytes);
    } else {
      std::memset(to, 0, bytes);
    }
  }

  // What flows back to a result; null where that is nothing.
  const void* Arriving(int64_t result, int64_t i) {
    auto* tensor = this->inputs_[this->outputs_.size() + result];
    DType dtype;
    if (!tensor->has_name() || !HasData(*tensor)) return nullptr;
    if (!FloatingDType(tensor, &dtype) || dtype != this->dtype_ || Numel(*tensor) != Numel(*this->Param(i))) {
      throw std::invalid_argument(this->type() + ": what flows back to result " + std::to_string(result) + " is " +
                                  Describe(tensor) + ", unlike the parameter");
    }
    return Data<Context>(tensor);
  }

  // Where to write what flows back to an input; null where nobody wants it.
  void* Leaving(int64_t input, int64_t i) {
    auto* tensor = this->outputs_[input];
    if (!tensor->has_name()) return nullptr;
    void* data = Allocate<Context>(tensor, *this->Param(i), this->dtype_);
    return Numel(*this->Param(i)) == 0 ? nullptr : data;
  }

  const void* Given(int64_t place, int64_t i) {
    auto* state = this->State(place, i);
    if (HasData(*state)) return Data<Context>(state);
    const int64_t size = Numel(*this->Param(i));
    starts_.emplace_back(static_cast<size_t>(size));  // of doubles: enough for either dtype
    Fill(this->dtype_, starts_.back().data(), size, this->InitialValue(place));
    return starts_.back().data();
  }

  void WriteScalar(size_t input, double value) {
    auto* tensor = this->outputs_[input];
    if (!tensor->has_name()) return;
    DType dtype = DType::kFloat64;
    FloatingDType(this->inputs_[input], &dtype);
    Fill(dtype, Allocate<Context>(tensor, *this->inputs_[input], dtype), 1, value);
  }

  void SetZero(size_t input) {
    const int64_t size = Numel(*this->inputs_[input]);
    Fill(DType::kFloat64, Allocate<Context>(this->outputs_[input], *this->inputs_[input], DType::kFloat64), size, 0);
  }

  struct Members {
    const void* RMSpropBackwardTensor::* given;
    const void* RMSpropBackwardTensor::* from;
    void* RMSpropBackwardTensor::* to;
  };
  static constexpr Members kMembers[kNumStates] = {
      {&RMSpropBackwardTensor::square_avg, &RMSpropBackwardTensor::from_square_avg,
       &RMSpropBackwardTensor::to_square_avg},
      {&RMSpropBackwardTensor::momentum_buffer, &RMSpropBackwardTensor::from_momentum_buffer,
       &RMSpropBackwardTensor::to_momentum_buffer},
      {&RMSpropBackwardTensor::grad_avg, &RMSpropBackwardTensor::from_grad_avg, &RMSpropBackwardTensor::to_grad_avg},
  };
  std::vector<RMSpropBackwardTensor> tensors_;
  std::vector<std::vector<double>> starts_;  // the states that start in this step
};

template <>
dragon::OperatorBase* Operators<dragon::CPUContext>::DifferentiableRMSprop(const dragon::OperatorDef& def,
                                                                           dragon::Workspace* ws) {
  return new DifferentiableRMSpropOp<dragon::CPUContext>(def, ws);
}

template <>
dragon::OperatorBase* Operators<dragon::CPUContext>::DifferentiableRMSpropGradient(const dragon::OperatorDef& def,
                                                                                   dragon::Workspace* ws) {
  return new DifferentiableRMSpropGradientOp<dragon::CPUContext>(def, ws);
}

#ifdef USE_CUDA
namespace {

dragon::OperatorBase* RefuseCuda(const dragon::OperatorDef& def) {
  throw std::invalid_argument(def.type() + " runs on the CPU only: move the model by `model.cpu()`");
}

}  // namespace

template <>
dragon::OperatorBase* Operators<dragon::CUDAContext>::DifferentiableRMSprop(const dragon::OperatorDef& def,
                                                                            dragon::Workspace*) {
  return RefuseCuda(def);
}

template <>
dragon::OperatorBase* Operators<dragon::CUDAContext>::DifferentiableRMSpropGradient(const dragon::OperatorDef& def,
                                                                                    dragon::Workspace*) {
  return RefuseCuda(def);
}
#endif

}  // namespace dragon_optim
