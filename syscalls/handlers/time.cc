#include "syscalls/handlers/time.h"

#include <linux/capability.h>
#include <sys/timex.h>
#include <time.h>

#include <algorithm>
#include <cerrno>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "syscalls/handlers/clock_id.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserIn;
using base::UserInOut;
using base::UserOut;
using sentry::Deadline;
using sentry::Task;
using Base = ClockKind::Base;

namespace {

constexpr int64_t kTickNs = 4'000'000;  // CONFIG_HZ=250
constexpr int64_t kCpuSleepStepNs = 1'000'000;

// Ids below 0: ~pid << 3, a bit for "thread", two bits for the kind of time (posix-timers.h).
Result<ClockKind> ResolveCpuClock(Task& task, int32_t clock_id) {
  constexpr int32_t kThreadBit = 4;
  constexpr int32_t kVirtual = 1;
  constexpr int32_t kOfDescriptor = 3;
  const int32_t id = ~(clock_id >> 3);
  if ((clock_id & 3) == kOfDescriptor) return Errno(EINVAL);
  ClockKind kind;
  kind.user_only = (clock_id & 3) == kVirtual;
  if ((clock_id & kThreadBit) != 0) {
    kind.base = Base::kThreadCpu;
    kind.thread = id == 0 ? task.shared_from_this() : sentry::FindTaskFor(task, id);
    if (kind.thread == nullptr || &kind.thread->group() != &task.group()) return Errno(EINVAL);
  } else {
    kind.base = Base::kProcessCpu;
    kind.group = id == 0 || id == task.tid() ? task.group_ref() : sentry::FindGroupFor(task, id);
    if (kind.group == nullptr) return Errno(EINVAL);
  }
  return kind;
}

}  // namespace

Result<ClockKind> ResolveClock(Task& task, int32_t clock_id) {
  if (clock_id < 0) return ResolveCpuClock(task, clock_id);
  ClockKind kind;
  switch (clock_id) {
    case CLOCK_REALTIME:
    case CLOCK_TAI:
      break;
    case CLOCK_REALTIME_COARSE:
      kind.coarse = true;
      break;
    case CLOCK_REALTIME_ALARM:
      kind.alarm = true;
      break;
    case CLOCK_MONOTONIC:
    case CLOCK_BOOTTIME:
      kind.base = Base::kMonotonic;
      break;
    case CLOCK_MONOTONIC_RAW:
    case CLOCK_MONOTONIC_COARSE:
      kind.base = Base::kMonotonic, kind.coarse = true;
      break;
    case CLOCK_BOOTTIME_ALARM:
      kind.base = Base::kMonotonic, kind.alarm = true;
      break;
    case CLOCK_PROCESS_CPUTIME_ID:
      kind.base = Base::kProcessCpu, kind.group = task.group_ref();
      break;
    case CLOCK_THREAD_CPUTIME_ID:
      kind.base = Base::kThreadCpu, kind.thread = task.shared_from_this();
      break;
    default:
      return Errno(EINVAL);
  }
  return kind;
}

int64_t ReadClock(Task& task, const ClockKind& kind) {
  switch (kind.base) {
    case Base::kRealtime:
      return task.kernel().clock().RealtimeNs();
    case Base::kMonotonic:
      return task.kernel().clock().MonotonicNs();
    case Base::kProcessCpu:
    case Base::kThreadCpu:
      break;
  }
  const sentry::ResourceUsage usage =
      kind.group != nullptr ? kind.group->Usage() : kind.thread->Usage();
  return kind.user_only ? usage.user_ns : usage.user_ns + usage.system_ns;
}

Result<void> ClockGettime(Task& task, int32_t clock_id, UserOut<abi::Timespec> out) {
  const ClockKind kind = TRY(ResolveClock(task, clock_id));
  return task.CopyOut(out, ToTimespec(ReadClock(task, kind)));
}

// A container's root has no CAP_SYS_TIME: the clock belongs to the host.
Result<void> ClockSettime(Task& task, int32_t clock_id, UserIn<abi::Timespec> time) {
  const ClockKind kind = TRY(ResolveClock(task, clock_id));
  if (!kind.is_cpu() && clock_id != CLOCK_REALTIME) return Errno(EINVAL);
  TRY(ToNs(TRY(task.CopyIn(time))));
  return Errno(EPERM);
}

Result<void> ClockGetres(Task& task, int32_t clock_id, UserOut<abi::Timespec> out) {
  const ClockKind kind = TRY(ResolveClock(task, clock_id));
  if (out.is_null()) return {};
  constexpr int32_t kSchedClock = 2;
  const bool of_ticks = (clock_id < 0 && (clock_id & 3) != kSchedClock) ||
                        clock_id == CLOCK_REALTIME_COARSE || clock_id == CLOCK_MONOTONIC_COARSE;
  return task.CopyOut(out, ToTimespec(of_ticks ? kTickNs : 1));
}

namespace {

// kRestartSys when interrupted.
Result<void> SleepUntil(Task& task, Deadline deadline) {
  task.ClearWake();
  while (true) {
    const Result<void> slept = task.Block(deadline);
    if (slept.ok()) continue;  // Woken by something that was meant for an earlier wait.
    if (slept.error() == ETIMEDOUT) return {};
    return slept;
  }
}

Result<void> SleepUntilCpuTime(Task& task, const ClockKind& kind, int64_t until_ns) {
  while (true) {
    const int64_t left_ns = until_ns - ReadClock(task, kind);
    if (left_ns <= 0) return {};
    TRY(SleepUntil(task,
                   DeadlineAfter(task.kernel().clock(), std::max(left_ns / 4, kCpuSleepStepNs))));
  }
}

struct Sleep {
  ClockKind kind;
  int64_t until_ns = 0;  // On the clock; monotonic if that is none of CPU time.
  UserOut<abi::Timespec> remaining;
};

Result<uint64_t> SleepRestartably(Task& task, const Sleep& sleep) {
  const Result<void> slept =
      sleep.kind.is_cpu()
          ? SleepUntilCpuTime(task, sleep.kind, sleep.until_ns)
          : SleepUntil(task,
                       sleep.until_ns == kNsMax ? Deadline::Never() : Deadline::At(sleep.until_ns));
  if (slept.ok()) return uint64_t{0};
  if (slept.error() != base::kRestartSys) return slept.error();
  const int64_t now_ns =
      sleep.kind.is_cpu() ? ReadClock(task, sleep.kind) : task.kernel().clock().MonotonicNs();
  if (now_ns >= sleep.until_ns) return uint64_t{0};
  if (!sleep.remaining.is_null())
    TRY(task.CopyOut(sleep.remaining, ToTimespec(sleep.until_ns - now_ns)));
  return task.RestartWith([sleep](Task& restarted) { return SleepRestartably(restarted, sleep); });
}

}  // namespace

Result<uint64_t> ClockNanosleep(Task& task, int32_t clock_id, int32_t flags,
                                UserIn<abi::Timespec> request, UserOut<abi::Timespec> remaining) {
  const ClockKind kind = TRY(ResolveClock(task, clock_id));
  if (kind.coarse) return Errno(EOPNOTSUPP);
  if (clock_id == CLOCK_THREAD_CPUTIME_ID) return Errno(EOPNOTSUPP);
  if (kind.alarm) {
    return Errno(task.own_credentials().HasCapability(CAP_WAKE_ALARM) ? EOPNOTSUPP : EPERM);
  }
  // A thread cannot wait for itself to run.
  if (kind.thread.get() == &task) return Errno(EINVAL);
  const int64_t ns = TRY(ToNs(TRY(task.CopyIn(request))));
  if ((flags & TIMER_ABSTIME) == 0) {
    int64_t until_ns = kind.is_cpu() ? ReadClock(task, kind) : task.kernel().clock().MonotonicNs();
    if (__builtin_add_overflow(until_ns, ns, &until_ns)) until_ns = kNsMax;
    return SleepRestartably(task, {kind, until_ns, remaining});
  }
  const Result<void> slept =
      kind.is_cpu() ? SleepUntilCpuTime(task, kind, ns)
                    : SleepUntil(task, DeadlineAt(task.kernel().clock(), clock_id, ns));
  if (slept.ok()) return uint64_t{0};
  return slept.error() == base::kRestartSys ? base::kRestartNoHand : slept.error();
}

Result<uint64_t> Nanosleep(Task& task, UserIn<abi::Timespec> request,
                           UserOut<abi::Timespec> remaining) {
  return ClockNanosleep(task, CLOCK_MONOTONIC, 0, request, remaining);
}

Result<void> Gettimeofday(Task& task, UserOut<abi::Timeval> time, UserOut<abi::Timezone> zone) {
  if (!time.is_null()) TRY(task.CopyOut(time, ToTimeval(task.kernel().clock().RealtimeNs())));
  if (!zone.is_null()) TRY(task.CopyOut(zone, abi::Timezone{}));
  return {};
}

Result<void> Settimeofday(Task& task, UserIn<abi::Timeval> time, UserIn<abi::Timezone> zone) {
  if (!time.is_null()) TRY(ToNs(TRY(task.CopyIn(time))));
  if (!zone.is_null()) TRY(task.CopyIn(zone));
  return Errno(EPERM);
}

Result<uint64_t> Time(Task& task, UserOut<int64_t> out) {
  const int64_t seconds = task.kernel().clock().RealtimeNs() / kNsPerSecond;
  if (!out.is_null()) TRY(task.CopyOut(out, seconds));
  return static_cast<uint64_t>(seconds);
}

// What an unprivileged process reads from a kernel whose clock nothing disciplines.
Result<uint64_t> Adjtimex(Task& task, UserInOut<abi::Timex> timex) {
  constexpr uint32_t kOffsetReadOnly = ADJ_OFFSET_SS_READ;
  const abi::Timex request = TRY(task.CopyIn(timex));
  if (request.modes != 0 && request.modes != kOffsetReadOnly) return Errno(EPERM);
  abi::Timex answer;
  answer.modes = request.modes;
  answer.maxerror = answer.esterror = 16'000'000;
  answer.status = STA_UNSYNC;
  answer.constant = 2;
  answer.precision = 1;
  answer.tolerance = 32'768'000;
  answer.tick = 10'000;
  answer.time = ToTimeval(task.kernel().clock().RealtimeNs());
  TRY(task.CopyOut(timex, answer));
  return uint64_t{TIME_ERROR};
}

Result<uint64_t> ClockAdjtime(Task& task, int32_t clock_id, UserInOut<abi::Timex> timex) {
  TRY(ResolveClock(task, clock_id));
  if (clock_id != CLOCK_REALTIME) return Errno(EOPNOTSUPP);
  return Adjtimex(task, timex);
}

}  // namespace syscalls
