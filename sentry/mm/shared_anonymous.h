#pragma once

// MAP_SHARED | MAP_ANONYMOUS: pool pages shared by whoever inherits the mapping (Linux's
// shmem_zero_setup).

#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "sentry/mm/mappable.h"

namespace sentry {

class SharedAnonymous final : public Mappable {
 public:
  // `length` > 0, page multiple. ENOMEM. `pool` outlives it.
  static base::Result<std::shared_ptr<SharedAnonymous>> Create(platform::MemoryPool& pool,
                                                               uint64_t length);
  SharedAnonymous(platform::MemoryPool& pool, platform::PoolRange range);
  ~SharedAnonymous() override;
  SharedAnonymous(const SharedAnonymous&) = delete;
  SharedAnonymous& operator=(const SharedAnonymous&) = delete;

  base::Result<HostRange> Translate(uint64_t offset, uint64_t length, bool for_write) override;
  base::Result<size_t> ReadAt(uint64_t offset, std::span<std::byte> out) override;
  base::Result<size_t> WriteAt(uint64_t offset, std::span<const std::byte> data) override;
  void AddMapping(MemoryManager&, uint64_t, uint64_t, bool) override {}
  void RemoveMapping(MemoryManager&, uint64_t, uint64_t, bool) override {}
  base::Result<void> Sync(uint64_t, uint64_t) override { return {}; }
  base::Result<void> PunchHole(uint64_t offset, uint64_t length) override;
  Identity identity() const override;

 private:
  platform::MemoryPool& pool_;
  const platform::PoolRange range_;  // Never changes: nothing to invalidate.
  const uint64_t inode_;
};

}  // namespace sentry
