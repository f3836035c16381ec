// SPDX-License-Identifier: BSD-2-Clause
//
// What eight threads make of a block of a gradient, in the order that gradient.h promises: each keeps one running sum.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_LANE_TERMS_CUH_
#define DRAGON_OPTIM_KERNELS_CUDA_LANE_TERMS_CUH_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/formats.h"
#include "kernels/gradient.h"

namespace dragon_optim {
namespace cuda {

constexpr int kNormThreads = 64;
constexpr int kBlocksAtATime = kNormThreads / kNormLanes;

// Elements of a running sum that are loaded before the first of them is added: the additions wait for each other, the
// loads need not. Reckoned, not measured: 16 M elements give each of an H100's 132 multiprocessors 248 threads, whose
// loads of so many float32 are 32 KB under way; 3 TB/s with a latency of 1 us take 23 KB.
constexpr int kAhead = 32;

// The least number of blocks that a multiprocessor must have room for. Where it is not said, ptxas saves registers for
// the most blocks there can be, by loading a few elements only and adding them up first.
constexpr int kLeastNormBlocks = 8;

// add(add(first, element `lane`), element `lane` + 8) ...; the elements are given decoded.
template <typename Format, typename Add>
__device__ __forceinline__ double LaneTerm(const typename Format::Stored* grad, int size, int lane, double first,
                                           const Add& add) {
  double sum = first;
  int i = lane;
  for (; i + (kAhead - 1) * kNormLanes < size; i += kAhead * kNormLanes) {
    typename Format::Stored values[kAhead];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) values[k] = grad[i + k * kNormLanes];
#pragma unroll
    for (int k = 0; k < kAhead; ++k) sum = add(sum, Decode(Format(), values[k]));
  }
  for (; i < size; i += kNormLanes) sum = add(sum, Decode(Format(), grad[i]));
  return sum;
}

// The block's result from its eight running sums.
template <typename Combine>
__device__ __forceinline__ double OfLanes(const double* s, const Combine& combine) {
  return combine(combine(combine(s[0], s[1]), combine(s[2], s[3])), combine(combine(s[4], s[5]), combine(s[6], s[7])));
}

constexpr int kSumThreads = 128;
constexpr int kSumTile = 1024;

// combine(combine(first, terms[0]), terms[1]) ..., for thread 0: it alone combines, the others fetch into `tile`.
template <typename Combine>
__device__ __forceinline__ double InIndexOrder(const double* terms, int64_t count, double* tile, double first,
                                               const Combine& combine) {
  double result = first;
  for (int64_t begin = 0; begin < count; begin += kSumTile) {
    const int size = count - begin < kSumTile ? static_cast<int>(count - begin) : kSumTile;
    for (int i = threadIdx.x; i < size; i += kSumThreads) tile[i] = terms[begin + i];
    __syncthreads();
    if (threadIdx.x == 0) {
#pragma unroll 8
      for (int i = 0; i < size; ++i) result = combine(result, tile[i]);
    }
    __syncthreads();
  }
  return result;
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_LANE_TERMS_CUH_
