#pragma once

// System V semaphores (semget(2), semop(2), semctl(2)): sets of counters that are changed by
// several at once or not at all, and undone when the process ends.
//
// Nothing here sleeps: Operate answers EAGAIN, and the handler waits on the queue of the set it
// holds; whoever changes a set wakes all that wait for it, and they try again.

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/ipc/id_table.h"
#include "sentry/ipc/permissions.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/time/clock.h"

namespace sentry {

struct SemLimits {
  uint32_t set_size_max = 32000;            // SEMMSL
  uint32_t semaphores_max = 1'024'000'000;  // SEMMNS, as shown; kTotalMax is what there is.
  uint32_t operations_max = 500;            // SEMOPM
  uint32_t sets_max = 32000;                // SEMMNI
};

struct SemStatus {
  IpcPermissions permissions;
  int64_t operation_s = 0, change_s = 0;
  uint64_t semaphores = 0;
};

struct SemTotals {
  int32_t sets = 0;
  int32_t index_max = 0;
  uint64_t semaphores = 0;
};

// struct sembuf.
struct SemOperation {
  uint16_t number;
  int16_t change;
  int16_t flags;
};

class SemSet;
class SemUndoList;

// Thread-safe; one lock.
class SemRegistry : public std::enable_shared_from_this<SemRegistry> {
 public:
  // `clock` outlives it.
  explicit SemRegistry(const Clock& clock) : clock_(clock) {}

  static constexpr int32_t kValueMax = 32767;  // SEMVMX, and SEMAEM
  // Semaphores of all sets, and changes to be undone: they are the sentry's memory.
  static constexpr uint64_t kTotalMax = 2'048'000;
  static constexpr uint64_t kUndoMax = 8'192'000;

  base::Result<int32_t> Get(int32_t key, int32_t count, int32_t flags, const Credentials& who);
  base::Result<std::shared_ptr<SemSet>> Find(int32_t id) const;
  static WaitQueue& QueueOf(SemSet& set);

  // One caller of semop(2), registered while it sleeps (GETNCNT, GETZCNT).
  struct Sleeper {
    uint16_t number = 0;
    bool for_zero = false;
    bool registered = false;
  };
  struct Caller {
    const Credentials& who;
    int32_t pid;
    std::shared_ptr<SemUndoList> undo;  // Null unless an operation has SEM_UNDO.
  };
  // All operations or none. EAGAIN: one has to wait: `sleeper` says which. EIDRM, EFBIG, EACCES,
  // ERANGE, ENOMEM.
  base::Result<void> Operate(SemSet& set, std::span<const SemOperation> operations,
                             const Caller& caller, Sleeper& sleeper);
  // The caller gives up, or has got what it waited for.
  void Leave(SemSet& set, Sleeper& sleeper);

  // semctl(2) by its commands. EINVAL, EACCES, EPERM, ERANGE.
  base::Result<SemStatus> Status(int32_t id, bool by_index, bool any, const Credentials& who);
  base::Result<void> SetOwner(int32_t id, const IpcOwnerChange& change, const Credentials& who);
  base::Result<void> Remove(int32_t id, const Credentials& who);
  enum class Query { kValue, kPid, kIncreaseWaiters, kZeroWaiters };
  base::Result<int32_t> Ask(int32_t id, int32_t number, Query query, const Credentials& who);
  base::Result<std::vector<uint16_t>> Values(int32_t id, const Credentials& who);
  base::Result<void> SetValue(int32_t id, int32_t number, int32_t value, const Credentials& who,
                              int32_t pid);
  // How many SetValues takes. EINVAL; EACCES.
  base::Result<size_t> CountToSet(int32_t id, const Credentials& who);
  base::Result<void> SetValues(int32_t id, std::span<const uint16_t> values, const Credentials& who,
                               int32_t pid);
  SemTotals Totals() const;
  std::vector<SemStatus> All() const;

  SemLimits limits() const;
  void set_limits(const SemLimits& limits);
  int32_t next_id() const;
  void set_next_id(int32_t id);

 private:
  friend class SemUndoList;
  int64_t NowSeconds() const;
  base::Result<std::vector<int16_t>*> UndoFor(SemSet& set, SemUndoList& list)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<void> TryLocked(SemSet& set, std::span<const SemOperation> operations,
                               std::vector<int16_t>* undo, Sleeper& sleeper)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ForgetUndo(SemSet& set, int32_t number) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void DropUndo(SemSet& set, const SemUndoList* list) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void ApplyUndo(SemUndoList& list, int32_t pid);
  base::Result<std::shared_ptr<SemSet>> FindFor(int32_t id, uint32_t access, const Credentials& who)
      ABSL_SHARED_LOCKS_REQUIRED(mu_);
  static SemStatus StatusOf(const SemSet& set);

  const Clock& clock_;
  mutable absl::Mutex mu_;
  SemLimits limits_ ABSL_GUARDED_BY(mu_);
  IpcTable<SemSet> table_ ABSL_GUARDED_BY(mu_);
  uint64_t semaphores_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t undos_ ABSL_GUARDED_BY(mu_) = 0;
};

// What a process, or those who share by CLONE_SYSVSEM, are to have undone.
class SemUndoList {
 public:
  SemUndoList() = default;
  SemUndoList(const SemUndoList&) = delete;
  SemUndoList& operator=(const SemUndoList&) = delete;
  // Undoes it all, for process `pid`.
  void Apply(int32_t pid);
  void AddSharer() { sharers_.fetch_add(1, std::memory_order_relaxed); }
  // True for the last one.
  bool RemoveSharer() { return sharers_.fetch_sub(1, std::memory_order_acq_rel) == 1; }

 private:
  friend class SemRegistry;
  std::atomic<int> sharers_{1};
  absl::Mutex mu_;
  // The sets are found here, the changes in the set: by the list's address. Those of one registry.
  std::shared_ptr<SemRegistry> registry_ ABSL_GUARDED_BY(mu_);
  // Guarded by the registry's lock.
  std::map<const SemSet*, std::weak_ptr<SemSet>> sets_;
};

}  // namespace sentry
