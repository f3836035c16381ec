// SPDX-License-Identifier: BSD-2-Clause
//
// The operators, as Dragon's registry sees them: a creator for each.

#ifndef DRAGON_OPTIM_CSRC_OPERATORS_H_
#define DRAGON_OPTIM_CSRC_OPERATORS_H_

#include "dragon/core/operator.h"

namespace dragon_optim {

using Creator = dragon::OperatorBase* (*)(const dragon::OperatorDef&, dragon::Workspace*);

template <class Context>
struct Operators {
  static dragon::OperatorBase* Check(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* RMSprop(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* DifferentiableRMSprop(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* DifferentiableRMSpropGradient(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* Accumulate(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* ZeroGrad(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* Pack(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* Present(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* Unpack(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* TotalNorm(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* ClipNorm(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* ClipValue(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* FindNonFinite(const dragon::OperatorDef& def, dragon::Workspace* ws);
  static dragon::OperatorBase* Scale(const dragon::OperatorDef& def, dragon::Workspace* ws);
};

}  // namespace dragon_optim

// Behind an operator's template: Operators<Context>::NAME makes a TYPE<Context>, on each device of this build.
#define DRAGON_OPTIM_CREATE(NAME, TYPE, CONTEXT)                                                                  \
  template <>                                                                                                     \
  dragon::OperatorBase* Operators<dragon::CONTEXT>::NAME(const dragon::OperatorDef& def, dragon::Workspace* ws) { \
    return new TYPE<dragon::CONTEXT>(def, ws);                                                                    \
  }
#ifdef USE_CUDA
#define DRAGON_OPTIM_OPERATOR(NAME, TYPE)     \
  DRAGON_OPTIM_CREATE(NAME, TYPE, CPUContext) \
  DRAGON_OPTIM_CREATE(NAME, TYPE, CUDAContext)
#else
#define DRAGON_OPTIM_OPERATOR(NAME, TYPE) DRAGON_OPTIM_CREATE(NAME, TYPE, CPUContext)
#endif

#endif  // DRAGON_OPTIM_CSRC_OPERATORS_H_
