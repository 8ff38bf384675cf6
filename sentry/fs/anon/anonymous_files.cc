#include "sentry/fs/anon/anonymous_files.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/stat.h>

#include <cerrno>
#include <string>
#include <utility>

#include "sentry/fs/pipe/pipe.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kInotifyInstancesMax = 128;  // /proc/sys/fs/inotify/max_user_instances
constexpr uint32_t kInotifyWatchesMax = 65536;  // /proc/sys/fs/inotify/max_user_watches

Timestamp TimestampOf(int64_t ns) {
  return {ns / 1'000'000'000, static_cast<uint32_t>(ns % 1'000'000'000)};
}

class PipeFileSystem : public FileSystem {
 public:
  std::string_view type_name() const override { return "pipefs"; }
  InodeRef root() override { return nullptr; }
  Result<FileSystemStatus> Status() override {
    FileSystemStatus status;
    status.type = PIPEFS_MAGIC;
    return status;
  }
  uint64_t device() const override { return device_; }

 private:
  const uint64_t device_ = AllocateDevice();
};

class PipeInode : public Inode {
 public:
  PipeInode(FileSystem& file_system, const Attributes& attributes)
      : Inode(file_system), attributes_(attributes) {}
  uint32_t type() const override { return S_IFIFO; }
  Result<Attributes> GetAttributes() override {
    const absl::MutexLock lock(&mu_);
    return attributes_;
  }
  Result<void> SetAttributes(const AttributeChanges& changes) override {
    if (changes.size.has_value()) return Errno(EINVAL);
    const absl::MutexLock lock(&mu_);
    if (changes.mode.has_value()) attributes_.mode = S_IFIFO | (*changes.mode & 07777);
    if (changes.uid.has_value()) attributes_.uid = *changes.uid;
    if (changes.gid.has_value()) attributes_.gid = *changes.gid;
    if (changes.atime.has_value()) attributes_.atime = *changes.atime;
    if (changes.mtime.has_value()) attributes_.mtime = *changes.mtime;
    return {};
  }

 private:
  absl::Mutex mu_;
  Attributes attributes_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

AnonymousFiles::AnonymousFiles(Vfs& vfs, const Clock& clock)
    : vfs_(vfs), clock_(clock), pipe_file_system_(std::make_shared<PipeFileSystem>()) {
  anonymous_attributes_.device = AllocateDevice();
  anonymous_attributes_.inode = NextInode();
  anonymous_attributes_.mode = 0600;
  const Timestamp now = TimestampOf(clock.RealtimeNs());
  anonymous_attributes_.atime = anonymous_attributes_.mtime = anonymous_attributes_.ctime = now;
  vfs.SetFifoOpener(
      [](Task& task, const Path& path, uint32_t flags) { return OpenFifo(task, path, flags); });
}

AnonymousFiles::~AnonymousFiles() = default;

Path AnonymousFiles::MakePipePath(std::shared_ptr<Pipe> pipe, const Credentials& owner) {
  Attributes attributes;
  attributes.device = pipe_file_system_->device();
  attributes.inode = NextInode();
  attributes.mode = S_IFIFO | 0600;
  attributes.uid = owner.fsuid;
  attributes.gid = owner.fsgid;
  attributes.atime = attributes.mtime = attributes.ctime = TimestampOf(clock_.RealtimeNs());
  auto inode = std::make_shared<PipeInode>(*pipe_file_system_, attributes);
  {
    Inode::Attachments& attachments = inode->attachments();
    const absl::MutexLock lock(&attachments.mu);
    attachments.fifo = std::move(pipe);
  }
  return vfs_.AnonymousPath(pipe_file_system_, std::move(inode),
                            "pipe:[" + std::to_string(attributes.inode) + "]");
}

std::shared_ptr<Tmpfs> AnonymousFiles::SharedMemory(platform::MemoryPool& pool) {
  const absl::MutexLock lock(&mu_);
  if (shared_memory_ == nullptr) shared_memory_ = Tmpfs::Create(pool, clock_, TmpfsOptions{});
  return shared_memory_;
}

Result<void> AnonymousFiles::AddInotifyInstance(uint32_t uid) {
  const absl::MutexLock lock(&mu_);
  InotifyUse& use = inotify_use_[uid];
  if (use.instances >= kInotifyInstancesMax) return Errno(EMFILE);
  ++use.instances;
  return {};
}

void AnonymousFiles::RemoveInotifyInstance(uint32_t uid) {
  const absl::MutexLock lock(&mu_);
  --inotify_use_[uid].instances;
}

Result<void> AnonymousFiles::AddInotifyWatch(uint32_t uid) {
  const absl::MutexLock lock(&mu_);
  InotifyUse& use = inotify_use_[uid];
  if (use.watches >= kInotifyWatchesMax) return Errno(ENOSPC);
  ++use.watches;
  return {};
}

void AnonymousFiles::RemoveInotifyWatch(uint32_t uid) {
  const absl::MutexLock lock(&mu_);
  --inotify_use_[uid].watches;
}

Result<void> AnonymousFiles::AddEpollWatch() {
  if (epoll_watches_.fetch_add(1, std::memory_order_relaxed) < kEpollWatchesMax) return {};
  RemoveEpollWatch();
  return Errno(ENOSPC);
}

AnonymousFile::AnonymousFile(Task& task, std::string_view kind, uint32_t flags)
    : File(Path{}, flags, task.own_credentials_ref()),
      kind_(kind),
      attributes_(task.kernel().anonymous_files().anonymous_attributes()) {}

Result<void> AnonymousFile::SetAttributes(const AttributeChanges& changes) {
  (void)changes;
  return Errno(EOPNOTSUPP);
}

std::string AnonymousFile::DisplayName() const { return "anon_inode:" + std::string(kind_); }

}  // namespace sentry
