#pragma once

// The timers of a process: itimers (setitimer(2)) and POSIX timers (timer_create(2)).
//
// A process holds one ProcessTimers, destroyed when its last thread exits. The timers know their
// process only through Host, so that they can be tested without one.

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/signal/signal_types.h"
#include "sentry/time/clock.h"
#include "sentry/time/timer_service.h"

namespace sentry {

struct CpuTimes {
  int64_t user_ns = 0;
  int64_t system_ns = 0;
  int64_t total_ns() const { return user_ns + system_ns; }
};

class ProcessTimers {
 public:
  // What happened to a signal that a timer sent.
  enum class Sent : uint8_t {
    kQueued,   // OnSignalGone will be called for it.
    kIgnored,  // The process ignores it: nothing was queued.
    kGone,     // The thread or the process has exited.
  };

  // The process, as its timers see it. Called from the timer thread too, with no lock of
  // ProcessTimers held. Must not block.
  class Host {
   public:
    virtual ~Host() = default;
    // `tid`: 0 for the process. A timer's signal (SI_TIMER) has one place in the queue however full
    // that is (RLIMIT_SIGPENDING was checked when the timer was made).
    virtual Sent SendTimerSignal(const SignalInfo& info, int32_t tid) = 0;
    // CPU time so far, exited threads included; of threads that run now, up to a few ms ago.
    virtual CpuTimes ProcessCpuTimes() = 0;
    // nullopt: no such thread in this process.
    virtual std::optional<CpuTimes> ThreadCpuTimes(int32_t tid) = 0;
  };

  // All outlive it.
  ProcessTimers(const Clock& clock, TimerService& service, Host& host);
  ~ProcessTimers();
  ProcessTimers(const ProcessTimers&) = delete;
  ProcessTimers& operator=(const ProcessTimers&) = delete;

  // A signal that SendTimerSignal queued leaves the queue: `delivered` to a handler, sigwaitinfo or
  // signalfd, or discarded because its action became "ignore". Fills info.overrun of a delivered
  // SI_TIMER signal, and re-arms. The caller holds no lock that SendTimerSignal takes.
  void OnSignalGone(SignalInfo& info, bool delivered) ABSL_LOCKS_EXCLUDED(mu_);
  // execve: POSIX timers go, itimers stay.
  void OnExec() ABSL_LOCKS_EXCLUDED(mu_);

  // --- setitimer(2). In ns; 0 value: not armed.
  struct Interval {
    int64_t value_ns = 0;
    int64_t interval_ns = 0;
  };
  // `which`: ITIMER_REAL, _VIRTUAL, _PROF.
  Interval GetItimer(int which) ABSL_LOCKS_EXCLUDED(mu_);
  // Returns the old setting.
  Interval SetItimer(int which, const Interval& setting) ABSL_LOCKS_EXCLUDED(mu_);

  // --- timer_create(2) and friends.
  struct TimerOptions {
    enum class Base : uint8_t { kMonotonic, kRealtime, kProcessCpu, kThreadCpu };
    Base base = Base::kMonotonic;
    int32_t cpu_tid = 0;  // kThreadCpu: whose.
    bool notify = true;   // SIGEV_NONE otherwise.
    int32_t signal = 0;
    int32_t target_tid = 0;         // SIGEV_THREAD_ID, else 0.
    std::optional<uint64_t> value;  // sigev_value; the timer's id if absent.
  };
  // EAGAIN at `timers_max` timers.
  base::Result<int32_t> Create(const TimerOptions& options, size_t timers_max)
      ABSL_LOCKS_EXCLUDED(mu_);
  // EINVAL if there is no such timer, for all of these.
  base::Result<Interval> GetTime(int32_t id) ABSL_LOCKS_EXCLUDED(mu_);
  // `absolute`: value_ns is on the timer's clock. Returns the old setting.
  base::Result<Interval> SetTime(int32_t id, const Interval& setting, bool absolute)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<int32_t> GetOverrun(int32_t id) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Delete(int32_t id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  class OneTimer;

  std::shared_ptr<OneTimer> Find(int32_t id) ABSL_LOCKS_EXCLUDED(mu_);

  const Clock& clock_;
  TimerService& service_;
  Host& host_;
  std::array<std::shared_ptr<OneTimer>, 3> itimers_;  // Made in the constructor.
  absl::Mutex mu_;
  std::map<int32_t, std::shared_ptr<OneTimer>> timers_ ABSL_GUARDED_BY(mu_);
  int32_t next_id_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sentry
