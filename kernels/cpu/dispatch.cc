// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cpu/dispatch.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

#include "kernels/cpu/isa_tables.h"

namespace dragon_optim {
namespace {

struct Isa {
  const KernelTable& kernels;
  bool (*is_supported)();
};

bool Always() { return true; }

#if DRAGON_OPTIM_X86
// The builtin also asks whether the operating system saves the wide registers.
bool HasAvx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}

bool HasAvx512() {
  return HasAvx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
}
#endif

// Narrowest first.
const Isa kIsas[] = {
    {kBaselineKernels, Always},
#if DRAGON_OPTIM_X86
    {kAvx2Kernels, HasAvx2},
    {kAvx512Kernels, HasAvx512},
#endif
};

const KernelTable& Widest() {
  const Isa* widest = kIsas;
  for (const Isa& isa : kIsas) {
    if (isa.is_supported()) widest = &isa;
  }
  return widest->kernels;
}

const KernelTable& Named(const std::string& name) {
  for (const Isa& isa : kIsas) {
    if (name != isa.kernels.name) continue;
    if (!isa.is_supported()) {
      throw std::invalid_argument("Invalid instruction set: " + name + " (this CPU has " + SupportedIsas() + ")");
    }
    return isa.kernels;
  }
  throw std::invalid_argument("Invalid instruction set: " + name + " (this build has " + CompiledIsas() + ")");
}

const KernelTable& FromEnvironment() {
  const char* name = std::getenv("DRAGON_OPTIM_ISA");
  return name == nullptr || *name == '\0' ? Widest() : Named(name);
}

template <typename Condition>
std::string Names(Condition condition) {
  std::string names;
  for (const Isa& isa : kIsas) {
    if (!condition(isa)) continue;
    if (!names.empty()) names += ',';
    names += isa.kernels.name;
  }
  return names;
}

// An atomic and no lock, so that a fork at any moment leaves it usable.
std::atomic<const KernelTable*> active_kernels{nullptr};

}  // namespace

const KernelTable& ActiveKernels() {
  const KernelTable* kernels = active_kernels.load(std::memory_order_acquire);
  if (kernels == nullptr) {
    kernels = &FromEnvironment();
    active_kernels.store(kernels, std::memory_order_release);
  }
  return *kernels;
}

void SetIsa(const std::string& name) { active_kernels.store(&Named(name), std::memory_order_release); }

std::string CompiledIsas() {
  return Names([](const Isa&) { return true; });
}

std::string SupportedIsas() {
  return Names([](const Isa& isa) { return isa.is_supported(); });
}

}  // namespace dragon_optim
