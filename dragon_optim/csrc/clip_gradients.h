// SPDX-License-Identifier: BSD-2-Clause
//
// The gradients of an operator that clips, or scales, over all of them together.

#ifndef DRAGON_OPTIM_CSRC_CLIP_GRADIENTS_H_
#define DRAGON_OPTIM_CSRC_CLIP_GRADIENTS_H_

#include <algorithm>
#include <stdexcept>
#include <string>
#include <vector>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/tensors.h"
#include "kernels/clip.h"

namespace dragon_optim {

constexpr DType kClipDTypes[] = {DType::kFloat16, DType::kFloat32, DType::kFloat64};

// The value of a tensor in main memory, float64 of one element. Throws where it is none.
inline double HostNumber(Tensor* tensor, const std::string& name) {
  DType dtype;
  if (!HasData(*tensor) || Numel(*tensor) != 1 || !FloatingDType(tensor, &dtype) || dtype != DType::kFloat64) {
    throw std::runtime_error(name + " is " + Describe(tensor) +
                             ", but must be float64 of one element; was the workspace cleared?");
  }
  return *static_cast<const double*>(Data<dragon::CPUContext>(tensor));
}

// The gradients among some edges that have data. Throws unless all of them are of floats, and each stands once.
template <class Context>
class ClipGradients {
 public:
  ClipGradients(const dragon::OperatorDef& def, int first) : type_(def.type()), first_(static_cast<size_t>(first)) {
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
                                    ", but must be float16, float32 or float64; nothing was changed");
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

  // What the memory of these gradients will take of the device that they are used on.
  int64_t BytesToCome(Device<Context>& device) const {
    int64_t bytes = 0;
    for (Tensor* tensor : tensors_) bytes += device.BytesToCome(tensor);
    return bytes;
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
    for (DType dtype : kClipDTypes) {
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

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_CLIP_GRADIENTS_H_
