// SPDX-License-Identifier: BSD-2-Clause
//
// Squared norms in the order that gradient.h promises: eight threads keep the eight running sums of a block.

#include <type_traits>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/format_of.h"
#include "kernels/cuda/lane_terms.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/options.cuh"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {
namespace {

template <typename Format, typename AnyBatch>
__global__ void __launch_bounds__(kNormThreads, kLeastNormBlocks)
    BlockSquaresKernel(const AnyBatch __grid_constant__ batch, const NormSettings __grid_constant__ settings,
                       double* block_sums) {
  using T = typename Format::Arithmetic;
  __shared__ double sums[kNormThreads];
  const double given_scale = settings.numbers == nullptr ? settings.scale : settings.numbers[kGradScale];
  const T scale = static_cast<T>(given_scale);
  const int lane = threadIdx.x % kNormLanes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlocksAtATime;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kBlocksAtATime; first < batch.chunks(); first += stride) {
    const int64_t block = first + threadIdx.x / kNormLanes;
    double sum = 0;
    if (block < batch.chunks()) {
      const Chunk place = ChunkAt(batch, block, kNormBlock);
      const auto* grad = static_cast<const typename Format::Stored*>(batch.tensors[place.tensor].grad) + place.begin;
      sum = LaneTerm<Format>(grad, place.size, lane, 0, [scale](double so_far, T element) {
        const double value = element * scale;
        return Fma(value, value, so_far);
      });
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && block < batch.chunks()) {
      block_sums[block] = OfLanes(sums + threadIdx.x, [](double a, double b) { return a + b; });
    }
    __syncthreads();  // before the sums are overwritten
  }
}

// The factor that brings a norm down to clip_norm; 1 where it is not above it, or NaN.
__device__ __forceinline__ double ClipFactor(double squared_norm, double clip_norm) {
  const double norm = Sqrt(squared_norm);
  return clip_norm > 0 && norm > clip_norm ? clip_norm / norm : 1;
}

// Adds up the blocks of each gradient, in index order: one thread adds, the others fetch.
template <typename AnyBatch>
__global__ void __launch_bounds__(kSumThreads)
    SumBlocksKernel(const AnyBatch __grid_constant__ batch, const NormSettings __grid_constant__ settings,
                    const double* block_sums, double* results) {
  __shared__ double tile[kSumTile];
  for (int tensor = blockIdx.x; tensor < batch.count; tensor += gridDim.x) {
    const int64_t begin = batch.first_chunk[tensor];
    const double sum = InIndexOrder(block_sums + begin, batch.first_chunk[tensor + 1] - begin, tile, 0,
                                    [](double a, double b) { return a + b; });
    if (threadIdx.x != 0) continue;
    const double clip_norm = settings.numbers == nullptr ? settings.clip_norm : settings.numbers[kClipNorm];
    results[tensor] = settings.clip_norm > 0 ? ClipFactor(sum, clip_norm) : sum;
  }
}

}  // namespace

void LaunchNorms(DType grad_dtype, const Gradient* gradients, int64_t count, const NormSettings& settings,
                 double* block_sums, double* results, cudaStream_t stream) {
  ForEachBatch(gradients, count, kNormBlock, [&](const auto& batch, int64_t first) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    const int64_t grid = batch.chunks() / kBlocksAtATime + (batch.chunks() % kBlocksAtATime != 0);
    WithFormat(grad_dtype, [&](auto format) {
      Launch("the squares of gradients", &BlockSquaresKernel<decltype(format), AnyBatch>, grid, kNormThreads, stream,
             batch, settings, block_sums);
    });
    Launch("the norms of gradients", &SumBlocksKernel<AnyBatch>, batch.count, kSumThreads, stream, batch, settings,
           block_sums, results + first);
    block_sums += batch.chunks();
  });
}

}  // namespace cuda
}  // namespace dragon_optim
