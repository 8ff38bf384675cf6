#pragma once

// The devpts file system (mount(8)): "ptmx", each open of which makes a pseudo-terminal, and a node
// per living one.

#include <cstdint>
#include <map>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/tty/terminal.h"

namespace sentry {

class Kernel;

class DevPts final : public SyntheticFileSystem {
 public:
  static constexpr uint32_t kTerminalsMax = 1024;
  static std::shared_ptr<DevPts> Make(Kernel& kernel);
  explicit DevPts(Kernel& kernel);

  // A new pair with the lowest free number, its slave locked and owned by `owner`. ENOSPC.
  base::Result<std::shared_ptr<Terminal>> NewTerminal(const Credentials& owner)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Opening ptmx, here or by a device node elsewhere.
  base::Result<FileRef> OpenMaster(Task& task, const Path& path, uint32_t flags);
  // Null if there is none.
  std::shared_ptr<Terminal> Find(uint32_t index) ABSL_LOCKS_EXCLUDED(mu_);

  bool Revalidate(Inode& directory, std::string_view name, Inode& child) override;

 private:
  friend class DevPtsRoot;
  struct Entry {
    std::weak_ptr<Terminal> terminal;
    InodeRef inode;
  };
  void Forget(uint32_t index) ABSL_LOCKS_EXCLUDED(mu_);

  Kernel& kernel_;
  absl::Mutex mu_;
  std::map<uint32_t, Entry> entries_ ABSL_GUARDED_BY(mu_);
  InodeRef ptmx_;
};

}  // namespace sentry
