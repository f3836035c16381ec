// SPDX-License-Identifier: BSD-2-Clause
//
// IEEE arithmetic whatever the calling thread has set: any library that was built with -ffast-math can switch a whole
// process to flushing denormals when it is loaded, and threads started earlier would then disagree with those started
// later.

#ifndef DRAGON_OPTIM_KERNELS_CPU_FLOAT_MODE_H_
#define DRAGON_OPTIM_KERNELS_CPU_FLOAT_MODE_H_

#include <cstdint>

namespace dragon_optim {

#if defined(__x86_64__)
// Round to nearest, keep denormals, no traps.
constexpr uint64_t kIeeeFloatMode = 0x1f80;
inline uint64_t GetFloatMode() { return __builtin_ia32_stmxcsr(); }
inline void SetFloatMode(uint64_t mode) { __builtin_ia32_ldmxcsr(static_cast<unsigned>(mode)); }
#elif defined(__aarch64__)
constexpr uint64_t kIeeeFloatMode = 0;
inline uint64_t GetFloatMode() {
  uint64_t mode;
  __asm__ __volatile__("mrs %0, fpcr" : "=r"(mode));
  return mode;
}
inline void SetFloatMode(uint64_t mode) { __asm__ __volatile__("msr fpcr, %0" : : "r"(mode) : "memory"); }
#else
constexpr uint64_t kIeeeFloatMode = 0;
inline uint64_t GetFloatMode() { return kIeeeFloatMode; }
inline void SetFloatMode(uint64_t) {}
#endif

// For the calling thread, until the end of the scope.
class ScopedIeeeFloatMode {
 public:
  ScopedIeeeFloatMode() : saved_(GetFloatMode()) { SetFloatMode(kIeeeFloatMode); }
  ~ScopedIeeeFloatMode() { SetFloatMode(saved_); }
  ScopedIeeeFloatMode(const ScopedIeeeFloatMode&) = delete;
  ScopedIeeeFloatMode& operator=(const ScopedIeeeFloatMode&) = delete;

 private:
  const uint64_t saved_;
};

}  // namespace dragon_optim

#endif  // DRAGON_OPTIM_KERNELS_CPU_FLOAT_MODE_H_
