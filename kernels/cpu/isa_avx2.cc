// SPDX-License-Identifier: BSD-2-Clause
//
// The loops for x86-64 CPUs with AVX2, FMA and F16C. Compile with -mavx2 -mfma -mf16c.

#include "kernels/cpu/isa_tables.h"

#if DRAGON_OPTIM_X86

#if !defined(__AVX2__) || !defined(__FMA__) || !defined(__F16C__)
#error "compile this file with -mavx2 -mfma -mf16c"
#endif

#include "kernels/cpu/make_table.h"

namespace dragon_optim {

const KernelTable kAvx2Kernels = MakeKernelTable("avx2");

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_X86
