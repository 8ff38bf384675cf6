#include "sentry/signal/pending_signals.h"

#include "catch2/catch.hpp"

namespace {

using sentry::PendingSignals;
using sentry::SignalBit;
using sentry::SignalInfo;

// Any non-null charge does.
std::shared_ptr<sentry::SignalCharge> Charge() {
  return {std::make_shared<int>(0), reinterpret_cast<sentry::SignalCharge*>(8)};
}

SignalInfo Queued(int signal, uint64_t value) {
  SignalInfo info = SignalInfo::FromUser(signal, 7, 8);
  info.code = SI_QUEUE;
  info.value = value;
  return info;
}

TEST_CASE("real-time signals keep their order of arrival and their number", "[signal]") {
  PendingSignals pending;
  pending.Add(Queued(40, 1), Charge());
  pending.Add(Queued(34, 2), Charge());
  pending.Add(Queued(40, 3), Charge());
  CHECK(pending.Take(~uint64_t{0})->value == 2);
  CHECK(pending.Take(~uint64_t{0})->value == 1);
  CHECK(pending.Contains(40));
  CHECK(pending.Take(~uint64_t{0})->value == 3);
  CHECK(pending.set() == 0);
  CHECK_FALSE(pending.Take(~uint64_t{0}).has_value());
}

TEST_CASE("a fault comes before a lower number", "[signal]") {
  PendingSignals pending;
  pending.Add(SignalInfo::FromUser(SIGHUP, 1, 0), Charge());
  SignalInfo fault;
  fault.signal = SIGSEGV;
  fault.code = SEGV_MAPERR;
  fault.address = 0x1234;
  pending.Add(fault, Charge());
  CHECK(pending.TakeSynchronous(~uint64_t{0})->address == 0x1234);
  CHECK_FALSE(pending.TakeSynchronous(~uint64_t{0}).has_value());
  CHECK(pending.Take(~uint64_t{0})->signal == SIGHUP);
}

TEST_CASE("what does not fit into the queue is a bit without details", "[signal]") {
  PendingSignals pending;
  pending.Add(Queued(SIGUSR1, 5), nullptr);
  const auto taken = pending.Take(SignalBit(SIGUSR1));
  REQUIRE(taken.has_value());
  CHECK(taken->code == SI_USER);
  CHECK(taken->pid == 0);
}

TEST_CASE("clearing forgets entries and reports those of timers", "[signal]") {
  PendingSignals pending;
  SignalInfo timer = Queued(SIGALRM, 0);
  timer.from_timer = true;
  pending.Add(timer, Charge());
  pending.Add(Queued(SIGUSR1, 0), Charge());
  std::vector<SignalInfo> gone;
  pending.Clear(SignalBit(SIGALRM) | SignalBit(SIGHUP), &gone);
  CHECK(gone.size() == 1);
  CHECK(pending.set() == SignalBit(SIGUSR1));
}

}  // namespace
