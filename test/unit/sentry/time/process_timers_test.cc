#include "sentry/time/process_timers.h"

#include <sys/time.h>

#include <climits>
#include <vector>

#include "catch2/catch.hpp"
#include "test/support/fake_clock.h"

namespace {

using sentry::CpuTimes;
using sentry::ProcessTimers;
using sentry::SignalInfo;
using Sent = ProcessTimers::Sent;
using Options = ProcessTimers::TimerOptions;

constexpr int64_t kMs = 1'000'000;

// A process that keeps what its timers send until the test takes it.
class Fixture : public ProcessTimers::Host {
 public:
  Sent SendTimerSignal(const SignalInfo& info, int32_t tid) override {
    if (answer == Sent::kQueued) queue.push_back(info);
    last_tid = tid;
    ++sends;
    return answer;
  }
  CpuTimes ProcessCpuTimes() override { return cpu; }
  std::optional<CpuTimes> ThreadCpuTimes(int32_t tid) override {
    if (tid != 7) return std::nullopt;
    return cpu;
  }
  // The first queued signal, as its handler would see it.
  SignalInfo Deliver() {
    REQUIRE(!queue.empty());
    SignalInfo info = queue.front();
    queue.erase(queue.begin());
    timers.OnSignalGone(info, true);
    return info;
  }
  int32_t Create(Options options = {}) {
    if (options.signal == 0) options.signal = SIGUSR1;
    return timers.Create(options, 10).value();
  }

  Sent answer = Sent::kQueued;
  std::vector<SignalInfo> queue;
  int sends = 0;
  int32_t last_tid = -1;
  CpuTimes cpu;
  test::FakeClock clock;
  test::FakeTimerService service{clock};
  ProcessTimers timers{clock, service, *this};
};

TEST_CASE("a real itimer fires at its time and again after its interval", "[time]") {
  Fixture f;
  CHECK(f.timers.SetItimer(ITIMER_REAL, {10 * kMs, 30 * kMs}).value_ns == 0);
  f.service.Advance(10 * kMs - 1);
  CHECK(f.queue.empty());
  CHECK(f.timers.GetItimer(ITIMER_REAL).value_ns == 1);
  f.service.Advance(1);
  REQUIRE(f.queue.size() == 1);
  CHECK(f.queue[0].signal == SIGALRM);
  CHECK(f.queue[0].code == SI_KERNEL);
  f.Deliver();
  CHECK(f.timers.GetItimer(ITIMER_REAL).value_ns == 30 * kMs);
  f.service.Advance(30 * kMs);
  CHECK(f.queue.size() == 1);
}

TEST_CASE("nothing is armed while a timer's signal waits", "[time]") {
  Fixture f;
  const int32_t id = f.Create();
  REQUIRE(f.timers.SetTime(id, {1, 1}, false).ok());
  f.service.Advance(1);
  CHECK(f.queue.size() == 1);
  CHECK(f.service.idle());
  f.service.Advance(1000 * kMs);
  CHECK(f.sends == 1);
  CHECK(f.Deliver().overrun == 1000 * kMs);
  CHECK(f.timers.GetOverrun(id).value() == 1000 * kMs);
}

TEST_CASE("overruns stop at the largest int", "[time]") {
  Fixture f;
  const int32_t id = f.Create();
  REQUIRE(f.timers.SetTime(id, {1, 1}, false).ok());
  f.service.Advance(1);
  f.service.Advance(int64_t{INT_MAX} + 100);
  CHECK(f.Deliver().overrun == INT_MAX);
}

TEST_CASE("a timer set anew forgets the signal that is under way", "[time]") {
  Fixture f;
  const int32_t id = f.Create();
  REQUIRE(f.timers.SetTime(id, {kMs, kMs}, false).ok());
  f.service.Advance(kMs);
  REQUIRE(f.timers.SetTime(id, {50 * kMs, 0}, false).ok());
  CHECK(f.Deliver().overrun == 0);
  CHECK(f.timers.GetTime(id).value().value_ns == 50 * kMs);
  f.service.Advance(50 * kMs);
  CHECK(f.queue.size() == 1);
  f.Deliver();
  CHECK(f.service.idle());
}

TEST_CASE("a discarded signal does not stop a timer", "[time]") {
  Fixture f;
  f.timers.SetItimer(ITIMER_REAL, {kMs, kMs});
  f.service.Advance(kMs);
  SignalInfo info = f.queue[0];
  f.queue.clear();
  f.timers.OnSignalGone(info, false);
  f.service.Advance(kMs);
  CHECK(f.queue.size() == 1);
}

TEST_CASE("a timer whose signal is ignored goes on, but not too often", "[time]") {
  Fixture f;
  f.answer = Sent::kIgnored;
  f.timers.SetItimer(ITIMER_REAL, {1, 1});
  f.service.Advance(1000 * kMs);
  CHECK(f.sends > 100);
  CHECK(f.sends < 300);
  f.answer = Sent::kQueued;
  f.service.Advance(10 * kMs);
  CHECK(f.queue.size() == 1);
}

TEST_CASE("absolute times are taken on the timer's clock", "[time]") {
  Fixture f;
  Options options;
  options.base = Options::Base::kRealtime;
  const int32_t id = f.Create(options);
  REQUIRE(f.timers.SetTime(id, {f.clock.RealtimeNs() + 5 * kMs, 0}, true).ok());
  CHECK(f.timers.GetTime(id).value().value_ns == 5 * kMs);
  f.service.Advance(5 * kMs);
  CHECK(f.queue.size() == 1);
  f.Deliver();
  REQUIRE(f.timers.SetTime(id, {1, 0}, true).ok());
  f.service.Advance(0);
  CHECK(f.queue.size() == 1);
}

TEST_CASE("SIGEV_NONE counts down and tells nobody", "[time]") {
  Fixture f;
  Options options;
  options.notify = false;
  const int32_t id = f.Create(options);
  REQUIRE(f.timers.SetTime(id, {10 * kMs, 4 * kMs}, false).ok());
  CHECK(f.service.idle());
  f.service.Advance(15 * kMs);
  CHECK(f.timers.GetTime(id).value().value_ns == 3 * kMs);
  REQUIRE(f.timers.SetTime(id, {10 * kMs, 0}, false).ok());
  f.service.Advance(15 * kMs);
  CHECK(f.timers.GetTime(id).value().value_ns == 0);
  CHECK(f.sends == 0);
}

TEST_CASE("CPU timers fire when the CPU time is used up, however long that takes", "[time]") {
  Fixture f;
  f.timers.SetItimer(ITIMER_VIRTUAL, {100 * kMs, 0});
  f.timers.SetItimer(ITIMER_PROF, {100 * kMs, 0});
  for (int i = 0; i < 40; ++i) {
    f.service.Advance(5 * kMs);
    f.cpu.user_ns += 2 * kMs;
    f.cpu.system_ns += 3 * kMs;
  }
  REQUIRE(f.queue.size() == 1);
  CHECK(f.queue[0].signal == SIGPROF);
  for (int i = 0; i < 30; ++i) {
    f.service.Advance(5 * kMs);
    f.cpu.user_ns += kMs;
  }
  REQUIRE(f.queue.size() == 2);
  CHECK(f.queue[1].signal == SIGVTALRM);
}

TEST_CASE("a sleeping process with a CPU timer is looked at ever more seldom", "[time]") {
  Fixture f;
  f.timers.SetItimer(ITIMER_PROF, {2 * kMs, 2 * kMs});
  f.service.Advance(10'000 * kMs);
  CHECK(f.service.fired() < 120);
  CHECK(f.sends == 0);
}

TEST_CASE("a timer on the CPU time of a thread that is gone stands still", "[time]") {
  Fixture f;
  Options options;
  options.base = Options::Base::kThreadCpu;
  options.cpu_tid = 7;
  const int32_t here = f.Create(options);
  REQUIRE(f.timers.SetTime(here, {10 * kMs, 0}, false).ok());
  f.cpu.user_ns = 20 * kMs;
  f.service.Advance(20 * kMs);
  CHECK(f.queue.size() == 1);
  options.cpu_tid = 8;
  const int32_t gone = f.Create(options);
  REQUIRE(f.timers.SetTime(gone, {10 * kMs, 0}, false).ok());
  CHECK(f.timers.GetTime(gone).value().value_ns == 0);
  CHECK(f.service.idle());
}

TEST_CASE("timers have numbers, a limit and an end", "[time]") {
  Fixture f;
  const int32_t first = f.Create();
  const int32_t second = f.Create();
  CHECK(first != second);
  CHECK(f.timers.Create({}, 2).error() == EAGAIN);
  CHECK(f.timers.Delete(first).ok());
  CHECK(f.timers.Delete(first).error() == EINVAL);
  CHECK(f.timers.GetTime(first).error() == EINVAL);
  CHECK(f.timers.GetOverrun(first).error() == EINVAL);
  CHECK(f.timers.SetTime(first, {}, false).error() == EINVAL);
  f.timers.SetItimer(ITIMER_REAL, {kMs, 0});
  REQUIRE(f.timers.SetTime(second, {kMs, 0}, false).ok());
  f.timers.OnExec();
  CHECK(f.timers.GetTime(second).error() == EINVAL);
  f.service.Advance(kMs);
  CHECK(f.queue.size() == 1);
}

TEST_CASE("a signal goes to the thread that was named, with its value", "[time]") {
  Fixture f;
  Options options;
  options.signal = SIGUSR2;
  options.target_tid = 42;
  options.value = 4711;
  const int32_t id = f.Create(options);
  REQUIRE(f.timers.SetTime(id, {kMs, 0}, false).ok());
  f.service.Advance(kMs);
  CHECK(f.last_tid == 42);
  REQUIRE(f.queue.size() == 1);
  CHECK(f.queue[0].signal == SIGUSR2);
  CHECK(f.queue[0].code == SI_TIMER);
  CHECK(f.queue[0].value == 4711);
  CHECK(f.queue[0].timer_id == id);
  CHECK(f.queue[0].from_timer);
}

}  // namespace
