// SPDX-License-Identifier: BSD-2-Clause
//
// The loops for x86-64 CPUs with AVX-512 F, BW, VL and DQ. Compile with -mavx512f -mavx512bw -mavx512vl -mavx512dq
// -mfma -mf16c -mprefer-vector-width=512.

#include "kernels/cpu/isa_tables.h"

#if DRAGON_OPTIM_X86

#if !defined(__AVX512F__) || !defined(__AVX512BW__) || !defined(__AVX512VL__) || !defined(__AVX512DQ__) || \
    !defined(__FMA__) || !defined(__F16C__)
#error "compile this file with -mavx512f -mavx512bw -mavx512vl -mavx512dq -mfma -mf16c"
#endif

#include "kernels/cpu/make_table.h"

namespace dragon_optim {

const KernelTable kAvx512Kernels = MakeKernelTable("avx512");

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_X86
