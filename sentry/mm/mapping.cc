// mmap, munmap, mprotect and brk: the checks in Linux's order (mm/mmap.c, mm/mprotect.c of 6.12),
// then the change to areas, pages and the platform's view.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/shared_anonymous.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;

namespace {

constexpr int kMapDroppable = 0x08;
constexpr int kProtectionBits = PROT_READ | PROT_WRITE | PROT_EXEC;
constexpr int kProtSem = 0x8;
// Linux's TASK_SIZE_MAX with four-level page tables.
constexpr uint64_t kTaskSize = 0x7fff'ffff'f000;
// Where MAP_32BIT looks.
constexpr uint64_t k32BitLow = 0x4000'0000;
constexpr uint64_t k32BitHigh = 0x8000'0000;

bool IsFixed(int flags) { return (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) != 0; }

// A length rounded up to pages; 0 if that wraps.
uint64_t RoundLength(uint64_t length) {
  return length > ~uint64_t{0} - kPageSize ? 0 : PageUp(length);
}

}  // namespace

Result<void> MemoryManager::Impl::CheckRequestLocked(const MmapRequest& request, uint64_t length) {
  if (request.length == 0) return Errno(EINVAL);
  if (length == 0) return Errno(ENOMEM);
  if (request.offset / kPageSize + length / kPageSize > ~uint64_t{0} / kPageSize) {
    return Errno(EOVERFLOW);
  }
  if (vmas.size() > kMapCountMax) return Errno(ENOMEM);
  return {};
}

Result<uint64_t> MemoryManager::Impl::ChooseAddressLocked(const MmapRequest& request,
                                                          uint64_t length) {
  if (length > kTaskSize) return Errno(ENOMEM);
  if (IsFixed(request.flags)) {
    const uint64_t start = request.address;
    if (start > kTaskSize - length) return Errno(ENOMEM);
    if (start % kPageSize != 0) return Errno(EINVAL);
    if (start < address_min) return Errno(EPERM);
    // Linux has memory up to there; ours ends a little lower.
    if (start >= address_max || length > address_max - start) return Errno(ENOMEM);
    if ((request.flags & MAP_FIXED_NOREPLACE) != 0 && vmas.Overlaps(start, start + length)) {
      return Errno(EEXIST);
    }
    return start;
  }
  uint64_t hint = request.address > ~uint64_t{0} - kPageSize ? 0 : PageDown(request.address);
  if (hint != 0) {
    hint = std::max(hint, address_min);
    const bool in_table = patches.reserved() && hint < platform::rewrite::kTableEnd &&
                          hint + length > platform::rewrite::kTableStart;
    if (!in_table && hint < address_max && length <= address_max - hint &&
        ((request.flags & MAP_32BIT) == 0 || hint + length <= k32BitHigh)) {
      auto next = vmas.FindFrom(hint);
      uint64_t limit = next == vmas.end() ? address_max : next->second.start;
      if (next != vmas.end() && next->second.grows_down) {
        limit -= std::min(limit, kStackGuardBytes);
      }
      if (hint + length <= limit) return hint;
    }
  }
  const std::optional<uint64_t> found = FindFreeLocked(length, request.flags);
  if (!found.has_value()) return Errno(ENOMEM);
  return *found;
}

std::optional<uint64_t> MemoryManager::Impl::FindFreeLocked(uint64_t length, int flags) {
  if ((flags & MAP_32BIT) != 0) return vmas.FindGapAbove(length, k32BitLow, k32BitHigh);
  const uint64_t low = patches.reserved() ? platform::rewrite::kTableEnd : address_min;
  std::optional<uint64_t> found = vmas.FindGapBelow(length, low, mmap_base);
  if (!found.has_value()) found = vmas.FindGapAbove(length, mmap_base, address_max);
  return found;
}

bool MemoryManager::Impl::MayExpandLocked(uint64_t bytes, bool data) const {
  const uint64_t total = vmas.total_bytes();
  if (bytes > limits.address_space_bytes || total > limits.address_space_bytes - bytes)
    return false;
  if (!data || limits.data_bytes == ~uint64_t{0}) return true;
  uint64_t data_total = 0;
  for (const auto& [start, vma] : vmas) {
    if (!vma.shared && vma.writable() && !vma.grows_down) data_total += vma.size();
  }
  return bytes <= limits.data_bytes && data_total <= limits.data_bytes - bytes;
}

bool MemoryManager::Impl::MayLockLocked(uint64_t bytes) const {
  return bytes <= limits.locked_bytes && locked_bytes <= limits.locked_bytes - bytes;
}

bool MemoryManager::Impl::OvercommitsLocked(uint64_t bytes, bool accounted) const {
  return accounted && bytes > limits.commit_bytes;
}

void MemoryManager::Impl::HostUnmapLocked(uint64_t start, uint64_t end) {
  // What is released goes with its address space.
  if (loading || released.load(std::memory_order_relaxed)) return;
  Result<void> done = space->Unmap(start, end - start);
  if (done.ok() || done.error() == ESRCH) return;
  done = space->Unmap(address_min, address_max - address_min);
  if (done.ok() || done.error() == ESRCH) return;
  LOG_ERROR("memory: the platform cannot unmap, errno %d", done.error().value());
  host_stuck.store(true, std::memory_order_release);
}

void MemoryManager::Impl::HostProtectLocked(uint64_t start, uint64_t end, int protection) {
  if (loading) return;
  const Result<void> done = space->Protect(start, end - start, protection);
  if (done.ok() || done.error() == ESRCH) return;
  HostUnmapLocked(start, end);
}

void MemoryManager::Impl::UnmapLocked(uint64_t start, uint64_t end, bool from_host,
                                      Leftovers& leftovers) {
  vmas.Split(start);
  vmas.Split(end);
  if (from_host) HostUnmapLocked(start, end);
  ForgetCodeLocked(start, end);
  auto it = vmas.FindFrom(start);
  while (it != vmas.end() && it->second.start < end) {
    if (it->second.locked) locked_bytes -= it->second.size();
    leftovers.areas.push_back(std::move(it->second));
    // Erase needs the bounds, which are still there: only handles have moved.
    it = vmas.Erase(it);
  }
  pages.Remove(start, end, leftovers.ranges);
  std::erase_if(pending,
                [=](const auto& range) { return start <= range.first && range.second <= end; });
}

Result<void> MemoryManager::Impl::InstallLocked(Vma vma, bool populate, Leftovers& leftovers) {
  const uint64_t start = vma.start;
  const uint64_t end = vma.end;
  if (vma.mappable != nullptr) {
    vma.mappable->AddMapping(self, vma.offset, vma.size(), vma.shared_writable());
  }
  if (vma.locked) locked_bytes += vma.size();
  const bool eager = vma.private_anonymous() && vma.accessible() && vma.size() <= kEagerBytesMax;
  const bool mapped = eager || (vma.mappable != nullptr && vma.accessible());
  const bool later = mapped && MayMapLaterLocked(vma, populate);
  const bool sequence = eager && !populate && !vma.grows_down && vma.writable();
  vmas.Insert(std::move(vma));
  Result<void> done;
  if (eager) done = AllocateLocked(start, end);
  if (done.ok() && later) {
    MapLaterLocked(start, end);
  } else if (done.ok() && mapped) {
    done = sequence ? MapSequenceLocked(start, end) : MapLocked(start, end, populate);
  }
  if (!done.ok()) {
    UnmapLocked(start, end, true, leftovers);
    return done;
  }
  vmas.Merge(start, end);
  NoteVirtualLocked();
  return {};
}

Result<void> MemoryManager::CheckMmap(const MmapRequest& request) {
  const uint64_t length = RoundLength(request.length);
  absl::MutexLock lock(&impl_->mu);
  TRY(impl_->CheckRequestLocked(request, length));
  TRY(impl_->ChooseAddressLocked(request, length));
  return {};
}

namespace {

// The area that a request describes, without its place.
Result<Vma> AreaFromRequest(const MmapRequest& request, platform::MemoryPool& pool,
                            uint64_t length) {
  Vma vma;
  vma.protection = request.protection & kProtectionBits;
  vma.no_reserve = (request.flags & MAP_NORESERVE) != 0;
  vma.file = request.file;
  if (!request.name.empty()) vma.name = std::make_shared<const std::string>(request.name);
  const int type = request.flags & MAP_TYPE;
  const bool anonymous = request.mappable == nullptr;
  vma.grows_down = request.grows_down || (request.flags & MAP_GROWSDOWN) != 0;
  if (anonymous && type == kMapDroppable) {
    if ((request.flags & (MAP_LOCKED | MAP_HUGETLB)) != 0) return Errno(EINVAL);
    vma.no_reserve = vma.wipe_on_fork = vma.dont_dump = true;
  } else if (type == MAP_SHARED || (type == MAP_SHARED_VALIDATE && !anonymous)) {
    if (vma.grows_down) return Errno(EINVAL);
    vma.shared = true;
    if (!request.file_writable) vma.may_protect &= ~PROT_WRITE;
  } else if (type != MAP_PRIVATE) {
    return Errno(EINVAL);
  } else if (!anonymous && vma.grows_down) {
    return Errno(EINVAL);
  }
  if ((request.flags & MAP_HUGETLB) != 0 && anonymous) return Errno(ENOMEM);  // The pool is empty.
  if (!request.file_executable) vma.may_protect &= ~PROT_EXEC;
  vma.mappable = request.mappable;
  vma.offset = anonymous ? 0 : request.offset;
  if (anonymous && vma.shared) vma.mappable = TRY(SharedAnonymous::Create(pool, length));
  return vma;
}

}  // namespace

Result<uint64_t> MemoryManager::Mmap(const MmapRequest& request) {
  const uint64_t length = RoundLength(request.length);
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  TRY(impl_->CheckRequestLocked(request, length));
  const uint64_t start = TRY(impl_->ChooseAddressLocked(request, length));
  const uint64_t end = start + length;
  const bool wants_lock = (request.flags & MAP_LOCKED) != 0;
  if (wants_lock && impl_->limits.locked_bytes == 0) return Errno(EPERM);
  const bool locked = wants_lock || impl_->lock_future;
  if (locked && !impl_->MayLockLocked(length)) return Errno(EAGAIN);

  Vma vma = TRY(AreaFromRequest(request, impl_->pool, length));
  vma.start = start;
  vma.end = end;
  vma.locked = locked;
  vma.lock_on_fault = locked && !wants_lock && impl_->lock_future_on_fault;
  const bool data = !vma.shared && vma.writable() && !vma.grows_down;
  const uint64_t replaced = IsFixed(request.flags) ? impl_->vmas.BytesIn(start, end) : 0;
  if (!impl_->MayExpandLocked(length - replaced, data)) return Errno(ENOMEM);
  if (impl_->vmas.size() + impl_->vmas.CutsAt(start, end) > kMapCountMax) return Errno(ENOMEM);
  const bool accounted = !vma.no_reserve && ((!vma.shared && vma.writable()) ||
                                             (vma.shared && request.mappable == nullptr));
  if (impl_->OvercommitsLocked(length, accounted)) return Errno(ENOMEM);

  impl_->YieldTableLocked(start, end, leftovers);
  const bool populate = (request.flags & MAP_POPULATE) != 0 || (locked && !vma.lock_on_fault) ||
                        (data && vma.anonymous() && length <= kPopulateBytesMax);
  if (replaced > 0) {
    // The new mapping replaces the old one in the stub in one step if it covers all of it at once.
    const bool covers = vma.private_anonymous() && vma.accessible() && length < kSequenceBytesMin &&
                        !impl_->MayMapLaterLocked(vma, populate);
    impl_->UnmapLocked(start, end, !covers, leftovers);
  }
  // A linker maps data at a place of its choice and relocates it next: a copy saves the fault.
  const bool relocated = IsFixed(request.flags) && !vma.anonymous() && !vma.shared &&
                         vma.writable() && length <= kCopyClusterBytes;
  TRY(impl_->InstallLocked(std::move(vma), populate, leftovers));
  if (relocated) {
    const Vma& installed = impl_->vmas.Find(start)->second;
    // Without it the pages come by faults.
    (void)impl_->BackFilePagesLocked(installed, start, end, leftovers);
  }
  return start;
}

Result<void> MemoryManager::Munmap(uint64_t address, uint64_t length) {
  if (address % kPageSize != 0 || address > kTaskSize || length > kTaskSize - address) {
    return Errno(EINVAL);
  }
  const uint64_t end = std::min(address + PageUp(length), impl_->address_max);
  if (length == 0) return Errno(EINVAL);
  const uint64_t start = std::max(address, impl_->address_min);
  if (start >= end) return {};
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  if (!impl_->vmas.Overlaps(start, end)) return {};
  auto it = impl_->vmas.FindFrom(start);
  if (it->second.start < start && end < it->second.end && impl_->vmas.size() >= kMapCountMax) {
    return Errno(ENOMEM);
  }
  impl_->UnmapLocked(start, end, true, leftovers);
  return {};
}

Result<void> MemoryManager::UnmapObject(uint64_t address, bool (*wanted)(const Mappable&)) {
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  const auto shows = [&](const Vma& vma) {
    return vma.mappable != nullptr && vma.start - address == vma.offset;
  };
  auto it = impl_->vmas.FindFrom(address);
  while (it != impl_->vmas.end() && !(shows(it->second) && wanted(*it->second.mappable))) ++it;
  if (it == impl_->vmas.end()) return Errno(EINVAL);
  const std::shared_ptr<Mappable> object = it->second.mappable;
  std::vector<std::pair<uint64_t, uint64_t>> pieces;
  for (; it != impl_->vmas.end(); ++it) {
    if (it->second.mappable == object && shows(it->second))
      pieces.emplace_back(it->second.start, it->second.end);
  }
  for (const auto& [start, end] : pieces) impl_->UnmapLocked(start, end, true, leftovers);
  return {};
}

Result<MmapRequest> MemoryManager::RequestForShared(uint64_t start, uint64_t length) const {
  const absl::ReaderMutexLock lock(&impl_->mu);
  auto it = impl_->vmas.FindFrom(start);
  if (it == impl_->vmas.end() || it->second.start > start || !it->second.shared)
    return Errno(EINVAL);
  const Vma& first = it->second;
  // Areas of one object may have been split by an earlier call: they count as one while they touch.
  for (uint64_t end = first.end; end < start + length; end = it->second.end) {
    ++it;
    if (it == impl_->vmas.end() || it->second.start != end || !it->second.shared ||
        it->second.mappable != first.mappable || it->second.protection != first.protection) {
      return Errno(EINVAL);
    }
  }
  MmapRequest request;
  request.address = start;
  request.length = length;
  request.protection = first.protection;
  request.flags = MAP_SHARED | MAP_FIXED | (first.locked ? MAP_LOCKED : 0);
  request.mappable = first.mappable;
  request.file = first.file;
  request.file_writable = (first.may_protect & PROT_WRITE) != 0;
  request.file_executable = (first.may_protect & PROT_EXEC) != 0;
  return request;
}

Result<void> MemoryManager::Impl::ProtectAreaLocked(VmaMap::Iterator it, int protection) {
  Vma& vma = it->second;
  const int old_protection = std::exchange(vma.protection, protection);
  if (old_protection == protection) return {};
  if (vma.shared) {
    const bool gains_write = (protection & ~old_protection & PROT_WRITE) != 0;
    if (!gains_write && old_protection != PROT_NONE) {
      HostProtectLocked(vma.start, vma.end, protection);
      return {};
    }
    // Backing for writes may be yet to make.
    HostUnmapLocked(vma.start, vma.end);
    return MapLocked(vma.start, vma.end, false);
  }
  uint64_t gap_start = 0, gap_end = 0;
  const bool has_gap = pages.FindGap(vma.start, vma.end, &gap_start, &gap_end);
  if (vma.anonymous() && has_gap && protection != PROT_NONE && vma.size() <= kEagerBytesMax) {
    uint64_t from = vma.start, to = vma.end;
    WidenLocked(&from, &to);
    TRY(AllocateLocked(from, to));
    return MapLocked(from, to, false);
  }
  if (!vma.anonymous() && has_gap && old_protection == PROT_NONE) {
    return MapLocked(vma.start, vma.end, false);
  }
  // Few calls: parts with equal effects are protected together; parts that show nothing do not
  // matter.
  struct Change {
    uint64_t start, end;
    int protection;
  };
  std::vector<Change> changes;
  uint64_t at = vma.start;
  while (at < vma.end) {
    auto run = pages.FindFrom(at);
    const bool in_run = run != pages.end() && run->second.start <= at;
    uint64_t to = vma.end;
    if (run != pages.end()) to = std::min(to, in_run ? run->second.end : run->second.start);
    const PrivatePages* own = in_run ? &run->second : nullptr;
    const int before = HostProtection(vma, own, old_protection);
    const int after = HostProtection(vma, own, protection);
    const bool nothing = own == nullptr && vma.anonymous();
    if (!nothing && before != after) {
      if (!changes.empty() && changes.back().end == at && changes.back().protection == after) {
        changes.back().end = to;
      } else {
        changes.push_back({at, to, after});
      }
    } else if (nothing && !changes.empty() && changes.back().end == at) {
      changes.back().end = to;
    }
    at = to;
  }
  for (const Change& change : changes) {
    HostProtectLocked(change.start, change.end, change.protection);
  }
  return {};
}

Result<void> MemoryManager::Mprotect(uint64_t address, uint64_t length, int protection) {
  const bool grows_down = (protection & PROT_GROWSDOWN) != 0;
  const bool grows_up = (protection & PROT_GROWSUP) != 0;
  protection &= ~(PROT_GROWSDOWN | PROT_GROWSUP);
  if (grows_down && grows_up) return Errno(EINVAL);
  if (address % kPageSize != 0) return Errno(EINVAL);
  if (length == 0) return {};
  const uint64_t rounded = RoundLength(length);
  if (rounded == 0 || address + rounded <= address) return Errno(ENOMEM);
  if ((protection & ~(kProtectionBits | kProtSem)) != 0) return Errno(EINVAL);
  protection &= kProtectionBits;
  uint64_t start = address;
  const uint64_t end = address + rounded;

  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  auto it = impl_->vmas.FindFrom(start);
  if (it == impl_->vmas.end()) return Errno(ENOMEM);
  if (grows_down) {
    if (it->second.start >= end) return Errno(ENOMEM);
    start = it->second.start;
    if (!it->second.grows_down) return Errno(EINVAL);
  } else {
    if (it->second.start > start) return Errno(ENOMEM);
    if (grows_up) return Errno(EINVAL);  // No such areas on x86.
  }
  Result<void> result;
  uint64_t at = start;
  while (at < end) {
    it = impl_->vmas.Find(at);
    if (it == impl_->vmas.end()) {
      result = Errno(ENOMEM);
      break;
    }
    if ((protection & ~it->second.may_protect) != 0) {
      result = Errno(EACCES);
      break;
    }
    const uint64_t to = std::min(end, it->second.end);
    const bool becomes_data = !it->second.shared && !it->second.writable() &&
                              (protection & PROT_WRITE) != 0 && !it->second.grows_down;
    if (becomes_data &&
        ((!impl_->MayExpandLocked(to - at, true) && impl_->MayExpandLocked(to - at, false)) ||
         impl_->OvercommitsLocked(to - at, !it->second.no_reserve))) {
      result = Errno(ENOMEM);
      break;
    }
    const size_t cuts = (it->second.start < at ? 1u : 0u) + (to < it->second.end ? 1u : 0u);
    if (it->second.protection != protection && impl_->vmas.size() + cuts > kMapCountMax) {
      result = Errno(ENOMEM);
      break;
    }
    impl_->vmas.Split(at);
    impl_->vmas.Split(to);
    if (!it->second.writable() && (protection & PROT_WRITE) != 0) {
      impl_->RevertCodeLocked(at, to, leftovers);
    }
    result = impl_->ProtectAreaLocked(impl_->vmas.Find(at), protection);
    if (!result.ok()) break;
    at = to;
  }
  impl_->vmas.Merge(start, std::min(at, end));
  return result;
}

void MemoryManager::SetBrkStart(uint64_t address) {
  absl::MutexLock lock(&impl_->mu);
  impl_->brk_start = address;
  impl_->brk_end = address;
}

void MemoryManager::Impl::DropHeapReserveLocked(Leftovers& leftovers) {
  if (heap_reserve.size() > 0) leftovers.ranges.push_back(heap_reserve);
  heap_reserve = {};
}

Result<void> MemoryManager::Impl::GrowHeapLocked(uint64_t old_end, uint64_t new_end,
                                                 Leftovers& leftovers) {
  // The pool hands out pages downwards, a heap grows upwards: without a stock each growth would be
  // a mapping of its own.
  uint64_t at = old_end;
  while (at < new_end) {
    if (heap_reserve.size() == 0 || heap_reserve_at != at) {
      DropHeapReserveLocked(leftovers);
      const Result<platform::PoolRange> stock =
          pool.Allocate(std::max(kHeapReserveBytes, new_end - at));
      if (!stock.ok()) {
        pages.Remove(old_end, at, leftovers.ranges);
        return stock.error();
      }
      heap_reserve = stock.value();
      heap_reserve_at = at;
    }
    const uint64_t bytes = std::min(heap_reserve.size(), new_end - at);
    pages.Insert({at, at + bytes, heap_reserve.start, false});
    heap_reserve.start += bytes;
    heap_reserve_at += bytes;
    at += bytes;
  }
  Vma vma;
  vma.start = old_end;
  vma.end = new_end;
  vma.protection = PROT_READ | PROT_WRITE;
  vma.name = std::make_shared<const std::string>("[heap]");
  vma.locked = lock_future;
  vma.lock_on_fault = lock_future_on_fault;
  // A heap that grows again will be used.
  const bool grows_again = old_end > PageUp(brk_start);
  const uint64_t populate_max = grows_again ? kHeapPopulateBytesMax : kPopulateBytesMax;
  return InstallLocked(std::move(vma), new_end - old_end <= populate_max, leftovers);
}

uint64_t MemoryManager::Brk(uint64_t address) {
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  const uint64_t current = impl_->brk_end;
  if (address < impl_->brk_start || address > impl_->address_max) return current;
  const uint64_t image_bytes = impl_->image.end_data - impl_->image.start_data;
  if (impl_->limits.data_bytes != ~uint64_t{0} &&
      (address - impl_->brk_start) + image_bytes > impl_->limits.data_bytes) {
    return current;
  }
  const uint64_t old_end = PageUp(current);
  const uint64_t new_end = PageUp(address);
  if (new_end < old_end) {
    impl_->UnmapLocked(new_end, old_end, true, leftovers);
  } else if (new_end > old_end) {
    auto next = impl_->vmas.FindFrom(old_end);
    if (next != impl_->vmas.end()) {
      const uint64_t guard = next->second.grows_down ? kStackGuardBytes : 0;
      const uint64_t limit = next->second.start - std::min(next->second.start, guard);
      if (new_end + kPageSize > limit) return current;
    }
    const uint64_t bytes = new_end - old_end;
    if (new_end > impl_->address_max || !impl_->MayExpandLocked(bytes, true) ||
        impl_->vmas.size() > kMapCountMax || impl_->OvercommitsLocked(bytes, true) ||
        (impl_->lock_future && !impl_->MayLockLocked(bytes)) ||
        !impl_->GrowHeapLocked(old_end, new_end, leftovers).ok()) {
      return current;
    }
  }
  impl_->brk_end = address;
  return address;
}

}  // namespace sentry
