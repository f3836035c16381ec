// SPDX-License-Identifier: BSD-2-Clause
//
// Clipping over all gradients together: DragonOptimTotalNorm, DragonOptimClipNorm and DragonOptimClipValue. For the
// CPU.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <stdexcept>

#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"
#include "kernels/clip.h"
#include "kernels/formats.h"

namespace dragon_optim {

namespace {

using Context = dragon::CPUContext;

constexpr DType kDTypes[] = {DType::kFloat16, DType::kFloat32, DType::kFloat64};

// The gradients among some edges that have data. Throws unless all of them are of floats, and each stands once.
class Gradients {
 public:
  Gradients(const dragon::OperatorDef& def, int first) : type_(def.type()), first_(static_cast<size_t>(first)) {
    std::vector<std::string> names(def.input().begin(), def.input().end());
    std::sort(names.begin(), names.end());
    repeated_ = std::adjacent_find(names.begin(), names.end()) != names.end();
  }

  void Find(const std::vector<Tensor*>& inputs) {
    if (repeated_) throw std::invalid_argument(type_ + ": a gradient stands twice among the inputs");
    tensors_.clear();
    dtypes_.clear();
    for (size_t i = first_; i < inputs.size(); ++i) {
      if (!HasData(*inputs[i])) continue;
      DType dtype;
      if (!FloatingDType(inputs[i], &dtype)) {
        throw std::invalid_argument("a gradient is " + Describe(inputs[i]) +
                                    ", but only float16, float32 and float64 can be clipped; nothing was changed");
      }
      if (Numel(*inputs[i]) == 0) continue;
      tensors_.push_back(inputs[i]);
      dtypes_.push_back(dtype);
    }
  }

  // The same, of gradients that are written to: the outputs must be they.
  void FindInPlace(const std::vector<Tensor*>& inputs, const std::vector<Tensor*>& outputs) {
    if (inputs.size() != first_ + outputs.size() ||
        !std::equal(outputs.begin(), outputs.end(), inputs.begin() + first_)) {
      throw std::invalid_argument(type_ + ": the outputs must be the gradients among the inputs, in their order");
    }
    Find(inputs);
  }

  size_t size() const { return tensors_.size(); }
  bool Has(DType dtype) const { return std::find(dtypes_.begin(), dtypes_.end(), dtype) != dtypes_.end(); }

  // Calls use(place, tensor) for each gradient of a dtype.
  template <typename Use>
  void OfDType(DType dtype, const Use& use) const {
    for (size_t i = 0; i < tensors_.size(); ++i) {
      if (dtypes_[i] == dtype) use(i, tensors_[i]);
    }
  }

  // Calls change(dtype, list) for the gradients of each dtype.
  template <typename Change>
  void ChangeInPlace(const Change& change) {
    for (DType dtype : kDTypes) {
      list_.clear();
      OfDType(dtype, [&](size_t, Tensor* grad) { list_.push_back({Numel(*grad), MutableData<Context>(grad)}); });
      if (!list_.empty()) change(dtype, list_);
    }
  }

 private:
  std::string type_;
  size_t first_;
  bool repeated_;
  std::vector<Tensor*> tensors_;  // kept between runs, as those below: no allocation once warm
  std::vector<DType> dtypes_;
  std::vector<ClipTensor> list_;
};

// The value of a tensor of one element. Throws where it is none, and unless it is 0 or more.
double Limit(Tensor* tensor, const std::string& name) {
  DType dtype;
  if (!HasData(*tensor) || Numel(*tensor) != 1 || !FloatingDType(tensor, &dtype) || dtype != DType::kFloat64) {
    throw std::runtime_error(name + " is " + Describe(tensor) +
                             ", but must be float64 of one element; was the workspace cleared?");
  }
  const double value = *static_cast<const double*>(Data<Context>(tensor));
  if (!(value >= 0)) throw std::invalid_argument("Invalid " + name + ": " + std::to_string(value) + " (need >= 0)");
  return value;
}

// The value of a tensor of one element, of any dtype of floats.
double Number(Tensor* tensor, const std::string& name) {
  DType dtype;
  if (!HasData(*tensor) || Numel(*tensor) != 1 || !FloatingDType(tensor, &dtype)) {
    throw std::invalid_argument(name + " is " + Describe(tensor) + ", but must be a tensor of one float");
  }
  const void* data = Data<Context>(tensor);
  if (dtype == DType::kFloat64) return *static_cast<const double*>(data);
  if (dtype == DType::kFloat32) return *static_cast<const float*>(data);
  return Decode(Float16(), *static_cast<const uint16_t*>(data));
}

}  // namespace

// inputs   grad...
// outputs  norm    float64 where a gradient is, else float32; of no dimensions
// arguments  order               a number, as a string: "2.0", "inf"
//            error_if_nonfinite  1: throws where the norm is infinite or NaN
class TotalNormOp final : public dragon::Operator<Context> {
 public:
  TotalNormOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws),
        gradients_(def, 0),
        order_text_(String(def, "order")),
        error_if_nonfinite_(Integer(def, "error_if_nonfinite") != 0) {}

  void RunOnDevice() override {
    char* end = nullptr;
    const double order = std::strtod(order_text_.c_str(), &end);
    if (order_text_.empty() || *end != '\0' || std::isnan(order)) {
      throw std::invalid_argument("Invalid order of a norm: '" + order_text_ + "' (need a number)");
    }
    if (this->outputs_.size() != 1) throw std::invalid_argument("DragonOptimTotalNorm: needs one output, the norm");
    gradients_.Find(this->inputs_);
    terms_.resize(gradients_.size());
    for (DType dtype : kDTypes) AddTerms(dtype, order);
    const double norm = NormOfTerms(order, terms_.data(), static_cast<int64_t>(terms_.size()));
    const bool wide = gradients_.Has(DType::kFloat64);
    const double rounded = wide ? norm : static_cast<float>(norm);
    if (error_if_nonfinite_ && !std::isfinite(rounded)) {
      throw std::runtime_error("The total norm of order " + order_text_ +
                               " for gradients from `parameters` is non-finite, so it cannot be clipped. To disable "
                               "this error and scale the gradients by the non-finite norm anyway, set "
                               "`error_if_nonfinite=False`");
    }
    Tensor* result = this->outputs_[0];
    result->Reshape({});
    SetDType(result, wide ? DType::kFloat64 : DType::kFloat32);
    void* data = result->raw_mutable_data<Context>();
    if (wide) {
      *static_cast<double*>(data) = rounded;
    } else {
      *static_cast<float*>(data) = static_cast<float>(rounded);
    }
  }

 private:
  void AddTerms(DType dtype, double order) {
    list_.clear();
    gradients_.OfDType(dtype, [&](size_t, Tensor* grad) { list_.push_back({Numel(*grad), Data<Context>(grad)}); });
    if (list_.empty()) return;
    terms_of_dtype_.resize(list_.size());
    NormTerms(dtype, order, list_.data(), static_cast<int64_t>(list_.size()), NumThreads(), terms_of_dtype_.data());
    size_t next = 0;
    gradients_.OfDType(dtype, [&](size_t place, Tensor*) { terms_[place] = terms_of_dtype_[next++]; });
  }

  Gradients gradients_;
  std::string order_text_;
  bool error_if_nonfinite_;
  std::vector<Gradient> list_;
  std::vector<double> terms_, terms_of_dtype_;
};

// inputs   max_norm  float64, one element
//          norm      what DragonOptimTotalNorm gave
//          grad...
// outputs  grad...   the same: multiplied by min(max_norm / (norm + 1e-6), 1)
// argument only_check  1: throws where it would, and writes nothing
class ClipNormOp final : public dragon::Operator<Context> {
 public:
  ClipNormOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), gradients_(def, 2), only_check_(Integer(def, "only_check") != 0) {}

  void RunOnDevice() override {
    gradients_.FindInPlace(this->inputs_, this->outputs_);
    const double ratio =
        Limit(this->inputs_[0], "max_norm value") / (Number(this->inputs_[1], "the total norm") + 1e-6);
    if (only_check_ || ratio >= 1) return;  // NaN is not: it goes into the gradients, as the norm that it came from
    gradients_.ChangeInPlace([&](DType dtype, const std::vector<ClipTensor>& list) {
      Scale(dtype, list.data(), static_cast<int64_t>(list.size()), ratio, NumThreads());
    });
  }

 private:
  Gradients gradients_;
  bool only_check_;
};

// inputs   clip_value  float64, one element
//          grad...
// outputs  grad...     the same, between -clip_value and clip_value
// argument only_check  as above
class ClipValueOp final : public dragon::Operator<Context> {
 public:
  ClipValueOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), gradients_(def, 1), only_check_(Integer(def, "only_check") != 0) {}

  void RunOnDevice() override {
    gradients_.FindInPlace(this->inputs_, this->outputs_);
    const double limit = Limit(this->inputs_[0], "clip_value value");
    if (only_check_) return;
    gradients_.ChangeInPlace([&](DType dtype, const std::vector<ClipTensor>& list) {
      Clamp(dtype, list.data(), static_cast<int64_t>(list.size()), limit, NumThreads());
    });
  }

 private:
  Gradients gradients_;
  bool only_check_;
};

template <>
dragon::OperatorBase* Operators<Context>::TotalNorm(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new TotalNormOp(def, ws);
}

template <>
dragon::OperatorBase* Operators<Context>::ClipNorm(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new ClipNormOp(def, ws);
}

template <>
dragon::OperatorBase* Operators<Context>::ClipValue(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new ClipValueOp(def, ws);
}

#ifdef USE_CUDA
namespace {

// On a GPU they say so when they are made: Dragon would end the process where it knows no operator for a device.
[[noreturn]] void RefuseCuda(const dragon::OperatorDef& def) {
  throw std::invalid_argument(def.type() + " runs on the CPU only: move the model by `model.cpu()`");
}

}  // namespace

template <>
dragon::OperatorBase* Operators<dragon::CUDAContext>::TotalNorm(const dragon::OperatorDef& def, dragon::Workspace*) {
  RefuseCuda(def);
}

template <>
dragon::OperatorBase* Operators<dragon::CUDAContext>::ClipNorm(const dragon::OperatorDef& def, dragon::Workspace*) {
  RefuseCuda(def);
}

template <>
dragon::OperatorBase* Operators<dragon::CUDAContext>::ClipValue(const dragon::OperatorDef& def, dragon::Workspace*) {
  RefuseCuda(def);
}
#endif

}  // namespace dragon_optim
