#include "syscalls/handlers/futex.h"

#include <linux/futex.h>
#include <time.h>

#include <cerrno>
#include <vector>

#include "sentry/kernel/futex.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::Deadline;
using sentry::FutexTable;
using sentry::Task;

namespace {

struct WaitArguments {
  UserAddr addr;
  bool shared = false;
  uint32_t expected = 0;
  uint32_t bitset = 0;
  Deadline deadline;
};

// FUTEX_WAIT and FUTEX_WAIT_BITSET: a wait with an end goes on until the same end after a signal
// without handler.
Result<uint64_t> WaitRestartably(Task& task, const WaitArguments& wait) {
  const Result<void> waited = task.kernel().futexes().Wait(
      task, wait.addr, wait.shared, wait.expected, wait.bitset, wait.deadline);
  if (waited.ok()) return uint64_t{0};
  if (waited.error() != base::kRestartSys || wait.deadline.IsNever()) return waited.error();
  return task.RestartWith([wait](Task& restarted) { return WaitRestartably(restarted, wait); });
}

Result<Deadline> FutexDeadline(Task& task, int command, bool realtime,
                               UserIn<abi::Timespec> timeout) {
  if (timeout.is_null()) return Deadline::Never();
  const int64_t ns = TRY(ToNs(TRY(task.CopyIn(timeout))));
  const sentry::Clock& clock = task.kernel().clock();
  if (command == FUTEX_WAIT) return DeadlineAfter(clock, ns);
  return DeadlineAt(clock, realtime || command == FUTEX_LOCK_PI ? CLOCK_REALTIME : CLOCK_MONOTONIC,
                    ns);
}

bool TakesTimeout(int command) {
  return command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET || command == FUTEX_LOCK_PI ||
         command == FUTEX_LOCK_PI2 || command == FUTEX_WAIT_REQUEUE_PI;
}

bool TakesRealtime(int command) {
  return command == FUTEX_WAIT_BITSET || command == FUTEX_WAIT_REQUEUE_PI ||
         command == FUTEX_LOCK_PI2;
}

template <typename T>
Result<uint64_t> Zero(const Result<T>& result) {
  if (!result.ok()) return result.error();
  return uint64_t{0};
}

}  // namespace

Result<uint64_t> Futex(Task& task, UserAddr addr, int32_t operation, uint32_t value,
                       uint64_t timeout_or_count, UserAddr addr2, uint32_t value3) {
  const int command = operation & FUTEX_CMD_MASK;
  const bool shared = (operation & FUTEX_PRIVATE_FLAG) == 0;
  const bool realtime = (operation & FUTEX_CLOCK_REALTIME) != 0;
  Deadline deadline;
  if (TakesTimeout(command)) {
    deadline = TRY(
        FutexDeadline(task, command, realtime, UserIn<abi::Timespec>(UserAddr(timeout_or_count))));
  }
  if (realtime && !TakesRealtime(command)) return Errno(ENOSYS);

  FutexTable& table = task.kernel().futexes();
  sentry::MemoryManager& memory = task.memory();
  const int32_t count = static_cast<int32_t>(value);
  const int32_t count2 = static_cast<int32_t>(timeout_or_count);
  const FutexTable::Pair pair{addr, shared, addr2, shared};
  switch (command) {
    case FUTEX_WAIT:
      return WaitRestartably(task, {addr, shared, value, sentry::kFutexBitsetAny, deadline});
    case FUTEX_WAIT_BITSET:
      return WaitRestartably(task, {addr, shared, value, value3, deadline});
    case FUTEX_WAKE:
      return table.Wake(memory, addr, shared, count, sentry::kFutexBitsetAny);
    case FUTEX_WAKE_BITSET:
      return table.Wake(memory, addr, shared, count, value3);
    case FUTEX_REQUEUE:
      return table.Requeue(memory, pair, count, count2, nullptr);
    case FUTEX_CMP_REQUEUE:
      return table.Requeue(memory, pair, count, count2, &value3);
    case FUTEX_WAKE_OP:
      return table.WakeOp(memory, pair, count, count2, value3);
    case FUTEX_LOCK_PI:
    case FUTEX_LOCK_PI2:
      return Zero(table.LockPi(task, addr, shared, deadline, /*try_only=*/false));
    case FUTEX_TRYLOCK_PI:
      return Zero(table.LockPi(task, addr, shared, Deadline::Never(), /*try_only=*/true));
    case FUTEX_UNLOCK_PI:
      return Zero(table.UnlockPi(task, addr, shared));
    case FUTEX_WAIT_REQUEUE_PI:
      return Zero(table.WaitRequeuePi(task, pair, value, sentry::kFutexBitsetAny, deadline));
    case FUTEX_CMP_REQUEUE_PI:
      if (value != 1) return Errno(EINVAL);
      return table.CmpRequeuePi(task, pair, count2, value3);
    default:
      return Errno(ENOSYS);
  }
}

namespace {

// FUTEX2_* flags: only words of 32 bits.
Result<bool> SharedFromFlags(uint32_t flags) {
  if ((flags & ~abi::kFutex2Private) != abi::kFutex2SizeU32) return Errno(EINVAL);
  return (flags & abi::kFutex2Private) == 0;
}

Result<uint32_t> Word(uint64_t value) {
  if (value > UINT32_MAX) return Errno(EINVAL);
  return static_cast<uint32_t>(value);
}

Result<Deadline> AbsoluteDeadline(Task& task, UserIn<abi::Timespec> timeout, int32_t clock_id) {
  if (timeout.is_null()) return Deadline::Never();
  if (clock_id != CLOCK_MONOTONIC && clock_id != CLOCK_REALTIME) return Errno(EINVAL);
  const int64_t ns = TRY(ToNs(TRY(task.CopyIn(timeout))));
  return DeadlineAt(task.kernel().clock(), clock_id, ns);
}

Result<sentry::FutexWaitRequest> ToRequest(const abi::FutexWaitv& waiter) {
  if (waiter.reserved != 0) return Errno(EINVAL);
  sentry::FutexWaitRequest request;
  request.shared = TRY(SharedFromFlags(waiter.flags));
  request.expected = TRY(Word(waiter.val));
  request.addr = UserAddr(waiter.uaddr);
  return request;
}

}  // namespace

Result<uint64_t> FutexWaitv(Task& task, UserAddr waiters, uint32_t count, uint32_t flags,
                            UserIn<abi::Timespec> timeout, int32_t clock_id) {
  if (flags != 0 || count == 0 || count > sentry::kFutexWaitvMax || waiters.is_null())
    return Errno(EINVAL);
  const Deadline deadline = TRY(AbsoluteDeadline(task, timeout, clock_id));
  const std::vector<abi::FutexWaitv> entries =
      TRY(task.memory().CopyInArray<abi::FutexWaitv>(waiters, count));
  std::vector<sentry::FutexWaitRequest> requests;
  requests.reserve(count);
  for (const abi::FutexWaitv& entry : entries) requests.push_back(TRY(ToRequest(entry)));
  return task.kernel().futexes().WaitMultiple(task, requests, deadline);
}

Result<uint64_t> FutexWake(Task& task, UserAddr addr, uint64_t mask, int32_t count,
                           uint32_t flags) {
  const bool shared = TRY(SharedFromFlags(flags));
  const uint32_t bitset = TRY(Word(mask));
  if (bitset == 0) return Errno(EINVAL);
  if (count <= 0) return uint64_t{0};
  return task.kernel().futexes().Wake(task.memory(), addr, shared, count, bitset);
}

Result<void> FutexWait(Task& task, UserAddr addr, uint64_t value, uint64_t mask, uint32_t flags,
                       UserIn<abi::Timespec> timeout, int32_t clock_id) {
  const bool shared = TRY(SharedFromFlags(flags));
  const uint32_t expected = TRY(Word(value));
  const uint32_t bitset = TRY(Word(mask));
  const Deadline deadline = TRY(AbsoluteDeadline(task, timeout, clock_id));
  return task.kernel().futexes().Wait(task, addr, shared, expected, bitset, deadline);
}

Result<uint64_t> FutexRequeue(Task& task, UserIn<std::array<abi::FutexWaitv, 2>> waiters,
                              uint32_t flags, int32_t wake_count, int32_t requeue_count) {
  if (flags != 0 || waiters.is_null()) return Errno(EINVAL);
  const std::array<abi::FutexWaitv, 2> entries = TRY(task.CopyIn(waiters));
  const sentry::FutexWaitRequest from = TRY(ToRequest(entries[0]));
  const sentry::FutexWaitRequest to = TRY(ToRequest(entries[1]));
  return task.kernel().futexes().Requeue(task.memory(),
                                         {from.addr, from.shared, to.addr, to.shared}, wake_count,
                                         requeue_count, &from.expected);
}

Result<void> SetRobustList(Task& task, UserAddr head, uint64_t bytes) {
  if (bytes != abi::kRobustListHeadBytes) return Errno(EINVAL);
  task.set_robust_list(head);
  return {};
}

// get_robust_list(2), guarded as ptrace(2)'s PTRACE_MODE_READ_REALCREDS.
Result<void> GetRobustList(Task& task, int32_t tid, UserOut<uint64_t> head,
                           UserOut<uint64_t> bytes) {
  sentry::TaskRef target = tid == 0 ? task.shared_from_this() : sentry::FindTaskFor(task, tid);
  if (target == nullptr) return Errno(ESRCH);
  if (&target->group() != &task.group()) {
    const sentry::CredentialsRef theirs = target->credentials();
    const sentry::Credentials& own = task.own_credentials();
    const bool same_user = own.uid == theirs->euid && own.uid == theirs->suid &&
                           own.uid == theirs->uid && own.gid == theirs->egid &&
                           own.gid == theirs->sgid && own.gid == theirs->gid;
    constexpr int kCapSysPtrace = 19;
    if (!same_user && !own.HasCapability(kCapSysPtrace)) return Errno(EPERM);
  }
  TRY(task.CopyOut(bytes, abi::kRobustListHeadBytes));
  return task.CopyOut(head, target->robust_list().value());
}

}  // namespace syscalls
