// SPDX-License-Identifier: BSD-2-Clause
//
// Gathers the loops that an instruction set's file has compiled.

#ifndef DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_
#define DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_

#include "kernels/cpu/backward_loops.h"
#include "kernels/cpu/gradient_loops.h"
#include "kernels/cpu/update_loops.h"

namespace dragon_optim {
namespace {

constexpr KernelTable MakeKernelTable(const char* name) {
  KernelTable table = {};
  table.name = name;
  FillUpdateLoops<float>(table.update_float);
  FillUpdateLoops<double>(table.update_double);
  table.update_half = &UpdateHalfRange<false>;
  table.update_half_float_grad = &UpdateHalfRange<true>;
  FillBackwardLoops<float>(table.backward_float);
  FillBackwardLoops<double>(table.backward_double);
  table.add_multiple_float = &AddMultipleLoop<float>;
  table.add_multiple_double = &AddMultipleLoop<double>;
  table.half_grad = {&HalfBlockSquares, &AccumulateHalfLoop};
  table.float_grad = {&BlockSquares<float>, &AccumulateLoop<float>};
  table.double_grad = {&BlockSquares<double>, &AccumulateLoop<double>};
  table.half_to_float = &HalfToFloatLoop;
  table.float_to_half = &FloatToHalfLoop;
  table.fill_float = &FillLoop<float>;
  table.fill_double = &FillLoop<double>;
  return table;
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_
