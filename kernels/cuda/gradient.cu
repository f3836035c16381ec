// SPDX-License-Identifier: BSD-2-Clause

#include <stdexcept>
#include <type_traits>

#include "kernels/cpu/float_mode.h"
#include "kernels/cuda/access.cuh"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/checks.h"
#include "kernels/cuda/format_of.h"
#include "kernels/cuda/gradient.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/norms.h"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kChunk = 4096;

template <typename Format, int kGroup>
__device__ __forceinline__ void AccumulateGroup(const typename Format::Stored* grad_data,
                                                typename Format::Arithmetic* sum_data, bool first) {
  using T = typename Format::Arithmetic;
  const auto grad = Load<kGroup>(grad_data);
  Pack<T, kGroup> sum;
  if (first) {
#pragma unroll
    for (int i = 0; i < kGroup; ++i) sum.values[i] = Decode(Format(), grad.values[i]);
  } else {
    sum = Load<kGroup>(sum_data);
#pragma unroll
    for (int i = 0; i < kGroup; ++i) sum.values[i] = sum.values[i] + Decode(Format(), grad.values[i]);
  }
  Store(sum_data, sum);
}

template <typename Format, typename AnyBatch>
__global__ void __launch_bounds__(kThreads) AccumulateKernel(const AnyBatch __grid_constant__ batch) {
  using T = typename Format::Arithmetic;
  constexpr int kGroup = kGroupSize<Format>;
  for (int64_t index = blockIdx.x; index < batch.chunks(); index += gridDim.x) {
    const Chunk chunk = ChunkAt(batch, index, kChunk);
    const AccumulateTensor& tensor = batch.tensors[chunk.tensor];
    const auto* grad = static_cast<const typename Format::Stored*>(tensor.grad) + chunk.begin;
    T* sum = static_cast<T*>(tensor.sum) + chunk.begin;
    const bool first = tensor.first != 0;
    const int shift = Shift<kGroup>(sum, 0);
    const Groups groups = WholeGroups<kGroup>(chunk.size, shift, Shift<kGroup>(grad, shift) == shift);
    ForEachGroup<kGroup, kThreads>(
        groups, chunk.size, [&](int at) { AccumulateGroup<Format, kGroup>(grad + at, sum + at, first); },
        [&](int at) { AccumulateGroup<Format, 1>(grad + at, sum + at, first); });
  }
}

template <typename Format, int kGroup>
__device__ __forceinline__ bool AnyNonFinite(const typename Format::Bits* data) {
  const auto bits = Load<kGroup>(data);
  bool found = false;
#pragma unroll
  for (int i = 0; i < kGroup; ++i) found = found || (bits.values[i] & Format::kExponent) == Format::kExponent;
  return found;
}

template <typename Format, typename AnyBatch>
__global__ void __launch_bounds__(kThreads)
    NonFiniteKernel(const AnyBatch __grid_constant__ batch, int32_t* found_anywhere) {
  using Bits = typename Format::Bits;
  constexpr int kGroup = kAccessBytes / static_cast<int>(sizeof(Bits));
  bool found = false;
  for (int64_t index = blockIdx.x; index < batch.chunks(); index += gridDim.x) {
    const Chunk chunk = ChunkAt(batch, index, kChunk);
    const Bits* grad = static_cast<const Bits*>(batch.tensors[chunk.tensor].grad) + chunk.begin;
    const Groups groups = WholeGroups<kGroup>(chunk.size, Shift<kGroup>(grad, 0), true);
    ForEachGroup<kGroup, kThreads>(
        groups, chunk.size, [&](int at) { found = AnyNonFinite<Format, kGroup>(grad + at) || found; },
        [&](int at) { found = AnyNonFinite<Format, 1>(grad + at) || found; });
  }
  if (found) *found_anywhere = 1;  // whoever else writes it writes the same
}

// Wide enough as it is: the accesses of a warp lie side by side.
template <typename T>
__global__ void __launch_bounds__(kThreads) FillKernel(T* data, int64_t size, T value) {
  const int64_t stride = static_cast<int64_t>(gridDim.x) * kThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x; i < size; i += stride) data[i] = value;
}

template <typename T>
void LaunchFill(void* data, int64_t size, double value, cudaStream_t stream) {
  const int64_t blocks = size / kThreads + (size % kThreads != 0);
  Launch("filling", &FillKernel<T>, blocks, kThreads, stream, static_cast<T*>(data), size, static_cast<T>(value));
}

}  // namespace

void Accumulate(DType grad_dtype, const AccumulateTensor* tensors, int64_t count, cudaStream_t stream) {
  const int64_t sum_item = ItemSize(ArithmeticDType(grad_dtype));
  for (int64_t i = 0; i < count; ++i) {
    CheckSize(tensors[i].size, i);
    if (tensors[i].size == 0) continue;
    CheckArray(tensors[i].grad, ItemSize(grad_dtype), "grad", i);
    CheckArray(tensors[i].sum, sum_item, "sum", i);
  }
  ForEachBatch(tensors, count, kChunk, [&](const auto& batch, int64_t) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    WithFormat(grad_dtype, [&](auto format) {
      Launch("the sum of gradients", &AccumulateKernel<decltype(format), AnyBatch>, batch.chunks(), kThreads, stream,
             batch);
    });
  });
}

void FindNonFinite(DType grad_dtype, const Gradient* gradients, int64_t count, int32_t* found, cudaStream_t stream) {
  CheckGradients(grad_dtype, gradients, count);
  CheckArray(found, sizeof(int32_t), "found");
  ForEachBatch(gradients, count, kChunk, [&](const auto& batch, int64_t) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    WithFormat(grad_dtype, [&](auto format) {
      Launch("the look for infinities and NaNs", &NonFiniteKernel<decltype(format), AnyBatch>, batch.chunks(), kThreads,
             stream, batch, found);
    });
  });
}

void Fill(DType dtype, void* data, int64_t size, double value, cudaStream_t stream) {
  if (dtype != DType::kFloat32 && dtype != DType::kFloat64) {
    throw std::invalid_argument("Invalid dtype of an array to fill (need float32 or float64)");
  }
  CheckSize(size, kNoTensor);
  if (size == 0) return;
  CheckArray(data, ItemSize(dtype), "data");
  const ScopedIeeeFloatMode float_mode;
  dtype == DType::kFloat32 ? LaunchFill<float>(data, size, value, stream)
                           : LaunchFill<double>(data, size, value, stream);
}

int64_t SquaredNormsWorkspace(const Gradient* gradients, int64_t count) {
  int64_t blocks = 0;
  for (int64_t i = 0; i < count; ++i) blocks += NormBlocks(gradients[i].size);
  return blocks * static_cast<int64_t>(sizeof(double));
}

void SquaredNorms(DType grad_dtype, const Gradient* gradients, int64_t count, double scale, double* norms,
                  const Workspace& workspace, cudaStream_t stream) {
  CheckGradients(grad_dtype, gradients, count);
  if (count > 0) CheckArray(norms, sizeof(double), "norms");
  CheckWorkspace(workspace, SquaredNormsWorkspace(gradients, count));
  LaunchNorms(grad_dtype, gradients, count, {scale, 0, nullptr}, static_cast<double*>(workspace.data), norms, stream);
}

}  // namespace cuda
}  // namespace dragon_optim
