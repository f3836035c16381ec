// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cuda/launch.h"

#include <string>

namespace dragon_optim {
namespace cuda {
namespace {

// Waves of blocks: enough to even out those that take longer, few enough that starting a block costs next to nothing.
constexpr int64_t kWaves = 8;

int Attribute(cudaDeviceAttr attribute, int device) {
  int value = 0;
  Check(cudaDeviceGetAttribute(&value, attribute, device), "asking the device");
  return value;
}

}  // namespace

void Check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  std::string text =
      std::string("CUDA error at ") + what + ": " + cudaGetErrorString(status) + " (" + cudaGetErrorName(status) + ")";
  if (status == cudaErrorNoKernelImageForDevice) {
    text += "; the kernels are compiled for " DRAGON_OPTIM_CUDA_ARCHITECTURES
            ": build them with DRAGON_OPTIM_CUDA_ARCHS set to this card's";
  }
  cudaGetLastError();
  throw CudaError(text);
}

bool TakesLongArguments() {
  int version = 0;
  Check(cudaDriverGetVersion(&version), "asking the driver");
  return version >= 12010;
}

int GridSize(int64_t blocks, int threads) {
  int device = 0;
  Check(cudaGetDevice(&device), "asking for the device");
  const int64_t resident = Attribute(cudaDevAttrMultiProcessorCount, device) *
                           int64_t{Attribute(cudaDevAttrMaxThreadsPerMultiProcessor, device) / threads};
  const int64_t most = resident * kWaves;
  return static_cast<int>(blocks < most ? blocks : most);
}

}  // namespace cuda
}  // namespace dragon_optim
