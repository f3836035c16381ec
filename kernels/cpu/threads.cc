// SPDX-License-Identifier: BSD-2-Clause

#include "kernels/cpu/threads.h"

#include <pthread.h>
#include <signal.h>

#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

#include "kernels/cpu/float_mode.h"

namespace dragon_optim {
namespace {

constexpr int kMaxWorkers = 255;

// How long to look for work, or for its end, before sleeping: some tens of microseconds, about what a wake-up costs.
constexpr int kSpins = 1000;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ __volatile__("yield");
#endif
}

template <typename Condition>
bool SpinUntil(const Condition& condition) {
  for (int spin = 0; spin < kSpins; ++spin) {
    if (condition()) return true;
    Pause();
  }
  return condition();
}

// Signals of the process are for the threads of the program, not for ours.
class ScopedBlockedSignals {
 public:
  ScopedBlockedSignals() {
    sigset_t all;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &saved_);
  }
  ~ScopedBlockedSignals() { pthread_sigmask(SIG_SETMASK, &saved_, nullptr); }
  ScopedBlockedSignals(const ScopedBlockedSignals&) = delete;
  ScopedBlockedSignals& operator=(const ScopedBlockedSignals&) = delete;

 private:
  sigset_t saved_;
};

class Pool {
 public:
  // False, and nothing done, where the pool is already at work.
  bool TryRun(int64_t parts, int helpers, PartFunction function, const void* context) {
    if (busy_.exchange(true, std::memory_order_acquire)) return false;
    parts_ = parts;
    function_ = function;
    context_ = context;
    next_part_.store(0, std::memory_order_relaxed);
    finished_.store(0, std::memory_order_relaxed);
    const int invited = Grow(helpers);
    Invite(invited);
    ClaimParts();
    // All parts are claimed. Whoever has not come yet need not come; wait for those who have.
    AwaitFinished(invited - invitations_.exchange(0, std::memory_order_acq_rel));
    busy_.store(false, std::memory_order_release);
    return true;
  }

 private:
  // Starts workers until there are as many as wanted, and returns how many of the wanted there are.
  int Grow(int wanted) {
    const ScopedBlockedSignals blocked;
    try {
      for (; workers_ < wanted && workers_ < kMaxWorkers; ++workers_) {
        std::thread([this] { Work(); }).detach();
      }
    } catch (const std::exception&) {
      // No more threads or memory to be had; the threads there are will do.
    }
    return wanted < workers_ ? wanted : workers_;
  }

  void Invite(int count) {
    {
      // Under the lock, so that no worker goes to sleep between its look at the invitations and this store.
      const std::lock_guard<std::mutex> lock(mutex_);
      invitations_.store(count, std::memory_order_release);
    }
    for (int i = 0; i < count; ++i) invited_.notify_one();
  }

  bool TakeInvitation() {
    int count = invitations_.load(std::memory_order_relaxed);
    while (count > 0) {
      if (invitations_.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel)) return true;
    }
    return false;
  }

  void AwaitInvitation() {
    while (!SpinUntil([this] { return TakeInvitation(); })) {
      std::unique_lock<std::mutex> lock(mutex_);
      invited_.wait(lock, [this] { return invitations_.load(std::memory_order_relaxed) > 0; });
    }
  }

  void ClaimParts() {
    for (;;) {
      const int64_t part = next_part_.fetch_add(1, std::memory_order_relaxed);
      if (part >= parts_) return;
      function_(context_, part);
    }
  }

  void AwaitFinished(int count) {
    const auto all_finished = [this, count] { return finished_.load(std::memory_order_acquire) == count; };
    if (SpinUntil(all_finished)) return;
    std::unique_lock<std::mutex> lock(mutex_);
    all_finished_.wait(lock, all_finished);
  }

  void Work() {
    SetFloatMode(kIeeeFloatMode);
    for (;;) {
      AwaitInvitation();
      ClaimParts();
      {
        const std::lock_guard<std::mutex> lock(mutex_);
        finished_.fetch_add(1, std::memory_order_release);
      }
      all_finished_.notify_one();
    }
  }

  std::atomic<bool> busy_{false};
  std::mutex mutex_;
  std::condition_variable invited_;
  std::condition_variable all_finished_;
  int workers_ = 0;  // touched by the caller that holds busy_ only

  // The work at hand. A worker reads it between taking an invitation and counting itself as finished.
  int64_t parts_ = 0;
  PartFunction function_ = nullptr;
  const void* context_ = nullptr;
  std::atomic<int> invitations_{0};
  std::atomic<int> finished_{0};
  alignas(64) std::atomic<int64_t> next_part_{0};
};

// Never deleted: the workers sleep in it until the process ends, and after a fork its locks may be held for ever.
std::atomic<Pool*> current_pool{nullptr};

// In a forked child the threads are gone; the child begins without a pool.
void ForgetPool() { current_pool.store(nullptr, std::memory_order_relaxed); }
[[maybe_unused]] const int fork_handler = pthread_atfork(nullptr, nullptr, &ForgetPool);

Pool& CurrentPool() {
  Pool* pool = current_pool.load(std::memory_order_acquire);
  if (pool != nullptr) return *pool;
  Pool* created = new Pool;
  if (current_pool.compare_exchange_strong(pool, created, std::memory_order_acq_rel)) return *created;
  delete created;
  return *pool;
}

}  // namespace

void RunParts(int64_t parts, int threads, PartFunction function, const void* context) {
  const int64_t helpers = (threads < parts ? threads : parts) - 1;
  if (helpers > 0 && CurrentPool().TryRun(parts, static_cast<int>(helpers), function, context)) return;
  for (int64_t part = 0; part < parts; ++part) function(context, part);
}

}  // namespace dragon_optim
