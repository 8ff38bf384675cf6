#pragma once

// Errors that a guest can see. An Errno is a Linux error number, nothing more: no text, no
// allocation.
//
// The restart codes are the kernel-internal values of include/linux/errno.h (6.12). They travel
// through Result like any error, but the task's run loop consumes them: a guest never sees one.

#include <cerrno>
#include <cstdint>

namespace base {

class Errno {
 public:
  constexpr explicit Errno(int value) : value_(value) {}
  constexpr int value() const { return value_; }
  friend constexpr bool operator==(Errno a, Errno b) { return a.value_ == b.value_; }
  friend constexpr bool operator==(Errno a, int b) { return a.value_ == b; }

  // True for the four codes below.
  constexpr bool IsRestart() const { return value_ >= 512 && value_ <= 516; }

 private:
  int32_t value_;
};

// Restart if the interrupting signal's action has SA_RESTART (or no handler runs), else EINTR.
inline constexpr Errno kRestartSys{512};
// Always restart.
inline constexpr Errno kRestartNoIntr{513};
// Restart only if no handler runs, else EINTR.
inline constexpr Errno kRestartNoHand{514};
// Restart through the task's restart block (restart_syscall(2)), EINTR if a handler runs.
inline constexpr Errno kRestartBlock{516};

}  // namespace base
