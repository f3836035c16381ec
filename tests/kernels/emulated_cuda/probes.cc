// SPDX-License-Identifier: BSD-2-Clause
//
// Parts of the kernels, for tests that no call of the library leads to: more elements than memory holds, a wide access
// to a narrow address.

#include <vector>

#include "kernels/cuda/access.cuh"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/gradient.h"

using dragon_optim::Gradient;
using List = dragon_optim::cuda::ManyBatch<Gradient>;

__global__ void LoadFour(const float* data, float* last) { *last = dragon_optim::cuda::Load<4>(data).values[3]; }

extern "C" {

// Tensor, first element and size of a chunk; gives the number of all chunks.
int64_t emulated_cuda_chunk(const int64_t* sizes, int64_t count, int chunk_size, int64_t index, int64_t* place) {
  std::vector<Gradient> tensors;
  for (int64_t i = 0; i < count; ++i) tensors.push_back({sizes[i], nullptr});
  List batch;
  dragon_optim::cuda::FillBatch(tensors.data(), count, chunk_size, batch);
  const auto chunk = dragon_optim::cuda::ChunkAt(batch, index, chunk_size);
  place[0] = chunk.tensor;
  place[1] = chunk.begin;
  place[2] = chunk.size;
  return batch.chunks();
}

int emulated_cuda_grid(int64_t blocks, int threads) { return dragon_optim::cuda::GridSize(blocks, threads); }

// The status of a launch that loads four elements at once.
int emulated_cuda_load_four(const float* data, float* last) {
  void* arguments[] = {&data, &last};
  return cudaLaunchKernel(&LoadFour, dim3(1), dim3(1), arguments, 0, nullptr);
}
}
