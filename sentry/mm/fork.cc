// fork: both sides refer to the same pool pages, which nobody may write any more without a copy.

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Adds a range to be write-protected, to the last one if they are neighbours.
void AddProtection(std::vector<platform::Protection>& ranges, uint64_t start, uint64_t end,
                   int protection) {
  if (!ranges.empty() && ranges.back().protection == protection &&
      ranges.back().address + ranges.back().length == start) {
    ranges.back().length += end - start;
    return;
  }
  ranges.push_back({start, end - start, protection});
}

}  // namespace

void HotPages::Note(uint64_t page) {
  const absl::MutexLock lock(&mu_);
  if (std::find(pages_.begin(), pages_.end(), page) != pages_.end()) return;
  if (pages_.size() >= kHotPagesMax) pages_.erase(pages_.begin());
  pages_.push_back(page);
}

std::vector<uint64_t> HotPages::Sorted() const {
  std::vector<uint64_t> pages;
  {
    const absl::MutexLock lock(&mu_);
    pages = pages_;
  }
  std::sort(pages.begin(), pages.end());
  return pages;
}

void MemoryManager::Impl::NoteHotLocked(uint64_t page) {
  if (hot_notes_left == 0) return;
  hot_notes_left--;
  hot_pages->Note(page);
}

void MemoryManager::Impl::ShareRunLocked(const Vma& vma, PrivatePages run, Impl& child) {
  const platform::PoolRange range = run.Pool();
  pool.AddReference(range);
  child.pages.Insert({run.start, run.end, range.start, true});
  if (run.copy_on_write) return;
  pages.SetCopyOnWrite(run.start, run.end, true);
  if (vma.writable()) {
    AddProtection(fork_protections, run.start, run.end, WithoutWrite(vma.protection));
  }
}

// The child gets a copy of what both sides will write to at once, as they did after the last fork:
// two faults less, of which each costs more than this.
bool MemoryManager::Impl::CopyRunLocked(const PrivatePages& run, Impl& child) {
  const Result<platform::PoolRange> fresh = pool.Allocate(run.size());
  if (!fresh.ok()) return false;
  std::memcpy(pool.Window(fresh.value()).data(), pool.Window(run.Pool()).data(), run.size());
  child.pages.Insert({run.start, run.end, fresh.value().start, false});
  return true;
}

void MemoryManager::Impl::ForkAreaLocked(const Vma& vma, const std::vector<uint64_t>& hot,
                                         Impl& child) {
  // A copy, since marking splits and joins runs.
  std::vector<PrivatePages> runs;
  for (auto it = pages.FindFrom(vma.start); it != pages.end() && it->second.start < vma.end; ++it) {
    PrivatePages run = it->second;
    if (run.start < vma.start) {
      run.pool_start += vma.start - run.start;
      run.start = vma.start;
    }
    run.end = std::min(run.end, vma.end);
    runs.push_back(run);
  }
  for (PrivatePages run : runs) {
    const auto part = [&run](uint64_t from, uint64_t to) {
      return PrivatePages{from, to, run.Pool(from, to).start, run.copy_on_write};
    };
    uint64_t at = run.start;
    auto page = std::lower_bound(hot.begin(), hot.end(), run.start);
    if (!vma.writable()) page = hot.end();
    for (; page != hot.end() && *page < run.end; ++page) {
      if (*page < at) continue;
      const bool whole = at == run.start && run.size() <= kHotRunBytesMax;
      const uint64_t from = whole ? run.start : *page;
      const uint64_t to = whole ? run.end : *page + base::kPageSize;
      if (!CopyRunLocked(part(from, to), child)) break;
      if (from > at) ShareRunLocked(vma, part(at, from), child);
      at = to;
    }
    if (at < run.end) ShareRunLocked(vma, part(at, run.end), child);
  }
}

Result<std::shared_ptr<MemoryManager>> MemoryManager::Fork(bool alone) {
  std::shared_ptr<MemoryManager> child =
      TRY(Create(impl_->platform, impl_->pool, impl_->layout_seed));
  Impl& to = *child->impl_;
  Impl& from = *impl_;
  to.dumpable.store(from.dumpable.load(std::memory_order_relaxed), std::memory_order_relaxed);
  to.membarrier_registrations.store(from.membarrier_registrations.load());
  absl::MutexLock lock(&from.mu);
  // Nobody else knows of the child yet; taken for the checker, and always after a parent's.
  absl::MutexLock child_lock(&to.mu);
  to.limits = from.limits;
  to.mmap_base = from.mmap_base;
  to.brk_start = from.brk_start;
  to.brk_end = from.brk_end;
  to.image = from.image;

  from.fork_protections.clear();
  std::vector<uint64_t> hot;
  if (alone) hot = from.hot_pages->Sorted();
  for (auto it = from.vmas.begin(); it != from.vmas.end(); ++it) {
    const Vma& vma = it->second;
    if (vma.dont_fork) continue;
    Vma copy = vma;
    copy.locked = copy.lock_on_fault = false;
    if (copy.mappable != nullptr) {
      copy.mappable->AddMapping(*child, copy.offset, copy.size(), copy.shared_writable());
    }
    to.vmas.Insert(std::move(copy));
    if (!vma.shared && !vma.wipe_on_fork) from.ForkAreaLocked(vma, hot, to);
  }
  to.NoteVirtualLocked();
  to.hot_pages = from.hot_pages;
  to.hot_notes_left = from.hot_notes_left = kHotNotesMax;

  // Write-protects the parent.
  if (!from.fork_protections.empty()) {
    const Result<void> done = from.space->ProtectAll(from.fork_protections);
    if (!done.ok() && done.error() != ESRCH) {
      from.HostUnmapLocked(from.address_min, from.address_max);
    }
    from.fork_protections.clear();
  }
  to.InheritPatchesLocked(from.patches);
  to.ShowAllLocked();
  return child;
}

// What is missing afterwards comes by faults.
void MemoryManager::Impl::ShowAllLocked() {
  std::vector<platform::Mapping> mappings;
  DescribeTableLocked(mappings);
  DescribeLocked(address_min, address_max, mappings);
  if (mappings.size() > kForkMappingsMax) mappings.resize(kForkMappingsMax);
  for (platform::Mapping& mapping : mappings) mapping.populate = IsWorthPopulating(mapping);
  const Result<void> mapped = mappings.empty() ? Result<void>() : space->MapAll(mappings);
  if (!mapped.ok()) LOG_WARNING("memory: maps by faults, errno %d", mapped.error().value());
}

}  // namespace sentry
