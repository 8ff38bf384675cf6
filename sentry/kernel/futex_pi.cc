// Priority-inheritance locks. The word holds the owner's thread id, FUTEX_WAITERS and
// FUTEX_OWNER_DIED; user code takes and releases an uncontended lock by itself, everything else
// comes here.
//
// A PiState exists for each lock that somebody waits for. Unlocking hands the lock to the first
// waiter before it is woken, so no one can take it in between. All of this runs under pi_mu_:
// contended PI locks are rare, and one lock makes the search for cycles simple. Not here:
// inheriting priorities, for the sandbox schedules nothing itself.

#include <linux/futex.h>

#include <cerrno>
#include <utility>

#include "platform/base/check.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/futex_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;
using base::UserAddr;

namespace {
constexpr int kChainMax = 1024;  // Linux: max_lock_depth.

// As the task itself calls it.
uint32_t InWord(const Task& task) { return static_cast<uint32_t>(SeenBy(task, task.tid())); }
}  // namespace

Result<FutexTable::PiWord> FutexTable::ReadPiWord(Task& task, UserAddr addr, bool shared) {
  MemoryManager& memory = task.memory();
  PiWord word{memory, addr, TRY(memory.GetFutexKey(addr, shared)), 0, nullptr};
  word.view = task.group().pid_view();
  word.owner_in_word = static_cast<int32_t>(TRY(memory.LoadWord(addr)) & FUTEX_TID_MASK);
  if (word.owner_in_word == 0) return word;
  word.owner = FindTaskFor(task, word.owner_in_word);
  word.owner_tid = ToGlobal(task, word.owner_in_word);
  if (word.owner_tid == 0) word.owner_tid = -1;  // Nobody, but not "free".
  return word;
}

// One attempt to make `taker_tid` the owner; on kMustWait, FUTEX_WAITERS is set.
Result<FutexTable::PiTake> FutexTable::TakePi(const PiWord& word, int32_t taker_tid,
                                              bool set_waiters) {
  const uint32_t old_word = TRY(word.memory.LoadWord(word.addr));
  if (static_cast<int32_t>(old_word & FUTEX_TID_MASK) != word.owner_in_word)
    return PiTake::kChanged;
  if (word.owner_tid == taker_tid) return Errno(EDEADLK);
  const auto state = pi_states_.find(word.key);
  if (state != pi_states_.end()) {
    // User code has changed the word under the waiters.
    if (state->second->owner_tid != word.owner_tid) return Errno(EINVAL);
    return PiTake::kMustWait;
  }
  uint32_t new_word = old_word | FUTEX_WAITERS;
  if (word.owner_tid == 0) {
    new_word = (old_word & FUTEX_OWNER_DIED) | static_cast<uint32_t>(SeenBy(word.view, taker_tid));
    if (set_waiters) new_word |= FUTEX_WAITERS;
  } else if (word.owner == nullptr || word.owner->left_futexes_) {
    return Errno(ESRCH);
  }
  if (TRY(word.memory.CompareExchangeWord(word.addr, old_word, new_word)) != old_word)
    return PiTake::kChanged;
  return word.owner_tid == 0 ? PiTake::kTaken : PiTake::kMustWait;
}

// EDEADLK if `owner_tid` waits, perhaps through others, for a lock of `waiter_tid`.
Result<void> FutexTable::CheckCycle(int32_t waiter_tid, int32_t owner_tid) {
  for (int depth = 0; depth < kChainMax; ++depth) {
    if (owner_tid == waiter_tid) return Errno(EDEADLK);
    const auto blocked = pi_blocked_.find(owner_tid);
    if (blocked == pi_blocked_.end()) return {};
    const auto state = pi_states_.find(blocked->second);
    if (state == pi_states_.end()) return {};
    owner_tid = state->second->owner_tid;
  }
  return Errno(EDEADLK);
}

void FutexTable::AddPiWaiter(FutexWaiter& waiter, const PiWord& word, int32_t owner_tid) {
  std::unique_ptr<PiState>& state = pi_states_[word.key];
  if (state == nullptr) {
    state = std::make_unique<PiState>();
    state->owner_tid = owner_tid;
  }
  state->waiters.push_back(&waiter);
  pi_blocked_[waiter.task->tid()] = word.key;
}

void FutexTable::LeavePi(FutexWaiter& waiter) {
  const auto state = pi_states_.find(waiter.key);
  CHECK(state != pi_states_.end());
  state->second->waiters.remove(&waiter);
  if (state->second->waiters.empty()) pi_states_.erase(state);
  pi_blocked_.erase(waiter.task->tid());
  CHECK(!Unqueue(waiter));
}

// The word says already that the first waiter is the owner.
void FutexTable::HandOver(const FutexKey& key) {
  const auto state = pi_states_.find(key);
  FutexWaiter& first = *state->second->waiters.front();
  state->second->waiters.pop_front();
  state->second->owner_tid = first.task->tid();
  if (state->second->waiters.empty()) pi_states_.erase(state);
  pi_blocked_.erase(first.task->tid());
  WakeList wake;
  const absl::MutexLock lock(&BucketOf(key).mu);
  wake.Take(first);
}

Result<void> FutexTable::LockPi(Task& task, UserAddr addr, bool shared, Deadline deadline,
                                bool try_only) {
  FutexWaiter waiter;
  task.ClearWake();
  while (true) {
    const PiWord word = TRY(ReadPiWord(task, addr, shared));
    const absl::MutexLock lock(&pi_mu_);
    const PiTake take = TRY(TakePi(word, task.tid(), /*set_waiters=*/false));
    if (take == PiTake::kTaken) return {};
    if (take == PiTake::kChanged) continue;
    if (try_only) return Errno(EAGAIN);
    TRY(CheckCycle(task.tid(), word.owner_tid));
    waiter.task = &task;
    waiter.memory = &word.memory;
    waiter.pi_addr = addr;
    waiter.key = word.key;
    waiter.is_pi = true;
    AddPiWaiter(waiter, word, word.owner_tid);
    FutexBucket& bucket = BucketOf(word.key);
    const absl::MutexLock bucket_lock(&bucket.mu);
    waiter.position = bucket.waiters.insert(bucket.waiters.end(), &waiter);
    waiter.bucket.store(&bucket, std::memory_order_release);
    break;
  }
  while (!waiter.woken.load(std::memory_order_acquire)) {
    const Result<void> slept = task.Block(deadline);
    if (slept.ok()) continue;
    const absl::MutexLock lock(&pi_mu_);
    if (waiter.woken.load(std::memory_order_acquire)) break;  // It is ours all the same.
    LeavePi(waiter);
    return slept.error().IsRestart() ? base::kRestartNoIntr : slept.error();
  }
  return {};
}

Result<void> FutexTable::UnlockPi(Task& task, UserAddr addr, bool shared) {
  MemoryManager& memory = task.memory();
  const FutexKey key = TRY(memory.GetFutexKey(addr, shared));
  while (true) {
    const absl::MutexLock lock(&pi_mu_);
    const uint32_t old_word = TRY(memory.LoadWord(addr));
    if (static_cast<int32_t>(old_word & FUTEX_TID_MASK) != SeenBy(task, task.tid()))
      return Errno(EPERM);
    const auto state = pi_states_.find(key);
    uint32_t new_word = 0;
    if (state != pi_states_.end()) {
      if (state->second->owner_tid != task.tid()) return Errno(EINVAL);
      new_word = FUTEX_WAITERS | InWord(*state->second->waiters.front()->task);
    }
    if (TRY(memory.CompareExchangeWord(addr, old_word, new_word)) != old_word) continue;
    if (state != pi_states_.end()) HandOver(key);
    return {};
  }
}

Result<void> FutexTable::WaitRequeuePi(Task& task, const Pair& pair, uint32_t expected,
                                       uint32_t bitset, Deadline deadline) {
  if (bitset == 0 || pair.from == pair.to) return Errno(EINVAL);
  MemoryManager& memory = task.memory();
  FutexWaiter waiter;
  waiter.memory = &memory;
  waiter.pi_addr = pair.to;
  waiter.requeue_pi_key = TRY(memory.GetFutexKey(pair.to, pair.to_shared));
  if (TRY(memory.GetFutexKey(pair.from, pair.from_shared)) == *waiter.requeue_pi_key)
    return Errno(EINVAL);
  task.ClearWake();
  TRY(Enqueue(task, waiter, {pair.from, expected, pair.from_shared}, bitset));
  while (!waiter.woken.load(std::memory_order_acquire)) {
    const Result<void> slept = task.Block(deadline);
    if (slept.ok()) continue;
    const bool timed_out = slept.error() == ETIMEDOUT;
    const absl::MutexLock lock(&pi_mu_);
    if (waiter.woken.load(std::memory_order_acquire)) break;
    if (waiter.requeued) {
      LeavePi(waiter);
      // The wait on the condition is over: only the lock was missing, and the call cannot be
      // restarted.
      return timed_out ? slept.error() : Errno(EAGAIN);
    }
    // Nobody wakes a waiter of this kind without pi_mu_.
    CHECK(!Unqueue(waiter));
    return timed_out ? slept.error() : base::kRestartNoIntr;
  }
  return {};
}

Result<uint64_t> FutexTable::CmpRequeuePi(Task& task, const Pair& pair, int32_t requeue_count,
                                          uint32_t expected) {
  if (requeue_count < 0) return Errno(EINVAL);
  MemoryManager& memory = task.memory();
  const FutexKey from = TRY(memory.GetFutexKey(pair.from, pair.from_shared));
  FutexBucket& from_bucket = BucketOf(from);
  while (true) {
    const PiWord word = TRY(ReadPiWord(task, pair.to, pair.to_shared));
    if (from == word.key) return Errno(EINVAL);
    FutexBucket& to_bucket = BucketOf(word.key);
    WakeList wake;
    const absl::MutexLock lock(&pi_mu_);
    const TwoBuckets bucket_lock(from_bucket, to_bucket);
    if (TRY(memory.LoadWord(pair.from)) != expected) return Errno(EAGAIN);
    const uint64_t all = uint64_t{1} + static_cast<uint64_t>(requeue_count);
    absl::InlinedVector<FutexWaiter*, 8> found;
    for (FutexWaiter* waiter : from_bucket.waiters) {
      if (found.size() == all) break;
      if (waiter->key != from) continue;
      if (waiter->requeue_pi_key != word.key) return Errno(EINVAL);
      found.push_back(waiter);
    }
    if (found.empty()) return uint64_t{0};

    // The first one gets the lock if it is free.
    const int32_t first_tid = found.front()->task->tid();
    const PiTake take = TRY(TakePi(word, first_tid, /*set_waiters=*/found.size() > 1));
    if (take == PiTake::kChanged) continue;
    const int32_t owner_tid = take == PiTake::kTaken ? first_tid : word.owner_tid;
    uint64_t done = 0;
    for (FutexWaiter* waiter : found) {
      if (take == PiTake::kTaken && done == 0) {
        wake.Take(*waiter);
      } else {
        const Result<void> acyclic = CheckCycle(waiter->task->tid(), owner_tid);
        if (!acyclic.ok()) {
          if (done == 0) return acyclic.error();
          break;
        }
        waiter->key = word.key;
        waiter->is_pi = true;
        waiter->requeued = true;
        to_bucket.waiters.splice(to_bucket.waiters.end(), from_bucket.waiters, waiter->position);
        waiter->bucket.store(&to_bucket, std::memory_order_release);
        AddPiWaiter(*waiter, word, owner_tid);
      }
      ++done;
    }
    return done;
  }
}

void FutexTable::ExitPiState(Task& task, bool final) {
  const absl::MutexLock lock(&pi_mu_);
  if (final) task.left_futexes_ = true;
  absl::InlinedVector<FutexKey, 4> held;
  for (const auto& [key, state] : pi_states_) {
    if (state->owner_tid == task.tid()) held.push_back(key);
  }
  for (const FutexKey& key : held) {
    const FutexWaiter& first = *pi_states_[key]->waiters.front();
    const uint32_t new_word = FUTEX_WAITERS | FUTEX_OWNER_DIED | InWord(*first.task);
    // A word that cannot be written any more is the new owner's problem.
    Result<uint32_t> old_word = first.memory->LoadWord(first.pi_addr);
    while (old_word.ok()) {
      const uint32_t tried = old_word.value();
      old_word = first.memory->CompareExchangeWord(first.pi_addr, tried, new_word);
      if (!old_word.ok() || old_word.value() == tried) break;
    }
    HandOver(key);
  }
}

}  // namespace sentry
