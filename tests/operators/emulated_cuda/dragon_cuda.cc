// SPDX-License-Identifier: BSD-2-Clause
//
// What a Dragon with CUDA defines and one without does not; and the part of CUDA's runtime that the operators call.
// The memory of the device is the host's, so that whoever reads a tensor finds there what an operator has written.

#include <cstdlib>
#include <cstring>

#include "dragon/core/operator.h"

namespace {

struct Counts {
  int64_t allocations = 0;
  int64_t copies = 0;
  int64_t fills = 0;
} counts;
bool out_of_memory = false;

}  // namespace

namespace dragon {

CUDAObjects::~CUDAObjects() {}

CUDAObjects& CUDAContext::objects() {
  static thread_local auto* objects = new CUDAObjects;
  return *objects;
}

template <>
void Tensor::raw_mutable_data<CUDAContext>(void** data) {
  auto* found = memory();
  *data = found != nullptr ? found->mutable_cpu_data(nbytes()) : nullptr;
}

}  // namespace dragon

cudaError_t cudaSetDevice(int) { return cudaSuccess; }

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  *stream = reinterpret_cast<cudaStream_t>(0x5EED);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  ++counts.allocations;
  if (out_of_memory) return cudaErrorMemoryAllocation;
  *memory = std::malloc(bytes);
  return cudaSuccess;
}

cudaError_t cudaFree(void* memory) {
  std::free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t) {
  ++counts.fills;
  std::memset(data, value, bytes);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind, cudaStream_t) {
  ++counts.copies;
  std::memcpy(to, from, bytes);
  return cudaSuccess;
}

// What the tests set and ask.
extern "C" {

void emulated_cuda_out_of_memory(int value) { out_of_memory = value != 0; }

// Allocations, copies and fills since the last question.
void emulated_cuda_counts(int64_t* result) {
  const int64_t values[] = {counts.allocations, counts.copies, counts.fills};
  std::memcpy(result, values, sizeof(values));
  counts = Counts();
}
}
