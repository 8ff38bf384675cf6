#include "sentry/fs/anon/mount_files.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/mount.h>

#include <span>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/mount_rights.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

struct SuperFlag {
  std::string_view name;
  uint64_t flag;
  bool set;
};
constexpr SuperFlag kSuperFlags[] = {{"ro", MS_RDONLY, true},
                                     {"rw", MS_RDONLY, false},
                                     {"sync", MS_SYNCHRONOUS, true},
                                     {"async", MS_SYNCHRONOUS, false},
                                     {"dirsync", MS_DIRSYNC, true},
                                     {"lazytime", MS_LAZYTIME, true},
                                     {"nolazytime", MS_LAZYTIME, false},
                                     {"mand", MS_MANDLOCK, true},
                                     {"nomand", MS_MANDLOCK, false}};

}  // namespace

MountContextFile::MountContextFile(Task& task, std::string name, const FileSystemType& type)
    : AnonymousFile(task, "[fscontext]", O_RDWR),
      name_(std::move(name)),
      type_(&type),
      phase_(Phase::kCreating) {}

MountContextFile::MountContextFile(Task& task, FileSystemRef existing)
    : AnonymousFile(task, "[fscontext]", O_RDWR),
      name_(existing->type_name()),
      type_(nullptr),
      phase_(Phase::kReconfiguring),
      file_system_(std::move(existing)),
      super_flags_(file_system_->super_flags()) {}

void MountContextFile::SayLocked(std::string message) {
  if (messages_.size() >= kMessagesMax) messages_.pop_front();
  messages_.push_back(std::move(message));
}

Result<void> MountContextFile::SetParameter(std::string_view key, std::string_view value,
                                            bool has_value) {
  const absl::MutexLock lock(&mu_);
  if (phase_ != Phase::kCreating && phase_ != Phase::kReconfiguring) return Errno(EBUSY);
  for (const SuperFlag& flag : kSuperFlags) {
    if (flag.name != key) continue;
    super_flags_ = flag.set ? super_flags_ | flag.flag : super_flags_ & ~flag.flag;
    return {};
  }
  if (key == "source") {
    if (!has_value || !source_.empty()) {
      SayLocked(has_value ? "e VFS: Multiple sources" : "e VFS: Non-string source");
      return Errno(EINVAL);
    }
    source_ = std::string(value);
    return {};
  }
  const bool checks = type_ != nullptr && type_->check != nullptr;
  const Result<void> known = checks ? type_->check(key, value, has_value) : Result<void>();
  // A comma would be another option.
  if (!known.ok() || key.empty() || key.find(',') != key.npos || value.find(',') != value.npos) {
    SayLocked("e " + name_ + ": Unknown parameter '" + std::string(key) + "'");
    return Errno(EINVAL);
  }
  std::string item(key);
  if (has_value) item += "=" + std::string(value);
  if (options_.size() + item.size() + 1 >= kOptionsBytesMax) return Errno(EINVAL);
  if (!options_.empty()) options_ += ',';
  options_ += item;
  return {};
}

Result<void> MountContextFile::Refuse(std::string_view key) {
  const absl::MutexLock lock(&mu_);
  if (phase_ != Phase::kCreating && phase_ != Phase::kReconfiguring) return Errno(EBUSY);
  SayLocked("e " + name_ + ": Unknown parameter '" + std::string(key) + "'");
  return Errno(EINVAL);
}

Result<void> MountContextFile::Create(Task& task) {
  const absl::MutexLock lock(&mu_);
  if (phase_ != Phase::kCreating) return Errno(EBUSY);
  phase_ = Phase::kFailed;
  file_system_ = TRY(MakeFileSystem(task, *type_, source_, options_, super_flags_));
  phase_ = Phase::kAwaitingMount;
  return {};
}

Result<void> MountContextFile::Reconfigure(Task& task) {
  const absl::MutexLock lock(&mu_);
  if (phase_ != Phase::kReconfiguring) return Errno(EBUSY);
  if (!task.own_credentials().HasCapabilityIn(file_system_->owner(), CAP_SYS_ADMIN))
    return Errno(EPERM);
  const std::string options = std::exchange(options_, {});
  return sentry::Reconfigure(task.kernel().vfs().mounts(), *file_system_, super_flags_, options);
}

Result<FileSystemRef> MountContextFile::Take(Task& task, uint64_t* mount_flags) {
  const absl::MutexLock lock(&mu_);
  if (type_ == nullptr || file_system_ == nullptr) return Errno(EINVAL);
  TRY(MayReveal(task, *file_system_, mount_flags));
  if (phase_ != Phase::kAwaitingMount) return Errno(EBUSY);
  // From here on it can be reconfigured, as by fspick(2).
  phase_ = Phase::kReconfiguring;
  options_.clear();
  return file_system_;
}

std::string MountContextFile::source() const {
  const absl::MutexLock lock(&mu_);
  return source_.empty() ? "none" : source_;
}

Result<size_t> MountContextFile::Read(Task&, IoBuffer& to, uint64_t*) {
  const absl::MutexLock lock(&mu_);
  if (messages_.empty()) return Errno(ENODATA);
  const std::string& message = messages_.front();
  if (to.remaining() < message.size()) return Errno(EMSGSIZE);
  const size_t copied = TRY(to.CopyOut(std::as_bytes(std::span(message))));
  messages_.pop_front();
  return copied;
}

DetachedTreeFile::DetachedTreeFile(Path root, Task& task, MountNamespaceRef tree)
    : File(std::move(root), O_PATH, task.own_credentials_ref()), tree_(std::move(tree)) {}

}  // namespace sentry
