#pragma once

// Timers: a hierarchical wheel (Varghese and Lauck 1987) of milliseconds, driven from outside.
// Arming and disarming are O(1); a timer that is moved later is not touched, it fires early and its
// target, finding nothing due, arms it again. So the usual traffic of a TCP connection, which moves
// its deadline with each acknowledgement, costs the wheel nothing.

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/clock.h"

namespace netstack {

class TimerWheel;

// Who has a timer: one, which fires at the earliest of whatever the target waits for. Held by
// shared_ptr, so that it lives while it fires.
class TimerTarget : public std::enable_shared_from_this<TimerTarget> {
 public:
  TimerTarget() = default;
  TimerTarget(const TimerTarget&) = delete;
  TimerTarget& operator=(const TimerTarget&) = delete;
  virtual ~TimerTarget();
  // No lock is held. May come before the time asked for.
  virtual void OnTimer() = 0;

 private:
  friend class TimerWheel;
  // All guarded by the wheel's lock.
  TimerWheel* wheel_ = nullptr;  // Null: never armed.
  TimerTarget* previous_ = nullptr;
  TimerTarget* next_ = nullptr;
  uint64_t tick_ = 0;
  int16_t level_ = -1;  // -1: not armed.
  uint8_t slot_ = 0;
};

class TimerWheel {
 public:
  // `on_earlier` (may be empty) is called without locks when the next deadline has moved forward.
  TimerWheel(const Clock& clock, std::function<void()> on_earlier);
  ~TimerWheel();

  // Fires at `when_ns` or, if the target is armed for an earlier time, then. kNever: no change.
  void Arm(TimerTarget& target, int64_t when_ns) ABSL_LOCKS_EXCLUDED(mu_);
  void Cancel(TimerTarget& target) ABSL_LOCKS_EXCLUDED(mu_);
  // Fires what is due.
  void Run() ABSL_LOCKS_EXCLUDED(mu_);
  // When Run has to be called next; kNever if nothing is armed. Never later than a timer.
  int64_t NextNs() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static constexpr int kLevels = 6;
  static constexpr int kSlotBits = 6;
  static constexpr int kSlots = 1 << kSlotBits;

  void LinkLocked(TimerTarget& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void UnlinkLocked(TimerTarget& target) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  uint64_t NextTickLocked() const ABSL_SHARED_LOCKS_REQUIRED(mu_);

  const Clock& clock_;
  const std::function<void()> on_earlier_;
  mutable absl::Mutex mu_;
  uint64_t now_tick_ ABSL_GUARDED_BY(mu_) = 0;  // Everything up to it has fired.
  std::array<std::array<TimerTarget*, kSlots>, kLevels> slots_ ABSL_GUARDED_BY(mu_) = {};
  std::array<uint64_t, kLevels> occupied_ ABSL_GUARDED_BY(mu_) = {};
};

}  // namespace netstack
