// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/checks.h"

#include <stdexcept>
#include <string>

namespace dragon_optim {
namespace cuda {
namespace {

std::string Of(int64_t tensor) { return tensor == kNoTensor ? "" : " of tensor " + std::to_string(tensor); }

}  // namespace

void CheckSize(int64_t size, int64_t tensor) {
  if (size >= 0) return;
  throw std::invalid_argument("Invalid size" + Of(tensor) + ": " + std::to_string(size) + " (need size >= 0)");
}

void CheckArray(const void* data, int64_t item_size, const char* name, int64_t tensor) {
  if (data == nullptr) {
    throw std::invalid_argument(std::string("Invalid ") + name + Of(tensor) + ": null (these options need it)");
  }
  if (reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(item_size) != 0) {
    throw std::invalid_argument(std::string("Invalid ") + name + Of(tensor) + ": its address is no multiple of the " +
                                std::to_string(item_size) + " bytes of an element");
  }
}

void CheckGradients(DType grad_dtype, const Gradient* gradients, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    CheckSize(gradients[i].size, i);
    if (gradients[i].size > 0) CheckArray(gradients[i].grad, ItemSize(grad_dtype), "grad", i);
  }
}

void CheckWorkspace(const Workspace& workspace, int64_t needed_bytes) {
  if (needed_bytes == 0) return;
  if (workspace.bytes < needed_bytes) {
    throw std::invalid_argument("Invalid workspace: " + std::to_string(workspace.bytes) + " bytes (need " +
                                std::to_string(needed_bytes) + ")");
  }
  CheckArray(workspace.data, sizeof(double), "workspace");
}

}  // namespace cuda
}  // namespace dragon_optim
