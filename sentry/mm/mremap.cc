// mremap(2), by the rules of mm/mremap.c (Linux 6.12). Pages move by renaming: the pool ranges
// stay, only the guest address changes.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <vector>

#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;

namespace {

constexpr int kFlags = MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP;
constexpr uint64_t kTaskSize = 0x7fff'ffff'f000;

uint64_t RoundLength(uint64_t length) {
  return length > ~uint64_t{0} - kPageSize ? 0 : PageUp(length);
}

Result<void> CheckArguments(const RemapRequest& request) {
  const int flags = request.flags;
  if ((flags & ~kFlags) != 0) return Errno(EINVAL);
  if ((flags & MREMAP_FIXED) != 0 && (flags & MREMAP_MAYMOVE) == 0) return Errno(EINVAL);
  if ((flags & MREMAP_DONTUNMAP) != 0 &&
      ((flags & MREMAP_MAYMOVE) == 0 || request.old_length != request.new_length)) {
    return Errno(EINVAL);
  }
  if (request.old_address % kPageSize != 0) return Errno(EINVAL);
  if (request.new_length == 0) return Errno(EINVAL);
  return {};
}

}  // namespace

// Linux's vma_to_resize: may the area at old_address become new_length bytes?
Result<void> MemoryManager::Impl::CheckResizeLocked(const RemapRequest& request) {
  auto it = vmas.Find(request.old_address);
  if (it == vmas.end()) return Errno(EFAULT);
  const Vma& vma = it->second;
  if (request.old_length == 0 && !vma.shared) return Errno(EINVAL);
  if (request.old_length > vma.end - request.old_address) return Errno(EFAULT);
  if (request.new_length == request.old_length) return {};
  if (!vma.anonymous()) {
    const uint64_t offset = vma.OffsetOf(request.old_address);
    if (request.new_length > ~offset) return Errno(EINVAL);
  }
  const uint64_t growth = request.new_length - std::min(request.old_length, request.new_length);
  if (vma.locked && !MayLockLocked(growth)) return Errno(EAGAIN);
  const bool data = !vma.shared && vma.writable() && !vma.grows_down;
  if (!MayExpandLocked(growth, data)) return Errno(ENOMEM);
  const bool accounted = !vma.shared && vma.writable() && !vma.no_reserve;
  if (OvercommitsLocked(growth, accounted)) return Errno(ENOMEM);
  return {};
}

bool MemoryManager::Impl::ExpandInPlaceLocked(const RemapRequest& request) {
  auto it = vmas.Find(request.old_address);
  const uint64_t old_end = it->second.end;
  const uint64_t growth = request.new_length - request.old_length;
  if (request.old_address + request.old_length != old_end) return false;
  if (growth > address_max - old_end || vmas.Overlaps(old_end, old_end + growth)) return false;
  Vma& vma = it->second;
  vmas.SetEnd(it, old_end + growth);
  if (vma.locked) locked_bytes += growth;
  if (vma.mappable != nullptr) {
    vma.mappable->AddMapping(self, vma.OffsetOf(old_end), growth, vma.shared_writable());
  }
  const bool eager = vma.private_anonymous() && vma.accessible() && vma.size() <= kEagerBytesMax;
  // What cannot be had now is asked for again by the fault.
  if (!eager || AllocateLocked(old_end, old_end + growth).ok()) {
    (void)MapLocked(old_end, old_end + growth, false);
  }
  vmas.Merge(it->second.start, old_end + growth);
  NoteVirtualLocked();
  return true;
}

// Makes the new area from the old one; the old one's pages go along.
Result<uint64_t> MemoryManager::Impl::MoveLocked(const RemapRequest& request, uint64_t target,
                                                 Leftovers& leftovers) {
  if (vmas.size() + 3 >= kMapCountMax) return Errno(ENOMEM);
  const uint64_t source = request.old_address;
  const uint64_t moved = std::min(request.old_length, request.new_length);
  auto it = vmas.Find(source);
  Vma fresh = it->second;
  if (!fresh.anonymous()) fresh.offset = it->second.OffsetOf(source);
  fresh.start = target;
  fresh.end = target + request.new_length;
  const bool is_private = !fresh.shared;
  const bool keep_old = (request.flags & MREMAP_DONTUNMAP) != 0;

  YieldTableLocked(target, target + request.new_length, leftovers);
  RevertCodeLocked(source, source + request.old_length, leftovers);
  ForgetCodeLocked(source, source + request.old_length);
  // Before anything has moved, so that a refusal changes nothing.
  if (fresh.private_anonymous() && fresh.accessible() && fresh.size() <= kEagerBytesMax &&
      moved < request.new_length) {
    TRY(AllocateLocked(target + moved, target + request.new_length));
  }
  std::vector<PrivatePages> own;
  if (is_private && moved > 0) own = pages.Extract(source, source + moved);
  for (PrivatePages run : own) {
    run.start += target - source;
    run.end += target - source;
    pages.Insert(run);
  }
  // The old place loses the pages in any case, before anybody can see them in two places.
  if (request.old_length > 0) HostUnmapLocked(source, source + request.old_length);
  const Result<void> installed = InstallLocked(std::move(fresh), false, leftovers);
  if (!installed.ok()) return installed.error();
  if (keep_old) {
    vmas.Split(source);
    vmas.Split(source + request.old_length);
    Vma& old = vmas.Find(source)->second;
    if (std::exchange(old.locked, false)) locked_bytes -= old.size();
    // Shared pages are still there to be seen; private ones start from nothing.
    if (old.shared) (void)MapLocked(source, source + request.old_length, false);
  } else if (request.old_length > 0) {
    UnmapLocked(source, source + request.old_length, false, leftovers);
  }
  return target;
}

Result<uint64_t> MemoryManager::Impl::RemapToLocked(const RemapRequest& asked,
                                                    Leftovers& leftovers) {
  RemapRequest request = asked;
  const uint64_t target = request.new_address;
  const bool fixed = (request.flags & MREMAP_FIXED) != 0;
  if (target % kPageSize != 0) return Errno(EINVAL);
  if (request.new_length > kTaskSize || target > kTaskSize - request.new_length) {
    return Errno(EINVAL);
  }
  if (request.old_address + request.old_length > target &&
      target + request.new_length > request.old_address) {
    return Errno(EINVAL);
  }
  if (vmas.size() + 2 >= kMapCountMax - 3) return Errno(ENOMEM);
  if (fixed) {
    if (target < address_min) return Errno(EPERM);
    if (target > address_max || request.new_length > address_max - target) return Errno(ENOMEM);
    if (vmas.Overlaps(target, target + request.new_length)) {
      UnmapLocked(target, target + request.new_length, true, leftovers);
    }
  }
  if (request.old_length > request.new_length) {
    UnmapLocked(request.old_address + request.new_length, request.old_address + request.old_length,
                true, leftovers);
    request.old_length = request.new_length;
  }
  TRY(CheckResizeLocked(request));
  if ((request.flags & MREMAP_DONTUNMAP) != 0) {
    const Vma& vma = vmas.Find(request.old_address)->second;
    if (!MayExpandLocked(request.old_length, !vma.shared && vma.writable())) return Errno(ENOMEM);
  }
  if (fixed) return MoveLocked(request, target, leftovers);
  MmapRequest place;
  place.address = target;
  place.length = request.new_length;
  const uint64_t chosen = TRY(ChooseAddressLocked(place, request.new_length));
  return MoveLocked(request, chosen, leftovers);
}

Result<uint64_t> MemoryManager::Mremap(uint64_t old_address, uint64_t old_length,
                                       uint64_t new_length, int flags, uint64_t new_address) {
  RemapRequest request{old_address, old_length, new_length, new_address, flags};
  TRY(CheckArguments(request));
  request.old_length = RoundLength(old_length);
  request.new_length = RoundLength(new_length);
  if (request.new_length == 0) return Errno(EINVAL);
  Leftovers leftovers(*this);
  absl::MutexLock lock(&impl_->mu);
  if (impl_->vmas.Find(old_address) == impl_->vmas.end()) return Errno(EFAULT);
  if ((flags & (MREMAP_FIXED | MREMAP_DONTUNMAP)) != 0) {
    return impl_->RemapToLocked(request, leftovers);
  }
  if (request.old_length >= request.new_length) {
    if (request.old_length > request.new_length) {
      const uint64_t from = old_address + request.new_length;
      const uint64_t to = old_address + request.old_length;
      if (to < from || to > impl_->address_max) return Errno(EINVAL);
      impl_->UnmapLocked(from, to, true, leftovers);
    }
    return old_address;
  }
  TRY(impl_->CheckResizeLocked(request));
  if (request.old_length > 0 && impl_->ExpandInPlaceLocked(request)) return old_address;
  if ((flags & MREMAP_MAYMOVE) == 0) return Errno(ENOMEM);
  const std::optional<uint64_t> target = impl_->FindFreeLocked(request.new_length, 0);
  if (!target.has_value()) return Errno(ENOMEM);
  return impl_->MoveLocked(request, *target, leftovers);
}

}  // namespace sentry
