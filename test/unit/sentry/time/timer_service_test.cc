#include "sentry/time/timer_service.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "sentry/time/host_clock.h"

namespace {

using sentry::Deadline;

constexpr int64_t kMs = 1'000'000;

bool Becomes(const std::atomic<int>& counter, int value) {
  for (int i = 0; i < 400 && counter < value; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  return counter == value;
}

TEST_CASE("timers run at their times, the earliest first", "[time]") {
  const sentry::HostClock clock;
  const auto service = sentry::NewTimerService(clock);
  std::atomic<int> order{0};
  std::atomic<int> first_saw{-1}, second_saw{-1};
  const auto second = service->NewTimer([&] { second_saw = order++; });
  const auto first = service->NewTimer([&] { first_saw = order++; });
  const int64_t now = clock.MonotonicNs();
  second->Arm(Deadline::At(now + 40 * kMs));
  first->Arm(Deadline::At(now + 20 * kMs));
  CHECK(Becomes(order, 2));
  CHECK(clock.MonotonicNs() >= now + 40 * kMs);
  CHECK(first_saw == 0);
  CHECK(second_saw == 1);
}

TEST_CASE("a cancelled timer does not run, a past one runs at once", "[time]") {
  const sentry::HostClock clock;
  const auto service = sentry::NewTimerService(clock);
  std::atomic<int> count{0};
  const auto timer = service->NewTimer([&] { ++count; });
  timer->Arm(Deadline::At(clock.MonotonicNs() + 20 * kMs));
  timer->Cancel();
  std::this_thread::sleep_for(std::chrono::milliseconds(40));
  CHECK(count == 0);
  timer->Arm(Deadline::At(0));
  CHECK(Becomes(count, 1));
  timer->Arm(Deadline::Never());
}

TEST_CASE("a callback may arm its timer again", "[time]") {
  const sentry::HostClock clock;
  const auto service = sentry::NewTimerService(clock);
  std::atomic<int> count{0};
  std::unique_ptr<sentry::Timer> timer;
  timer = service->NewTimer([&] {
    if (++count < 5) timer->Arm(Deadline::At(clock.MonotonicNs() + kMs));
  });
  timer->Arm(Deadline::At(0));
  CHECK(Becomes(count, 5));
}

TEST_CASE("after Cancel returns no callback is running", "[time]") {
  const sentry::HostClock clock;
  const auto service = sentry::NewTimerService(clock);
  for (int round = 0; round < 50; ++round) {
    auto alive = std::make_unique<std::atomic<bool>>(true);
    std::atomic<int> started{0};
    bool seen_dead = false;
    auto timer = service->NewTimer([&] {
      started = 1;
      std::this_thread::sleep_for(std::chrono::microseconds(200));
      if (!*alive) seen_dead = true;
    });
    timer->Arm(Deadline::At(0));
    if (round % 2 == 0) Becomes(started, 1);
    timer->Cancel();
    *alive = false;
    timer.reset();
    CHECK(!seen_dead);
  }
}

TEST_CASE("host randomness differs each time and fills any size", "[time]") {
  sentry::HostRandom random;
  CHECK(random.Next() != random.Next());
  std::vector<uint8_t> big(100'000);
  random.Fill(big.data(), big.size());
  size_t zeros = 0;
  for (const uint8_t byte : big) zeros += byte == 0 ? 1 : 0;
  CHECK(zeros > 200);
  CHECK(zeros < 700);
}

}  // namespace
