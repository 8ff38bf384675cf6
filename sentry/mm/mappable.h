#pragma once

// What a file mapping shows. Implemented by files that can be mapped: gofer files (a donated host
// descriptor), tmpfs and memfd files and shared anonymous memory (ranges of the memory pool).

#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "platform/base/result.h"

namespace sentry {

class MemoryManager;

// Host bytes behind a piece of a file.
struct HostRange {
  int fd = -1;          // Borrowed: valid as long as the Mappable lives.
  uint64_t offset = 0;  // Page aligned.
  uint64_t length = 0;  // May be shorter than asked, > 0.
  bool in_pool =
      false;  // fd is the memory pool's: the sentry reaches the bytes through its window.
};

// Thread-safe. Kept alive by the VMAs that show it.
//
// Lock order: a memory manager calls every function here with its own lock held. So an
// implementation copies no guest memory and calls no MemoryManager while it holds a lock that these
// take. MappingRegistry (mapping_registry.h) does AddMapping, RemoveMapping and the invalidation.
// An implementation over the pool drops a pool range only after InvalidateFile has returned for it:
// until then guests and copies may use the pages.
class Mappable {
 public:
  virtual ~Mappable() = default;

  // The host range behind [offset, offset + length) (page aligned). `for_write`: the caller will
  // map it shared and writable, so backing must exist. EFAULT beyond the end of the file (becomes
  // SIGBUS); ENOMEM, EIO.
  virtual base::Result<HostRange> Translate(uint64_t offset, uint64_t length, bool for_write) = 0;
  // File content by copy, for ranges that are not in the pool. Short at the end of the file.
  virtual base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) = 0;
  virtual base::Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) = 0;

  // A VMA of `memory` shows [offset, offset + length) from now on / no longer. A file that shrinks
  // or whose backing moves calls MemoryManager::InvalidateFile on each registered one.
  virtual void AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                          bool shared_writable) = 0;
  virtual void RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                             bool shared_writable) = 0;

  // False if no page of it is the memory pool's: then it need not outlive the last guest thread
  // that can see it.
  virtual bool MayShowPool() const { return true; }

  // madvise(MADV_REMOVE): the bytes read as zero afterwards.
  virtual base::Result<void> PunchHole(uint64_t offset, uint64_t length) {
    (void)offset, (void)length;
    return base::Errno(EOPNOTSUPP);
  }
  // msync(MS_SYNC).
  virtual base::Result<void> Sync(uint64_t offset, uint64_t length) = 0;
  // For /proc/PID/maps and shared futex keys.
  struct Identity {
    uint64_t device = 0;
    uint64_t inode = 0;
  };
  virtual Identity identity() const = 0;
};

}  // namespace sentry
