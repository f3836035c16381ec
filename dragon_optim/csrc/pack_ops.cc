// SPDX-License-Identifier: BSD-2-Clause
//
// DragonOptimPack and DragonOptimUnpack: gradients into one buffer and back, so that a process group needs one
// collective.
//
// The buffer holds a flag for each tensor of the layout (1 where this rank has it), then the tensors one after another,
// zeros for those that this rank lacks. After a mean over the ranks a flag above 0 says that some rank had the
// gradient. Every rank has the same layout; which tensors it lists as edges, by `indices` into that layout, is its own
// affair.
//
//   arguments  sizes    elements of each tensor of the layout
//              indices  place in the layout of each tensor among the edges
//              slots    slot of each tensor among the edges (pack only)

#include <cstring>
#include <stdexcept>

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

  bool Flag(void* buffer, size_t i) const {
    const char* flag = At(buffer, indices[i]);
    return dtype == DType::kFloat32 ? *reinterpret_cast<const float*>(flag) > 0
                                    : *reinterpret_cast<const double*>(flag) > 0;
  }
  void SetFlag(void* buffer, size_t i) const {
    char* flag = At(buffer, indices[i]);
    if (dtype == DType::kFloat32) {
      *reinterpret_cast<float*>(flag) = 1;
    } else {
      *reinterpret_cast<double*>(flag) = 1;
    }
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
      : dragon::Operator<Context>(def, ws), layout_(def), slots_(Integers(def, "slots")) {}

  void RunOnDevice() override {
    CheckEdges();
    const auto* mask = static_cast<const int64_t*>(Data<dragon::CPUContext>(this->inputs_[0]));
    void* buffer = Buffer();
    std::memset(buffer, 0, static_cast<size_t>(layout_.total * ItemSize(layout_.dtype)));
    for (size_t i = 0; i < slots_.size(); ++i) {
      Tensor* grad = this->inputs_[1 + i];
      if (mask[slots_[i]] == 0 || !HasData(*grad)) continue;
      layout_.SetFlag(buffer, i);
      if (layout_.Size(i) == 0) continue;
      std::memcpy(layout_.Tensor(buffer, i), Data<Context>(grad),
                  static_cast<size_t>(layout_.Size(i) * ItemSize(layout_.dtype)));
    }
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
    DType dtype;
    if (HasData(*buffer) && FloatingDType(buffer, &dtype) && dtype == layout_.dtype &&
        Numel(*buffer) == layout_.total) {
      return MutableData<Context>(buffer);
    }
    ProbeMemory(layout_.total * ItemSize(layout_.dtype));
    buffer->Reshape({layout_.total});
    SetDType(buffer, layout_.dtype);
    return buffer->template raw_mutable_data<Context>();
  }

  Layout layout_;
  std::vector<int64_t> slots_;
};

// inputs   buffer, param...
// outputs  grad...  gradients, or sums: the mean where some rank had one, untouched where none had
template <class Context>
class UnpackOp final : public dragon::Operator<Context> {
 public:
  UnpackOp(const dragon::OperatorDef& def, dragon::Workspace* ws) : dragon::Operator<Context>(def, ws), layout_(def) {}

  void RunOnDevice() override {
    const size_t size = layout_.indices.size();
    DType dtype;
    Tensor* source = this->inputs_.empty() ? nullptr : this->inputs_[0];
    if (this->inputs_.size() != 1 + size || this->outputs_.size() != size || !HasData(*source) ||
        !FloatingDType(source, &dtype) || dtype != layout_.dtype || Numel(*source) != layout_.total) {
      throw std::invalid_argument("DragonOptimUnpack: the edges do not fit the arguments");
    }
    void* buffer = MutableData<Context>(source);
    for (size_t i = 0; i < size; ++i) {
      if (layout_.Flag(buffer, i)) Write(this->outputs_[i], *this->inputs_[1 + i], buffer, i);
    }
  }

 private:
  void Write(Tensor* grad, const Tensor& param, void* buffer, size_t i) {
    if (Numel(param) != layout_.Size(i))
      throw std::invalid_argument("DragonOptimUnpack: a parameter changed its shape");
    DType dtype;
    const bool fits =
        HasData(*grad) && FloatingDType(grad, &dtype) && dtype == layout_.dtype && grad->dims() == param.dims();
    void* data = fits ? MutableData<Context>(grad) : Allocate<Context>(grad, param, layout_.dtype);
    if (layout_.Size(i) == 0) return;
    std::memcpy(data, layout_.Tensor(buffer, i), static_cast<size_t>(layout_.Size(i) * ItemSize(layout_.dtype)));
  }

  Layout layout_;
};

template <>
dragon::OperatorBase* Operators<dragon::CPUContext>::Pack(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new PackOp<dragon::CPUContext>(def, ws);
}

template <>
dragon::OperatorBase* Operators<dragon::CPUContext>::Unpack(const dragon::OperatorDef& def, dragon::Workspace* ws) {
  return new UnpackOp<dragon::CPUContext>(def, ws);
}

}  // namespace dragon_optim
