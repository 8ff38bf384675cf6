// A timer fires once, sends its signal, and is armed for its next interval when that signal leaves
// the queue (as Linux does): a guest that blocks the signal, or asks for an interval of a
// nanosecond, costs no wake-ups. Intervals that pass meanwhile are counted as overruns.
//
// Timers on CPU time are found by looking: the service's timer is armed for a time before which the
// CPU time cannot have been used up, in steps that get shorter as it comes near, and longer while
// the process sleeps.

#include "sentry/time/process_timers.h"

#include <sys/time.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "platform/base/check.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

using Options = ProcessTimers::TimerOptions;
using Interval = ProcessTimers::Interval;

constexpr int64_t kMs = 1'000'000;
constexpr int64_t kCpuStepMin = kMs;
constexpr int64_t kCpuStepMax = 100 * kMs;
// Of a timer whose signal is ignored: nothing paces it.
constexpr int64_t kIgnoredStepMin = 4 * kMs;

int64_t AddSaturated(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

enum class CpuPart : uint8_t { kNone, kUser, kTotal };

}  // namespace

class ProcessTimers::OneTimer : public std::enable_shared_from_this<OneTimer> {
 public:
  struct Setup {
    Options options;
    int32_t id = 0;  // As the signal queue knows it.
    int32_t code = SI_TIMER;
    CpuPart cpu_part = CpuPart::kNone;
  };
  OneTimer(const Clock& clock, Host& host, const Setup& setup)
      : clock_(clock), host_(host), setup_(setup) {}

  // Apart from the constructor: the callback holds a weak reference.
  void Attach(TimerService& service) {
    timer_ = service.NewTimer([weak = weak_from_this()] {
      if (const std::shared_ptr<OneTimer> self = weak.lock()) self->OnFire();
    });
  }
  // Nothing fires any more, and no callback is running. From another thread than the service's.
  void Stop() ABSL_LOCKS_EXCLUDED(mu_) {
    {
      const absl::MutexLock lock(&mu_);
      stopped_ = true;
      armed_ = false;
    }
    timer_->Cancel();
  }

  Interval Get() ABSL_LOCKS_EXCLUDED(mu_) {
    const std::optional<int64_t> now = Now();
    const absl::MutexLock lock(&mu_);
    return GetLocked(now);
  }

  Interval Set(const Interval& setting, bool absolute) ABSL_LOCKS_EXCLUDED(mu_) {
    const std::optional<int64_t> now = Now();
    const absl::MutexLock lock(&mu_);
    const Interval old = GetLocked(now);
    armed_ = setting.value_ns != 0 && now.has_value() && !stopped_;
    signal_queued_ = false;
    overrun_ = 0;
    interval_ns_ = setting.interval_ns;
    if (armed_) {
      int64_t at = setting.value_ns;
      if (!absolute) {
        at = AddSaturated(*now, at);
      } else if (setup_.options.base == Options::Base::kRealtime) {
        at -= clock_.RealtimeNs() - clock_.MonotonicNs();
      }
      expires_ns_ = at;
    }
    idle_steps_ = 0;
    ArmServiceLocked(now);
    return old;
  }

  int32_t overrun() ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    return overrun_;
  }

  // The signal has left the queue; returns its overrun count.
  int32_t OnSignalGone() ABSL_LOCKS_EXCLUDED(mu_) {
    const std::optional<int64_t> now = Now();
    const absl::MutexLock lock(&mu_);
    if (!signal_queued_) return 0;  // Set anew since.
    signal_queued_ = false;
    overrun_ = ForwardLocked(now);
    ArmServiceLocked(now);
    return overrun_;
  }

 private:
  // On the timer's clock. nullopt: the thread whose CPU time it is has gone.
  std::optional<int64_t> Now() {
    switch (setup_.options.base) {
      case Options::Base::kMonotonic:
      case Options::Base::kRealtime:
        return clock_.MonotonicNs();
      case Options::Base::kProcessCpu: {
        const CpuTimes times = host_.ProcessCpuTimes();
        return setup_.cpu_part == CpuPart::kUser ? times.user_ns : times.total_ns();
      }
      case Options::Base::kThreadCpu: {
        const std::optional<CpuTimes> times = host_.ThreadCpuTimes(setup_.options.cpu_tid);
        if (!times.has_value()) return std::nullopt;
        return times->total_ns();
      }
    }
    return std::nullopt;
  }
  bool is_cpu() const {
    return setup_.options.base == Options::Base::kProcessCpu ||
           setup_.options.base == Options::Base::kThreadCpu;
  }

  Interval GetLocked(std::optional<int64_t> now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    Interval current{0, interval_ns_};
    const bool waits = armed_ || signal_queued_;
    if (!now.has_value() || !waits) return current;
    current.value_ns = expires_ns_ - *now;
    if (current.value_ns > 0) return current;
    if (interval_ns_ > 0) {
      current.value_ns = interval_ns_ - (*now - expires_ns_) % interval_ns_;
    } else {
      // About to fire; one that has fired, or that tells nobody, is over.
      current.value_ns = armed_ && setup_.options.notify ? 1 : 0;
    }
    return current;
  }

  // After an expiry: the next one after `now`, if the timer has an interval. Returns how many have
  // been skipped.
  int32_t ForwardLocked(std::optional<int64_t> now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    armed_ = interval_ns_ > 0 && now.has_value() && !stopped_;
    if (!armed_) return 0;
    const int64_t missed = std::max<int64_t>(*now - expires_ns_, 0) / interval_ns_;
    expires_ns_ = AddSaturated(expires_ns_ + missed * interval_ns_, interval_ns_);
    return static_cast<int32_t>(std::min<int64_t>(missed, std::numeric_limits<int32_t>::max()));
  }

  void ArmServiceLocked(std::optional<int64_t> now) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) {
    if (!armed_ || !setup_.options.notify) {
      timer_->Arm(Deadline::Never());
    } else if (!is_cpu()) {
      timer_->Arm(Deadline::At(std::max<int64_t>(expires_ns_, 0)));
    } else {
      const int64_t quarter = std::max<int64_t>(expires_ns_ - *now, 0) / 4;
      int64_t step = std::max(quarter, kCpuStepMin);
      if (step < kCpuStepMax) step = std::min(step << std::min(idle_steps_, 8), kCpuStepMax);
      seen_cpu_ns_ = *now;
      timer_->Arm(Deadline::At(AddSaturated(clock_.MonotonicNs(), step)));
    }
  }

  void OnFire() ABSL_LOCKS_EXCLUDED(mu_) {
    const std::optional<int64_t> now = Now();
    SignalInfo info;
    {
      const absl::MutexLock lock(&mu_);
      if (!armed_ || !now.has_value()) return;
      if (*now < expires_ns_) {
        idle_steps_ = is_cpu() && *now == seen_cpu_ns_ ? idle_steps_ + 1 : 0;
        ArmServiceLocked(now);
        return;
      }
      armed_ = false;
      signal_queued_ = true;
      info.signal = setup_.options.signal;
      info.code = setup_.code;
      info.timer_id = setup_.id;
      info.value = setup_.options.value.value_or(static_cast<uint32_t>(setup_.id));
      info.from_timer = true;
    }
    const Sent sent = host_.SendTimerSignal(info, setup_.options.target_tid);
    if (sent == Sent::kQueued) return;
    const absl::MutexLock lock(&mu_);
    if (!signal_queued_) return;
    signal_queued_ = false;
    if (sent == Sent::kGone) return;
    ForwardLocked(now);
    if (armed_ && expires_ns_ - *now < kIgnoredStepMin)
      expires_ns_ = AddSaturated(*now, kIgnoredStepMin);
    ArmServiceLocked(now);
  }

  const Clock& clock_;
  Host& host_;
  const Setup setup_;
  std::unique_ptr<Timer> timer_;
  absl::Mutex mu_;
  bool stopped_ ABSL_GUARDED_BY(mu_) = false;
  bool armed_ ABSL_GUARDED_BY(mu_) = false;  // Will fire at expires_ns_.
  bool signal_queued_ ABSL_GUARDED_BY(mu_) =
      false;  // Has fired at expires_ns_; the signal is under way.
  int64_t expires_ns_ ABSL_GUARDED_BY(mu_) = 0;  // On the timer's clock; realtime as monotonic.
  int64_t interval_ns_ ABSL_GUARDED_BY(mu_) = 0;
  int32_t overrun_ ABSL_GUARDED_BY(mu_) = 0;  // Of the last signal that left the queue.
  int64_t seen_cpu_ns_ ABSL_GUARDED_BY(mu_) = 0;
  int idle_steps_ ABSL_GUARDED_BY(mu_) = 0;  // Looks in a row that saw no CPU time used.
};

ProcessTimers::ProcessTimers(const Clock& clock, TimerService& service, Host& host)
    : clock_(clock), service_(service), host_(host) {
  const std::array<std::pair<int, CpuPart>, 3> kinds = {
      {{SIGALRM, CpuPart::kNone}, {SIGVTALRM, CpuPart::kUser}, {SIGPROF, CpuPart::kTotal}}};
  for (size_t which = 0; which < kinds.size(); ++which) {
    OneTimer::Setup setup;
    setup.options.signal = kinds[which].first;
    setup.cpu_part = kinds[which].second;
    setup.options.base =
        setup.cpu_part == CpuPart::kNone ? Options::Base::kMonotonic : Options::Base::kProcessCpu;
    setup.options.value = 0;
    setup.code = SI_KERNEL;
    setup.id = -1 - static_cast<int32_t>(which);
    itimers_[which] = std::make_shared<OneTimer>(clock, host, setup);
    itimers_[which]->Attach(service);
  }
}

ProcessTimers::~ProcessTimers() {
  for (const std::shared_ptr<OneTimer>& timer : itimers_) timer->Stop();
  OnExec();
}

void ProcessTimers::OnExec() {
  std::map<int32_t, std::shared_ptr<OneTimer>> timers;
  {
    const absl::MutexLock lock(&mu_);
    timers.swap(timers_);
  }
  for (const auto& [id, timer] : timers) timer->Stop();
}

void ProcessTimers::OnSignalGone(SignalInfo& info, bool delivered) {
  std::shared_ptr<OneTimer> timer;
  if (info.timer_id < 0) {
    const size_t which = static_cast<size_t>(-1 - info.timer_id);
    if (which < itimers_.size()) timer = itimers_[which];
  } else {
    timer = Find(info.timer_id);
  }
  if (timer == nullptr) return;
  const int32_t overrun = timer->OnSignalGone();
  if (delivered && info.code == SI_TIMER) info.overrun = overrun;
}

Interval ProcessTimers::GetItimer(int which) { return itimers_[static_cast<size_t>(which)]->Get(); }

Interval ProcessTimers::SetItimer(int which, const Interval& setting) {
  return itimers_[static_cast<size_t>(which)]->Set(setting, /*absolute=*/false);
}

std::shared_ptr<ProcessTimers::OneTimer> ProcessTimers::Find(int32_t id) {
  const absl::MutexLock lock(&mu_);
  const auto found = timers_.find(id);
  return found == timers_.end() ? nullptr : found->second;
}

Result<int32_t> ProcessTimers::Create(const TimerOptions& options, size_t timers_max) {
  const absl::MutexLock lock(&mu_);
  if (timers_.size() >= timers_max) return Errno(EAGAIN);
  while (timers_.contains(next_id_))
    next_id_ = next_id_ == std::numeric_limits<int32_t>::max() ? 0 : next_id_ + 1;
  OneTimer::Setup setup;
  setup.options = options;
  setup.id = next_id_;
  if (options.base == TimerOptions::Base::kProcessCpu) setup.cpu_part = CpuPart::kTotal;
  auto timer = std::make_shared<OneTimer>(clock_, host_, setup);
  timer->Attach(service_);
  timers_.emplace(setup.id, std::move(timer));
  next_id_ = setup.id == std::numeric_limits<int32_t>::max() ? 0 : setup.id + 1;
  return setup.id;
}

Result<Interval> ProcessTimers::GetTime(int32_t id) {
  const std::shared_ptr<OneTimer> timer = Find(id);
  if (timer == nullptr) return Errno(EINVAL);
  return timer->Get();
}

Result<Interval> ProcessTimers::SetTime(int32_t id, const Interval& setting, bool absolute) {
  const std::shared_ptr<OneTimer> timer = Find(id);
  if (timer == nullptr) return Errno(EINVAL);
  return timer->Set(setting, absolute);
}

Result<int32_t> ProcessTimers::GetOverrun(int32_t id) {
  const std::shared_ptr<OneTimer> timer = Find(id);
  if (timer == nullptr) return Errno(EINVAL);
  return timer->overrun();
}

Result<void> ProcessTimers::Delete(int32_t id) {
  std::shared_ptr<OneTimer> timer;
  {
    const absl::MutexLock lock(&mu_);
    const auto found = timers_.find(id);
    if (found == timers_.end()) return Errno(EINVAL);
    timer = std::move(found->second);
    timers_.erase(found);
  }
  timer->Stop();
  return {};
}

}  // namespace sentry
