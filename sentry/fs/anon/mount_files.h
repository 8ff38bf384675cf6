#pragma once

// The descriptors of the new mount calls: a file system that is being configured (fsopen(2),
// fspick(2)), and a tree of mounts that is in no namespace (fsmount(2), open_tree(2)).

#include <cstdint>
#include <deque>
#include <string>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/mount.h"

namespace sentry {

class MountContextFile final : public AnonymousFile {
 public:
  // fsopen(2). `type` outlives it.
  MountContextFile(Task& task, std::string name, const FileSystemType& type);
  // fspick(2).
  MountContextFile(Task& task, FileSystemRef existing);

  // EBUSY where it is too late; EINVAL, with a line in the log.
  base::Result<void> SetParameter(std::string_view key, std::string_view value, bool has_value)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Refuse(std::string_view key) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Create(Task& task) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Reconfigure(Task& task) ABSL_LOCKS_EXCLUDED(mu_);
  // fsmount(2): what Create has made, once. EINVAL, EBUSY, EPERM.
  base::Result<FileSystemRef> Take(Task& task, uint64_t* mount_flags) ABSL_LOCKS_EXCLUDED(mu_);
  std::string source() const ABSL_LOCKS_EXCLUDED(mu_);

  // The messages, one for each read. ENODATA if there is none.
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;

 private:
  enum class Phase : uint8_t { kCreating, kAwaitingMount, kReconfiguring, kDone, kFailed };
  // Of all parameters together, as one page of mount(2).
  static constexpr size_t kOptionsBytesMax = 4096;
  static constexpr size_t kMessagesMax = 8;

  void SayLocked(std::string message) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const std::string name_;
  const FileSystemType* const type_;  // Null: of a living one.
  mutable absl::Mutex mu_;
  Phase phase_ ABSL_GUARDED_BY(mu_);
  FileSystemRef file_system_ ABSL_GUARDED_BY(mu_);
  std::string source_ ABSL_GUARDED_BY(mu_);
  std::string options_ ABSL_GUARDED_BY(mu_);
  uint64_t super_flags_ ABSL_GUARDED_BY(mu_) = 0;
  std::deque<std::string> messages_ ABSL_GUARDED_BY(mu_);
};

// The tree goes when the last descriptor does, unless it has been moved into a namespace.
class DetachedTreeFile final : public File {
 public:
  DetachedTreeFile(Path root, Task& task, MountNamespaceRef tree);

 private:
  const MountNamespaceRef tree_;
};

}  // namespace sentry
