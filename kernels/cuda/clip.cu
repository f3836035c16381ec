// SPDX-License-Identifier: BSD-2-Clause
//
// What clips gradients in place.

#include <type_traits>

#include "kernels/cpu/float_mode.h"
#include "kernels/cuda/access.cuh"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/clip.h"
#include "kernels/cuda/format_of.h"
#include "kernels/cuda/launch.h"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 4096;

template <typename Format, int kGroup, typename Change>
__device__ __forceinline__ void ChangeGroup(typename Format::Stored* data, const Change& change) {
  auto grad = Load<kGroup>(data);
#pragma unroll
  for (int i = 0; i < kGroup; ++i) grad.values[i] = Encode(Format(), change(Decode(Format(), grad.values[i])));
  Store(data, grad);
}

// grad = change(grad), computed in the dtype of the arithmetic.
template <typename Format, typename AnyBatch, typename Change>
__device__ __forceinline__ void ChangeInPlace(const AnyBatch& batch, const Change& change) {
  using Stored = typename Format::Stored;
  constexpr int kGroup = kAccessBytes / static_cast<int>(sizeof(Stored));
  for (int64_t index = blockIdx.x; index < batch.chunks(); index += gridDim.x) {
    const Chunk chunk = ChunkAt(batch, index, kChunk);
    auto* grad = static_cast<Stored*>(batch.tensors[chunk.tensor].grad) + chunk.begin;
    const Groups groups = WholeGroups<kGroup>(chunk.size, Shift<kGroup>(grad, 0), true);
    ForEachGroup<kGroup, kThreads>(
        groups, chunk.size, [&](int at) { ChangeGroup<Format, kGroup>(grad + at, change); },
        [&](int at) { ChangeGroup<Format, 1>(grad + at, change); });
  }
}

// What a list is multiplied by: a number, or what brings it down to max_norm.
struct Factor {
  double number;
  double max_norm;
  const void* norm;  // in device memory; null: the number
  DType norm_dtype;
};

__device__ __forceinline__ double NormOnDevice(const Factor& factor) {
  switch (factor.norm_dtype) {
    case DType::kFloat16:
      return Decode(Float16(), *static_cast<const uint16_t*>(factor.norm));
    case DType::kBFloat16:
      return Decode(BFloat16(), *static_cast<const uint16_t*>(factor.norm));
    case DType::kFloat32:
      return *static_cast<const float*>(factor.norm);
    case DType::kFloat64:
      break;
  }
  return *static_cast<const double*>(factor.norm);
}

template <typename Format, typename AnyBatch>
__global__ void __launch_bounds__(kThreads)
    ScaleKernel(const AnyBatch __grid_constant__ batch, const Factor __grid_constant__ factor) {
  using T = typename Format::Arithmetic;
  __shared__ double of_block;
  // One thread divides: in double that takes long on many cards.
  if (threadIdx.x == 0) {
    of_block = factor.norm == nullptr ? factor.number : factor.max_norm / (NormOnDevice(factor) + 1e-6);
  }
  __syncthreads();
  if (factor.norm != nullptr && of_block >= 1) return;  // NaN is not
  const T rounded = static_cast<T>(of_block);
  ChangeInPlace<Format>(batch, [rounded](T value) { return value * rounded; });
}

template <typename Format, typename AnyBatch>
__global__ void __launch_bounds__(kThreads)
    ClampKernel(const AnyBatch __grid_constant__ batch, typename Format::Arithmetic most) {
  using T = typename Format::Arithmetic;
  const T least = -most;
  ChangeInPlace<Format>(batch, [most, least](T value) {
    const T not_below = value < least ? least : value;
    return not_below > most ? most : not_below;
  });
}

void CheckTensors(DType grad_dtype, const ClipTensor* tensors, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    CheckSize(tensors[i].size, i);
    if (tensors[i].size > 0) CheckArray(tensors[i].grad, ItemSize(grad_dtype), "grad", i);
  }
}

void LaunchScale(DType grad_dtype, const ClipTensor* tensors, int64_t count, const Factor& factor,
                 cudaStream_t stream) {
  CheckTensors(grad_dtype, tensors, count);
  ForEachBatch(tensors, count, kChunk, [&](const auto& batch, int64_t) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    WithFormat(grad_dtype, [&](auto format) {
      Launch("the scaling of gradients", &ScaleKernel<decltype(format), AnyBatch>, batch.chunks(), kThreads, stream,
             batch, factor);
    });
  });
}

}  // namespace

void ScaleToNorm(DType grad_dtype, const ClipTensor* tensors, int64_t count, double max_norm, DType norm_dtype,
                 const void* norm, cudaStream_t stream) {
  CheckArray(norm, ItemSize(norm_dtype), "norm");
  LaunchScale(grad_dtype, tensors, count, {1, max_norm, norm, norm_dtype}, stream);
}

void Scale(DType grad_dtype, const ClipTensor* tensors, int64_t count, double factor, cudaStream_t stream) {
  LaunchScale(grad_dtype, tensors, count, {factor, 0, nullptr, DType::kFloat64}, stream);
}

void Clamp(DType grad_dtype, const ClipTensor* tensors, int64_t count, double limit, cudaStream_t stream) {
  CheckTensors(grad_dtype, tensors, count);
  const ScopedIeeeFloatMode float_mode;  // the limit is rounded here
  ForEachBatch(tensors, count, kChunk, [&](const auto& batch, int64_t) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    WithFormat(grad_dtype, [&](auto format) {
      using Format = decltype(format);
      Launch("the clamping of gradients", &ClampKernel<Format, AnyBatch>, batch.chunks(), kThreads, stream, batch,
             static_cast<typename Format::Arithmetic>(limit));
    });
  });
}

}  // namespace cuda
}  // namespace dragon_optim
