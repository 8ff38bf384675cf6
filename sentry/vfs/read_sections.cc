#include "sentry/vfs/read_sections.h"

#include <utility>

namespace sentry {

ReadSections::Section::Section(ReadSections& all) : all_(all), count_(all.Enter()) {}

ReadSections::Section::~Section() {
  // Pairs with Collect, which says "pending" and then looks at the counts.
  count_.fetch_sub(1, std::memory_order_seq_cst);
  if (all_.pending_.load(std::memory_order_seq_cst)) all_.Collect();
}

std::atomic<uint32_t>& ReadSections::Enter() {
  // Threads have stacks of their own: that is enough to keep them off each other's cache lines.
  constexpr int kStackShift = 18;
  const auto stack = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
  Stripe& stripe = stripes_[(stack >> kStackShift) % kStripes];
  std::atomic<uint32_t>& count =
      stripe.readers[parity_.load(std::memory_order_seq_cst) % stripe.readers.size()];
  // A full barrier: what is read from now on is not older than the mark.
  count.fetch_add(1, std::memory_order_seq_cst);
  return count;
}

bool ReadSections::HasReaders(uint32_t parity) const {
  for (const Stripe& stripe : stripes_) {
    if (stripe.readers[parity].load(std::memory_order_seq_cst) != 0) return true;
  }
  return false;
}

void ReadSections::Retire(std::shared_ptr<const void> object) {
  if (object == nullptr) return;
  const absl::MutexLock lock(&mu_);
  retired_.push_back(std::move(object));
}

void ReadSections::Collect() {
  std::vector<std::shared_ptr<const void>> free;  // Destroyed outside the lock.
  const absl::MutexLock lock(&mu_);
  while (true) {
    if (waiting_.empty()) {
      if (retired_.empty()) break;
      waiting_.swap(retired_);
      flipped_ = false;
    }
    pending_.store(true, std::memory_order_seq_cst);
    const uint32_t parity = parity_.load(std::memory_order_relaxed) % 2;
    if (HasReaders(1 - parity)) return;
    if (!flipped_) {
      parity_.store(1 - parity, std::memory_order_seq_cst);
      flipped_ = true;
      continue;
    }
    if (free.empty()) {
      free.swap(waiting_);
    } else {
      for (auto& object : waiting_) free.push_back(std::move(object));
      waiting_.clear();
    }
  }
  pending_.store(false, std::memory_order_seq_cst);
}

}  // namespace sentry
