// Where a pair's threads are told to run. The guest thread is one that sleeps.

#include "platform/systrap/handover.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <cstdint>
#include <thread>

#include "catch2/catch.hpp"

namespace {

using platform::CpuSet;
using platform::Handover;

constexpr uint32_t kSpins = 1000;
constexpr int kSeries = 64;

class Sleeper {
 public:
  Sleeper()
      : thread_([this] {
          tid_ = static_cast<pid_t>(syscall(SYS_gettid));
          tid_.notify_all();
          stop_.wait(false);
        }) {
    tid_.wait(0);
  }
  ~Sleeper() {
    stop_ = true;
    stop_.notify_all();
    thread_.join();
  }
  pid_t tid() const { return tid_; }

 private:
  std::atomic<pid_t> tid_ = 0;
  std::atomic<bool> stop_ = false;
  std::thread thread_;
};

cpu_set_t CpusOf(pid_t thread) {
  cpu_set_t cpus;
  REQUIRE(sched_getaffinity(thread, sizeof(cpus), &cpus) == 0);
  return cpus;
}

// The only CPU that the thread may use; -1 if there are several.
int OnlyCpuOf(pid_t thread) {
  const cpu_set_t cpus = CpusOf(thread);
  if (CPU_COUNT(&cpus) != 1) return -1;
  size_t cpu = 0;
  while (!CPU_ISSET(cpu, &cpus)) cpu++;
  return static_cast<int>(cpu);
}

// On a thread of its own, whose CPUs are then as they were. False: there is only one.
template <typename Body>
bool WithPair(Body body) {
  const cpu_set_t before = CpusOf(0);
  if (CPU_COUNT(&before) < 2) return false;
  std::thread([&] {
    CpuSet cpus;
    Sleeper guest;
    Handover handover(cpus, kSpins);
    body(cpus, handover, guest.tid());
  }).join();
  return true;
}

Handover::Patience Series(Handover& handover, pid_t guest) {
  Handover::Patience patience;
  for (int i = 0; i < kSeries; i++) patience = handover.Enter(guest, /*sleeps=*/false, /*cpu=*/-1);
  return patience;
}

TEST_CASE("a pair begins on one CPU and does not spin there", "[handover]") {
  WithPair([](CpuSet&, Handover& handover, pid_t guest) {
    const Handover::Patience patience = handover.Enter(guest, true, -1);
    CHECK(patience.spins == 0);
    CHECK(patience.yields > 0);
    CHECK(OnlyCpuOf(guest) >= 0);
    CHECK(OnlyCpuOf(guest) == OnlyCpuOf(0));
  });
}

TEST_CASE("calls that come fast send it to two CPUs, where it spins", "[handover]") {
  WithPair([](CpuSet&, Handover& handover, pid_t guest) {
    handover.Enter(guest, true, -1);
    const Handover::Patience patience = Series(handover, guest);
    CHECK(patience.spins == kSpins);
    CHECK(patience.rounds > 1);
    CHECK(OnlyCpuOf(guest) >= 0);
    CHECK(OnlyCpuOf(guest) != OnlyCpuOf(0));
  });
}

TEST_CASE("not while another pair is busy there", "[handover]") {
  WithPair([](CpuSet& cpus, Handover& handover, pid_t guest) {
    handover.Enter(guest, true, -1);
    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) cpus.Take(cpu);
    CHECK(Series(handover, guest).spins == 0);
    CHECK(OnlyCpuOf(guest) == OnlyCpuOf(0));
  });
}

TEST_CASE("a guest thread without a CPU brings the pair together, and all trials wait",
          "[handover]") {
  WithPair([](CpuSet& cpus, Handover& handover, pid_t guest) {
    handover.Enter(guest, true, -1);
    Series(handover, guest);
    // It has its turn and works: nothing to do.
    CHECK(handover.Missed(guest, /*noticed=*/true).spins == kSpins);
    CHECK(handover.Missed(guest, /*noticed=*/false).spins == 0);
    CHECK(OnlyCpuOf(guest) == OnlyCpuOf(0));
    cpus.TrialFailed(~uint64_t{0} / 2);
    CHECK(Series(handover, guest).spins == 0);
  });
}

TEST_CASE("wake-ups that cost more than was gained bring it together", "[handover]") {
  WithPair([](CpuSet&, Handover& handover, pid_t guest) {
    handover.Enter(guest, true, -1);
    Series(handover, guest);
    int wakes = 0;
    while (handover.Enter(guest, /*sleeps=*/true, -1).spins != 0 && wakes < 100) wakes++;
    CHECK(wakes >= 1);
    CHECK(wakes < 10);
    CHECK(OnlyCpuOf(guest) == OnlyCpuOf(0));
  });
}

TEST_CASE("nobody yields for a while where yielding takes long", "[handover]") {
  WithPair([](CpuSet&, Handover& handover, pid_t guest) {
    CHECK(handover.Enter(guest, true, -1).yields > 0);
    handover.Yielded(1'000'000);
    CHECK(handover.Enter(guest, true, -1).yields == 0);
  });
}

TEST_CASE("a guest that computes may run where it likes", "[handover]") {
  WithPair([](CpuSet&, Handover& handover, pid_t guest) {
    const cpu_set_t all = CpusOf(0);
    handover.Enter(guest, true, -1);
    handover.Long();
    const cpu_set_t after = CpusOf(guest);
    CHECK(CPU_EQUAL(&after, &all));
    // Its next call may come from elsewhere: the pair is together there.
    int elsewhere = 0;
    while (!CPU_ISSET(static_cast<size_t>(elsewhere), &all) || elsewhere == OnlyCpuOf(0))
      elsewhere++;
    handover.Enter(guest, false, elsewhere);
    CHECK(OnlyCpuOf(guest) == elsewhere);
    CHECK(OnlyCpuOf(0) == elsewhere);
  });
}

}  // namespace
