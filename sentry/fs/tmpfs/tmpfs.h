#pragma once

// tmpfs(5): a file system in the memory pool. Also behind memfd_create(2), and the writable layer
// of an overlay.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "platform/memory/memory_pool.h"
#include "sentry/fs/tmpfs/page_store.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class TmpfsDirectory;
class Vfs;

struct TmpfsOptions {
  uint64_t size_bytes = 0;  // 0: no limit.
  uint64_t inodes_max = 0;  // 0: no limit.
  uint32_t mode = 01777;
  uint32_t uid = 0;
  uint32_t gid = 0;
  bool uid_given = false;
  bool gid_given = false;
  uint64_t memory_bytes = 0;  // What 100% means when it is remounted.
};

// The comma-separated options of mount(2): size= (with k, m, g or %), nr_blocks=, nr_inodes=,
// mode=, uid=, gid=. EINVAL for an unknown one. `memory_bytes` is what 100% means.
base::Result<TmpfsOptions> ParseTmpfsOptions(std::string_view text, uint64_t memory_bytes);

class Tmpfs final : public FileSystem {
 public:
  // `pool` and `clock` outlive it.
  static std::shared_ptr<Tmpfs> Create(platform::MemoryPool& pool, const Clock& clock,
                                       const TmpfsOptions& options);
  Tmpfs(platform::MemoryPool& pool, const Clock& clock, const TmpfsOptions& options);
  ~Tmpfs() override;

  std::string_view type_name() const override { return "tmpfs"; }
  InodeRef root() override { return root_; }
  base::Result<FileSystemStatus> Status() override;
  uint64_t device() const override { return device_; }
  std::string options() const override;
  // Other limits; what is in use must fit into them. EINVAL.
  base::Result<void> Reconfigure(std::string_view options) override;

  platform::MemoryPool& pool() { return pool_; }
  Quota& pages() { return pages_; }
  Quota& inodes() { return inodes_; }
  uint64_t NextInodeNumber() { return next_inode_.fetch_add(1, std::memory_order_relaxed); }
  Timestamp Now() const;

 private:
  platform::MemoryPool& pool_;
  const Clock& clock_;
  const TmpfsOptions options_;  // But for the limits, which are the quotas'.
  Quota pages_;
  Quota inodes_;
  const uint64_t device_;
  std::atomic<uint64_t> next_inode_{1};
  InodeRef root_;
};

// memfd_create(2) without its checks of name and flags: an unlinked file of the hidden instance
// `shm`. `seals`: F_SEAL_SEAL for a file that cannot be sealed.
base::Result<FileRef> CreateMemfd(Vfs& vfs, const std::shared_ptr<Tmpfs>& shm,
                                  CredentialsRef credentials, std::string_view name, uint32_t mode,
                                  uint32_t seals);

}  // namespace sentry
