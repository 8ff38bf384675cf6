// fork: both sides refer to the same pool pages, which nobody may write any more without a copy.

#include <sys/mman.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

Result<std::shared_ptr<MemoryManager>> MemoryManager::Fork() {
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

  for (auto it = from.vmas.begin(); it != from.vmas.end(); ++it) {
    const Vma& vma = it->second;
    if (vma.dont_fork) continue;
    Vma copy = vma;
    copy.locked = copy.lock_on_fault = false;
    if (copy.mappable != nullptr) {
      copy.mappable->AddMapping(*child, copy.offset, copy.size(), copy.shared_writable());
    }
    to.vmas.Insert(std::move(copy));
    if (vma.shared || vma.wipe_on_fork) continue;
    for (auto run = from.pages.FindFrom(vma.start);
         run != from.pages.end() && run->second.start < vma.end; ++run) {
      const uint64_t start = std::max(run->second.start, vma.start);
      const uint64_t end = std::min(run->second.end, vma.end);
      const platform::PoolRange range = run->second.Pool(start, end);
      from.pool.AddReference(range);
      to.pages.Insert({start, end, range.start, true});
    }
  }
  to.NoteVirtualLocked();

  // Write-protects the parent: one call per run of writable private areas.
  uint64_t start = 0, end = 0;
  int protection = 0;
  for (auto it = from.vmas.begin(); it != from.vmas.end(); ++it) {
    const Vma& vma = it->second;
    if (vma.shared || vma.dont_fork || vma.wipe_on_fork) continue;
    bool fresh = false;
    for (auto run = from.pages.FindFrom(vma.start);
         run != from.pages.end() && run->second.start < vma.end && !fresh; ++run) {
      fresh = !run->second.copy_on_write;
    }
    if (!fresh) continue;
    from.pages.SetCopyOnWrite(vma.start, vma.end, true);
    if (!vma.writable()) continue;
    const bool joins = end == vma.start && protection == vma.protection;
    if (!joins && end > start) from.HostProtectLocked(start, end, Impl::WithoutWrite(protection));
    if (!joins) start = vma.start;
    end = vma.end;
    protection = vma.protection;
  }
  if (end > start) from.HostProtectLocked(start, end, Impl::WithoutWrite(protection));

  std::vector<platform::Mapping> mappings;
  to.InheritPatchesLocked(from.patches, mappings);
  to.DescribeLocked(to.address_min, to.address_max, mappings);
  if (mappings.size() > kForkMappingsMax) mappings.resize(kForkMappingsMax);
  const Result<void> mapped = mappings.empty() ? Result<void>() : to.space->MapAll(mappings);
  // Whatever is missing comes by faults.
  if (!mapped.ok()) LOG_WARNING("memory: fork maps by faults, errno %d", mapped.error().value());
  return child;
}

}  // namespace sentry
