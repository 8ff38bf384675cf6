#pragma once

// The sandbox's memory: one memfd, given out in page ranges with reference counts.
//
// Guest memory is mapped MAP_SHARED from the memfd into stubs; the sentry maps the whole of it
// once, as one sparse window, so a range's bytes are at a fixed place for as long as the range is
// held. Ranges that nobody refers to any more are given back to the host (PUNCH_HOLE) and reused;
// new ranges read as zero.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>

#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace platform {

// [start, end) in the pool's memfd; page aligned, start < end unless empty.
struct PoolRange {
  uint64_t start = 0;
  uint64_t end = 0;
  uint64_t size() const { return end - start; }
  friend bool operator==(const PoolRange&, const PoolRange&) = default;
};

class MemoryPool {
 public:
  // `bytes_max` bounds the address range (not the memory) of the pool: sparse, rounded to pages.
  // Before the filters go up. ENOMEM, EMFILE, EINVAL from the host.
  static base::Result<std::unique_ptr<MemoryPool>> Create(uint64_t bytes_max = uint64_t{1} << 44);
  virtual ~MemoryPool() = default;

  // The memfd, to be mapped into stubs. Stays the pool's.
  virtual int fd() const = 0;
  // `bytes` > 0, page multiple; `alignment` a power of two >= 4096. The range starts with one
  // reference. ENOMEM when the pool's address range is used up or `bytes` is over the limit.
  virtual base::Result<PoolRange> Allocate(uint64_t bytes, uint64_t alignment = 4096) = 0;
  // Any page-aligned part of live ranges. Counts are per page.
  virtual void AddReference(PoolRange range) = 0;
  virtual void DropReference(PoolRange range) = 0;
  // True if every page of `range` has exactly one reference.
  virtual bool IsUnique(PoolRange range) const = 0;
  // Gives the pages back to the host; they read as zero afterwards. The range stays allocated.
  virtual void Discard(PoolRange range) = 0;
  // Populates `range` in one go, cheaper than faulting. Best effort.
  virtual void Populate(PoolRange range) = 0;
  // The sentry's view of a live range. Host memory: only sentry/mm and *_unsafe.cc may keep it, no
  // longer than they hold a reference.
  virtual std::span<std::byte> Window(PoolRange range) = 0;
  // Bytes given out, and bytes the host really holds for us (fstat st_blocks).
  virtual uint64_t allocated_bytes() const = 0;
  virtual uint64_t resident_bytes() const = 0;
};

}  // namespace platform
