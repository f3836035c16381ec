// SPDX-License-Identifier: BSD-2-Clause

#include "dragon_optim/csrc/tensors.h"

#include <cstdlib>
#include <new>
#include <stdexcept>

// dragon.set_num_threads() leaves its number in Eigen, of which Dragon keeps one copy in the process, and nowhere else;
// before it is called, that is not positive, and Dragon computes with as many threads as OpenMP would. Both are weak: a
// Dragon may be built without Eigen (by this name) or without OpenMP.
extern "C" int eigen_max_threads __asm__("_ZZN5Eigen8internal22manage_multi_threadingENS_6ActionEPiE12m_maxThreads")
    __attribute__((weak));
extern "C" int omp_get_max_threads() __attribute__((weak));

namespace dragon_optim {

bool FloatingDType(Tensor* tensor, DType* dtype) {
  if (tensor->IsType<float>()) {
    *dtype = DType::kFloat32;
  } else if (tensor->IsType<double>()) {
    *dtype = DType::kFloat64;
  } else if (tensor->IsType<dragon::float16>()) {
    *dtype = DType::kFloat16;
  } else {
    return false;
  }
  return true;
}

bool IsInt64(Tensor* tensor) { return tensor->IsType<int64_t>(); }

std::string DTypeName(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return "float16";
    case DType::kFloat32:
      return "float32";
    case DType::kFloat64:
      return "float64";
    case DType::kBFloat16:  // no tensor of this Dragon is
      break;
  }
  return "unknown";
}

namespace {

std::string TypeName(Tensor* tensor) {
  DType dtype;
  if (FloatingDType(tensor, &dtype)) return DTypeName(dtype);
  if (IsInt64(tensor)) return "int64";
  if (tensor->IsType<int>()) return "int32";
  if (tensor->IsType<int8_t>()) return "int8";
  if (tensor->IsType<uint8_t>()) return "uint8";
  if (tensor->IsType<bool>()) return "bool";
  return "of unknown dtype";
}

const dragon::Argument* FindArgument(const dragon::OperatorDef& def, const std::string& name) {
  for (const auto& argument : def.arg()) {
    if (argument.name() == name) return &argument;
  }
  return nullptr;
}

}  // namespace

std::string Describe(Tensor* tensor) {
  std::string shape;
  for (int64_t dim : tensor->dims()) shape += (shape.empty() ? "" : ", ") + std::to_string(dim);
  if (tensor->ndim() == 1) shape += ",";
  return TypeName(tensor) + " of shape (" + shape + ")";
}

void SetDType(Tensor* tensor, DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      tensor->set_meta(dragon::TypeMeta::Make<dragon::float16>());
      break;
    case DType::kFloat32:
      tensor->set_meta(dragon::TypeMeta::Make<float>());
      break;
    case DType::kFloat64:
      tensor->set_meta(dragon::TypeMeta::Make<double>());
      break;
    case DType::kBFloat16:
      throw std::invalid_argument("Invalid dtype of a tensor: bfloat16 (Dragon has no such tensors)");
  }
}

void ProbeMemory(int64_t bytes) {
  if (bytes <= 0) return;
  void* memory = std::malloc(static_cast<size_t>(bytes));
  if (memory == nullptr) throw std::bad_alloc();
  std::free(memory);
}

int NumThreads() {
  if (&eigen_max_threads != nullptr && eigen_max_threads > 0) return eigen_max_threads;
  return omp_get_max_threads != nullptr ? omp_get_max_threads() : 1;
}

std::vector<int64_t> Integers(const dragon::OperatorDef& def, const std::string& name) {
  const auto* argument = FindArgument(def, name);
  if (argument == nullptr) return {};
  return {argument->ints().begin(), argument->ints().end()};
}

std::vector<std::string> Strings(const dragon::OperatorDef& def, const std::string& name) {
  const auto* argument = FindArgument(def, name);
  if (argument == nullptr) return {};
  return {argument->strings().begin(), argument->strings().end()};
}

std::string String(const dragon::OperatorDef& def, const std::string& name) {
  const auto* argument = FindArgument(def, name);
  return argument == nullptr ? "" : argument->s();
}

int64_t Integer(const dragon::OperatorDef& def, const std::string& name) {
  const auto* argument = FindArgument(def, name);
  return argument == nullptr ? 0 : argument->i();
}

bool AllAtLeast(int64_t least, std::initializer_list<std::vector<int64_t>> lists) {
  for (const auto& list : lists) {
    for (int64_t element : list) {
      if (element < least) return false;
    }
  }
  return true;
}

}  // namespace dragon_optim
