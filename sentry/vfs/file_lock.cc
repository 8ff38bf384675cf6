#include "sentry/vfs/file_lock.h"

#include <algorithm>

namespace sentry {
namespace {

bool Overlap(const RecordLock& a, uint64_t start, uint64_t last) {
  return a.start <= last && start <= a.last;
}

}  // namespace

const RecordLock* FileLocks::FindConflict(const RecordLock& lock) const {
  for (const RecordLock& held : records_) {
    if (held.owner == lock.owner || !(held.exclusive || lock.exclusive)) continue;
    if (Overlap(held, lock.start, lock.last)) return &held;
  }
  return nullptr;
}

bool FileLocks::Carve(const void* owner, uint64_t start, uint64_t last) {
  bool changed = false;
  std::vector<RecordLock> rest;
  for (auto it = records_.begin(); it != records_.end();) {
    if (it->owner != owner || !Overlap(*it, start, last)) {
      ++it;
      continue;
    }
    changed = true;
    if (it->start < start) {
      rest.push_back(*it);
      rest.back().last = start - 1;
    }
    if (it->last > last) {
      rest.push_back(*it);
      rest.back().start = last + 1;
    }
    it = records_.erase(it);
  }
  records_.insert(records_.end(), rest.begin(), rest.end());
  return changed;
}

base::Result<void> FileLocks::SetRecord(const RecordLock& lock, RecordLock* blocker) {
  bool changed = false;
  {
    const absl::MutexLock guard(&mu_);
    if (const RecordLock* conflict = FindConflict(lock)) {
      if (blocker != nullptr) *blocker = *conflict;
      return base::Errno(EAGAIN);
    }
    if (records_.size() >= kRecordsMax) return base::Errno(ENOLCK);
    changed = Carve(lock.owner, lock.start, lock.last);
    RecordLock merged = lock;
    // Neighbours of the same kind become one lock.
    for (auto it = records_.begin(); it != records_.end();) {
      const bool touches_below = it->last != RecordLock::kLastByte && it->last + 1 == merged.start;
      const bool touches_above =
          merged.last != RecordLock::kLastByte && merged.last + 1 == it->start;
      if (it->owner == lock.owner && it->exclusive == lock.exclusive &&
          (touches_below || touches_above)) {
        merged.start = std::min(merged.start, it->start);
        merged.last = std::max(merged.last, it->last);
        it = records_.erase(it);
      } else {
        ++it;
      }
    }
    const auto place = std::find_if(records_.begin(), records_.end(), [&](const RecordLock& held) {
      return held.start > merged.start;
    });
    records_.insert(place, merged);
  }
  if (changed) queue_.Notify(POLLOUT);  // An exclusive lock may have become shared.
  return {};
}

base::Result<void> FileLocks::ClearRecord(const void* owner, uint64_t start, uint64_t last) {
  bool changed = false;
  {
    const absl::MutexLock guard(&mu_);
    changed = Carve(owner, start, last);
  }
  if (changed) queue_.Notify(POLLOUT);
  return {};
}

std::optional<RecordLock> FileLocks::TestRecord(const RecordLock& lock) const {
  const absl::ReaderMutexLock guard(&mu_);
  const RecordLock* conflict = FindConflict(lock);
  if (conflict == nullptr) return std::nullopt;
  return *conflict;
}

void FileLocks::ReleaseRecords(const void* owner) {
  bool changed = false;
  {
    const absl::MutexLock guard(&mu_);
    changed =
        std::erase_if(records_, [&](const RecordLock& held) { return held.owner == owner; }) != 0;
  }
  if (changed) queue_.Notify(POLLOUT);
}

base::Result<void> FileLocks::SetFlock(const void* owner, bool exclusive) {
  bool gave_up_old = false;
  bool conflict = false;
  {
    const absl::MutexLock guard(&mu_);
    for (const Flock& held : flocks_) {
      if (held.owner == owner && held.exclusive == exclusive) return {};
    }
    gave_up_old =
        std::erase_if(flocks_, [&](const Flock& held) { return held.owner == owner; }) != 0;
    conflict = std::any_of(flocks_.begin(), flocks_.end(),
                           [&](const Flock& held) { return held.exclusive || exclusive; });
    if (!conflict) flocks_.push_back({owner, exclusive});
  }
  if (gave_up_old) queue_.Notify(POLLOUT);
  if (conflict) return base::Errno(EAGAIN);
  return {};
}

void FileLocks::ReleaseFlock(const void* owner) {
  bool changed = false;
  {
    const absl::MutexLock guard(&mu_);
    changed = std::erase_if(flocks_, [&](const Flock& held) { return held.owner == owner; }) != 0;
  }
  if (changed) queue_.Notify(POLLOUT);
}

std::vector<RecordLock> FileLocks::Records() const {
  const absl::ReaderMutexLock guard(&mu_);
  return records_;
}

base::Result<void> LockWaits::Enter(const void* waiter, const void* owner, const void* blocker) {
  const absl::MutexLock guard(&mu_);
  // Each owner on the way is visited at most once: the walk is bounded by the number of waiters.
  std::vector<const void*> pending{blocker};
  std::vector<const void*> seen;
  while (!pending.empty()) {
    const void* current = pending.back();
    pending.pop_back();
    if (current == owner) return base::Errno(EDEADLK);
    if (std::find(seen.begin(), seen.end(), current) != seen.end()) continue;
    seen.push_back(current);
    for (const auto& [other, wait] : waits_) {
      if (other != waiter && wait.owner == current) pending.push_back(wait.blocker);
    }
  }
  waits_.insert_or_assign(waiter, Wait{owner, blocker});
  return {};
}

void LockWaits::Leave(const void* waiter) {
  const absl::MutexLock guard(&mu_);
  waits_.erase(waiter);
}

}  // namespace sentry
