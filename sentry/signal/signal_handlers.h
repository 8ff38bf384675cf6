#pragma once

// The table of signal actions, shared by tasks that clone with CLONE_SIGHAND.

#include <array>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/signal/signal_types.h"

namespace sentry {

// Thread-safe; its lock is a leaf below the group's signal lock.
class SignalHandlers {
 public:
  SignalAction Get(int signal) const ABSL_LOCKS_EXCLUDED(mu_);
  // Returns the old one.
  SignalAction Set(int signal, const SignalAction& action) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<SignalHandlers> Copy() const ABSL_LOCKS_EXCLUDED(mu_);
  // execve: handled signals become default, ignored ones stay. CLONE_CLEAR_SIGHAND likewise.
  void ResetHandled() ABSL_LOCKS_EXCLUDED(mu_);
  // For /proc/PID/status.
  SignalSet Ignored() const ABSL_LOCKS_EXCLUDED(mu_);
  SignalSet Caught() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::array<SignalAction, kSignalMax> actions_ ABSL_GUARDED_BY(mu_) = {};
};

}  // namespace sentry
