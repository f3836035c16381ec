// SPDX-License-Identifier: BSD-2-Clause
//
// The door of the library: plain C functions that the Python loader calls.
//
// Operators are registered when the loader asks for it, not by static objects at load: Dragon ends the process at a
// second registration of a name, and this way a second copy of the library in one process can be told apart and
// refused.

#include <climits>
#include <string>

#include "dragon/core/operator_schema.h"
#include "dragon_optim/csrc/operators.h"

#ifdef USE_CUDA
#include "kernels/cuda/c_api.h"
#endif

namespace dragon_optim {

namespace {

using GradientMaker = dragon::GradientMakerBase* (*)(const dragon::OperatorDef&, const std::vector<std::string>&);

template <class Maker>
dragon::GradientMakerBase* Make(const dragon::OperatorDef& def, const std::vector<std::string>& grad_outputs) {
  return new Maker(def, grad_outputs);
}

// How an operator may use the memory of its inputs, and what Dragon's tape makes of it.
enum class Kind { kInPlace, kFunction, kGradient };

struct Entry {
  const char* name;
  Kind kind;
  Creator cpu;
  Creator cuda;  // null where this build has none
};

#ifdef USE_CUDA
#define DRAGON_OPTIM_CREATORS(NAME) &Operators<dragon::CPUContext>::NAME, &Operators<dragon::CUDAContext>::NAME
#else
#define DRAGON_OPTIM_CREATORS(NAME) &Operators<dragon::CPUContext>::NAME, nullptr
#endif

const Entry kEntries[] = {
    {"DragonOptimCheck", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Check)},
    {"DragonOptimRMSprop", Kind::kInPlace, DRAGON_OPTIM_CREATORS(RMSprop)},
    {"DragonOptimDifferentiableRMSprop", Kind::kFunction, DRAGON_OPTIM_CREATORS(DifferentiableRMSprop)},
    {"DragonOptimDifferentiableRMSpropGradient", Kind::kGradient, DRAGON_OPTIM_CREATORS(DifferentiableRMSpropGradient)},
    {"DragonOptimAccumulate", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Accumulate)},
    {"DragonOptimZeroGrad", Kind::kInPlace, DRAGON_OPTIM_CREATORS(ZeroGrad)},
    {"DragonOptimPack", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Pack)},
    {"DragonOptimPresent", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Present)},
    {"DragonOptimUnpack", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Unpack)},
    {"DragonOptimTotalNorm", Kind::kInPlace, DRAGON_OPTIM_CREATORS(TotalNorm)},
    {"DragonOptimClipNorm", Kind::kInPlace, DRAGON_OPTIM_CREATORS(ClipNorm)},
    {"DragonOptimClipValue", Kind::kInPlace, DRAGON_OPTIM_CREATORS(ClipValue)},
    {"DragonOptimFindNonFinite", Kind::kInPlace, DRAGON_OPTIM_CREATORS(FindNonFinite)},
    {"DragonOptimScale", Kind::kInPlace, DRAGON_OPTIM_CREATORS(Scale)},
};

bool IsRegistered(const Entry& entry) { return dragon::CPUOperatorRegistry()->Has(entry.name); }

void Register(const Entry& entry) {
  dragon::CPUOperatorRegistry()->Register(entry.name, entry.cpu);
  if (entry.cuda != nullptr) dragon::CUDAOperatorRegistry()->Register(entry.name, entry.cuda);
  auto& schema = dragon::OpSchemaRegistry::NewSchema(entry.name, __FILE__, __LINE__);
  schema.NumInputs(0, INT_MAX).NumOutputs(0, INT_MAX);
  // States, parameters and gradients are updated in place. A function checks by itself that its results are new, which
  // Dragon would end the process for. A gradient must not get the memory of what flows back to it for its results.
  if (entry.kind != Kind::kGradient) schema.AllowInplace([](int, int) { return true; });
  if (entry.kind == Kind::kFunction) {
    dragon::GradientRegistry()->Register(entry.name, GradientMaker(&Make<dragon::GenericGradientMaker>));
    return;
  }
  const GradientMaker no_gradient = &Make<dragon::NoGradient>;
  dragon::GradientRegistry()->Register(entry.name, no_gradient);
  dragon::NoGradientRegistry()->Register(entry.name, no_gradient);
}

}  // namespace

}  // namespace dragon_optim

extern "C" {

// The architectures of the CUDA operators, separated by commas; null where this build has none.
const char* dragon_optim_operators_cuda() {
#ifdef USE_CUDA
  return dragon_optim_cuda_architectures();
#else
  return nullptr;
#endif
}

// Registers the operators. 0; or 1, and nothing registered, where one of them is registered already.
int dragon_optim_register() {
  for (const auto& entry : dragon_optim::kEntries) {
    if (dragon_optim::IsRegistered(entry)) return 1;
  }
  for (const auto& entry : dragon_optim::kEntries) dragon_optim::Register(entry);
  return 0;
}

// Whether Dragon has an operator of this name for the CPU, ours or not.
int dragon_optim_has_operator(const char* name) { return dragon::CPUOperatorRegistry()->Has(name) ? 1 : 0; }

// The names of the registered operators, separated by commas.
const char* dragon_optim_operators() {
  static std::string names;
  names.clear();
  for (const auto& entry : dragon_optim::kEntries) {
    if (dragon_optim::IsRegistered(entry)) names += (names.empty() ? "" : ",") + std::string(entry.name);
  }
  return names.c_str();
}
}
