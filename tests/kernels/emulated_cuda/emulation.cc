// SPDX-License-Identifier: BSD-2-Clause

#include <ucontext.h>

#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda_runtime.h"
#include "kernels/cpu/float_mode.h"

EmulatedIndex threadIdx, blockIdx, gridDim;

namespace {

constexpr size_t kStackBytes = 64 * 1024;

struct Device {
  int multiprocessors = 2;
  int threads_per_multiprocessor = 2048;
  int driver = CUDART_VERSION;
  bool reversed = false;     // the order of blocks and threads
  int64_t launches = 0;      // since the last question
  int64_t fails_after = -1;  // launches; -1: never
  cudaError_t failure = cudaErrorLaunchOutOfResources;
  bool misaligned = false;  // an access of this launch
  cudaStream_t last_stream = nullptr;
  cudaError_t last_error = cudaSuccess;
};

Device device;
std::mutex device_mutex;

// One thread of a block.
struct Fiber {
  ucontext_t context;
  std::unique_ptr<char[]> stack{new char[kStackBytes]};
  bool finished = false;
};

std::vector<std::unique_ptr<Fiber>> fibers;
ucontext_t scheduler;
Fiber* running = nullptr;
std::function<void()> current_thread;

void RunThread() {
  current_thread();
  running->finished = true;
}

void Start(Fiber& fiber) {
  fiber.finished = false;
  getcontext(&fiber.context);
  fiber.context.uc_stack.ss_sp = fiber.stack.get();
  fiber.context.uc_stack.ss_size = kStackBytes;
  fiber.context.uc_link = &scheduler;
  makecontext(&fiber.context, &RunThread, 0);
}

// False where some threads have ended and others wait for them at a barrier.
bool RunBlock(unsigned threads) {
  for (unsigned i = 0; i < threads; ++i) Start(*fibers[i]);
  for (;;) {
    unsigned finished = 0;
    for (unsigned i = 0; i < threads; ++i) {
      threadIdx.x = device.reversed ? threads - 1 - i : i;
      running = fibers[threadIdx.x].get();
      swapcontext(&scheduler, &running->context);
      if (running->finished) ++finished;
    }
    if (finished == threads) return true;
    if (finished > 0) return false;
  }
}

cudaError_t RunGrid(unsigned grid, unsigned block, const std::function<void()>& thread) {
  const dragon_optim::ScopedIeeeFloatMode float_mode;  // a device has one of its own
  while (fibers.size() < block) fibers.emplace_back(new Fiber);
  current_thread = thread;
  device.misaligned = false;
  gridDim = {grid, 1, 1};
  for (unsigned i = 0; i < grid; ++i) {
    blockIdx.x = device.reversed ? grid - 1 - i : i;
    const bool ended_together = RunBlock(block);
    running = nullptr;
    if (device.misaligned) return cudaErrorMisalignedAddress;
    if (!ended_together) return cudaErrorInvalidValue;
  }
  return cudaSuccess;
}

}  // namespace

void __syncthreads() { swapcontext(&running->context, &scheduler); }

// A device with streams of its own says here whether a launch may go to this one, and then when it runs. Without one it
// runs at once.
__attribute__((weak)) cudaError_t EmulatedStream(cudaStream_t stream, const std::function<cudaError_t()>& work);

cudaError_t EmulateLaunch(unsigned grid, unsigned block, size_t argument_bytes, cudaStream_t stream,
                          const std::function<void()>& thread) {
  const std::lock_guard<std::mutex> lock(device_mutex);
  const size_t most_argument_bytes = device.driver >= 12010 ? 32764 : 4096;
  if (grid == 0 || block == 0 || block > 1024 || argument_bytes > most_argument_bytes) {
    return device.last_error = cudaErrorInvalidValue;
  }
  if (device.fails_after == 0) return device.last_error = device.failure;
  if (device.fails_after > 0) --device.fails_after;
  ++device.launches;
  device.last_stream = stream;
  const std::function<cudaError_t()> run = [=] { return RunGrid(grid, block, thread); };
  const cudaError_t status = EmulatedStream == nullptr ? run() : EmulatedStream(stream, run);
  if (status != cudaSuccess) device.last_error = status;
  return status;
}

// What -fsanitize=alignment has called before an access that a device refuses, and most CPUs do not: the thread ends.
extern "C" void __ubsan_handle_type_mismatch_v1(void*, void*) {
  if (running == nullptr) return;
  device.misaligned = running->finished = true;
  setcontext(&scheduler);
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = device.driver;
  return cudaSuccess;
}

// One device, unless somebody else knows of more.
__attribute__((weak)) int EmulatedDevice() { return 0; }

cudaError_t cudaGetDevice(int* index) {
  *index = EmulatedDevice();
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? device.multiprocessors : device.threads_per_multiprocessor;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  const cudaError_t error = device.last_error;
  device.last_error = cudaSuccess;
  return error;
}

const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
      return "no kernel image is available for execution on the device";
    case cudaErrorLaunchOutOfResources:
      return "too many resources requested for launch";
    case cudaErrorMisalignedAddress:
      return "misaligned address";
    default:
      return "invalid argument";
  }
}

const char* cudaGetErrorName(cudaError_t error) {
  switch (error) {
    case cudaErrorNoKernelImageForDevice:
      return "cudaErrorNoKernelImageForDevice";
    case cudaErrorLaunchOutOfResources:
      return "cudaErrorLaunchOutOfResources";
    case cudaErrorMisalignedAddress:
      return "cudaErrorMisalignedAddress";
    default:
      return "cudaErrorInvalidValue";
  }
}

// What the tests set and ask.
extern "C" {

void emulated_cuda_device(int multiprocessors, int threads_per_multiprocessor, int reversed) {
  device.multiprocessors = multiprocessors;
  device.threads_per_multiprocessor = threads_per_multiprocessor;
  device.reversed = reversed != 0;
}

void emulated_cuda_driver(int version) { device.driver = version > 0 ? version : CUDART_VERSION; }

void emulated_cuda_fail_after(int64_t launches) { device.fails_after = launches; }
void emulated_cuda_failure(int status) { device.failure = static_cast<cudaError_t>(status); }

int64_t emulated_cuda_launches() {
  const int64_t launches = device.launches;
  device.launches = 0;
  return launches;
}

void* emulated_cuda_last_stream() { return device.last_stream; }
int emulated_cuda_last_error() { return device.last_error; }
}
