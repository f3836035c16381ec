// SPDX-License-Identifier: BSD-2-Clause
//
// The tables that are compiled into the library, one per isa_*.cc.

#ifndef DRAGON_OPTIM_KERNELS_CPU_ISA_TABLES_H_
#define DRAGON_OPTIM_KERNELS_CPU_ISA_TABLES_H_

#include "kernels/cpu/kernel_table.h"

#if defined(__x86_64__)
#define DRAGON_OPTIM_X86 1
#else
#define DRAGON_OPTIM_X86 0
#endif

namespace dragon_optim {

extern const KernelTable kBaselineKernels;
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_ISA_TABLES_H_
