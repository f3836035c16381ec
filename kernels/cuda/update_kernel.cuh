// SPDX-License-Identifier: BSD-2-Clause
//
// The update of a batch of tensors. One kernel for all forms of the formula: the options may lie in device memory, and
// then the form is not known before it runs. A block chooses between loops by the states that are in use. What else
// there is to choose is left inside them: memory is slower than that, and the code stays small.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_UPDATE_KERNEL_CUH_
#define DRAGON_OPTIM_KERNELS_CUDA_UPDATE_KERNEL_CUH_

#include <type_traits>

#include "kernels/cuda/access.cuh"
#include "kernels/cuda/batch.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/options.cuh"
#include "kernels/cuda/update.h"
#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {

constexpr int kUpdateThreads = 256;
constexpr int kUpdateChunk = 2048;  // elements: at most four groups for a thread

// The least number of blocks that a multiprocessor must have room for: bounds the registers of a thread to 64, and to
// 128 for double. Reckoned, not measured: 3 TB/s, four sevenths of them loads, at a latency of 1 us take 13 KB under
// way on each of an H100's 132 multiprocessors; with momentum the loads of so many threads are 64 KB, for double 32 KB.
template <typename T>
constexpr int kUpdateBlocks = sizeof(T) == 8 ? 2 : 4;

// What of the options a loop needs.
template <typename T>
struct UpdateForm {
  RMSpropScalars<T> scalars;
  RMSpropVariant variant;
};

template <typename T>
DRAGON_OPTIM_FORMULA UpdateForm<T> FormOf(const RMSpropOptions& options) {
  const RMSpropScalars<T> scalars = MakeScalars<T>(options);
  return {scalars, ChooseVariant(options, scalars)};
}

template <typename T>
struct UpdateArguments {
  UpdateSettings settings;
  UpdateForm<T> form;  // of the options on the host
};

// A chunk of one tensor: all pointers stand at its first element.
template <typename ParamFormat, typename GradFormat>
struct TensorChunk {
  using T = typename ParamFormat::Arithmetic;
  using Param = typename ParamFormat::Stored;
  using Grad = typename GradFormat::Stored;
  static constexpr bool kHasMaster = !std::is_same<Param, T>::value;

  const Grad* grad;
  Param* param;
  T *square_avg, *momentum_buffer, *grad_avg, *master_param;
  int size;

  __device__ __forceinline__ TensorChunk(const RMSpropTensor& tensor, int64_t begin, int size_of_chunk)
      : grad(At<const Grad>(tensor.grad, begin)),
        param(At<Param>(tensor.param, begin)),
        square_avg(At<T>(tensor.square_avg, begin)),
        momentum_buffer(At<T>(tensor.momentum_buffer, begin)),
        grad_avg(At<T>(tensor.grad_avg, begin)),
        master_param(At<T>(tensor.master_param, begin)),
        size(size_of_chunk) {}

  template <int kGroup>
  __device__ __forceinline__ Groups FindGroups() const {
    const int shift = Shift<kGroup>(param, 0);
    const bool alike = Shift<kGroup>(grad, shift) == shift && Shift<kGroup>(square_avg, shift) == shift &&
                       Shift<kGroup>(momentum_buffer, shift) == shift && Shift<kGroup>(grad_avg, shift) == shift &&
                       Shift<kGroup>(master_param, shift) == shift;
    return WholeGroups<kGroup>(size, shift, alike);
  }

 private:
  template <typename Stored, typename Data>
  __device__ __forceinline__ static Stored* At(Data* data, int64_t begin) {
    return data == nullptr ? nullptr : static_cast<Stored*>(data) + begin;
  }
};

// The variant of a block in a loop for these states, so that the compiler sees which are not in use. The extras, which
// act as identities where they are off, cost less than a choice.
template <bool kHasMomentum, bool kHasGradAvg>
__device__ __forceinline__ RMSpropVariant VariantOf(const RMSpropVariant& given) {
  const bool lr_inside = given.momentum == Momentum::kLrInside, large = given.centered == Centered::kLargeWeight;
  RMSpropVariant variant = {Momentum::kNone, Centered::kNo, given.l2_decay, true};
  if (kHasMomentum) variant.momentum = lr_inside ? Momentum::kLrInside : Momentum::kPlain;
  if (kHasGradAvg) variant.centered = large ? Centered::kLargeWeight : Centered::kSmallWeight;
  return variant;
}

// `at` is an element of the chunk, and the first of kGroup.
template <typename ParamFormat, typename GradFormat, bool kHasMomentum, bool kHasGradAvg, int kGroup, typename T>
__device__ __forceinline__ void UpdateGroup(const RMSpropVariant& variant, const RMSpropScalars<T>& scalars,
                                            T clip_factor, const TensorChunk<ParamFormat, GradFormat>& chunk, int at) {
  constexpr bool kHasMaster = TensorChunk<ParamFormat, GradFormat>::kHasMaster;
  const auto grad = Load<kGroup>(chunk.grad + at);
  auto param = Load<kGroup>(chunk.param + at);
  auto square_avg = Load<kGroup>(chunk.square_avg + at);
  [[maybe_unused]] Pack<T, kGroup> momentum_buffer, grad_avg, master_param;
  if constexpr (kHasMomentum) momentum_buffer = Load<kGroup>(chunk.momentum_buffer + at);
  if constexpr (kHasGradAvg) grad_avg = Load<kGroup>(chunk.grad_avg + at);
  if constexpr (kHasMaster) master_param = Load<kGroup>(chunk.master_param + at);
#pragma unroll
  for (int i = 0; i < kGroup; ++i) {
    RMSpropElement<T> element = {Decode(ParamFormat(), param.values[i]), square_avg.values[i], 0, 0};
    if constexpr (kHasMaster) {
      // A parameter that was overwritten since the last step is not what its master rounds to: there it counts.
      const T master = master_param.values[i];
      element.param = Encode(ParamFormat(), master) == param.values[i] ? master : element.param;
    }
    if constexpr (kHasMomentum) element.momentum_buffer = momentum_buffer.values[i];
    if constexpr (kHasGradAvg) element.grad_avg = grad_avg.values[i];
    UpdateElement(variant, scalars, clip_factor, static_cast<T>(Decode(GradFormat(), grad.values[i])), element);
    param.values[i] = Encode(ParamFormat(), element.param);
    square_avg.values[i] = element.square_avg;
    if constexpr (kHasMomentum) momentum_buffer.values[i] = element.momentum_buffer;
    if constexpr (kHasGradAvg) grad_avg.values[i] = element.grad_avg;
    if constexpr (kHasMaster) master_param.values[i] = element.param;
  }
  Store(chunk.param + at, param);
  Store(chunk.square_avg + at, square_avg);
  if constexpr (kHasMomentum) Store(chunk.momentum_buffer + at, momentum_buffer);
  if constexpr (kHasGradAvg) Store(chunk.grad_avg + at, grad_avg);
  if constexpr (kHasMaster) Store(chunk.master_param + at, master_param);
}

template <typename ParamFormat, typename GradFormat, bool kHasMomentum, bool kHasGradAvg, typename T, typename AnyBatch>
__device__ __forceinline__ void UpdateChunks(const UpdateForm<T>& form, const AnyBatch& batch,
                                             const double* clip_factors) {
  constexpr int kGroup = kGroupSize<ParamFormat>;
  const RMSpropVariant variant = VariantOf<kHasMomentum, kHasGradAvg>(form.variant);
  for (int64_t index = blockIdx.x; index < batch.chunks(); index += gridDim.x) {
    const Chunk place = ChunkAt(batch, index, kUpdateChunk);
    const T clip_factor = clip_factors == nullptr ? T(1) : static_cast<T>(clip_factors[place.tensor]);
    const TensorChunk<ParamFormat, GradFormat> chunk(batch.tensors[place.tensor], place.begin, place.size);
    ForEachGroup<kGroup, kUpdateThreads>(
        chunk.template FindGroups<kGroup>(), chunk.size,
        [&](int at) {
          UpdateGroup<ParamFormat, GradFormat, kHasMomentum, kHasGradAvg, kGroup>(variant, form.scalars, clip_factor,
                                                                                  chunk, at);
        },
        [&](int at) {
          UpdateGroup<ParamFormat, GradFormat, kHasMomentum, kHasGradAvg, 1>(variant, form.scalars, clip_factor, chunk,
                                                                             at);
        });
  }
}

// The form comes with the arguments; only where the numbers lie in device memory is it made here, by one thread.
template <typename ParamFormat, typename GradFormat, typename AnyBatch, typename T = typename ParamFormat::Arithmetic>
__global__ void __launch_bounds__(kUpdateThreads, kUpdateBlocks<T>)
    UpdateKernel(const AnyBatch __grid_constant__ batch, const UpdateArguments<T> __grid_constant__ arguments) {
  __shared__ UpdateForm<T> form_of_numbers;
  const UpdateSettings& settings = arguments.settings;
  UpdateForm<T> form = arguments.form;
  if (settings.numbers != nullptr) {
    if (threadIdx.x == 0) form_of_numbers = FormOf<T>(CurrentOptions(settings));
    __syncthreads();
    form = form_of_numbers;
  }
  if (settings.skip != nullptr && *settings.skip != 0) return;
  const bool has_grad_avg = form.variant.centered != Centered::kNo;
  if (form.variant.momentum == Momentum::kNone) {
    if (has_grad_avg) {
      UpdateChunks<ParamFormat, GradFormat, false, true>(form, batch, settings.clip_factors);
    } else {
      UpdateChunks<ParamFormat, GradFormat, false, false>(form, batch, settings.clip_factors);
    }
  } else if (has_grad_avg) {
    UpdateChunks<ParamFormat, GradFormat, true, true>(form, batch, settings.clip_factors);
  } else {
    UpdateChunks<ParamFormat, GradFormat, true, false>(form, batch, settings.clip_factors);
  }
}

template <typename ParamFormat, typename GradFormat>
void LaunchUpdate(const RMSpropTensor* tensors, int64_t count, const UpdateSettings& settings, cudaStream_t stream) {
  using T = typename ParamFormat::Arithmetic;
  static_assert(sizeof(UpdateArguments<T>) <= kOtherArgumentBytes, "batches leave room for less");
  UpdateArguments<T> arguments = {settings, FormOf<T>(settings.options)};
  ForEachBatch(tensors, count, kUpdateChunk, [&](const auto& batch, int64_t first) {
    using AnyBatch = std::decay_t<decltype(batch)>;
    if (settings.clip_factors != nullptr) arguments.settings.clip_factors = settings.clip_factors + first;
    Launch("the update", &UpdateKernel<ParamFormat, GradFormat, AnyBatch>, batch.chunks(), kUpdateThreads, stream,
           batch, arguments);
  });
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_UPDATE_KERNEL_CUH_
