#pragma once

// dnotify (fcntl(2), F_NOTIFY): a signal when something in a directory changes. What inotify(7)
// replaced; a watch like its ones.

#include <cstdint>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

class DirectoryNotice;

// Of one directory. Thread-safe.
class DirectoryNotices {
 public:
  // DN_* for `file`, of the descriptor table `owner`; 0 takes it away.
  base::Result<void> Set(const FileRef& file, const void* owner, int32_t fd, uint32_t events)
      ABSL_LOCKS_EXCLUDED(mu_);
  // `owner` has closed a descriptor of `file`.
  void Remove(const File& file, const void* owner) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  friend class DirectoryNotice;
  void Remove(const DirectoryNotice& notice) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<DirectoryNotice> Take(const File& file, const void* owner)
      ABSL_LOCKS_EXCLUDED(mu_);

  absl::Mutex mu_;
  std::vector<std::shared_ptr<DirectoryNotice>> notices_ ABSL_GUARDED_BY(mu_);
};

// As fcntl(2) does it. The caller has checked that `file` is a directory.
base::Result<void> SetDirectoryNotice(const FileRef& file, const void* owner, int32_t fd,
                                      uint32_t events);

}  // namespace sentry
