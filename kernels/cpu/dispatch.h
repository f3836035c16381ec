// SPDX-License-Identifier: BSD-2-Clause
//
// The choice of the instruction set at run time.

#ifndef DRAGON_OPTIM_KERNELS_CPU_DISPATCH_H_
#define DRAGON_OPTIM_KERNELS_CPU_DISPATCH_H_

#include <string>

#include "kernels/cpu/kernel_table.h"

namespace dragon_optim {

// The table in use: the widest that the CPU has, unless the environment variable DRAGON_OPTIM_ISA or SetIsa names
// another. Throws std::invalid_argument where that name is unknown, not compiled in, or not on this CPU.
const KernelTable& ActiveKernels();

// Throws as above, and then changes nothing.
void SetIsa(const std::string& name);

// Names separated by commas, narrowest first.
std::string CompiledIsas();
std::string SupportedIsas();

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_DISPATCH_H_
