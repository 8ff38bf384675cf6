#pragma once

// The signals that wait for one thread or one process: a standard signal once, real-time signals
// queued in order of arrival (signal(7)). Each queued entry is charged to a user
// (RLIMIT_SIGPENDING).

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "sentry/signal/signal_types.h"

namespace sentry {

// Counts queued entries of one user; shared by all queues.
class SignalCharge;

// Not thread-safe: the owner's signal lock guards it.
class PendingSignals {
 public:
  PendingSignals() = default;
  PendingSignals(const PendingSignals&) = delete;
  PendingSignals& operator=(const PendingSignals&) = delete;
  ~PendingSignals() { Clear(~SignalSet{0}); }

  SignalSet set() const { return set_; }
  bool Contains(int signal) const { return (set_ & SignalBit(signal)) != 0; }
  // Queues `info`; `charge` is kept until the entry goes. With a null charge only the bit is set
  // (the queue was full): the receiver sees SI_USER from nobody.
  void Add(const SignalInfo& info, std::shared_ptr<SignalCharge> charge);
  // An entry of the timer `timer_id`, whose expiries are merged (timer_getoverrun(2)); null if
  // there is none.
  SignalInfo* FindTimer(int signal, int32_t timer_id);
  // The first synchronous fault that is pending and in `allowed`.
  std::optional<SignalInfo> TakeSynchronous(SignalSet allowed);
  // The lowest-numbered signal in `allowed`, faults first.
  std::optional<SignalInfo> Take(SignalSet allowed);
  // Forgets all entries of signals in `set`. Those that timers sent are appended to `from_timers`,
  // if it is not null.
  void Clear(SignalSet set, std::vector<SignalInfo>* from_timers = nullptr);

  static int Lowest(SignalSet set);

 private:
  struct Entry {
    SignalInfo info;
    std::shared_ptr<SignalCharge> charge;
  };
  SignalInfo TakeSignal(int signal);

  SignalSet set_ = 0;
  std::vector<Entry> entries_;  // In order of arrival.
};

}  // namespace sentry
