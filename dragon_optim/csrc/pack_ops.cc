// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimPack and DragonOptimUnpack: gradients into one buffer and back, so that a process group needs one
// collective. DragonOptimPresent: which of them some rank had.
//
// The buffer holds a flag for each tensor of the layout (1 where this rank has it), then the tensors one after another,
// zeros for those that this rank lacks. After a mean over the ranks a flag above 0 says that some rank had the
// gradient. Every rank has the same layout; which tensors it lists as edges, by `indices` into that layout, is its own
// affair.
//
//   arguments  sizes    elements of each tensor of the layout
//              indices  place in the layout of each tensor among the edges
//              slots    slot of each tensor among the edges (pack only)

#include <algorithm>
#include <stdexcept>

#include "dragon_optim/csrc/device.h"
#include "dragon_optim/csrc/operators.h"
#include "dragon_optim/csrc/tensors.h"

namespace dragon_optim {

namespace {

struct Layout {
  explicit Layout(const dragon::OperatorDef& def)
      : dtype(static_cast<DType>(Integer(def, "dtype"))),
        sizes(Integers(def, "sizes")),
        indices(Integers(def, "indices")) {
    const bool known_dtype = dtype == DType::kFloat32 || dtype == DType::kFloat64;
    if (!known_dtype || !AllAtLeast(0, {sizes})) {
      throw std::invalid_argument("DragonOptimPack: a dtype that cannot be reduced, or a negative size");
    }
    total = static_cast<int64_t>(sizes.size());
    for (int64_t size : sizes) {
      offsets.push_back(total);
      total += size;
    }
    for (int64_t index : indices) {
      if (index < 0 || index >= static_cast<int64_t>(sizes.size())) {
        throw std::invalid_argument("DragonOptimPack: an index lies outside the layout");
      }
    }
  }

  char* At(void* buffer, int64_t element) const { return static_cast<char*>(buffer) + element * ItemSize(dtype); }
  char* Tensor(void* buffer, size_t i) const { return At(buffer, offsets[indices[i]]); }
  int64_t Size(size_t i) const { return sizes[indices[i]]; }

  // The flags as they lie at the front of the buffer, in main memory.
  size_t FlagBytes() const { return sizes.size() * static_cast<size_t>(ItemSize(dtype)); }
  bool Flag(void* flags, size_t place) const {
    const char* flag = At(flags, static_cast<int64_t>(place));
    return dtype == DType::kFloat32 ? *reinterpret_cast<const float*>(flag) > 0
                                    : *reinterpret_cast<const double*>(flag) > 0;
  }
  void SetFlag(void* flags, size_t i) const {
    char* flag = At(flags, indices[i]);
    if (dtype == DType::kFloat32) {
      *reinterpret_cast<float*>(flag) = 1;
    } else {
      *reinterpret_cast<double*>(flag) = 1;
    }
  }

  // Whether these are the buffer of this layout, and room for what PresentOp finds in it.
  bool Fits(dragon::Tensor* buffer) const {
    DType found;
    return HasData(*buffer) && FloatingDType(buffer, &found) && found == dtype && Numel(*buffer) == total;
  }
  bool FitsPresent(dragon::Tensor* present) const {
    return HasData(*present) && IsInt64(present) && Numel(*present) >= static_cast<int64_t>(sizes.size());
  }

  DType dtype;
  std::vector<int64_t> sizes, indices, offsets;
  int64_t total = 0;
};

}  // namespace

// inputs   mask     int64 (slots): 1 where the parameter takes part
//          grad...  gradients, or sums
// outputs  buffer
template <class Context>
class PackOp final : public dragon::Operator<Context> {
 public:
  PackOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), layout_(def), slots_(Integers(def, "slots")), device_(this->ctx()) {}

  void RunOnDevice() override {
    CheckEdges();
    const auto* mask = static_cast<const int64_t*>(Data<dragon::CPUContext>(this->inputs_[0]));
    void* buffer = Buffer();
    flags_.assign(layout_.FlagBytes(), 0);
    copies_.clear();
    for (size_t i = 0; i < slots_.size(); ++i) {
      Tensor* grad = this->inputs_[1 + i];
      if (mask[slots_[i]] == 0 || !HasData(*grad)) continue;
      layout_.SetFlag(flags_.data(), i);
      copies_.push_back({layout_.Size(i), Data<Context>(grad), layout_.Tensor(buffer, i), 1});
    }
    device_.Zero(buffer, static_cast<size_t>(layout_.total * ItemSize(layout_.dtype)));
    device_.Upload(buffer, flags_.data(), flags_.size());
    device_.Accumulate(layout_.dtype, copies_);
  }

 private:
  void CheckEdges() {
    int64_t num_slots = 0;
    for (int64_t slot : slots_) num_slots = std::max(num_slots, slot + 1);
    const bool fits = AllAtLeast(0, {slots_}) && this->inputs_.size() == 1 + slots_.size() &&
                      this->outputs_.size() == 1 && layout_.indices.size() == slots_.size() &&
                      IsInt64(this->inputs_[0]) && Numel(*this->inputs_[0]) >= num_slots && HasData(*this->inputs_[0]);
    if (!fits) throw std::invalid_argument("DragonOptimPack: the edges do not fit the arguments");
    for (size_t i = 0; i < slots_.size(); ++i) {
      DType dtype;
      Tensor* grad = this->inputs_[1 + i];
      if (!HasData(*grad)) continue;
      if (FloatingDType(grad, &dtype) && dtype == layout_.dtype && Numel(*grad) == layout_.Size(i)) continue;
      throw std::invalid_argument("DragonOptimPack: a gradient is " + Describe(grad) +
                                  ", which the buffer does not expect");
    }
  }

  void* Buffer() {
    Tensor* buffer = this->outputs_[0];
    if (layout_.Fits(buffer)) return MutableData<Context>(buffer);
    device_.ProbeMemory(layout_.total * ItemSize(layout_.dtype));
    buffer->Reshape({layout_.total});
    SetDType(buffer, layout_.dtype);
    return buffer->template raw_mutable_data<Context>();
  }

  Layout layout_;
  std::vector<int64_t> slots_;
  Device<Context> device_;
  std::vector<char> flags_;
  std::vector<AccumulateTensor> copies_;  // sums that begin: a list of them is copied at once
};

// inputs   buffer
// outputs  present  int64 (layout), in main memory: 1 where some rank had the gradient
template <class Context>
class PresentOp final : public dragon::Operator<Context> {
 public:
  PresentOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), layout_(def), device_(this->ctx()) {}

  void RunOnDevice() override {
    if (this->inputs_.size() != 1 || this->outputs_.size() != 1 || !layout_.Fits(this->inputs_[0]) ||
        !layout_.FitsPresent(this->outputs_[0])) {
      throw std::invalid_argument("DragonOptimPresent: the edges do not fit the arguments");
    }
    flags_.resize(layout_.FlagBytes());
    device_.Download(flags_.data(), MutableData<Context>(this->inputs_[0]), flags_.size());
    auto* present = static_cast<int64_t*>(MutableData<dragon::CPUContext>(this->outputs_[0]));
    for (size_t i = 0; i < layout_.sizes.size(); ++i) present[i] = layout_.Flag(flags_.data(), i);
  }

 private:
  Layout layout_;
  Device<Context> device_;
  std::vector<char> flags_;
};

// inputs   present, buffer, param...
// outputs  grad...  gradients, or sums: the mean where some rank had one, untouched where none had
template <class Context>
class UnpackOp final : public dragon::Operator<Context> {
 public:
  UnpackOp(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<Context>(def, ws), layout_(def), device_(this->ctx()) {}

  void RunOnDevice() override {
    const size_t size = layout_.indices.size();
    if (this->inputs_.size() != 2 + size || this->outputs_.size() != size || !layout_.FitsPresent(this->inputs_[0]) ||
        !layout_.Fits(this->inputs_[1])) {
      throw std::invalid_argument("DragonOptimUnpack: the edges do not fit the arguments");
    }
    CheckParams();
    const auto* present = static_cast<const int64_t*>(Data<dragon::CPUContext>(this->inputs_[0]));
    void* buffer = MutableData<Context>(this->inputs_[1]);
    copies_.clear();
    for (size_t i = 0; i < size; ++i) {
      if (present[layout_.indices[i]] == 0) continue;
      void* data = Memory(this->outputs_[i], Param(i));
      copies_.push_back({layout_.Size(i), layout_.Tensor(buffer, i), data, 1});
    }
    device_.Accumulate(layout_.dtype, copies_);
  }

 private:
  const Tensor& Param(size_t i) { return *this->inputs_[2 + i]; }

  void CheckParams() {
    for (size_t i = 0; i < layout_.indices.size(); ++i) {
      if (Numel(Param(i)) == layout_.Size(i)) continue;
      throw std::invalid_argument("DragonOptimUnpack: a parameter changed its shape");
    }
  }

  void* Memory(Tensor* grad, const Tensor& param) {
    DType dtype;
    const bool fits =
        HasData(*grad) && FloatingDType(grad, &dtype) && dtype == layout_.dtype && grad->dims() == param.dims();
    return fits ? MutableData<Context>(grad) : Allocate<Context>(grad, param, layout_.dtype);
  }

  Layout layout_;
  Device<Context> device_;
  std::vector<AccumulateTensor> copies_;
};

DRAGON_OPTIM_OPERATOR(Pack, PackOp)
DRAGON_OPTIM_OPERATOR(Present, PresentOp)
DRAGON_OPTIM_OPERATOR(Unpack, UnpackOp)

}  // namespace dragon_optim
