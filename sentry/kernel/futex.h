#pragma once

// futex(2): sleeping on a word of guest memory and waking those who sleep there,
// priority-inheritance locks included (FUTEX_LOCK_PI(2const)), and robust lists
// (set_robust_list(2)).

#include <array>
#include <cstdint>
#include <memory>
#include <span>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/time/clock.h"

namespace sentry {

class PidView;
class Task;
using PidViewRef = std::shared_ptr<PidView>;

inline constexpr uint32_t kFutexBitsetAny = ~uint32_t{0};
inline constexpr size_t kFutexWaitvMax = 128;

struct FutexBucket;
struct FutexWaiter;
struct PiState;

// One word to wait for (futex_waitv(2)).
struct FutexWaitRequest {
  base::UserAddr addr;
  uint32_t expected = 0;
  bool shared = false;
};

// Thread-safe. Lock order: pi_mu_, then buckets (by address), then the locks of MemoryManager.
class FutexTable {
 public:
  FutexTable();
  ~FutexTable();
  FutexTable(const FutexTable&) = delete;
  FutexTable& operator=(const FutexTable&) = delete;

  // --- Plain futexes. `shared` is false for FUTEX_PRIVATE_FLAG.
  // Sleeps if the word holds `expected`. EAGAIN if not, ETIMEDOUT, kRestartSys when interrupted,
  // EINVAL for an empty bitset.
  base::Result<void> Wait(Task& task, base::UserAddr addr, bool shared, uint32_t expected,
                          uint32_t bitset, Deadline deadline);
  // Index of the word that was woken. EINVAL, EAGAIN, ETIMEDOUT, kRestartSys.
  base::Result<uint64_t> WaitMultiple(Task& task, std::span<const FutexWaitRequest> requests,
                                      Deadline deadline);
  // Number of woken tasks. At most max(count, 1), as Linux does.
  base::Result<uint64_t> Wake(MemoryManager& memory, base::UserAddr addr, bool shared,
                              int32_t count, uint32_t bitset);
  // As the kernel itself wakes (clear_child_tid): shared key, any bitset, errors do not matter.
  void Wake(MemoryManager& memory, base::UserAddr addr, int32_t count);
  struct Pair {
    base::UserAddr from;
    bool from_shared = false;
    base::UserAddr to;
    bool to_shared = false;
  };
  // Wakes `wake_count`, moves up to `requeue_count` more. With `expected`: EAGAIN if *from differs.
  // Returns woken (plus moved).
  base::Result<uint64_t> Requeue(MemoryManager& memory, const Pair& pair, int32_t wake_count,
                                 int32_t requeue_count, const uint32_t* expected);
  // FUTEX_WAKE_OP. `operation` is the encoded third value. ENOSYS for unknown operations.
  base::Result<uint64_t> WakeOp(MemoryManager& memory, const Pair& pair, int32_t wake_count,
                                int32_t wake_count_to, uint32_t operation);

  // --- Priority-inheritance locks. No priorities are inherited: what is kept is ownership,
  // hand-over in order of arrival, and the rules for the word. EDEADLK, ESRCH, EPERM, EINVAL,
  // EAGAIN (try_only), ETIMEDOUT, kRestartNoIntr.
  base::Result<void> LockPi(Task& task, base::UserAddr addr, bool shared, Deadline deadline,
                            bool try_only);
  base::Result<void> UnlockPi(Task& task, base::UserAddr addr, bool shared);
  // `pair.from` is the condition variable's word, `pair.to` the lock's.
  base::Result<void> WaitRequeuePi(Task& task, const Pair& pair, uint32_t expected, uint32_t bitset,
                                   Deadline deadline);
  base::Result<uint64_t> CmpRequeuePi(Task& task, const Pair& pair, int32_t requeue_count,
                                      uint32_t expected);

  // --- Exit and execve of `task`, while its memory is still there: words that it holds are marked
  // FUTEX_OWNER_DIED and a waiter is woken. `head` is the registered robust list's, may be null.
  // Own thread.
  void ExitRobustList(Task& task, base::UserAddr head);
  // Locks with waiters that `task` holds pass to the first waiter. After ExitRobustList. `final`:
  // it exits, and locks that name it from now on are refused with ESRCH.
  void ExitPiState(Task& task, bool final);

 private:
  static constexpr size_t kBuckets = 256;  // Power of two.

  FutexBucket& BucketOf(const FutexKey& key);
  // Takes the waiter out of its bucket if it is still queued; true if it had been woken before.
  bool Unqueue(FutexWaiter& waiter);
  // False if the list is not to be followed any further.
  bool HandleFutexDeath(Task& task, base::UserAddr addr, bool pi, bool pending);
  base::Result<void> Enqueue(Task& task, FutexWaiter& waiter, const FutexWaitRequest& request,
                             uint32_t bitset);

  // --- futex_pi.cc.
  // A lock's word as seen before taking pi_mu_, with the thread that it names (null: none, or
  // gone).
  struct PiWord {
    MemoryManager& memory;
    base::UserAddr addr;
    FutexKey key;
    int32_t owner_tid = 0;
    std::shared_ptr<Task> owner;
    int32_t owner_in_word = 0;  // As the namespace of the caller calls it.
    PidViewRef view = nullptr;
  };
  enum class PiTake : uint8_t { kTaken, kMustWait, kChanged };
  base::Result<PiWord> ReadPiWord(Task& task, base::UserAddr addr, bool shared)
      ABSL_LOCKS_EXCLUDED(pi_mu_);
  base::Result<PiTake> TakePi(const PiWord& word, int32_t taker_tid, bool set_waiters)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pi_mu_);
  base::Result<void> CheckCycle(int32_t waiter_tid, int32_t owner_tid)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pi_mu_);
  // The waiter is, or will be by the caller, in the key's bucket.
  void AddPiWaiter(FutexWaiter& waiter, const PiWord& word, int32_t owner_tid)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(pi_mu_);
  void LeavePi(FutexWaiter& waiter) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pi_mu_);
  void HandOver(const FutexKey& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(pi_mu_);

  std::unique_ptr<FutexBucket[]> buckets_;
  absl::Mutex pi_mu_;
  // Locks that someone waits for.
  absl::flat_hash_map<FutexKey, std::unique_ptr<PiState>> pi_states_ ABSL_GUARDED_BY(pi_mu_);
  // The lock that a task waits for, by thread id: the edges of the graph that is searched for
  // cycles.
  absl::flat_hash_map<int32_t, FutexKey> pi_blocked_ ABSL_GUARDED_BY(pi_mu_);
};

}  // namespace sentry
