// SPDX-License-Identifier: BSD-2-Clause
//
// What a Dragon with CUDA defines and one without does not, and its operators for CUDA: those for the CPU, whose results
// go to the device.

#include <memory>

#include "dragon/core/operator.h"

namespace dragon {

CUDAObjects::~CUDAObjects() {}

CUDAObjects& CUDAContext::objects() {
  static thread_local auto* objects = new CUDAObjects;
  return *objects;
}

template <>
void Tensor::raw_mutable_data<CUDAContext>(void** data) {
  auto* found = memory();
  *data = found != nullptr ? found->mutable_cuda_data(nbytes()) : nullptr;
}

}  // namespace dragon

namespace {

class ByTheHost final : public dragon::Operator<dragon::CUDAContext> {
 public:
  ByTheHost(const dragon::OperatorDef& def, dragon::Workspace* ws)
      : dragon::Operator<dragon::CUDAContext>(def, ws), definition_(def) {
    definition_.mutable_device_option()->set_device_type(dragon::PROTO_CPU);
    host_.reset(dragon::CPUOperatorRegistry()->Create(def.type(), definition_, ws));
  }

  void RunOnDevice() override {
    dragon::OperatorDef edges;  // Dragon may have given this operator others
    edges.set_name(name_);
    for (const auto* tensor : inputs_) edges.add_input(tensor->name());
    for (const auto* tensor : outputs_) edges.add_output(tensor->name());
    host_->DeriveFrom(edges);
    host_->SwitchToPhase(phase_);
    host_->Run();
    for (auto* tensor : outputs_) {
      void* data = nullptr;
      if (tensor->has_memory()) tensor->raw_mutable_data<dragon::CUDAContext>(&data);
    }
  }

 private:
  dragon::OperatorDef definition_;
  std::unique_ptr<dragon::OperatorBase> host_;
};

}  // namespace

// Registers all of Dragon's own operators for CUDA.
extern "C" void emulated_cuda_register() {
  for (const auto& name : dragon::CPUOperatorRegistry()->keys()) {
    if (dragon::CUDAOperatorRegistry()->Has(name)) continue;
    dragon::CUDAOperatorRegistry()->Register(name, [](const dragon::OperatorDef& def, dragon::Workspace* ws) {
      return new ByTheHost(def, ws);
    });
  }
}
