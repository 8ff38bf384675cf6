#include "platform/systrap/handover.h"

#include <algorithm>
#include <ctime>

namespace platform {
namespace {

// A miss costs some eight times what spinning gains over pairing.
constexpr uint32_t kMissWeight = 8;
constexpr uint32_t kDisappointmentMax = 24;
// So many events in time show that spinning pays again.
constexpr uint32_t kHitsEnough = 100;
constexpr uint32_t kYieldsAfterSpinning = 2;
constexpr uint32_t kYieldsInPair = 3;

// Cheap and coarse: milliseconds are enough.
uint64_t CoarseNowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

}  // namespace

Handover::Handover(CpuSet& cpus, uint32_t spins)
    : cpus_(cpus),
      pair_(cpus),
      spins_(spins),
      disappointment_(cpus.spinning_pays() ? 0 : kDisappointmentMax) {}

Handover::Patience Handover::Enter(pid_t thread) {
  if (!adopted_) {
    pair_.Adopt();
    adopted_ = true;
  }
  LeaveCpu(cpus_);
  if (!pair_.joined()) {
    if (disappointment_ < kDisappointmentMax && spins_ > 0) return {spins_, kYieldsAfterSpinning};
    pair_.Join(thread);
    cpus_.set_spinning_pays(false);
    pair_until_ns_ = CoarseNowNs() + pair_for_ns_;
    pair_for_ns_ = std::min(2 * pair_for_ns_, kPairForMaxNs);
  } else if (CoarseNowNs() >= pair_until_ns_) {
    pair_.Part();
    disappointment_ = 0;
    return {spins_, kYieldsAfterSpinning};
  }
  return {0, kYieldsInPair};
}

void Handover::Spun() {
  if (disappointment_ > 0) disappointment_--;
  if (++hits_ != kHitsEnough) return;
  pair_for_ns_ = kPairForMinNs;
  cpus_.set_spinning_pays(true);
}

void Handover::Slept(uint64_t ns) {
  if (pair_.joined()) return;
  hits_ = 0;
  if (ns < kLongNs) disappointment_ += kMissWeight;
}

void Handover::Long() {
  pair_.Part();
  disappointment_ = 0;
}

}  // namespace platform
