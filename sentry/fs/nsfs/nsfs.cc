#include "sentry/fs/nsfs/nsfs.h"

#include <fcntl.h>
#include <unistd.h>

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_counts.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

constexpr uint64_t kNsfsMagic = 0x6e736673;
// <linux/nsfs.h>
constexpr uint32_t kGetUserNamespace = 0xb701;
constexpr uint32_t kGetParent = 0xb702;
constexpr uint32_t kGetType = 0xb703;
constexpr uint32_t kGetOwnerUid = 0xb704;
constexpr uint32_t kGetMountNamespaceId = 0x8008b705;

std::string_view NameOfKind(NamespaceKind kind) {
  switch (kind) {
    case NamespaceKind::kMount:
      return "mnt";
    case NamespaceKind::kCgroup:
      return "cgroup";
    case NamespaceKind::kUts:
      return "uts";
    case NamespaceKind::kIpc:
      return "ipc";
    case NamespaceKind::kUser:
      return "user";
    case NamespaceKind::kPid:
      return "pid";
    case NamespaceKind::kNet:
      return "net";
    case NamespaceKind::kTime:
      return "time";
  }
  return {};
}

// One for each mount of such a file, with nothing in it but that file.
class NamespaceFileSystem final : public FileSystem {
 public:
  explicit NamespaceFileSystem(uint64_t device) : device_(device) {}
  std::string_view type_name() const override { return "nsfs"; }
  InodeRef root() override { return nullptr; }
  Result<FileSystemStatus> Status() override {
    FileSystemStatus status;
    status.type = kNsfsMagic;
    status.block_size = base::kPageSize;
    status.id = device_;
    return status;
  }
  uint64_t device() const override { return device_; }

 private:
  const uint64_t device_;
};

class OpenNamespace final : public File {
 public:
  OpenNamespace(const Path& path, uint32_t flags, CredentialsRef credentials,
                std::shared_ptr<Namespace> space)
      : File(path, flags, std::move(credentials)), space_(std::move(space)) {}
  const std::shared_ptr<Namespace>& space() const { return space_; }
  Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  std::string DisplayName() const override { return NamespaceText(*space_); }

 private:
  Result<uint64_t> Open(Task& task, std::shared_ptr<Namespace> space);
  Result<std::shared_ptr<Namespace>> OwnerFor(Task& task) const;
  Result<std::shared_ptr<Namespace>> ParentFor(Task& task) const;

  const std::shared_ptr<Namespace> space_;
};

Result<uint64_t> OpenNamespace::Open(Task& task, std::shared_ptr<Namespace> space) {
  const Path path = TRY(PathOfNamespace(task.kernel(), std::move(space)));
  FileRef file = TRY(task.kernel().vfs().OpenPath(task, path, O_RDONLY));
  return static_cast<uint64_t>(TRY(task.InstallFile(std::move(file), true)));
}

// The user namespace that rules it, if that is the caller's or inside of it.
Result<std::shared_ptr<Namespace>> OpenNamespace::OwnerFor(Task& task) const {
  const UserNamespaceRef& own = task.own_credentials().user_namespace;
  const UserNamespaceRef& owner = space_->owner();
  // The initial user namespace has no owner.
  const bool none = space_->number() == kInitialUserNumber;
  if (none || !IsSameOrInside(owner, own)) return Errno(EPERM);
  if (owner == nullptr) return task.kernel().namespace_counts().initial_user();
  return std::shared_ptr<Namespace>(owner);
}

Result<std::shared_ptr<Namespace>> OpenNamespace::ParentFor(Task& task) const {
  if (space_->kind() == NamespaceKind::kUser) return OwnerFor(task);
  if (space_->kind() != NamespaceKind::kPid) return Errno(EINVAL);
  const auto view = std::dynamic_pointer_cast<PidView>(space_);
  if (view == nullptr || !IsSameOrInside(view->parent(), task.group().pid_view()))
    return Errno(EPERM);
  if (view->parent() == nullptr) return task.kernel().namespace_counts().initial_pid();
  return std::shared_ptr<Namespace>(view->parent());
}

Result<uint64_t> OpenNamespace::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  switch (command) {
    case kGetUserNamespace:
      return Open(task, TRY(OwnerFor(task)));
    case kGetParent:
      return Open(task, TRY(ParentFor(task)));
    case kGetType:
      return static_cast<uint64_t>(space_->kind());
    case kGetOwnerUid: {
      if (space_->kind() != NamespaceKind::kUser) return Errno(EINVAL);
      const auto users = std::dynamic_pointer_cast<UserNamespace>(space_);
      const uint32_t uid = users == nullptr ? 0 : users->owner_uid();
      TRY(task.CopyOut(base::UserOut<uint32_t>(base::UserAddr(argument)),
                       UidSeenFrom(task.own_credentials().user_namespace, uid)));
      return uint64_t{0};
    }
    case kGetMountNamespaceId: {
      const auto mounts = std::dynamic_pointer_cast<MountNamespace>(space_);
      if (mounts == nullptr) return Errno(EINVAL);
      TRY(task.CopyOut(base::UserOut<uint64_t>(base::UserAddr(argument)), mounts->sequence()));
      return uint64_t{0};
    }
    default:
      return Errno(ENOTTY);
  }
}

class NamespaceInode final : public Inode, public NamespaceFile {
 public:
  NamespaceInode(NamespaceFileSystem& file_system, std::shared_ptr<Namespace> space)
      : Inode(file_system), space_(std::move(space)) {}
  const std::shared_ptr<Namespace>& shown_namespace() const override { return space_; }
  uint32_t type() const override { return S_IFREG; }
  Result<Attributes> GetAttributes() override {
    Attributes attributes;
    attributes.mode = S_IFREG | 0444;
    attributes.nlink = 1;
    attributes.inode = space_->number();
    attributes.device = file_system().device();
    attributes.block_size = base::kPageSize;
    return attributes;
  }
  Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override {
    if ((flags & O_ACCMODE) != O_RDONLY) return Errno(EPERM);
    return FileRef(
        std::make_shared<OpenNamespace>(path, flags, task.own_credentials_ref(), space_));
  }

 private:
  const std::shared_ptr<Namespace> space_;
};

}  // namespace

std::string NamespaceText(const Namespace& space) {
  return std::string(NameOfKind(space.kind())) + ":[" + std::to_string(space.number()) + "]";
}

Result<Path> PathOfNamespace(Kernel& kernel, std::shared_ptr<Namespace> space) {
  if (space == nullptr) return Errno(ENOENT);
  std::string name = NamespaceText(*space);
  auto file_system = std::make_shared<NamespaceFileSystem>(kernel.nsfs_device());
  auto inode = std::make_shared<NamespaceInode>(*file_system, std::move(space));
  const MountRef mount =
      kernel.vfs().mounts().NewFileMount(file_system, std::move(inode), std::move(name), "nsfs");
  return Path{mount, mount->root};
}

std::shared_ptr<Namespace> NamespaceOf(const File& file) {
  const auto* open = dynamic_cast<const OpenNamespace*>(&file);
  return open == nullptr ? nullptr : open->space();
}

}  // namespace sentry
