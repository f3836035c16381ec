// SPDX-License-Identifier: BSD-2-Clause
//
// What the flat C functions make of exceptions, and of dtype codes.

#ifndef DRAGON_OPTIM_KERNELS_C_ERRORS_H_
#define DRAGON_OPTIM_KERNELS_C_ERRORS_H_

#include <exception>
#include <stdexcept>
#include <string>

#include "kernels/dtype.h"

namespace dragon_optim {
namespace {  // each library has its own

std::string& LastError() {
  thread_local std::string text;
  return text;
}

// 0, or 1 after an exception: none may pass into C.
template <typename Body>
int Guarded(const Body& body) noexcept {
  try {
    body();
    return 0;
  } catch (const std::exception& error) {
    LastError() = error.what();
  } catch (...) {
    LastError() = "unknown error";
  }
  return 1;
}

DType CheckedDType(int code) {
  if (code < 0 || code > 3) throw std::invalid_argument("Invalid dtype code: " + std::to_string(code));
  return static_cast<DType>(code);
}

}  // namespace
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_C_ERRORS_H_
