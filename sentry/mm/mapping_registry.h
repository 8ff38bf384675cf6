#pragma once

// Who shows which pages of a file: the part that every Mappable needs for AddMapping, RemoveMapping
// and invalidation.
//
// Lock order: a memory manager's lock, then mu_ here. So Invalidate collects under mu_ and calls
// the memory managers after it; weak references keep one that goes away meanwhile from being
// touched.

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "sentry/mm/memory_manager.h"

namespace sentry {

class MappingRegistry {
 public:
  void Add(MemoryManager& memory, uint64_t offset, uint64_t length, bool shared_writable)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(MemoryManager& memory, uint64_t offset, uint64_t length, bool shared_writable)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Calls InvalidateFile on every memory that shows a part of [offset, offset + length). When it
  // returns no guest thread uses a translation of the pages that was made before the call. The
  // caller holds no lock that Translate, ReadAt or AddMapping of `mappable` takes.
  void Invalidate(const Mappable& mappable, uint64_t offset, uint64_t length)
      ABSL_LOCKS_EXCLUDED(mu_);
  // The file ends at `size` from now on: pages that begin behind it are gone everywhere, private
  // copies too. Under the same condition.
  void Truncate(const Mappable& mappable, uint64_t size) ABSL_LOCKS_EXCLUDED(mu_);
  // Any mapping at all / any that may write to the file (F_SEAL_WRITE, ETXTBSY).
  bool HasMappings() const ABSL_LOCKS_EXCLUDED(mu_);
  bool HasWritableMappings() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  std::vector<std::shared_ptr<MemoryManager>> Memories() const ABSL_LOCKS_EXCLUDED(mu_);
  struct Use {
    std::weak_ptr<MemoryManager> memory;
    // Per range, as areas split and join: bytes of use, not exact ranges, are what stays
    // consistent.
    uint64_t bytes = 0;
    uint64_t writable_bytes = 0;
  };
  mutable absl::Mutex mu_;
  std::map<MemoryManager*, Use> uses_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
