// SPDX-License-Identifier: BSD-2-Clause
//
// Squared norms in the order that gradient.h promises: eight threads keep the eight running sums of a block.

#include <type_traits>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/format_of.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norms.h"
#include "kernels/cuda/options.cuh"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {
namespace {

constexpr int kNormThreads = 64;
constexpr int kBlocksAtATime = kNormThreads / kNormLanes;

// Elements of a running sum that are loaded before the first of them is added: the additions wait for each other, the
// loads need not. Reckoned, not measured: 16 M elements give each of an H100's 132 multiprocessors 248 threads, whose
// loads of so many float32 are 32 KB under way; 3 TB/s with a latency of 1 us take 23 KB.
constexpr int kAhead = 32;

// The least number of blocks that a multiprocessor must have room for. Where it is not said, ptxas saves registers for
// the most blocks there can be, by loading a few elements only and adding them up first.
constexpr int kLeastNormBlocks = 8;

constexpr int kSumThreads = 128;
constexpr int kSumTile = 1024;

template <typename Format, typename T>
__device__ __forceinline__ double LaneSquares(const typename Format::Stored* grad, int size, int lane, T scale) {
  double sum = 0;
  int i = lane;
  for (; i + (kAhead - 1) * kNormLanes < size; i += kAhead * kNormLanes) {
    typename Format::Stored values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) values[k] = grad[i + k * kNormLanes];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) {
      const double value = Decode(Format(), values[k]) * scale;
      sum = Fma(value, value, sum);
    }
  }
  for (; i < size; i += kNormLanes) {
    const double value = Decode(Format(), grad[i]) * scale;
    sum = Fma(value, value, sum);
  }
  return sum;
}

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
      sum = LaneSquares<Format>(grad, place.size, lane, scale);
    }
    sums[threadIdx.x] = sum;
    __syncthreads();
    if (lane == 0 && block < batch.chunks()) {
      const double* s = sums + threadIdx.x;
      block_sums[block] = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
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
    const int64_t end = batch.first_chunk[tensor + 1];
    double sum = 0;
    for (int64_t begin = batch.first_chunk[tensor]; begin < end; begin += kSumTile) {
      const int size = end - begin < kSumTile ? static_cast<int>(end - begin) : kSumTile;
      for (int i = threadIdx.x; i < size; i += kSumThreads) tile[i] = block_sums[begin + i];
      __syncthreads();
      if (threadIdx.x == 0) {
#pragma unroll 8
        for (int i = 0; i < size; ++i) sum += tile[i];
      }
      __syncthreads();
    }
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
