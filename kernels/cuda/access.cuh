// SPDX-License-Identifier: BSD-2-Clause
//
// A chunk of several arrays, gone through in groups of elements, each of which is one access to an array, where the
// arrays are aligned alike; what is left, in front, behind or all of it, element by element.

#ifndef DRAGON_OPTIM_KERNELS_CUDA_ACCESS_CUH_
#define DRAGON_OPTIM_KERNELS_CUDA_ACCESS_CUH_

#include <cuda_runtime.h>

#include <cstdint>
#include <type_traits>

#include "kernels/formats.h"

namespace dragon_optim {
namespace cuda {

// Of an access to an array in the dtype of the arithmetic, which states and sums have. A short format takes half.
constexpr int kAccessBytes = 16;

template <typename Format>
constexpr int kGroupSize = kAccessBytes / static_cast<int>(sizeof(typename Format::Arithmetic));

template <typename Stored, int kGroup>
struct alignas(sizeof(Stored) * kGroup) Pack {
  Stored values[kGroup];
};

template <int kGroup, typename Stored>
__device__ __forceinline__ Pack<std::remove_const_t<Stored>, kGroup> Load(Stored* data) {
  return *reinterpret_cast<const Pack<std::remove_const_t<Stored>, kGroup>*>(data);
}

template <int kGroup, typename Stored>
__device__ __forceinline__ void Store(Stored* data, const Pack<Stored, kGroup>& pack) {
  *reinterpret_cast<Pack<Stored, kGroup>*>(data) = pack;
}

// How many elements behind an address that is aligned for groups `data` stands. Null is where any array stands.
template <int kGroup, typename Stored>
__device__ __forceinline__ int Shift(const Stored* data, int of_null) {
  return data == nullptr ? of_null : static_cast<int>(reinterpret_cast<uintptr_t>(data) / sizeof(Stored) % kGroup);
}

// The whole groups of a chunk of `size` elements.
struct Groups {
  int first;  // element
  int count;
};

template <int kGroup>
__device__ __forceinline__ Groups WholeGroups(int size, int shift, bool alike) {
  const int first = (kGroup - shift) % kGroup;
  return alike && first < size ? Groups{first, (size - first) / kGroup} : Groups{0, 0};
}

// Calls whole(element) for the first elements of groups and single(element) for the elements in none, all of them
// shared out between the threads of the block.
template <int kGroup, int kThreads, typename Whole, typename Single>
__device__ __forceinline__ void ForEachGroup(const Groups& groups, int size, const Whole& whole, const Single& single) {
  for (int i = threadIdx.x; i < groups.count; i += kThreads) whole(groups.first + i * kGroup);
  const int grouped = groups.count * kGroup;
  for (int i = threadIdx.x; i < size - grouped; i += kThreads) single(i < groups.first ? i : i + grouped);
}

}  // namespace cuda
}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CUDA_ACCESS_CUH_
