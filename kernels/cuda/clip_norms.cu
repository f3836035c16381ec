// SPDX-License-Identifier: BSD-2-Clause
//
// Norms of a whole list: terms of blocks, of gradients, the norm.

#include <cmath>
#include <stdexcept>
#include <string>
#include <type_traits>

#include "kernels/cuda/batch.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/clip.h"
#include "kernels/cuda/format_of.h"
#include "kernels/cuda/lane_terms.cuh"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norms.h"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {
namespace {

// Written with comparisons, since fmin and fmax drop a NaN.
DRAGON_OPTIM_FORMULA double Larger(double a, double b) { return a != a || b != b ? a + b : a < b ? b : a; }
DRAGON_OPTIM_FORMULA double Smaller(double a, double b) { return a != a || b != b ? a + b : b < a ? b : a; }
DRAGON_OPTIM_FORMULA double Magnitude(double a) { return __builtin_fabs(a); }

// An order: what a list begins with, how an element joins a running sum, and two of these each other.
struct Sums {
  static constexpr double kFirst = 0;
  static __device__ __forceinline__ double Combine(double a, double b) { return a + b; }
};

struct SquareOrder : Sums {
  static __device__ __forceinline__ double Add(double sum, double value) { return Fma(value, value, sum); }
};

struct MagnitudeOrder : Sums {
  static __device__ __forceinline__ double Add(double sum, double value) { return sum + Magnitude(value); }
};

struct LargestOrder {
  static constexpr double kFirst = 0;
  static __device__ __forceinline__ double Combine(double a, double b) { return Larger(a, b); }
  static __device__ __forceinline__ double Add(double largest, double value) {
    return Larger(largest, Magnitude(value));
  }
};

struct SmallestOrder {
  static constexpr double kFirst = HUGE_VAL;
  static __device__ __forceinline__ double Combine(double a, double b) { return Smaller(a, b); }
  static __device__ __forceinline__ double Add(double smallest, double value) {
    return Smaller(smallest, Magnitude(value));
  }
};

// 1 where an element is not zero. The terms of gradients are added up: NormOfTermsKernel.
struct AnyOrder {
  static constexpr double kFirst = 0;
  static __device__ __forceinline__ double Combine(double a, double b) { return a != 0 || b != 0 ? 1 : 0; }
  static __device__ __forceinline__ double Add(double any, double value) { return value != 0 ? 1 : any; }
};

template <typename Use>
void WithOrder(double order, const Use& use) {
  if (order == 2) return use(SquareOrder());
  if (order == 1) return use(MagnitudeOrder());
  if (order == 0) return use(AnyOrder());
  order > 0 ? use(LargestOrder()) : use(SmallestOrder());
}

template <typename Format, typename Order, typename AnyBatch>
__global__ void __launch_bounds__(kNormThreads, kLeastNormBlocks)
    BlockTermsKernel(const AnyBatch __grid_constant__ batch, double* block_terms) {
  using T = typename Format::Arithmetic;
  __shared__ double terms[kNormThreads];
  const int lane = threadIdx.x % kNormLanes;
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kBlocksAtATime;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kBlocksAtATime; first < batch.chunks(); first += stride) {
    const int64_t block = first + threadIdx.x / kNormLanes;
    double term = Order::kFirst;
    if (block < batch.chunks()) {
      const Chunk place = ChunkAt(batch, block, kNormBlock);
      const auto* grad = static_cast<const typename Format::Stored*>(batch.tensors[place.tensor].grad) + place.begin;
      term = LaneTerm<Format>(grad, place.size, lane, Order::kFirst,
                              [](double so_far, T value) { return Order::Add(so_far, value); });
    }
    terms[threadIdx.x] = term;
    __syncthreads();
    if (lane == 0 && block < batch.chunks()) {
      block_terms[block] = OfLanes(terms + threadIdx.x, [](double a, double b) { return Order::Combine(a, b); });
    }
    __syncthreads();  // before the terms are overwritten
  }
}

template <typename Order, typename AnyBatch>
__global__ void __launch_bounds__(kSumThreads)
    TermsKernel(const AnyBatch __grid_constant__ batch, const double* block_terms, double* terms) {
  __shared__ double tile[kSumTile];
  for (int tensor = blockIdx.x; tensor < batch.count; tensor += gridDim.x) {
    const int64_t begin = batch.first_chunk[tensor];
    const double term = InIndexOrder(block_terms + begin, batch.first_chunk[tensor + 1] - begin, tile, Order::kFirst,
                                     [](double a, double b) { return Order::Combine(a, b); });
    if (threadIdx.x == 0) terms[batch.tensors[tensor].place] = term;
  }
}

// Of order 0 the sum of the terms. Without any terms: 0.
template <typename Order, bool kRoot, typename T>
__global__ void __launch_bounds__(kSumThreads) NormOfTermsKernel(const double* terms, int64_t count, T* norm) {
  __shared__ double tile[kSumTile];
  const double result =
      InIndexOrder(terms, count, tile, Order::kFirst, [](double a, double b) { return Order::Combine(a, b); });
  if (threadIdx.x == 0) *norm = count == 0 ? 0 : static_cast<T>(kRoot ? Sqrt(result) : result);
}

template <typename T>
void LaunchNormOfTerms(double order, const double* terms, int64_t count, T* norm, cudaStream_t stream) {
  const auto launch = [&](void (*kernel)(const double*, int64_t, T*)) {
    Launch("the norm of all gradients", kernel, 1, kSumThreads, stream, terms, count, norm);
  };
  if (order == 2) return launch(&NormOfTermsKernel<Sums, true, T>);
  if (order == 1 || order == 0) return launch(&NormOfTermsKernel<Sums, false, T>);
  order > 0 ? launch(&NormOfTermsKernel<LargestOrder, false, T>) : launch(&NormOfTermsKernel<SmallestOrder, false, T>);
}

void CheckOrder(double order) {
  if (HasNormOrder(order)) return;
  throw std::invalid_argument("Invalid order of a norm: " + std::to_string(order) +
                              " (on a GPU there are 2, 1, 0, inf and -inf)");
}

}  // namespace

bool HasNormOrder(double order) { return order == 2 || order == 1 || order == 0 || std::isinf(order); }

int64_t NormTermsWorkspace(const NormTensor* tensors, int64_t count) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; ++i) blocks += NormBlocks(tensors[i].size);
  return blocks * static_cast<int64_t>(sizeof(double));
}

void NormTerms(DType grad_dtype, double order, const NormTensor* tensors, int64_t count, double* terms,
               const Workspace& workspace, cudaStream_t stream) {
  CheckOrder(order);
  for (int64_t i = 0; i < count; ++i) {
    CheckSize(tensors[i].size, i);
    if (tensors[i].size > 0) CheckArray(tensors[i].grad, ItemSize(grad_dtype), "grad", i);
    if (tensors[i].place < 0) {
      throw std::invalid_argument("Invalid place of tensor " + std::to_string(i) + ": " +
                                  std::to_string(tensors[i].place) + " (need place >= 0)");
    }
  }
  if (count > 0) CheckArray(terms, sizeof(double), "terms");
  CheckWorkspace(workspace, NormTermsWorkspace(tensors, count));
  auto* block_terms = static_cast<double*>(workspace.data);
  ForEachBatch(tensors, count, kNormBlock, [&](const auto& batch, int64_t) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    const int64_t grid = batch.chunks() / kBlocksAtATime + (batch.chunks() % kBlocksAtATime != 0);
    WithOrder(order, [&](auto order_type) {
      using Order = decltype(order_type);
      WithFormat(grad_dtype, [&](auto format) {
        Launch("the blocks of a norm", &BlockTermsKernel<decltype(format), Order, AnyBatch>, grid, kNormThreads, stream,
               batch, block_terms);
      });
      Launch("the terms of a norm", &TermsKernel<Order, AnyBatch>, batch.count, kSumThreads, stream, batch, block_terms,
             terms);
    });
    block_terms += batch.chunks();
  });
}

void NormOfTerms(double order, const double* terms, int64_t count, DType dtype, void* norm, cudaStream_t stream) {
  CheckOrder(order);
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    throw std::invalid_argument("Invalid dtype of a norm (need float32 or float64)");
  }
  CheckSize(count, kNoTensor);
  if (count > 0) CheckArray(terms, sizeof(double), "terms");
  CheckArray(norm, ItemSize(dtype), "norm");
  dtype == DType::kFloat32 ? LaunchNormOfTerms(order, terms, count, static_cast<float*>(norm), stream)
                           : LaunchNormOfTerms(order, terms, count, static_cast<double*>(norm), stream);
}

}  // namespace cuda
}  // namespace dragon_optim
