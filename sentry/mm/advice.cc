// madvise(2), msync(2) and mincore(2), by mm/madvise.c, mm/msync.c and mm/mincore.c of Linux 6.12.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/residency.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;

namespace {

constexpr int kMadvCollapse = 25;
constexpr int kMadvDontneedLocked = 24;

// What becomes of an area, or the part of it in [start, end).
enum class Advice : uint8_t { kUnknown, kHint, kFlag, kDrop, kRemove, kPopulate, kRefuse };

Advice Classify(int advice) {
  switch (advice) {
    case MADV_NORMAL:
    case MADV_RANDOM:
    case MADV_SEQUENTIAL:
    case MADV_WILLNEED:
    case MADV_MERGEABLE:
    case MADV_UNMERGEABLE:
    case MADV_HUGEPAGE:
    case MADV_NOHUGEPAGE:
    case MADV_COLD:
    case MADV_PAGEOUT:
      return Advice::kHint;
    case MADV_DONTFORK:
    case MADV_DOFORK:
    case MADV_DONTDUMP:
    case MADV_DODUMP:
    case MADV_WIPEONFORK:
    case MADV_KEEPONFORK:
      return Advice::kFlag;
    case MADV_DONTNEED:
    case MADV_FREE:
    case kMadvDontneedLocked:
      return Advice::kDrop;
    case MADV_REMOVE:
      return Advice::kRemove;
    case MADV_POPULATE_READ:
    case MADV_POPULATE_WRITE:
      return Advice::kPopulate;
    case kMadvCollapse:
      return Advice::kRefuse;
    default:
      return Advice::kUnknown;
  }
}

Result<void> SetFlag(Vma& vma, int advice) {
  switch (advice) {
    case MADV_DONTFORK:
    case MADV_DOFORK:
      vma.dont_fork = advice == MADV_DONTFORK;
      return {};
    case MADV_DONTDUMP:
    case MADV_DODUMP:
      vma.dont_dump = advice == MADV_DONTDUMP;
      return {};
    case MADV_WIPEONFORK:
      if (!vma.private_anonymous()) return Errno(EINVAL);
      vma.wipe_on_fork = true;
      return {};
    default:
      vma.wipe_on_fork = false;
      return {};
  }
}

// Refusals that depend on the area.
Result<void> CheckArea(const Vma& vma, int advice) {
  switch (advice) {
    case MADV_DONTNEED:
    case MADV_COLD:
    case MADV_PAGEOUT:
      if (vma.locked) return Errno(EINVAL);
      return {};
    case MADV_FREE:
      if (vma.locked || !vma.private_anonymous()) return Errno(EINVAL);
      return {};
    case MADV_REMOVE:
      if (vma.locked || vma.mappable == nullptr) return Errno(EINVAL);
      if (!vma.shared || (vma.may_protect & PROT_WRITE) == 0) return Errno(EACCES);
      return {};
    case MADV_POPULATE_READ:
      if (!vma.accessible()) return Errno(EFAULT);
      return {};
    case MADV_POPULATE_WRITE:
      if (!vma.writable()) return Errno(vma.accessible() ? EINVAL : EFAULT);
      return {};
    case kMadvCollapse:
      return Errno(EINVAL);
    default:
      return {};
  }
}

// To look is cheaper than to discard nothing, as each thread that exits does with its stack.
void DiscardResident(platform::MemoryPool& pool, platform::PoolRange range) {
  constexpr uint64_t kRunsMax = 4;
  uint64_t runs = 0;
  uint64_t first = range.end;
  ForEachResident(pool, range, kRunsMax, [&](platform::PoolRange run) {
    if (runs++ == 0) first = run.start;
    if (runs < kRunsMax) pool.Discard(run);
  });
  if (runs >= kRunsMax) pool.Discard({first, range.end});
}

}  // namespace

// Private pages in [start, end) of one area go back to what the mapping first showed.
Result<void> MemoryManager::Impl::DropPagesLocked(const Vma& vma, uint64_t start, uint64_t end,
                                                  Leftovers& leftovers) {
  if (vma.shared) return {};
  ForgetCodeLocked(start, end);
  bool remap = false;
  uint64_t at = start;
  while (at < end) {
    auto run = pages.FindFrom(at);
    if (run == pages.end() || run->second.start >= end) break;
    const uint64_t from = std::max(at, run->second.start);
    const uint64_t to = std::min(end, run->second.end);
    if (vma.anonymous() && !run->second.copy_on_write) {
      // The host takes the pages out of the stub by itself.
      DiscardResident(pool, run->second.Pool(from, to));
    } else {
      pages.Remove(from, to, leftovers.ranges);
      remap = true;
    }
    at = to;
  }
  if (!remap) return {};
  if (vma.anonymous() && !AllocateLocked(start, end).ok()) {
    HostUnmapLocked(start, end);
    return Errno(ENOMEM);
  }
  // Where nothing takes their place (pages beyond the end of a file), the old ones must not stay.
  if (!vma.anonymous()) HostUnmapLocked(start, end);
  return MapLocked(start, end, false);
}

Result<void> MemoryManager::Impl::PopulateLocked(const Vma& vma, uint64_t start, uint64_t end,
                                                 bool write, Leftovers& leftovers) {
  uint64_t at = start;
  while (at < end) {
    uint64_t next = end;
    auto run = pages.FindFrom(at);
    const bool own = run != pages.end() && run->second.start <= at;
    const bool ready = own && !(write && run->second.copy_on_write);
    if (own) next = std::min(next, run->second.end);
    if (!ready && !vma.shared && (write || vma.anonymous())) {
      const uint64_t step = std::min(next - at, uint64_t{1} << 20);
      TRY(ResolveLocked(vma, at, step, write, leftovers));
      run = pages.Find(at);
      if (run == pages.end()) return Errno(EFAULT);
      next = std::min(end, run->second.end);
    } else if (!ready) {
      // A file: EFAULT where it has ended.
      if (!own && run != pages.end()) next = std::min(next, run->second.start);
      for (uint64_t page = at; page < next;) {
        const HostRange host = TRY(vma.mappable->Translate(vma.OffsetOf(page), next - page, write));
        page += std::max(host.length, kPageSize);
      }
    }
    at = next;
  }
  return MapLocked(start, end, true);
}

Result<void> MemoryManager::Impl::AdviseAreaLocked(uint64_t start, uint64_t end, int advice,
                                                   Leftovers& leftovers) {
  const Advice kind = Classify(advice);
  const Vma& vma = vmas.Find(start)->second;
  TRY(CheckArea(vma, advice));
  switch (kind) {
    case Advice::kFlag: {
      if (vmas.size() + 2 > kMapCountMax) return Errno(EAGAIN);
      vmas.Split(start);
      vmas.Split(end);
      return SetFlag(vmas.Find(start)->second, advice);
    }
    case Advice::kDrop:
      return DropPagesLocked(vma, start, end, leftovers);
    case Advice::kPopulate:
      return PopulateLocked(vma, start, end, advice == MADV_POPULATE_WRITE, leftovers);
    default:
      return {};
  }
}

Result<void> MemoryManager::Madvise(uint64_t address, uint64_t length, int advice) {
  if (Classify(advice) == Advice::kUnknown) return Errno(EINVAL);
  if (address % kPageSize != 0) return Errno(EINVAL);
  if (length > ~uint64_t{0} - kPageSize) return Errno(EINVAL);
  const uint64_t rounded = PageUp(length);
  if (address + rounded < address) return Errno(EINVAL);
  if (rounded == 0) return {};
  const uint64_t end = address + rounded;

  struct Hole {
    std::shared_ptr<Mappable> mappable;
    uint64_t offset, length;
  };
  std::vector<Hole> holes;
  bool unmapped = false;
  Result<void> result;
  {
    Leftovers leftovers(*this);
    absl::MutexLock lock(&impl_->mu);
    uint64_t at = address;
    while (at < end) {
      auto it = impl_->vmas.FindFrom(at);
      if (it == impl_->vmas.end() || it->second.start >= end) {
        unmapped = true;
        break;
      }
      if (it->second.start > at) unmapped = true;
      if (unmapped && Classify(advice) == Advice::kPopulate) break;
      const uint64_t from = std::max(at, it->second.start);
      const uint64_t to = std::min(end, it->second.end);
      at = to;
      result = impl_->AdviseAreaLocked(from, to, advice, leftovers);
      if (!result.ok()) break;
      if (advice == MADV_REMOVE) {
        holes.push_back({it->second.mappable, it->second.OffsetOf(from), to - from});
      }
    }
    if (Classify(advice) == Advice::kFlag) impl_->vmas.Merge(address, at);
  }
  // The file calls back into this memory.
  for (const Hole& hole : holes) TRY(hole.mappable->PunchHole(hole.offset, hole.length));
  if (result.ok() && unmapped) return Errno(ENOMEM);
  return result;
}

Result<void> MemoryManager::Msync(uint64_t address, uint64_t length, int flags) {
  if ((flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC)) != 0) return Errno(EINVAL);
  if (address % kPageSize != 0) return Errno(EINVAL);
  if ((flags & MS_ASYNC) != 0 && (flags & MS_SYNC) != 0) return Errno(EINVAL);
  if (length > ~uint64_t{0} - kPageSize) return Errno(ENOMEM);
  const uint64_t end = address + PageUp(length);
  if (end < address) return Errno(ENOMEM);
  struct Part {
    std::shared_ptr<Mappable> mappable;
    uint64_t offset, length;
  };
  std::vector<Part> parts;
  Result<void> result;
  {
    absl::ReaderMutexLock lock(&impl_->mu);
    uint64_t at = address;
    while (at < end) {
      auto it = impl_->vmas.FindFrom(at);
      if (it == impl_->vmas.end() || it->second.start > at) result = Errno(ENOMEM);
      if (it == impl_->vmas.end() || it->second.start >= end) break;
      const Vma& vma = it->second;
      if ((flags & MS_INVALIDATE) != 0 && vma.locked) return Errno(EBUSY);
      const uint64_t from = std::max(at, vma.start);
      const uint64_t to = std::min(end, vma.end);
      if ((flags & MS_SYNC) != 0 && vma.shared) {
        parts.push_back({vma.mappable, vma.OffsetOf(from), to - from});
      }
      at = to;
    }
  }
  for (const Part& part : parts) TRY(part.mappable->Sync(part.offset, part.length));
  return result;
}

Result<std::vector<uint8_t>> MemoryManager::Mincore(uint64_t address, uint64_t length) {
  if (address % kPageSize != 0) return Errno(EINVAL);
  if (address > impl_->address_max || length > impl_->address_max - address) return Errno(ENOMEM);
  const uint64_t end = address + PageUp(length);
  std::vector<uint8_t> residency((end - address) / kPageSize, 0);
  absl::ReaderMutexLock lock(&impl_->mu);
  uint64_t at = address;
  while (at < end) {
    auto it = impl_->vmas.Find(at);
    if (it == impl_->vmas.end()) return Errno(ENOMEM);
    const Vma& vma = it->second;
    const uint64_t to = std::min(end, vma.end);
    if (!vma.anonymous()) {
      // As Linux tells those who may not write the file: everything.
      std::fill(residency.begin() + static_cast<ptrdiff_t>((at - address) / kPageSize),
                residency.begin() + static_cast<ptrdiff_t>((to - address) / kPageSize), uint8_t{1});
    } else {
      for (auto run = impl_->pages.FindFrom(at);
           run != impl_->pages.end() && run->second.start < to; ++run) {
        const uint64_t from = std::max(at, run->second.start);
        const platform::PoolRange range = run->second.Pool(from, std::min(to, run->second.end));
        uint8_t* out = residency.data() + (from - address) / kPageSize;
        ForEachResident(impl_->pool, range, ~uint64_t{0}, [&](platform::PoolRange resident) {
          std::fill(out + (resident.start - range.start) / kPageSize,
                    out + (resident.end - range.start) / kPageSize, uint8_t{1});
        });
      }
    }
    at = to;
  }
  return residency;
}

}  // namespace sentry
