#include "sentry/fs/anon/timerfd.h"

#include <fcntl.h>
#include <sys/ioctl.h>
#include <time.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <limits>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kSetTicks = _IOW('T', 0, uint64_t);  // TFD_IOC_SET_TICKS

int64_t AddSaturated(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}
}  // namespace

TimerFile::TimerFile(Task& task, int32_t clock_id, uint32_t flags)
    : AnonymousFile(task, "[timerfd]", O_RDWR | flags),
      clock_id_(clock_id),
      clock_(task.kernel().clock()),
      timer_(task.kernel().timers().NewTimer([this] { OnExpiry(); })) {}

bool TimerFile::on_realtime() const {
  return clock_id_ == CLOCK_REALTIME || clock_id_ == CLOCK_REALTIME_ALARM;
}

void TimerFile::OnExpiry() {
  {
    const absl::MutexLock lock(&mu_);
    if (!armed_ || clock_.MonotonicNs() < expires_ns_) return;  // Set anew meanwhile.
    armed_ = false;
    expired_ = true;
    ++ticks_;
  }
  queue_.Notify(kPollReadable);
}

void TimerFile::ForwardLocked() {
  if (!expired_ || interval_ns_ == 0) return;
  expired_ = false;
  const int64_t missed = std::max<int64_t>(clock_.MonotonicNs() - expires_ns_, 0) / interval_ns_;
  ticks_ += static_cast<uint64_t>(missed);
  expires_ns_ = AddSaturated(expires_ns_ + missed * interval_ns_, interval_ns_);
  armed_ = true;
  timer_->Arm(Deadline::At(expires_ns_));
}

TimerFile::Setting TimerFile::GetLocked() {
  ForwardLocked();
  Setting setting{0, interval_ns_};
  if (armed_) setting.value_ns = std::max<int64_t>(expires_ns_ - clock_.MonotonicNs(), 1);
  return setting;
}

TimerFile::Setting TimerFile::GetTime() {
  const absl::MutexLock lock(&mu_);
  return GetLocked();
}

TimerFile::Setting TimerFile::SetTime(const Setting& setting, bool absolute, uint32_t flags) {
  const absl::MutexLock lock(&mu_);
  const Setting old = GetLocked();
  set_flags_ = flags;
  ticks_ = 0;
  expired_ = false;
  interval_ns_ = setting.interval_ns;
  armed_ = setting.value_ns != 0;
  if (!armed_) {
    timer_->Arm(Deadline::Never());
    return old;
  }
  if (!absolute) {
    expires_ns_ = AddSaturated(clock_.MonotonicNs(), setting.value_ns);
  } else if (on_realtime()) {
    expires_ns_ =
        std::max<int64_t>(setting.value_ns - (clock_.RealtimeNs() - clock_.MonotonicNs()), 0);
  } else {
    expires_ns_ = setting.value_ns;
  }
  timer_->Arm(Deadline::At(expires_ns_));
  return old;
}

Result<size_t> TimerFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)task, (void)offset;
  if (to.remaining() < sizeof(uint64_t)) return Errno(EINVAL);
  uint64_t ticks = 0;
  {
    const absl::MutexLock lock(&mu_);
    if (ticks_ == 0) return Errno(EAGAIN);
    ForwardLocked();
    ticks = std::exchange(ticks_, 0);
  }
  const size_t copied = TRY(to.CopyOut(std::as_bytes(std::span(&ticks, 1))));
  if (copied < sizeof(ticks)) return Errno(EFAULT);
  return copied;
}

Result<uint64_t> TimerFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  if (command != kSetTicks) return Errno(ENOTTY);
  const uint64_t ticks = TRY(task.CopyIn(base::UserIn<uint64_t>(base::UserAddr(argument))));
  if (ticks == 0) return Errno(EINVAL);
  {
    const absl::MutexLock lock(&mu_);
    ticks_ = ticks;
  }
  queue_.Notify(kPollReadable);
  return uint64_t{0};
}

PollMask TimerFile::Poll(PollMask interest) {
  (void)interest;
  const absl::MutexLock lock(&mu_);
  return ticks_ > 0 ? kPollReadable : 0;
}

std::string TimerFile::FdInfo() const {
  const absl::MutexLock lock(&mu_);
  constexpr int64_t kNs = 1'000'000'000;
  const int64_t left_ns = armed_ ? std::max<int64_t>(expires_ns_ - clock_.MonotonicNs(), 0) : 0;
  char text[256];
  std::snprintf(text, sizeof(text),
                "clockid: %d\nticks: %" PRIu64 "\nsettime flags: 0%o\nit_value: (%" PRIi64
                ", %" PRIi64 ")\nit_interval: (%" PRIi64 ", %" PRIi64 ")\n",
                clock_id_, ticks_, set_flags_, left_ns / kNs, left_ns % kNs, interval_ns_ / kNs,
                interval_ns_ % kNs);
  return text;
}

}  // namespace sentry
