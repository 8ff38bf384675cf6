#include "syscalls/handlers/timers.h"

#include <linux/capability.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/time/process_timers.h"
#include "syscalls/handlers/clock_id.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserIn;
using base::UserOut;
using sentry::ProcessTimers;
using sentry::Task;
using Options = ProcessTimers::TimerOptions;

namespace {

// ESRCH cannot be seen by a guest: only a process that is gone has no timers.
Result<std::shared_ptr<ProcessTimers>> TimersOf(Task& task) {
  std::shared_ptr<ProcessTimers> timers = task.group().timers();
  if (timers == nullptr) return Errno(ESRCH);
  return timers;
}

abi::Itimerval ToItimerval(const ProcessTimers::Interval& interval) {
  abi::Itimerval value;
  value.it_interval = ToTimeval(interval.interval_ns);
  // What is armed must not look disarmed.
  value.it_value =
      ToTimeval(interval.value_ns == 0 ? 0 : std::max<int64_t>(interval.value_ns, 1000));
  return value;
}

abi::Itimerspec ToItimerspec(const ProcessTimers::Interval& interval) {
  return {ToTimespec(interval.interval_ns), ToTimespec(interval.value_ns)};
}

}  // namespace

Result<void> Getitimer(Task& task, int32_t which, UserOut<abi::Itimerval> out) {
  if (which < ITIMER_REAL || which > ITIMER_PROF) return Errno(EINVAL);
  return task.CopyOut(out, ToItimerval(TRY(TimersOf(task))->GetItimer(which)));
}

Result<void> Setitimer(Task& task, int32_t which, UserIn<abi::Itimerval> setting,
                       UserOut<abi::Itimerval> old_setting) {
  ProcessTimers::Interval interval;
  if (!setting.is_null()) {
    const abi::Itimerval value = TRY(task.CopyIn(setting));
    interval.value_ns = TRY(ToNs(value.it_value));
    interval.interval_ns = TRY(ToNs(value.it_interval));
  }
  if (which < ITIMER_REAL || which > ITIMER_PROF) return Errno(EINVAL);
  const ProcessTimers::Interval old = TRY(TimersOf(task))->SetItimer(which, interval);
  if (old_setting.is_null()) return {};
  return task.CopyOut(old_setting, ToItimerval(old));
}

Result<uint64_t> Alarm(Task& task, uint32_t seconds) {
  constexpr uint32_t kSecondsMax = std::numeric_limits<int32_t>::max();
  ProcessTimers::Interval interval;
  interval.value_ns = int64_t{std::min(seconds, kSecondsMax)} * kNsPerSecond;
  const int64_t old_ns = TRY(TimersOf(task))->SetItimer(ITIMER_REAL, interval).value_ns;
  // Rounded to seconds, but never to 0.
  if (old_ns > 0 && old_ns < kNsPerSecond) return uint64_t{1};
  return static_cast<uint64_t>((old_ns + kNsPerSecond / 2) / kNsPerSecond);
}

namespace {

Result<void> SetClock(Task& task, int32_t clock_id, Options& options) {
  const ClockKind kind = TRY(ResolveClock(task, clock_id));
  if (kind.coarse) return Errno(EOPNOTSUPP);
  if (kind.alarm)
    return Errno(task.own_credentials().HasCapability(CAP_WAKE_ALARM) ? EOPNOTSUPP : EPERM);
  switch (kind.base) {
    case ClockKind::Base::kRealtime:
      options.base = Options::Base::kRealtime;
      break;
    case ClockKind::Base::kMonotonic:
      options.base = Options::Base::kMonotonic;
      break;
    case ClockKind::Base::kProcessCpu:
      if (kind.group != task.group_ref()) return Errno(EINVAL);
      options.base = Options::Base::kProcessCpu;
      break;
    case ClockKind::Base::kThreadCpu:
      options.base = Options::Base::kThreadCpu;
      options.cpu_tid = kind.thread->tid();
      break;
  }
  return {};
}

Result<void> SetEvent(Task& task, const abi::Sigevent& event, Options& options) {
  switch (event.sigev_notify) {
    case SIGEV_NONE:
      options.notify = false;
      break;
    case SIGEV_SIGNAL:
    case SIGEV_THREAD:
      break;
    case SIGEV_THREAD_ID: {
      const sentry::TaskRef target = sentry::FindTaskFor(task, event.sigev_notify_thread_id);
      if (target == nullptr || &target->group() != &task.group()) return Errno(EINVAL);
      options.target_tid = target->tid();
      break;
    }
    default:
      return Errno(EINVAL);
  }
  if (options.notify && !sentry::IsValidSignal(event.sigev_signo)) return Errno(EINVAL);
  options.signal = event.sigev_signo;
  options.value = event.sigev_value;
  return {};
}

}  // namespace

Result<void> TimerCreate(Task& task, int32_t clock_id, UserIn<abi::Sigevent> event,
                         UserOut<int32_t> id) {
  Options options;
  options.signal = SIGALRM;
  TRY(SetClock(task, clock_id, options));
  if (!event.is_null()) TRY(SetEvent(task, TRY(task.CopyIn(event)), options));
  const std::shared_ptr<ProcessTimers> timers = TRY(TimersOf(task));
  const int32_t number = TRY(timers->Create(options, task.group().Limit(RLIMIT_SIGPENDING)));
  const Result<void> told = task.CopyOut(id, number);
  if (!told.ok()) TRY(timers->Delete(number));
  return told;
}

Result<void> TimerSettime(Task& task, int32_t id, int32_t flags, UserIn<abi::Itimerspec> setting,
                          UserOut<abi::Itimerspec> old_setting) {
  if (setting.is_null()) return Errno(EINVAL);
  const abi::Itimerspec value = TRY(task.CopyIn(setting));
  ProcessTimers::Interval interval;
  interval.interval_ns = TRY(ToNs(value.it_interval));
  interval.value_ns = TRY(ToNs(value.it_value));
  const ProcessTimers::Interval old =
      TRY(TRY(TimersOf(task))->SetTime(id, interval, (flags & TIMER_ABSTIME) != 0));
  if (old_setting.is_null()) return {};
  return task.CopyOut(old_setting, ToItimerspec(old));
}

Result<void> TimerGettime(Task& task, int32_t id, UserOut<abi::Itimerspec> out) {
  return task.CopyOut(out, ToItimerspec(TRY(TRY(TimersOf(task))->GetTime(id))));
}

Result<uint64_t> TimerGetoverrun(Task& task, int32_t id) {
  return static_cast<uint64_t>(TRY(TRY(TimersOf(task))->GetOverrun(id)));
}

Result<void> TimerDelete(Task& task, int32_t id) { return TRY(TimersOf(task))->Delete(id); }

}  // namespace syscalls
