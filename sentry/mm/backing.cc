// What is behind an area: pool pages, file pages, nothing yet; and how a fault or a copy gets it.
// What the platform maps is derived from areas and pages here, and only here.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "platform/base/log.h"
#include "sentry/mm/memory_manager_impl.h"
#include "sentry/mm/residency.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;

namespace {

constexpr uint64_t AlignDown(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}
constexpr uint64_t AlignUp(uint64_t value, uint64_t alignment) {
  return AlignDown(value + alignment - 1, alignment);
}

// Copies the pages that exist; the others read as zero on both sides, and reading them would make
// them exist.
void CopyResident(platform::MemoryPool& pool, platform::PoolRange from, platform::PoolRange to) {
  ForEachResident(pool, from, ~uint64_t{0}, [&](platform::PoolRange run) {
    const uint64_t start = to.start + (run.start - from.start);
    std::memcpy(pool.Window({start, start + run.size()}).data(), pool.Window(run).data(),
                run.size());
  });
}

}  // namespace

// Small and writable: most of its pages will be touched, and a page costs a third of a fault.
bool MemoryManager::Impl::IsWorthPopulating(const platform::Mapping& mapping) const {
  return mapping.host_fd == pool.fd() && !mapping.is_private &&
         mapping.length <= kPopulateBytesMax && (mapping.protection & PROT_WRITE) != 0;
}

int MemoryManager::Impl::HostProtection(const Vma& vma, const PrivatePages* pages, int protection) {
  if (vma.shared || (pages != nullptr && !pages->copy_on_write)) return protection;
  return WithoutWrite(protection);
}

void MemoryManager::Impl::DescribeFileLocked(const Vma& vma, uint64_t start, uint64_t end,
                                             int protection, std::vector<platform::Mapping>& out) {
  if (protection == PROT_NONE) return;
  const bool for_write = vma.shared && (protection & PROT_WRITE) != 0;
  uint64_t at = start;
  for (size_t piece = 0; piece < kFilePiecesMax && at < end && at - start < kFileAheadBytesMax;
       piece++) {
    const Result<HostRange> host = vma.mappable->Translate(vma.OffsetOf(at), end - at, for_write);
    if (!host.ok()) return;
    const uint64_t bytes = std::min(PageUp(host.value().length), end - at);
    if (bytes == 0) return;
    platform::Mapping mapping;
    mapping.address = at;
    mapping.length = bytes;
    mapping.host_fd = host.value().fd;
    mapping.offset = host.value().offset;
    mapping.protection = HostProtection(vma, nullptr, protection);
    mapping.is_private = !vma.shared && !host.value().in_pool;
    out.push_back(mapping);
    at += bytes;
  }
}

void MemoryManager::Impl::DescribeLocked(uint64_t start, uint64_t end,
                                         std::vector<platform::Mapping>& out) {
  for (auto it = vmas.FindFrom(start); it != vmas.end() && it->second.start < end; ++it) {
    const Vma& vma = it->second;
    const uint64_t from = std::max(start, vma.start);
    const uint64_t to = std::min(end, vma.end);
    if (vma.shared) {
      DescribeFileLocked(vma, from, to, vma.protection, out);
      continue;
    }
    uint64_t at = from;
    while (at < to) {
      auto run = pages.FindFrom(at);
      const uint64_t gap_end = run == pages.end() ? to : std::min(to, run->second.start);
      if (gap_end > at) {
        if (!vma.anonymous()) DescribeFileLocked(vma, at, gap_end, vma.protection, out);
        at = gap_end;
        continue;
      }
      const uint64_t run_end = std::min(to, run->second.end);
      platform::Mapping mapping;
      mapping.address = at;
      mapping.length = run_end - at;
      mapping.host_fd = pool.fd();
      mapping.offset = run->second.Pool(at, run_end).start;
      mapping.protection = HostProtection(vma, &run->second, vma.protection);
      out.push_back(mapping);
      at = run_end;
    }
  }
}

Result<void> MemoryManager::Impl::MapLocked(uint64_t start, uint64_t end, bool populate) {
  if (loading) return {};
  std::vector<platform::Mapping> mappings;
  DescribeLocked(start, end, mappings);
  for (platform::Mapping& mapping : mappings) {
    mapping.populate = populate && mapping.protection != PROT_NONE;
  }
  const size_t asked = mappings.size();
  for (const auto& [from, to] : std::exchange(pending, {})) {
    if (from < start) DescribeLocked(from, std::min(to, start), mappings);
    if (end < to) DescribeLocked(std::max(from, end), to, mappings);
  }
  for (size_t i = asked; i < mappings.size(); i++)
    mappings[i].populate = IsWorthPopulating(mappings[i]);
  if (mappings.empty()) return {};
  const Result<void> done =
      mappings.size() == 1 ? space->Map(mappings[0]) : space->MapAll(mappings);
  if (done.ok() || done.error() == ESRCH) return {};
  // Out of host mappings: start from nothing. Or a file that the host does not let us map in this
  // way: its pages come by faults, one by one, as copies.
  if (done.error() == ENOMEM) HostUnmapLocked(address_min, address_max);
  for (const platform::Mapping& mapping : mappings) {
    const Result<void> retried = space->Map(mapping);
    if (retried.ok() || retried.error() == ESRCH) continue;
    const bool is_asked = start <= mapping.address && mapping.address < end;
    if (mapping.host_fd != pool.fd() || !is_asked) {
      HostUnmapLocked(mapping.address, mapping.address + mapping.length);
      continue;
    }
    HostUnmapLocked(start, end);
    return retried.error();
  }
  return {};
}

bool MemoryManager::Impl::MayMapLaterLocked(const Vma& vma, bool populate) const {
  if (loading || populate || vma.shared) return false;
  if (!vma.anonymous()) return true;
  // The end of a program's data, which is anonymous, goes with the rest of the program.
  for (const auto& [start, end] : pending) {
    if (vma.start <= end && start <= vma.end) return true;
  }
  return false;
}

void MemoryManager::Impl::MapLaterLocked(uint64_t start, uint64_t end) {
  // One range for all that belongs together: what is in it is found out when its turn comes.
  std::erase_if(pending, [&](const auto& range) {
    const bool touches = range.first <= end && start <= range.second;
    if (touches) {
      start = std::min(start, range.first);
      end = std::max(end, range.second);
    }
    return touches;
  });
  pending.emplace_back(start, end);
  if (pending.size() >= kPendingMax) (void)MapLocked(0, 0, false);
}

bool MemoryManager::Impl::ShowPendingLocked(const Vma& vma, uint64_t address, bool write) {
  const bool found = std::any_of(pending.begin(), pending.end(), [=](const auto& range) {
    return range.first <= address && address < range.second;
  });
  if (!found) return false;
  (void)MapLocked(0, 0, false);  // Cannot fail: nothing is asked for but what is pending.
  auto run = pages.Find(address);
  const PrivatePages* own = run == pages.end() ? nullptr : &run->second;
  return !write || (HostProtection(vma, own, vma.protection) & PROT_WRITE) != 0;
}

Result<void> MemoryManager::Impl::MapSequenceLocked(uint64_t start, uint64_t end) {
  if (end - start < kSequenceBytesMin) return MapLocked(start, end, false);
  if (sequences.size() >= kSequencesMax) sequences.erase(sequences.begin());
  const uint64_t edge = start + kSequenceBatchMin;
  sequences.push_back({start, edge, end});
  return MapLocked(start, edge, false);
}

bool MemoryManager::Impl::ShowSequenceLocked(uint64_t address) {
  auto it = std::find_if(sequences.begin(), sequences.end(), [=](const Sequence& sequence) {
    return sequence.edge <= address && address < sequence.end;
  });
  if (it == sequences.end()) return false;
  const uint64_t start = it->edge;
  const uint64_t batch =
      std::clamp((start - it->start) / 4, kSequenceBatchMin, kSequenceBatchMax) & ~(kPageSize - 1);
  const bool in_sequence = address - start < kSequenceBatchMin;
  const uint64_t end = in_sequence ? std::min(it->end, start + batch) : it->end;
  it->edge = end;
  if (end == it->end) sequences.erase(it);
  return MapLocked(start, end, in_sequence).ok();
}

Result<void> MemoryManager::Impl::AllocateLocked(uint64_t start, uint64_t end) {
  uint64_t gap_start = start, gap_end = start;
  while (pages.FindGap(gap_end, end, &gap_start, &gap_end)) {
    const platform::PoolRange range = TRY(pool.Allocate(gap_end - gap_start));
    pages.Insert({gap_start, gap_end, range.start, false});
  }
  return {};
}

void MemoryManager::Impl::WidenLocked(uint64_t* start, uint64_t* end) {
  const auto extends = [this](uint64_t page) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu) {
    auto it = vmas.Find(page);
    if (it == vmas.end()) return it;
    const Vma& vma = it->second;
    const bool reserved = vma.private_anonymous() && !vma.accessible() && !vma.grows_down;
    return reserved && pages.Find(page) == pages.end() ? it : vmas.end();
  };
  const uint64_t high = AlignUp(*end, kReservedChunkBytes);
  if (auto it = extends(*end); it != vmas.end()) {
    uint64_t gap_start = 0, gap_end = 0;
    pages.FindGap(*end, std::min(high, it->second.end), &gap_start, &gap_end);
    if (gap_start == *end && gap_end > *end) *end = gap_end;
  }
  const uint64_t low = AlignDown(*start, kReservedChunkBytes);
  if (auto it = extends(*start - 1); it != vmas.end()) {
    uint64_t from = std::max(low, it->second.start);
    auto run = pages.FindFrom(*start);
    if (run != pages.begin()) from = std::max(from, std::prev(run)->second.end);
    *start = std::min(from, *start);
  }
}

size_t MemoryManager::Impl::ReadFile(Mappable& mappable, uint64_t offset,
                                     std::span<std::byte> out) const {
  size_t done = 0;
  while (done < out.size()) {
    const uint64_t at = offset + done;
    const uint64_t in_page = at % kPageSize;
    const uint64_t wanted = PageUp(in_page + (out.size() - done));
    const Result<HostRange> host = mappable.Translate(PageDown(at), wanted, false);
    if (!host.ok() && host.error() == EFAULT) break;
    if (host.ok() && host.value().in_pool && host.value().length > in_page) {
      const std::span<std::byte> bytes =
          pool.Window({host.value().offset, host.value().offset + host.value().length})
              .subspan(in_page);
      const size_t count = std::min(bytes.size(), out.size() - done);
      std::memcpy(out.data() + done, bytes.data(), count);
      done += count;
      continue;
    }
    const Result<size_t> read = mappable.ReadAt(at, out.subspan(done));
    if (!read.ok() || read.value() == 0) break;
    done += read.value();
  }
  return done;
}

Result<void> MemoryManager::Impl::MapFileLocked(const Vma& vma, uint64_t address) {
  const uint64_t page = PageDown(address);
  // Asked by itself, so that the answer is about this page.
  const bool for_write = vma.shared && vma.writable();
  TRY(vma.mappable->Translate(vma.OffsetOf(page), kPageSize, for_write));
  if (loading) return {};
  uint64_t end = vma.end;
  if (!vma.shared) {
    auto run = pages.FindFrom(page);
    if (run != pages.end()) end = std::min(end, run->second.start);
  }
  std::vector<platform::Mapping> mappings;
  DescribeFileLocked(vma, page, end, vma.protection, mappings);
  for (const platform::Mapping& mapping : mappings) {
    Result<void> done = space->Map(mapping);
    if (!done.ok() && done.error() == ENOMEM) {
      HostUnmapLocked(address_min, address_max);
      done = space->Map(mapping);
    }
    if (done.ok()) continue;
    HostUnmapLocked(mapping.address, mapping.address + mapping.length);
    if (mapping.address == page) return done.error();
  }
  return {};
}

Result<void> MemoryManager::Impl::ResolveLocked(const Vma& vma, uint64_t address, uint64_t length,
                                                bool write, Leftovers& leftovers) {
  if (vma.shared) {
    const Result<void> done = MapFileLocked(vma, address);
    if (!done.ok() && done.error() != ESRCH) return Errno(EFAULT);
    return done;
  }
  const uint64_t page = PageDown(address);
  auto run = pages.Find(page);
  if (run != pages.end()) {
    if (write && run->second.copy_on_write) {
      return BreakCopyOnWriteLocked(vma, run->second, address, length, leftovers);
    }
    // Another thread was faster, or the platform's mapping was thrown out.
    return MapLocked(std::max(run->second.start, vma.start), std::min(run->second.end, vma.end),
                     false);
  }
  if (!vma.anonymous()) {
    if (!write) {
      const Result<void> done = MapFileLocked(vma, address);
      if (done.ok() || done.error() == EFAULT || done.error() == ESRCH) return done;
      // The host does not map this file, or not in this way (noexec): a copy it is.
    }
    return CopyFilePagesLocked(vma, address, length, leftovers);
  }
  uint64_t from = vma.start, to = vma.end;
  if (run = pages.FindFrom(page); run != pages.end()) to = std::min(to, run->second.start);
  if (run != pages.begin()) from = std::max(from, std::prev(run)->second.end);
  if (to - from > kEagerBytesMax) {
    from = std::max(from, AlignDown(page, kLazyChunkBytes));
    to = std::min(to, AlignDown(page, kLazyChunkBytes) + kLazyChunkBytes);
  }
  TRY(AllocateLocked(from, to));
  return MapLocked(from, to, false);
}

Result<void> MemoryManager::Impl::BreakCopyOnWriteLocked(const Vma& vma, PrivatePages run,
                                                         uint64_t address, uint64_t length,
                                                         Leftovers& leftovers) {
  NoteHotLocked(PageDown(address));
  const uint64_t whole_start = std::max(run.start, vma.start);
  const uint64_t whole_end = std::min(run.end, vma.end);
  const uint64_t last = length > whole_end - address ? whole_end : address + length;
  const uint64_t start = std::max(whole_start, AlignDown(address, kCopyClusterBytes));
  const uint64_t end = std::min(whole_end, AlignUp(last, kCopyClusterBytes));
  // Everybody else may have left meanwhile.
  for (const auto& [from, to] : {std::pair(whole_start, whole_end), std::pair(start, end)}) {
    if (!pool.IsUnique(run.Pool(from, to))) continue;
    pages.SetCopyOnWrite(from, to, false);
    HostProtectLocked(from, to, vma.protection);
    return {};
  }
  const platform::PoolRange fresh = TRY(pool.Allocate(end - start));
  CopyResident(pool, run.Pool(start, end), fresh);
  pages.Remove(start, end, leftovers.ranges);
  pages.Insert({start, end, fresh.start, false});
  return MapLocked(start, end, false);
}

Result<uint64_t> MemoryManager::Impl::BackFilePagesLocked(const Vma& vma, uint64_t start,
                                                          uint64_t end, Leftovers& leftovers) {
  const platform::PoolRange fresh = TRY(pool.Allocate(end - start));
  const size_t read = ReadFile(*vma.mappable, vma.OffsetOf(start), pool.Window(fresh));
  // Pages that begin beyond the end of the file do not exist.
  const uint64_t valid_end = std::min(end, start + PageUp(read));
  if (valid_end < end) leftovers.ranges.push_back({fresh.start + (valid_end - start), fresh.end});
  if (valid_end > start) pages.Insert({start, valid_end, fresh.start, false});
  return valid_end;
}

Result<void> MemoryManager::Impl::CopyFilePagesLocked(const Vma& vma, uint64_t address,
                                                      uint64_t length, Leftovers& leftovers) {
  const uint64_t page = PageDown(address);
  const uint64_t last = length > vma.end - address ? vma.end : address + length;
  uint64_t start = std::max(vma.start, AlignDown(address, kCopyClusterBytes));
  uint64_t end = std::min(vma.end, AlignUp(last, kCopyClusterBytes));
  auto run = pages.FindFrom(page);
  if (run != pages.end()) end = std::min(end, run->second.start);
  if (run != pages.begin()) start = std::max(start, std::prev(run)->second.end);
  const uint64_t valid_end = TRY(BackFilePagesLocked(vma, start, end, leftovers));
  if (valid_end <= page) return Errno(EFAULT);
  return MapLocked(start, valid_end, false);
}

VmaMap::Iterator MemoryManager::Impl::AreaForLocked(uint64_t address) {
  auto it = vmas.FindFrom(address);
  if (it == vmas.end() || it->second.start <= address) return it;
  if (!it->second.grows_down || address < address_min) return vmas.end();
  if (!GrowStackLocked(it, PageDown(address))) return vmas.end();
  return vmas.Find(address);
}

bool MemoryManager::Impl::GrowStackLocked(VmaMap::Iterator it, uint64_t page) {
  const Vma& vma = it->second;
  uint64_t floor = address_min;
  if (it != vmas.begin()) {
    const Vma& below = std::prev(it)->second;
    floor = below.end;
    if (!below.grows_down && below.accessible()) floor += kStackGuardBytes;
  }
  const auto may_start_at = [&](uint64_t start) ABSL_SHARED_LOCKS_REQUIRED(mu) {
    const uint64_t growth = vma.start - start;
    return start >= floor && vma.end - start <= limits.stack_bytes &&
           MayExpandLocked(growth, false) && (!vma.locked || MayLockLocked(growth));
  };
  // A step ahead of need, where the limits allow it.
  uint64_t start = std::min(page, vma.start - std::min(vma.start, kStackStepBytes));
  if (!may_start_at(start)) start = page;
  if (!may_start_at(start)) return false;
  const uint64_t old_start = vma.start;
  if (!AllocateLocked(start, old_start).ok()) return false;
  if (vma.locked) locked_bytes += old_start - start;
  vmas.SetStart(it, start);
  NoteVirtualLocked();
  // Should the host refuse, the fault that follows asks again.
  (void)MapLocked(start, old_start, false);
  return true;
}

}  // namespace sentry
