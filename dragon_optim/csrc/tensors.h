// SPDX-License-Identifier: BSD-2-Clause
//
// Dragon's tensors, touched without its CHECK macros: a failed CHECK ends the process, and a passed one costs half a
// microsecond. Everything here reads what the tensor says of itself and leaves the judgement to the caller.

#ifndef DRAGON_OPTIM_CSRC_TENSORS_H_
#define DRAGON_OPTIM_CSRC_TENSORS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "dragon/core/operator.h"
#include "kernels/dtype.h"

namespace dragon_optim {

using dragon::Tensor;

// The product of the dimensions. Not Tensor::count(), which leaves zeros out: it says 1 for the shape (0,).
inline int64_t Numel(const Tensor& tensor) {
  int64_t numel = 1;
  for (int64_t dim : tensor.dims()) numel *= dim;
  return numel;
}

// Whether Dragon's `.grad` would show this tensor: it has a shape, and memory unless the shape holds no element.
inline bool HasData(const Tensor& tensor) { return tensor.count() > 0 && (tensor.has_memory() || Numel(tensor) == 0); }

// Whether the tensor is of a dtype that the kernels know; if so, which.
bool FloatingDType(Tensor* tensor, DType* dtype);

bool IsInt64(Tensor* tensor);

// "float32 of shape (3, 4)": how a message names a tensor's type. Not dtypes::to_string, see exports.map.
std::string Describe(Tensor* tensor);
std::string DTypeName(DType dtype);

// The memory of a tensor that has some: Dragon's one accessor without a CHECK (8 ns; raw_data() costs 316).
template <class Context>
void* MutableData(Tensor* tensor) {
  if (Numel(*tensor) == 0) return nullptr;
  void* data = nullptr;
  tensor->raw_mutable_data<Context>(&data);
  return data;
}

template <class Context>
const void* Data(Tensor* tensor) {
  return MutableData<Context>(tensor);
}

void SetDType(Tensor* tensor, DType dtype);

// Gives the tensor memory for `like`'s shape. Does not fill it.
template <class Context>
void* Allocate(Tensor* tensor, const Tensor& like, DType dtype) {
  tensor->ReshapeLike(like);
  SetDType(tensor, dtype);
  return tensor->raw_mutable_data<Context>();
}

// Throws std::bad_alloc if `bytes` cannot be had now. Dragon's allocator would end the process instead.
void ProbeMemory(int64_t bytes);

// Threads that Dragon computes with: dragon.set_num_threads().
int NumThreads();

// The integer (string) list given as an argument to an operator; empty where it is missing.
std::vector<int64_t> Integers(const dragon::OperatorDef& def, const std::string& name);
std::vector<std::string> Strings(const dragon::OperatorDef& def, const std::string& name);
// A single one; empty (0) where it is missing.
std::string String(const dragon::OperatorDef& def, const std::string& name);
int64_t Integer(const dragon::OperatorDef& def, const std::string& name);

// Whether no element of these lists is below `least`.
bool AllAtLeast(int64_t least, std::initializer_list<std::vector<int64_t>> lists);

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_CSRC_TENSORS_H_
