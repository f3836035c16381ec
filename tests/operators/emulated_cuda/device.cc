// SPDX-License-Identifier: BSD-2-Clause

#include "device.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <vector>

#include "cuda.h"

struct CUstream_st {
  int device;
  std::vector<std::function<cudaError_t()>> work;
};

namespace {

constexpr size_t kArenaBytes = size_t{1} << 30;  // of address space
constexpr size_t kAlignment = 512;
constexpr int kHost = -1;

struct Counts {
  int64_t allocations = 0;
  int64_t copies = 0;
  int64_t fills = 0;
  int64_t copied_bytes = 0;
} counts;

void CountCopy(size_t bytes) {
  ++counts.copies;
  counts.copied_bytes += static_cast<int64_t>(bytes);
}

int64_t free_bytes = INT64_MAX;
thread_local int current_device = 0;
std::vector<std::unique_ptr<CUstream_st>> streams;

struct Arena {
  Arena() {
    void* memory = mmap(nullptr, kArenaBytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) std::abort();
    begin = static_cast<char*>(memory);
    holes[begin] = kArenaBytes;
  }
  bool Has(const void* data) const { return data >= begin && data < begin + kArenaBytes; }

  // Behind the last block.
  void UpdateReached() {
    constexpr size_t kPages = size_t{1} << 16;
    const auto last = blocks.rbegin();
    const size_t bytes = last == blocks.rend() ? 0 : static_cast<size_t>(last->first + last->second - begin);
    reached = (bytes + kPages - 1) / kPages * kPages;
  }

  char* begin;
  size_t reached = 0;  // nothing behind it is in use
  std::map<char*, size_t> holes, blocks;
};

Arena* Arenas() {
  static auto* arenas = new Arena[emulated::kDevices];
  return arenas;
}

int DeviceOf(const void* data) {
  for (int device = 0; device < emulated::kDevices; ++device) {
    if (Arenas()[device].Has(data)) return device;
  }
  return kHost;
}

// While one lives, the memory of its device can be touched.
class Open {
 public:
  explicit Open(int device) : arena_(Arenas()[device]) { Protect(PROT_READ | PROT_WRITE); }
  ~Open() { Protect(PROT_NONE); }

 private:
  void Protect(int how) {
    if (mprotect(arena_.begin, arena_.reached, how) != 0) std::abort();
  }
  Arena& arena_;
};

void Finish(CUstream_st* stream) {
  const Open open(stream->device);
  for (const auto& work : stream->work) {
    if (work() != cudaSuccess) std::abort();
  }
  stream->work.clear();
}

void FinishDevice(int device) {
  for (const auto& stream : streams) {
    if (stream->device == device) Finish(stream.get());
  }
}

cudaError_t Enqueue(cudaStream_t stream, const std::function<cudaError_t()>& work) {
  // Neither CUDA's own stream, which waits for all others, nor one of a device that is not the current one.
  if (stream == nullptr || stream->device != current_device) return cudaErrorInvalidValue;
  stream->work.push_back(work);
  return cudaSuccess;
}

}  // namespace

namespace emulated {

int CurrentDevice() { return current_device; }

void* Allocate(int device, size_t bytes) {
  ++counts.allocations;
  Arena& arena = Arenas()[device];
  const size_t size = (bytes + kAlignment - 1) / kAlignment * kAlignment;
  if (static_cast<int64_t>(bytes) > free_bytes) return nullptr;
  for (const auto& hole : arena.holes) {
    if (hole.second < size) continue;
    char* memory = hole.first;
    const size_t left = hole.second - size;
    arena.holes.erase(memory);
    if (left > 0) arena.holes[memory + size] = left;
    arena.blocks[memory] = size;
    arena.UpdateReached();
    const Open open(device);
    std::memset(memory, 0xA5, size);
    free_bytes -= static_cast<int64_t>(bytes);
    return memory;
  }
  return nullptr;
}

void Free(void* memory) {
  const int device = DeviceOf(memory);
  if (device == kHost) std::abort();
  FinishDevice(device);
  Arena& arena = Arenas()[device];
  const auto block = arena.blocks.find(static_cast<char*>(memory));
  if (block == arena.blocks.end()) std::abort();  // freed twice
  auto hole = arena.holes.insert(*block).first;
  if (free_bytes < INT64_MAX / 2) free_bytes += static_cast<int64_t>(block->second);
  arena.blocks.erase(block);
  arena.UpdateReached();
  const auto next = std::next(hole);
  if (next != arena.holes.end() && hole->first + hole->second == next->first) {
    hole->second += next->second;
    arena.holes.erase(next);
  }
}

void Download(void* host, const void* memory, size_t bytes) {
  CountCopy(bytes);
  FinishDevice(DeviceOf(memory));
  const Open open(DeviceOf(memory));
  std::memcpy(host, memory, bytes);
}

void Upload(void* memory, const void* host, size_t bytes) {
  CountCopy(bytes);
  FinishDevice(DeviceOf(memory));
  const Open open(DeviceOf(memory));
  std::memcpy(memory, host, bytes);
}

void Move(void* to, const void* from, size_t bytes) {
  CountCopy(bytes);
  FinishDevice(DeviceOf(from));
  const Open open_to(DeviceOf(to)), open_from(DeviceOf(from));
  std::memcpy(to, from, bytes);
}

void Zero(void* memory, size_t bytes) {
  ++counts.fills;
  const Open open(DeviceOf(memory));
  std::memset(memory, 0, bytes);
}

}  // namespace emulated

// What the emulation of the kernels asks.
int EmulatedDevice() { return current_device; }
cudaError_t EmulatedStream(cudaStream_t stream, const std::function<cudaError_t()>& work) {
  return Enqueue(stream, work);
}

cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulated::kDevices) return cudaErrorNoDevice;
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned) {
  streams.emplace_back(new CUstream_st{current_device, {}});
  *stream = streams.back().get();
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  Finish(stream);
  return cudaSuccess;
}

cudaError_t cudaMalloc(void** memory, size_t bytes) {
  *memory = emulated::Allocate(current_device, bytes);
  return *memory != nullptr ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t cudaFree(void* memory) {
  emulated::Free(memory);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* data, int value, size_t bytes, cudaStream_t stream) {
  ++counts.fills;
  if (DeviceOf(data) != current_device) return cudaErrorInvalidValue;
  return Enqueue(stream, [=] {
    std::memset(data, value, bytes);
    return cudaSuccess;
  });
}

// Neither side may be touched by the host before it has waited, as with memory that is not paged.
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  CountCopy(bytes);
  const int to_device = kind == cudaMemcpyDeviceToHost ? kHost : current_device;
  const int from_device = kind == cudaMemcpyHostToDevice ? kHost : current_device;
  if (kind != cudaMemcpyDefault && (DeviceOf(to) != to_device || DeviceOf(from) != from_device)) {
    return cudaErrorInvalidValue;
  }
  return Enqueue(stream, [=] {
    std::memcpy(to, from, bytes);
    return cudaSuccess;
  });
}

// What the tests set and ask.
extern "C" {

// How much all allocations from now on may take together; -1: what there is.
void emulated_cuda_free_bytes(int64_t bytes) { free_bytes = bytes < 0 ? INT64_MAX : bytes; }

// Bytes of all blocks.
int64_t emulated_cuda_in_use() {
  int64_t bytes = 0;
  for (int device = 0; device < emulated::kDevices; ++device) {
    for (const auto& block : Arenas()[device].blocks) bytes += static_cast<int64_t>(block.second);
  }
  return bytes;
}

// Allocations, copies, fills and the bytes that were copied since the last question.
void emulated_cuda_counts(int64_t* result) {
  const int64_t values[] = {counts.allocations, counts.copies, counts.fills, counts.copied_bytes};
  std::memcpy(result, values, sizeof(values));
  counts = Counts();
}
}
