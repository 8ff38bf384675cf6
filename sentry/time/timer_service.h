#pragma once

// Timers on one host thread that sleeps until the earliest one. Every timer of the sentry (itimers,
// POSIX timers, timerfd, alarms) is one of these.

#include <cstdint>
#include <functional>
#include <memory>

#include "sentry/time/clock.h"

namespace sentry {

class TimerService;

// One timer. Destruction cancels; after Cancel or the destructor return the callback does not run
// (unless they are called from it). Thread-safe.
class Timer {
 public:
  virtual ~Timer() = default;
  // (Re)arms: `callback` runs on the service's thread at `at`; it may re-arm. Must not block.
  virtual void Arm(Deadline at) = 0;
  virtual void Cancel() = 0;
};

class TimerService {
 public:
  virtual ~TimerService() = default;
  virtual std::unique_ptr<Timer> NewTimer(std::function<void()> callback) = 0;
};

// Starts the service's thread. `clock` outlives it.
std::unique_ptr<TimerService> NewTimerService(const Clock& clock);

}  // namespace sentry
