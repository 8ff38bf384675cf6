// mlock(2) and its family: accounting and the early faults. The host never swaps the pool of a
// running sandbox on our word; nothing is pinned there.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>

#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;

// Sets the lock of every page in the range; ENOMEM at the first hole, with what came before done.
Result<void> MemoryManager::Impl::SetLockLocked(uint64_t start, uint64_t end, bool locked,
                                                bool on_fault, Leftovers& leftovers) {
  Result<void> result;
  uint64_t at = start;
  while (at < end) {
    auto it = vmas.Find(at);
    if (it == vmas.end()) {
      result = Errno(ENOMEM);
      break;
    }
    const uint64_t to = std::min(end, it->second.end);
    if (vmas.size() + 2 > kMapCountMax) {
      result = Errno(ENOMEM);
      break;
    }
    vmas.Split(at);
    vmas.Split(to);
    Vma& vma = vmas.Find(at)->second;
    if (locked && !vma.locked) locked_bytes += vma.size();
    if (!locked && vma.locked) locked_bytes -= vma.size();
    vma.locked = locked;
    vma.lock_on_fault = locked && on_fault;
    if (locked && !on_fault && vma.accessible() &&
        !PopulateLocked(vma, at, to, vma.writable() && !vma.shared, leftovers).ok()) {
      result = Errno(ENOMEM);
      at = to;
      break;
    }
    at = to;
  }
  vmas.Merge(start, at);
  return result;
}

Result<void> MemoryManager::Mlock(uint64_t address, uint64_t length, bool on_fault) {
  const uint64_t start = PageDown(address);
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  if (impl_->limits.locked_bytes == 0) return Errno(EPERM);
  if (length > ~uint64_t{0} - 2 * kPageSize) return Errno(ENOMEM);
  const uint64_t bytes = PageUp(length + (address - start));
  uint64_t already = 0;
  for (auto it = impl_->vmas.FindFrom(start);
       it != impl_->vmas.end() && it->second.start - std::min(it->second.start, start) < bytes;
       ++it) {
    if (!it->second.locked) continue;
    const uint64_t end = start > ~uint64_t{0} - bytes ? ~uint64_t{0} : start + bytes;
    already += std::min(end, it->second.end) - std::max(start, it->second.start);
  }
  if (bytes > already && !impl_->MayLockLocked(bytes - already)) return Errno(ENOMEM);
  if (start + bytes < start) return Errno(EINVAL);
  return impl_->SetLockLocked(start, start + bytes, true, on_fault, leftovers);
}

Result<void> MemoryManager::Munlock(uint64_t address, uint64_t length) {
  const uint64_t start = PageDown(address);
  if (length > ~uint64_t{0} - 2 * kPageSize) return Errno(EINVAL);
  const uint64_t bytes = PageUp(length + (address - start));
  if (start + bytes < start) return Errno(EINVAL);
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  return impl_->SetLockLocked(start, start + bytes, false, false, leftovers);
}

Result<void> MemoryManager::MlockAll(int flags) {
  if (flags == 0 || (flags & ~(MCL_CURRENT | MCL_FUTURE | MCL_ONFAULT)) != 0 ||
      flags == MCL_ONFAULT) {
    return Errno(EINVAL);
  }
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  if (impl_->limits.locked_bytes == 0) return Errno(EPERM);
  const bool on_fault = (flags & MCL_ONFAULT) != 0;
  if ((flags & MCL_CURRENT) != 0 && impl_->vmas.total_bytes() > impl_->limits.locked_bytes) {
    return Errno(ENOMEM);
  }
  impl_->lock_future = (flags & MCL_FUTURE) != 0;
  impl_->lock_future_on_fault = impl_->lock_future && on_fault;
  if ((flags & MCL_CURRENT) == 0) return {};
  uint64_t at = 0;
  while (true) {
    auto it = impl_->vmas.FindFrom(at);
    if (it == impl_->vmas.end()) return {};
    const uint64_t start = it->second.start;
    at = it->second.end;
    // Linux ignores failures here too.
    (void)impl_->SetLockLocked(start, at, true, on_fault, leftovers);
  }
}

void MemoryManager::MunlockAll() {
  absl::MutexLock lock(&impl_->mu);
  impl_->lock_future = impl_->lock_future_on_fault = false;
  for (auto& [start, vma] : impl_->vmas) vma.locked = vma.lock_on_fault = false;
  impl_->locked_bytes = 0;
  impl_->vmas.Merge(0, ~uint64_t{0});
}

}  // namespace sentry
