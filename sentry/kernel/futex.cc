// A waiter must not miss a wake-up that comes after its look at the word. So the look and the
// queueing happen under the lock of the word's bucket, which every waker takes. The load may have
// to resolve a fault inside MemoryManager; that is done once without the lock, so that under it the
// load is normally a plain one.

#include "sentry/kernel/futex.h"

#include <linux/futex.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <vector>

#include "absl/hash/hash.h"
#include "platform/base/check.h"
#include "sentry/kernel/futex_internal.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;
using base::UserAddr;

FutexTable::FutexTable() : buckets_(std::make_unique<FutexBucket[]>(kBuckets)) {}
FutexTable::~FutexTable() = default;

FutexBucket& FutexTable::BucketOf(const FutexKey& key) {
  return buckets_[absl::HashOf(key) & (kBuckets - 1)];
}

Result<void> FutexTable::Enqueue(Task& task, FutexWaiter& waiter, const FutexWaitRequest& request,
                                 uint32_t bitset) {
  MemoryManager& memory = task.memory();
  if (TRY(memory.LoadWord(request.addr)) != request.expected) return Errno(EAGAIN);
  waiter.task = &task;
  waiter.bitset = bitset;
  waiter.key = TRY(memory.GetFutexKey(request.addr, request.shared));
  FutexBucket& bucket = BucketOf(waiter.key);
  const absl::MutexLock lock(&bucket.mu);
  if (TRY(memory.LoadWord(request.addr)) != request.expected) return Errno(EAGAIN);
  waiter.position = bucket.waiters.insert(bucket.waiters.end(), &waiter);
  waiter.bucket.store(&bucket, std::memory_order_release);
  return {};
}

bool FutexTable::Unqueue(FutexWaiter& waiter) {
  while (!waiter.woken.load(std::memory_order_acquire)) {
    FutexBucket* const bucket = waiter.bucket.load(std::memory_order_acquire);
    if (bucket == nullptr) continue;  // Just being woken.
    const absl::MutexLock lock(&bucket->mu);
    if (waiter.bucket.load(std::memory_order_relaxed) != bucket)
      continue;  // Woken, or moved elsewhere.
    bucket->waiters.erase(waiter.position);
    waiter.bucket.store(nullptr, std::memory_order_relaxed);
    return false;
  }
  return true;
}

Result<void> FutexTable::Wait(Task& task, UserAddr addr, bool shared, uint32_t expected,
                              uint32_t bitset, Deadline deadline) {
  if (bitset == 0) return Errno(EINVAL);
  FutexWaiter waiter;
  task.ClearWake();
  TRY(Enqueue(task, waiter, {addr, expected, shared}, bitset));
  while (!waiter.woken.load(std::memory_order_acquire)) {
    const Result<void> slept = task.Block(deadline);
    if (slept.ok()) continue;
    // A wake-up that came first counts: the waker has been told that it woke someone.
    if (Unqueue(waiter)) break;
    return slept.error();
  }
  return {};
}

Result<uint64_t> FutexTable::WaitMultiple(Task& task, std::span<const FutexWaitRequest> requests,
                                          Deadline deadline) {
  CHECK(!requests.empty() && requests.size() <= kFutexWaitvMax);
  const auto waiters = std::make_unique<FutexWaiter[]>(requests.size());
  // Takes all of the first `count` out; the index of the last one that was woken.
  const auto unqueue = [&](size_t count) {
    std::optional<uint64_t> woken;
    for (size_t i = 0; i < count; ++i) {
      if (Unqueue(waiters[i])) woken = i;
    }
    return woken;
  };
  task.ClearWake();
  for (size_t i = 0; i < requests.size(); ++i) {
    const Result<void> queued = Enqueue(task, waiters[i], requests[i], kFutexBitsetAny);
    if (queued.ok()) continue;
    const std::optional<uint64_t> woken = unqueue(i);
    if (woken.has_value()) return *woken;
    return queued.error();
  }
  Result<void> slept;
  while (slept.ok()) {
    for (size_t i = 0; i < requests.size(); ++i) {
      if (waiters[i].woken.load(std::memory_order_acquire)) return *unqueue(requests.size());
    }
    slept = task.Block(deadline);
  }
  const std::optional<uint64_t> woken = unqueue(requests.size());
  if (woken.has_value()) return *woken;
  return slept.error();
}

Result<uint64_t> FutexTable::Wake(MemoryManager& memory, UserAddr addr, bool shared, int32_t count,
                                  uint32_t bitset) {
  if (bitset == 0) return Errno(EINVAL);
  const FutexKey key = TRY(memory.GetFutexKey(addr, shared));
  WakeList wake;
  FutexBucket& bucket = BucketOf(key);
  const absl::MutexLock lock(&bucket.mu);
  uint64_t woken = 0;
  for (auto next = bucket.waiters.begin(); next != bucket.waiters.end();) {
    FutexWaiter& waiter = **next++;
    if (waiter.key != key) continue;
    if (waiter.is_pi || waiter.requeue_pi_key.has_value()) return Errno(EINVAL);
    if ((waiter.bitset & bitset) == 0) continue;
    wake.Take(waiter);
    if (++woken >= static_cast<uint64_t>(std::max(count, 1))) break;
  }
  return woken;
}

void FutexTable::Wake(MemoryManager& memory, UserAddr addr, int32_t count) {
  // An address that is not mapped any more has no waiters.
  (void)Wake(memory, addr, /*shared=*/true, count, kFutexBitsetAny);
}

Result<uint64_t> FutexTable::Requeue(MemoryManager& memory, const Pair& pair, int32_t wake_count,
                                     int32_t requeue_count, const uint32_t* expected) {
  if (wake_count < 0 || requeue_count < 0) return Errno(EINVAL);
  const FutexKey from = TRY(memory.GetFutexKey(pair.from, pair.from_shared));
  const FutexKey to = TRY(memory.GetFutexKey(pair.to, pair.to_shared));
  if (expected != nullptr && TRY(memory.LoadWord(pair.from)) != *expected) return Errno(EAGAIN);
  FutexBucket& from_bucket = BucketOf(from);
  FutexBucket& to_bucket = BucketOf(to);
  WakeList wake;
  const TwoBuckets lock(from_bucket, to_bucket);
  if (expected != nullptr && TRY(memory.LoadWord(pair.from)) != *expected) return Errno(EAGAIN);
  uint64_t done = 0;
  const uint64_t wakes = static_cast<uint64_t>(wake_count);
  const uint64_t all = wakes + static_cast<uint64_t>(requeue_count);
  // Collected first: a move within one bucket must not be met again.
  absl::InlinedVector<FutexWaiter*, 8> found;
  for (FutexWaiter* waiter : from_bucket.waiters) {
    if (found.size() == all) break;
    if (waiter->key != from) continue;
    if (waiter->is_pi || waiter->requeue_pi_key.has_value()) return Errno(EINVAL);
    found.push_back(waiter);
  }
  for (FutexWaiter* waiter : found) {
    if (done++ < wakes) {
      wake.Take(*waiter);
      continue;
    }
    waiter->key = to;
    to_bucket.waiters.splice(to_bucket.waiters.end(), from_bucket.waiters, waiter->position);
    waiter->bucket.store(&to_bucket, std::memory_order_release);
  }
  return done;
}

namespace {

struct DecodedOperation {
  uint32_t operation = 0;
  uint32_t comparison = 0;
  int32_t operand = 0;
  int32_t comparand = 0;
};

// FUTEX_OP() of <linux/futex.h>.
DecodedOperation Decode(uint32_t encoded) {
  const auto extend12 = [](uint32_t bits) { return static_cast<int32_t>(bits << 20) >> 20; };
  DecodedOperation decoded;
  decoded.operation = (encoded >> 28) & 7;
  decoded.comparison = (encoded >> 24) & 15;
  decoded.operand = extend12((encoded >> 12) & 0xfff);
  decoded.comparand = extend12(encoded & 0xfff);
  // Out of range operands are cut, as x86 shifts do.
  if ((encoded >> 31) != 0)
    decoded.operand = static_cast<int32_t>(1U << (static_cast<uint32_t>(decoded.operand) & 31));
  return decoded;
}

Result<uint32_t> Apply(const DecodedOperation& op, uint32_t old_word) {
  const uint32_t operand = static_cast<uint32_t>(op.operand);
  switch (op.operation) {
    case FUTEX_OP_SET:
      return operand;
    case FUTEX_OP_ADD:
      return old_word + operand;
    case FUTEX_OP_OR:
      return old_word | operand;
    case FUTEX_OP_ANDN:
      return old_word & ~operand;
    case FUTEX_OP_XOR:
      return old_word ^ operand;
    default:
      return Errno(ENOSYS);
  }
}

Result<bool> Compare(const DecodedOperation& op, uint32_t old_word) {
  const int32_t old_value = static_cast<int32_t>(old_word);
  switch (op.comparison) {
    case FUTEX_OP_CMP_EQ:
      return old_value == op.comparand;
    case FUTEX_OP_CMP_NE:
      return old_value != op.comparand;
    case FUTEX_OP_CMP_LT:
      return old_value < op.comparand;
    case FUTEX_OP_CMP_LE:
      return old_value <= op.comparand;
    case FUTEX_OP_CMP_GT:
      return old_value > op.comparand;
    case FUTEX_OP_CMP_GE:
      return old_value >= op.comparand;
    default:
      return Errno(ENOSYS);
  }
}

}  // namespace

Result<uint64_t> FutexTable::WakeOp(MemoryManager& memory, const Pair& pair, int32_t wake_count,
                                    int32_t wake_count_to, uint32_t operation) {
  const FutexKey from = TRY(memory.GetFutexKey(pair.from, pair.from_shared));
  const FutexKey to = TRY(memory.GetFutexKey(pair.to, pair.to_shared));
  const DecodedOperation op = Decode(operation);
  TRY(Apply(op, 0));
  FutexBucket& from_bucket = BucketOf(from);
  FutexBucket& to_bucket = BucketOf(to);
  WakeList wake;
  const TwoBuckets lock(from_bucket, to_bucket);
  uint32_t old_word = TRY(memory.LoadWord(pair.to));
  while (true) {
    const uint32_t seen =
        TRY(memory.CompareExchangeWord(pair.to, old_word, TRY(Apply(op, old_word))));
    if (seen == old_word) break;
    old_word = seen;
  }
  const bool also_to = TRY(Compare(op, old_word));
  uint64_t total = 0;
  const auto wake_up_to = [&](FutexBucket& bucket, const FutexKey& key, int32_t count)
                              ABSL_NO_THREAD_SAFETY_ANALYSIS -> Result<void> {
    uint64_t woken = 0;
    for (auto next = bucket.waiters.begin(); next != bucket.waiters.end();) {
      FutexWaiter& waiter = **next++;
      if (waiter.key != key) continue;
      if (waiter.is_pi || waiter.requeue_pi_key.has_value()) return Errno(EINVAL);
      wake.Take(waiter);
      if (++woken >= static_cast<uint64_t>(std::max(count, 1))) break;
    }
    total += woken;
    return {};
  };
  TRY(wake_up_to(from_bucket, from, wake_count));
  if (also_to) TRY(wake_up_to(to_bucket, to, wake_count_to));
  return total;
}

// --- Robust lists.

namespace {

constexpr int kRobustListMax = 2048;  // ROBUST_LIST_LIMIT

// struct robust_list_head
struct RobustListHead {
  uint64_t next = 0;
  int64_t futex_offset = 0;
  uint64_t pending = 0;
};

// Bit 0 of a link marks a PI lock.
struct RobustLink {
  explicit RobustLink(uint64_t raw) : addr(raw & ~uint64_t{1}), pi((raw & 1) != 0) {}
  uint64_t addr;
  bool pi;
};

}  // namespace

// False if the list is not to be followed any further.
bool FutexTable::HandleFutexDeath(Task& task, UserAddr addr, bool pi, bool pending) {
  if ((addr.value() & 3) != 0) return false;
  MemoryManager& memory = task.memory();
  Result<uint32_t> word = memory.LoadWord(addr);
  while (true) {
    if (!word.ok()) return false;
    const uint32_t old_word = word.value();
    // The holder died between releasing the word and waking a waiter.
    if (pending && !pi && old_word == 0) {
      Wake(memory, addr, 1);
      return true;
    }
    if ((old_word & FUTEX_TID_MASK) != static_cast<uint32_t>(SeenBy(task, task.tid()))) return true;
    const uint32_t new_word = (old_word & FUTEX_WAITERS) | FUTEX_OWNER_DIED;
    word = memory.CompareExchangeWord(addr, old_word, new_word);
    if (!word.ok() || word.value() != old_word) continue;
    if (!pi && (old_word & FUTEX_WAITERS) != 0) Wake(memory, addr, 1);
    return true;
  }
}

void FutexTable::ExitRobustList(Task& task, UserAddr head_addr) {
  if (head_addr.is_null()) return;
  MemoryManager& memory = task.memory();
  const Result<RobustListHead> head = memory.CopyIn(base::UserIn<RobustListHead>(head_addr));
  if (!head.ok()) return;
  const uint64_t offset = static_cast<uint64_t>(head.value().futex_offset);
  const RobustLink pending(head.value().pending);
  RobustLink entry(head.value().next);
  for (int i = 0; i < kRobustListMax && entry.addr != head_addr.value(); ++i) {
    // Read before the word is released: its memory may then be freed by others.
    const Result<uint64_t> next = memory.CopyIn(base::UserIn<uint64_t>(UserAddr(entry.addr)));
    if (entry.addr != pending.addr &&
        !HandleFutexDeath(task, UserAddr(entry.addr + offset), entry.pi, /*pending=*/false)) {
      return;
    }
    if (!next.ok()) break;
    entry = RobustLink(next.value());
  }
  if (pending.addr != 0)
    HandleFutexDeath(task, UserAddr(pending.addr + offset), pending.pi, /*pending=*/true);
}

}  // namespace sentry
