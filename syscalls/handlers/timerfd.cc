#include "syscalls/handlers/timerfd.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/timerfd.h>
#include <time.h>

#include <cerrno>
#include <memory>

#include "sentry/fs/anon/timerfd.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserIn;
using base::UserOut;
using sentry::Task;
using sentry::TimerFile;

namespace {

Result<std::shared_ptr<TimerFile>> GetTimer(Task& task, int32_t fd) {
  std::shared_ptr<TimerFile> timer =
      std::dynamic_pointer_cast<TimerFile>(TRY(task.fds().GetForIo(fd)));
  if (timer == nullptr) return Errno(EINVAL);
  return timer;
}

abi::Itimerspec ToItimerspec(const TimerFile::Setting& setting) {
  return {ToTimespec(setting.interval_ns), ToTimespec(setting.value_ns)};
}

}  // namespace

Result<int32_t> TimerfdCreate(Task& task, int32_t clock_id, int32_t flags) {
  if ((flags & ~(TFD_CLOEXEC | TFD_NONBLOCK)) != 0) return Errno(EINVAL);
  const bool alarm = clock_id == CLOCK_REALTIME_ALARM || clock_id == CLOCK_BOOTTIME_ALARM;
  if (clock_id != CLOCK_REALTIME && clock_id != CLOCK_MONOTONIC && clock_id != CLOCK_BOOTTIME &&
      !alarm) {
    return Errno(EINVAL);
  }
  if (alarm && !task.own_credentials().HasCapability(CAP_WAKE_ALARM)) return Errno(EPERM);
  auto file =
      std::make_shared<TimerFile>(task, clock_id, static_cast<uint32_t>(flags & O_NONBLOCK));
  return task.InstallFile(std::move(file), (flags & TFD_CLOEXEC) != 0);
}

// TFD_TIMER_CANCEL_ON_SET is accepted: nothing sets the clock.
Result<void> TimerfdSettime(Task& task, int32_t fd, int32_t flags, UserIn<abi::Itimerspec> setting,
                            UserOut<abi::Itimerspec> old_setting) {
  const abi::Itimerspec value = TRY(task.CopyIn(setting));
  if ((flags & ~(TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET)) != 0) return Errno(EINVAL);
  TimerFile::Setting wanted;
  wanted.interval_ns = TRY(ToNs(value.it_interval));
  wanted.value_ns = TRY(ToNs(value.it_value));
  const std::shared_ptr<TimerFile> timer = TRY(GetTimer(task, fd));
  const TimerFile::Setting old =
      timer->SetTime(wanted, (flags & TFD_TIMER_ABSTIME) != 0, static_cast<uint32_t>(flags));
  if (old_setting.is_null()) return {};
  return task.CopyOut(old_setting, ToItimerspec(old));
}

Result<void> TimerfdGettime(Task& task, int32_t fd, UserOut<abi::Itimerspec> out) {
  return task.CopyOut(out, ToItimerspec(TRY(GetTimer(task, fd))->GetTime()));
}

}  // namespace syscalls
