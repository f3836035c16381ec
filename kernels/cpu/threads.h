// SPDX-License-Identifier: BSD-2-Clause
//
// A small thread pool. OpenMP's would do but for fork: libgomp hangs in a child that was forked after a parallel
// region.

#ifndef DRAGON_OPTIM_KERNELS_CPU_THREADS_H_
#define DRAGON_OPTIM_KERNELS_CPU_THREADS_H_

#include <cstdint>

namespace dragon_optim {

// Does one part of the work. Nothing may be thrown: there is nobody to catch it in another thread.
using PartFunction = void (*)(const void* context, int64_t part) noexcept;

// Runs function(context, part) for each part in [0, parts), on the caller and up to `threads` - 1 threads of the pool,
// which take parts as they become free. Returns when all are done.
//
// No thread exists before the first call that needs one. Where the pool is already at work, for another thread or
// because of a call from inside a part, or cannot start threads, the caller does all parts itself. A forked child
// starts a pool of its own.
void RunParts(int64_t parts, int threads, PartFunction function, const void* context);

template <typename Body>
void ParallelFor(int64_t parts, int threads, const Body& body) {
  const PartFunction function = [](const void* context, int64_t part) noexcept {
    (*static_cast<const Body*>(context))(part);
  };
  RunParts(parts, threads, function, &body);
}

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_THREADS_H_
