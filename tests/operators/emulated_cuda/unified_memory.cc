// SPDX-License-Identifier: BSD-2-Clause
//
// The memory of Dragon's tensors as a Dragon with CUDA has it: a copy on the host and one on a device, either of which
// may be out of date. Loaded before Dragon, this takes the place of its own, which knows the host only.

#include "dragon/core/memory.h"

#include <cstdlib>

#include "device.h"

namespace dragon {

UnifiedMemory::~UnifiedMemory() {
  if (cpu_ptr_ != nullptr && own_cpu_ptr_) {
    if (meta_.dtor() != nullptr) meta_.dtor()(cpu_ptr_, size_ / meta_.itemsize());
    std::free(cpu_ptr_);
  }
  if (cuda_ptr_ != nullptr && own_cuda_ptr_) emulated::Free(cuda_ptr_);
}

void UnifiedMemory::ToCPU(size_t size) {
  if (state_ == UNINITIALIZED) {
    cpu_ptr_ = std::calloc(size_, 1);
    state_ = STATE_AT_CPU;
  } else if (state_ == STATE_AT_CUDA) {
    if (cpu_ptr_ == nullptr) cpu_ptr_ = std::malloc(size_);
    emulated::Download(cpu_ptr_, cuda_ptr_, size > 0 ? size : size_);
    state_ = SYNCED;
  }
}

// Dragon ends the process where there is no memory, and so does this.
void UnifiedMemory::ToCUDA(size_t size) {
  if (state_ != UNINITIALIZED && state_ != STATE_AT_CPU) return;
  if (cuda_ptr_ == nullptr) {
    device_id_ = emulated::CurrentDevice();
    cuda_ptr_ = emulated::Allocate(device_id_, size_);
    if (cuda_ptr_ == nullptr) std::abort();
  }
  if (state_ == UNINITIALIZED) {
    emulated::Zero(cuda_ptr_, size_);
    state_ = STATE_AT_CUDA;
  } else {
    emulated::Upload(cuda_ptr_, cpu_ptr_, size > 0 ? size : size_);
    state_ = SYNCED;
  }
}

void UnifiedMemory::SwitchToCUDADevice(int device) {
  if (cuda_ptr_ == nullptr) {
    ToCUDA(size_);
  } else if (device != device_id_) {
    void* moved = emulated::Allocate(device, size_);
    if (moved == nullptr) std::abort();
    emulated::Move(moved, cuda_ptr_, size_);
    if (own_cuda_ptr_) emulated::Free(cuda_ptr_);
    cuda_ptr_ = moved;
    device_id_ = device;
  }
}

const void* UnifiedMemory::cpu_data(size_t size, size_t offset) {
  ToCPU(size);
  return static_cast<const char*>(cpu_ptr_) + offset;
}

void* UnifiedMemory::mutable_cpu_data(size_t size) {
  ToCPU(size);
  state_ = STATE_AT_CPU;
  return cpu_ptr_;
}

const void* UnifiedMemory::cuda_data(size_t size, size_t offset) {
  SwitchToCUDADevice(emulated::CurrentDevice());
  ToCUDA(size);
  return static_cast<const char*>(cuda_ptr_) + offset;
}

void* UnifiedMemory::mutable_cuda_data(size_t size) {
  SwitchToCUDADevice(emulated::CurrentDevice());
  ToCUDA(size);
  state_ = STATE_AT_CUDA;
  return cuda_ptr_;
}

bool UnifiedMemory::set_cpu_data(void* cpu_ptr, size_t size) {
  if (cpu_ptr_ != nullptr && own_cpu_ptr_) {
    if (meta_.dtor() != nullptr) meta_.dtor()(cpu_ptr_, size_ / meta_.itemsize());
    std::free(cpu_ptr_);
  }
  cpu_ptr_ = cpu_ptr;
  size_ = size;
  own_cpu_ptr_ = false;
  state_ = STATE_AT_CPU;
  return true;
}

// The host's for Dragon's Python, which is that of a Dragon without CUDA: it takes its data there.
Map<string, string> UnifiedMemory::info() const { return {{"device_type", "cpu"}, {"device_id", "0"}}; }

}  // namespace dragon
