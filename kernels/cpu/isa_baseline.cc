// SPDX-License-Identifier: BSD-2-Clause
//
// The loops for what every CPU of the target has.

#include "kernels/cpu/isa_tables.h"
#include "kernels/cpu/make_table.h"

namespace dragon_optim {

const KernelTable kBaselineKernels = MakeKernelTable("baseline");

}  // namespace dragon_optim
