// SPDX-License-Identifier: BSD-2-Clause
//
// Gathers the loops that an instruction set's file has compiled.

#ifndef DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_
#define DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_

#include "kernels/cpu/backward_loops.h"
#include "kernels/cpu/clip_loops.h"
#include "kernels/cpu/gradient_loops.h"
#include "kernels/cpu/update_loops.h"

namespace dragon_optim {
namespace {

constexpr KernelTable MakeKernelTable(const char* name) {
  KernelTable table = {};
  table.name = name;
  FillUpdateLoops<float>(table.update_float);
  FillUpdateLoops<double>(table.update_double);
  table.float16 = {&UpdateShortRange<Float16, false>, &UpdateShortRange<Float16, true>};
  table.bfloat16 = {&UpdateShortRange<BFloat16, false>, &UpdateShortRange<BFloat16, true>};
  FillBackwardLoops<float>(table.backward_float);
  FillBackwardLoops<double>(table.backward_double);
  table.add_multiple_float = &AddMultipleLoop<float>;
  table.add_multiple_double = &AddMultipleLoop<double>;
  table.float16_grad = {&ShortBlockSquares<Float16>, &AccumulateShortLoop<Float16>, &HasNonFiniteLoop<Float16>};
  table.bfloat16_grad = {&ShortBlockSquares<BFloat16>, &AccumulateShortLoop<BFloat16>, &HasNonFiniteLoop<BFloat16>};
  table.float_grad = {&BlockSquares<float>, &AccumulateLoop<float>, &HasNonFiniteLoop<Float32>};
  table.double_grad = {&BlockSquares<double>, &AccumulateLoop<double>, &HasNonFiniteLoop<Float64>};
  table.float16_clip = MakeClipLoops<Float16>();
  table.bfloat16_clip = MakeClipLoops<BFloat16>();
  table.float_clip = MakeClipLoops<Float32>();
  table.double_clip = MakeClipLoops<Float64>();
  table.half_to_float = [](const uint16_t* source, float* destination, int64_t size) {
    DecodeLoop(Float16(), source, destination, size);
  };
  table.float_to_half = [](const float* source, uint16_t* destination, int64_t size) {
    EncodeLoop(Float16(), source, destination, size);
  };
  table.fill_float = &FillLoop<float>;
  table.fill_double = &FillLoop<double>;
  return table;
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_MAKE_TABLE_H_
