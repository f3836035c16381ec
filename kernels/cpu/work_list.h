// SPDX-License-Identifier: BSD-2-Clause
//
// Divides a list of tensors into parts of about equal work. A part is a contiguous run through the list; it can hold
// many small tensors or a piece of a large one.

#ifndef DRAGON_OPTIM_KERNELS_CPU_WORK_LIST_H_
#define DRAGON_OPTIM_KERNELS_CPU_WORK_LIST_H_

#include <cstdint>
#include <vector>

#include "kernels/cpu/threads.h"

namespace dragon_optim {

// Below this many elements waking a second thread takes longer than doing its share.
constexpr int64_t kSerialElements = 64 * 1024;

// The least work worth the claim of a part; the pieces of a tensor that threads take in turn stay near each other in
// memory.
constexpr int64_t kPartElements = 16 * 1024;

// What beginning a tensor costs, in elements.
constexpr int64_t kTensorCost = 64;

// Threads take turns at the borders of cache lines: 64 elements of every dtype fill whole ones.
constexpr int64_t kLineElements = 64;

// Where a piece of a tensor begins in memory; nothing of a tensor that is absent.
inline const void* Advance(const void* data, int64_t bytes) {
  return data == nullptr ? nullptr : static_cast<const char*>(data) + bytes;
}
inline void* Advance(void* data, int64_t bytes) { return data == nullptr ? nullptr : static_cast<char*>(data) + bytes; }

struct WorkPosition {
  int64_t tensor;
  int64_t element;
};

// `Tensor` has a member `size`. Pieces of a tensor begin at multiples of `alignment`. `starts` is the memory to use.
template <typename Tensor>
class WorkList {
 public:
  WorkList(const Tensor* tensors, int64_t count, int64_t alignment, int threads, std::vector<WorkPosition>& starts)
      : tensors_(tensors), count_(count), threads_(threads), starts_(starts) {
    starts_.clear();
    starts_.push_back({0, 0});
    if (threads_ > 1 && TotalSize() >= kSerialElements) Divide(alignment);
    starts_.push_back({count_, 0});
  }

  // Calls body(tensor, begin, end) for all ranges of all tensors that are not empty, in parallel. It must not throw.
  template <typename Body>
  void ForEachRange(const Body& body) const {
    const int64_t parts = static_cast<int64_t>(starts_.size()) - 1;
    ParallelFor(parts, threads_, [&](int64_t part) { RunPart(starts_[part], starts_[part + 1], body); });
  }

 private:
  int64_t TotalSize() const {
    int64_t total = 0;
    for (int64_t i = 0; i < count_; ++i) total += tensors_[i].size + kTensorCost;
    return total;
  }

  void Divide(int64_t alignment) {
    int64_t room = kPartElements;
    for (int64_t i = 0; i < count_; ++i) {
      int64_t left = tensors_[i].size;
      for (;;) {
        const int64_t piece = room < alignment ? alignment : room / alignment * alignment;
        if (left <= piece) break;
        left -= piece;
        starts_.push_back({i, tensors_[i].size - left});
        room = kPartElements;
      }
      room -= left + kTensorCost;
      if (room > 0) continue;
      starts_.push_back({i + 1, 0});
      room = kPartElements;
    }
  }

  template <typename Body>
  void RunPart(WorkPosition from, WorkPosition to, const Body& body) const {
    for (int64_t i = from.tensor; i <= to.tensor && i < count_; ++i) {
      const int64_t begin = i == from.tensor ? from.element : 0;
      const int64_t end = i == to.tensor ? to.element : tensors_[i].size;
      if (begin < end) body(i, begin, end);
    }
  }

  const Tensor* tensors_;
  const int64_t count_;
  const int threads_;
  std::vector<WorkPosition>& starts_;
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_WORK_LIST_H_
