#pragma once

// Time that goes only when a test says so, and a timer service on it whose callbacks run inside
// Advance.

#include <cstdint>
#include <functional>
#include <memory>
#include <set>
#include <utility>

#include "sentry/time/clock.h"
#include "sentry/time/timer_service.h"

namespace test {

class FakeClock : public sentry::Clock {
 public:
  static constexpr int64_t kRealtimeAhead = 1'700'000'000'000'000'000;
  int64_t MonotonicNs() const override { return now_; }
  int64_t RealtimeNs() const override { return now_ + kRealtimeAhead; }
  void Set(int64_t ns) { now_ = ns; }

 private:
  int64_t now_ = 1'000'000'000;
};

// Not thread-safe.
class FakeTimerService : public sentry::TimerService {
 public:
  explicit FakeTimerService(FakeClock& clock) : clock_(clock) {}
  std::unique_ptr<sentry::Timer> NewTimer(std::function<void()> callback) override {
    return std::make_unique<FakeTimer>(*this, std::move(callback));
  }
  // Runs what becomes due on the way.
  void Advance(int64_t ns) {
    const int64_t until = clock_.MonotonicNs() + ns;
    while (!armed_.empty() && armed_.begin()->first <= until) {
      const auto [at, timer] = *armed_.begin();
      armed_.erase(armed_.begin());
      timer->armed_ = false;
      if (at > clock_.MonotonicNs()) clock_.Set(at);
      ++fired_;
      timer->callback_();
    }
    clock_.Set(until);
  }
  bool idle() const { return armed_.empty(); }
  int fired() const { return fired_; }

 private:
  class FakeTimer : public sentry::Timer {
   public:
    FakeTimer(FakeTimerService& service, std::function<void()> callback)
        : callback_(std::move(callback)), service_(service) {}
    ~FakeTimer() override { Cancel(); }
    void Arm(sentry::Deadline at) override {
      Cancel();
      if (at.IsNever()) return;
      at_ = at.monotonic_ns;
      armed_ = true;
      service_.armed_.emplace(at_, this);
    }
    void Cancel() override {
      if (armed_) service_.armed_.erase({at_, this});
      armed_ = false;
    }
    const std::function<void()> callback_;
    bool armed_ = false;

   private:
    FakeTimerService& service_;
    int64_t at_ = 0;
  };

  FakeClock& clock_;
  std::set<std::pair<int64_t, FakeTimer*>> armed_;
  int fired_ = 0;
};

}  // namespace test
