#include "netstack/stack/timer.h"

#include <algorithm>
#include <bit>

namespace netstack {
namespace {

constexpr uint64_t kNoTick = UINT64_MAX;

uint64_t TickOf(int64_t ns) { return static_cast<uint64_t>(std::max<int64_t>(ns, 0)) / kNsPerMs; }
uint64_t TickAfter(int64_t ns) {
  return (static_cast<uint64_t>(std::max<int64_t>(ns, 0)) + kNsPerMs - 1) / kNsPerMs;
}

}  // namespace

TimerTarget::~TimerTarget() {
  if (wheel_ != nullptr) wheel_->Cancel(*this);
}

TimerWheel::TimerWheel(const Clock& clock, std::function<void()> on_earlier)
    : clock_(clock), on_earlier_(std::move(on_earlier)), now_tick_(TickOf(clock.NowNs())) {}

TimerWheel::~TimerWheel() {
  const absl::MutexLock lock(&mu_);
  for (auto& level : slots_) {
    for (TimerTarget*& head : level) {
      while (head != nullptr) {
        TimerTarget* target = head;
        head = target->next_;
        target->wheel_ = nullptr;
        target->level_ = -1;
      }
    }
  }
}

void TimerWheel::LinkLocked(TimerTarget& target) {
  // The level is where the tick first differs from now: its slot comes round before the next higher
  // slot does.
  const uint64_t tick = std::max(target.tick_, now_tick_ + 1);
  const uint64_t different = tick ^ now_tick_;
  int level = (63 - std::countl_zero(different)) / kSlotBits;
  uint64_t slot_tick = tick;
  if (level >= kLevels) {
    level = kLevels - 1;  // Beyond two years: the farthest slot, and then again.
    slot_tick = now_tick_ + ((uint64_t{kSlots} - 1) << (kSlotBits * level));
  }
  const auto slot = static_cast<uint8_t>((slot_tick >> (kSlotBits * level)) & (kSlots - 1));
  const auto l = static_cast<size_t>(level);
  target.level_ = static_cast<int16_t>(level);
  target.slot_ = slot;
  target.previous_ = nullptr;
  target.next_ = slots_[l][slot];
  if (target.next_ != nullptr) target.next_->previous_ = &target;
  slots_[l][slot] = &target;
  occupied_[l] |= uint64_t{1} << slot;
}

void TimerWheel::UnlinkLocked(TimerTarget& target) {
  if (target.level_ < 0) return;
  const auto level = static_cast<size_t>(target.level_);
  if (target.next_ != nullptr) target.next_->previous_ = target.previous_;
  if (target.previous_ != nullptr) {
    target.previous_->next_ = target.next_;
  } else {
    slots_[level][target.slot_] = target.next_;
    if (target.next_ == nullptr) occupied_[level] &= ~(uint64_t{1} << target.slot_);
  }
  target.previous_ = target.next_ = nullptr;
  target.level_ = -1;
}

uint64_t TimerWheel::NextTickLocked() const {
  uint64_t next = kNoTick;
  for (size_t level = 0; level < kLevels; ++level) {
    if (occupied_[level] == 0) continue;
    const unsigned shift = static_cast<unsigned>(kSlotBits * level);
    const uint64_t position = now_tick_ >> shift;
    const auto current = static_cast<int>(position & (kSlots - 1));
    // Slots after the current one, cyclically; a slot equal to it is a whole round away.
    const uint64_t rotated = std::rotr(occupied_[level], (current + 1) % kSlots);
    const auto ahead = static_cast<uint64_t>(std::countr_zero(rotated)) + 1;
    next = std::min(next, (position + ahead) << shift);
  }
  return next;
}

void TimerWheel::Arm(TimerTarget& target, int64_t when_ns) {
  if (when_ns == kNever) return;
  bool earlier = false;
  {
    const absl::MutexLock lock(&mu_);
    const uint64_t tick = TickAfter(when_ns);
    if (target.level_ >= 0 && target.tick_ <= tick) return;
    UnlinkLocked(target);
    const uint64_t before = NextTickLocked();
    target.wheel_ = this;
    target.tick_ = tick;
    LinkLocked(target);
    earlier = NextTickLocked() < before;
  }
  if (earlier && on_earlier_) on_earlier_();
}

void TimerWheel::Cancel(TimerTarget& target) {
  const absl::MutexLock lock(&mu_);
  UnlinkLocked(target);
}

void TimerWheel::Run() {
  std::vector<std::shared_ptr<TimerTarget>> due;
  const uint64_t now = TickOf(clock_.NowNs());
  {
    const absl::MutexLock lock(&mu_);
    while (now_tick_ < now) {
      const uint64_t next = NextTickLocked();
      if (next > now) {
        now_tick_ = now;
        break;
      }
      now_tick_ = next;
      for (size_t level = 0; level < kLevels; ++level) {
        const unsigned shift = static_cast<unsigned>(kSlotBits * level);
        if (level > 0 && (now_tick_ & ((uint64_t{1} << shift) - 1)) != 0) break;
        const auto slot = static_cast<size_t>((now_tick_ >> shift) & (kSlots - 1));
        TimerTarget* target = slots_[level][slot];
        while (target != nullptr) {
          TimerTarget* following = target->next_;
          UnlinkLocked(*target);
          if (target->tick_ > now_tick_) {
            LinkLocked(*target);
          } else if (auto held = target->weak_from_this().lock()) {
            due.push_back(std::move(held));
          }
          target = following;
        }
      }
    }
  }
  for (const auto& target : due) target->OnTimer();
}

int64_t TimerWheel::NextNs() const {
  const absl::ReaderMutexLock lock(&mu_);
  const uint64_t tick = NextTickLocked();
  return tick == kNoTick ? kNever : static_cast<int64_t>(tick) * kNsPerMs;
}

}  // namespace netstack
