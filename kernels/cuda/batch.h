// SPDX-License-Identifier: BSD-2-Clause
//
// Lists of tensors for one launch. They travel as a launch argument: no device memory is allocated or copied to, and a
// captured graph keeps its own copy. What does not fit one launch is given to several.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_BATCH_H_
#define DRAGON_OPTIM_KERNELS_CUDA_BATCH_H_

#include <cuda_runtime.h>

#include <cstdint>

#include "kernels/cuda/launch.h"
#include "kernels/variant.h"

namespace dragon_optim {
namespace cuda {

// All tensors are cut into chunks of the same length, which are numbered through the batch. `Tensor` has a member
// `size`.
template <typename Tensor, int kCapacityOfBatch>
struct Batch {
  static constexpr int kCapacity = kCapacityOfBatch;
  using Item = Tensor;

  int64_t first_chunk[kCapacity + 1];  // of each tensor; behind the last, the number of all chunks
  Tensor tensors[kCapacity];
  int32_t count;

  DRAGON_OPTIM_HOST_DEVICE int64_t chunks() const { return first_chunk[count]; }
};

// What a kernel's arguments may take, all together: 32,764 bytes since CUDA 12.1 (and its driver), 4096 before.
#if CUDART_VERSION >= 12010
constexpr int kArgumentBytes = 32764;
#else
constexpr int kArgumentBytes = 4096;
#endif
constexpr int kFewArgumentBytes = 4096;
constexpr int kOtherArgumentBytes = 256;  // the kernel's settings beside the batch

template <typename Tensor>
constexpr int Capacity(int bytes) {
  return (bytes - kOtherArgumentBytes - 2 * static_cast<int>(sizeof(int64_t))) /
         static_cast<int>(sizeof(Tensor) + sizeof(int64_t));
}

// Short lists have kernels of their own: the driver copies all of the arguments, used or not.
template <typename Tensor>
using FewBatch = Batch<Tensor, Capacity<Tensor>(kFewArgumentBytes)>;
template <typename Tensor>
using ManyBatch = Batch<Tensor, Capacity<Tensor>(kArgumentBytes)>;

template <typename AnyBatch>
void FillBatch(const typename AnyBatch::Item* tensors, int64_t count, int64_t chunk_size, AnyBatch& batch) {
  batch.count = static_cast<int32_t>(count < AnyBatch::kCapacity ? count : AnyBatch::kCapacity);
  batch.first_chunk[0] = 0;
  for (int32_t i = 0; i < batch.count; ++i) {
    const int64_t size = tensors[i].size;
    batch.tensors[i] = tensors[i];
    batch.first_chunk[i + 1] = batch.first_chunk[i] + size / chunk_size + (size % chunk_size != 0);
  }
}

// Calls launch(batch, index of its first tensor) for batches that hold all tensors.
template <typename Tensor, typename Launch>
void ForEachBatch(const Tensor* tensors, int64_t count, int64_t chunk_size, const Launch& launch) {
  for (int64_t begin = 0; begin < count;) {
    if (count - begin <= FewBatch<Tensor>::kCapacity || !TakesLongArguments()) {
      FewBatch<Tensor> batch;
      FillBatch(tensors + begin, count - begin, chunk_size, batch);
      launch(batch, begin);
      begin += batch.count;
    } else {
      ManyBatch<Tensor> batch;
      FillBatch(tensors + begin, count - begin, chunk_size, batch);
      launch(batch, begin);
      begin += batch.count;
    }
  }
}

// The tensor that a chunk belongs to: the last whose first chunk is not behind it. Empty tensors have no chunk.
template <typename AnyBatch>
__device__ __forceinline__ int TensorOfChunk(const AnyBatch& batch, int64_t chunk) {
  int low = 0, high = batch.count;
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    if (batch.first_chunk[middle] <= chunk) {
      low = middle;
    } else {
      high = middle;
    }
  }
  return low;
}

// Where a chunk lies.
struct Chunk {
  int tensor;
  int64_t begin;  // elements
  int size;
};

template <typename AnyBatch>
__device__ __forceinline__ Chunk ChunkAt(const AnyBatch& batch, int64_t chunk, int chunk_size) {
  const int tensor = TensorOfChunk(batch, chunk);
  const int64_t begin = (chunk - batch.first_chunk[tensor]) * chunk_size;
  const int64_t left = batch.tensors[tensor].size - begin;
  return {tensor, begin, left < chunk_size ? static_cast<int>(left) : chunk_size};
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_BATCH_H_
