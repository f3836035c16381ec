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

namespace dragon_optim {

namespace {

struct Entry {
  const char* name;
  Creator creator;
};

using CPU = Operators<dragon::CPUContext>;

const Entry kEntries[] = {
    {"DragonOptimCheck", &CPU::Check},
    {"DragonOptimRMSprop", &CPU::RMSprop},
    {"DragonOptimAccumulate", &CPU::Accumulate},
    {"DragonOptimZeroGrad", &CPU::ZeroGrad},
    {"DragonOptimPack", &CPU::Pack},
    {"DragonOptimUnpack", &CPU::Unpack},
};

bool IsRegistered(const Entry& entry) { return dragon::CPUOperatorRegistry()->Has(entry.name); }

void Register(const Entry& entry) {
  dragon::CPUOperatorRegistry()->Register(entry.name, entry.creator);
  // States, parameters and gradients are updated in place.
  dragon::OpSchemaRegistry::NewSchema(entry.name, __FILE__, __LINE__)
      .NumInputs(0, INT_MAX)
      .NumOutputs(0, INT_MAX)
      .AllowInplace([](int, int) { return true; });
  const auto no_gradient = [](const dragon::OperatorDef& def, const std::vector<std::string>& grad_outputs) {
    return static_cast<dragon::GradientMakerBase*>(new dragon::NoGradient(def, grad_outputs));
  };
  dragon::GradientRegistry()->Register(entry.name, no_gradient);
  dragon::NoGradientRegistry()->Register(entry.name, no_gradient);
}

}  // namespace

}  // namespace dragon_optim

extern "C" {

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
