// SPDX-License-Identifier: BSD-2-Clause
//
// The limit: loops that move the same bytes as a step and compute next to nothing, over the same threads. What they
// write is an exclusive or with what they read, on integers, so that no pattern of bits is slower than another.

#include <cstdint>
#include <cstring>

#include "kernels/cpu/threads.h"

namespace {

// What a part moves. A step does `Update`; clipping by norm reads the gradient before it.
enum Kind : int32_t { kUpdate, kReadThenUpdate, kFill };

constexpr int kMaxStates = 4;

// A piece of one tensor. Sums of gradients are a `param` without states; what is filled is the gradient.
struct Range {
  int64_t size;
  void* grad;
  void* param;
  void* states[kMaxStates];
};

// Ranges [begin, end) of the list.
struct Part {
  int64_t begin, end;
};

// `Element` is as wide as gradient and parameter, `State` as a state: float16 parameters have float32 states.
template <typename Element, typename State, int kStates>
void Update(const Range& range) {
  const Element* __restrict__ const grad = static_cast<const Element*>(range.grad);
  Element* __restrict__ const param = static_cast<Element*>(range.param);
  State* __restrict__ const first = static_cast<State*>(range.states[0]);
  State* __restrict__ const second = static_cast<State*>(range.states[1]);
  State* __restrict__ const third = static_cast<State*>(range.states[2]);
  State* __restrict__ const fourth = static_cast<State*>(range.states[3]);
  for (int64_t i = 0; i < range.size; ++i) {
    const Element bits = grad[i];
    param[i] ^= bits;
    if constexpr (kStates > 0) first[i] ^= bits;
    if constexpr (kStates > 1) second[i] ^= bits;
    if constexpr (kStates > 2) third[i] ^= bits;
    if constexpr (kStates > 3) fourth[i] ^= bits;
  }
}

template <typename Element>
void Read(const Range& range) {
  const Element* const grad = static_cast<const Element*>(range.grad);
  Element all = 0;
  for (int64_t i = 0; i < range.size; ++i) all ^= grad[i];
  // The compiler must not find out that nobody looks at it.
  __asm__ __volatile__("" : : "r"(all));
}

using RangeFunction = void (*)(const Range&);

template <typename Element, typename State>
constexpr RangeFunction kUpdates[kMaxStates + 1] = {&Update<Element, State, 0>, &Update<Element, State, 1>,
                                                    &Update<Element, State, 2>, &Update<Element, State, 3>,
                                                    &Update<Element, State, 4>};

struct Loops {
  RangeFunction update, read;
};

Loops FindLoops(int element_bytes, int state_bytes, int states) {
  if (states < 0 || states > kMaxStates) return {nullptr, nullptr};
  // Without states, the sum of float16 gradients would be float16 too, and it is not.
  if (element_bytes == 2 && state_bytes == 4 && states > 0)
    return {kUpdates<uint16_t, uint32_t>[states], &Read<uint16_t>};
  if (element_bytes == 4 && state_bytes == 4) return {kUpdates<uint32_t, uint32_t>[states], &Read<uint32_t>};
  if (element_bytes == 8 && state_bytes == 8) return {kUpdates<uint64_t, uint64_t>[states], &Read<uint64_t>};
  return {nullptr, nullptr};
}

}  // namespace

// 0, or 1 if there is no such loop.
extern "C" int benchmark_limit(int kind, int element_bytes, int state_bytes, int states, const Range* ranges,
                               const Part* parts, int64_t count, int threads) {
  const Loops loops = FindLoops(element_bytes, state_bytes, states);
  if (loops.update == nullptr || kind < kUpdate || kind > kFill) return 1;
  const auto for_each_range = [&](const auto& body) {
    dragon_optim::ParallelFor(count, threads, [&](int64_t part) {
      for (int64_t i = parts[part].begin; i < parts[part].end; ++i) body(ranges[i]);
    });
  };
  if (kind == kFill) {
    for_each_range([&](const Range& range) { std::memset(range.grad, 0, range.size * element_bytes); });
    return 0;
  }
  // The norm of a tensor must be known before its first element is updated: two passes, as in a step.
  if (kind == kReadThenUpdate) for_each_range(loops.read);
  for_each_range(loops.update);
  return 0;
}
