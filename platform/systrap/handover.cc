#include "platform/systrap/handover.h"

#include <sched.h>

#include <algorithm>

#include "platform/stub/futex.h"

namespace platform {
namespace {

constexpr uint32_t kYields = 3;
// A wake-up across CPUs, with room to spare.
constexpr uint32_t kRoundsToWake = 4;
// So many calls are looked at together,
constexpr uint32_t kCallsAtOnce = 64;
// and when they take longer than this each, spinning would gain little.
constexpr uint64_t kDenseNs = 15'000;
// A running thread is moved to another CPU at a price of 50 us.
constexpr uint32_t kCrowdedEnough = 4;

}  // namespace

Handover::Patience Handover::Now() const {
  if (pair_.place() == Place::kApart) return {spins_, 0};
  return {0, quiet_calls_ > 0 ? 0 : kYields};
}

Handover::Patience Handover::Enter(pid_t thread, bool sleeps, int cpu) {
  if (!adopted_) {
    pair_.Adopt();
    adopted_ = true;
  }
  LeaveCpu(cpus_);
  if (restarts_) [[unlikely]] {
    restarts_ = false;
    score_ = 0;
    series_wanted_ = kSeriesMin;
    Together(thread, -1);
  }
  bool wakes = sleeps;
  switch (pair_.place()) {
    case Place::kTogether:
      if (quiet_calls_ > 0) quiet_calls_--;
      if (++calls_ >= kCallsAtOnce) wakes = Consider(thread);
      break;
    case Place::kApart:
      if (sleeps) score_ -= kMissWeight;
      if (score_ >= 0) break;
      series_wanted_ = std::min(2 * series_wanted_, kSeriesMax);
      Together(thread, sched_getcpu());
      break;
    case Place::kFree:
      // A new thread is where its creator is, and many live too short for a better place to pay.
      Together(thread, sched_getcpu());
      break;
    case Place::kLoose:
      // It may have left this CPU because there was too much to do. Rather follow it.
      Together(thread, cpus_.Has(cpu) ? cpu : -1);
      break;
  }
  Patience patience = Now();
  if (wakes) patience.rounds = kRoundsToWake;
  return patience;
}

bool Handover::Consider(pid_t thread) {
  const uint64_t now = NowNs();
  const bool dense = now - calls_since_ns_ < kCallsAtOnce * kDenseNs;
  series_ = dense ? series_ + calls_ : 0;
  calls_ = 0;
  calls_since_ns_ = now;
  crowded_ = pair_.Crowded() ? crowded_ + 1 : 0;
  if (crowded_ >= kCrowdedEnough) {
    crowded_ = 0;
    Together(thread, -1);
    return false;
  }
  if (series_ < series_wanted_ || spins_ == 0 || !cpus_.MayTry(now)) return false;
  if (!pair_.Separate(thread)) return false;
  score_ = kScoreAtFirst;
  return true;
}

void Handover::Together(pid_t thread, int cpu) {
  pair_.Join(thread, cpu);
  series_ = calls_ = 0;
  calls_since_ns_ = NowNs();
}

Handover::Patience Handover::Missed(pid_t thread, bool noticed) {
  if (pair_.place() == Place::kApart && !noticed) {
    cpus_.TrialFailed(NowNs());
    Together(thread, sched_getcpu());
  }
  return Now();
}

void Handover::Slept(uint64_t ns) {
  if (pair_.place() == Place::kApart && ns < kLongNs) score_ -= kMissWeight;
  if (pair_.place() != Place::kApart) Yielded(ns);
}

Handover::Patience Handover::Long() {
  pair_.Loosen();
  return Now();
}

void Handover::Proven() {
  series_wanted_ = kSeriesMin;
  cpus_.TrialSucceeded();
}

}  // namespace platform
