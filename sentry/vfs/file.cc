#include "sentry/vfs/file.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <limits>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file_owner.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/mount.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kCreationFlags = O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC;
constexpr uint32_t kSettableFlags = O_APPEND | O_NONBLOCK | O_ASYNC | O_DIRECT | O_NOATIME;

}  // namespace

File::File(Path path, uint32_t flags, CredentialsRef credentials)
    : path_(std::move(path)),
      access_mode_(flags & O_ACCMODE),
      flags_(flags & ~kCreationFlags),
      credentials_(std::move(credentials)) {}

File::~File() {
  if (path_.dentry == nullptr || path_.dentry->is_negative()) {
    delete owner_if_any();
    return;
  }
  if (Inode::Attachments* attachments = path_.dentry->inode()->attachments_if_any()) {
    attachments->locks.ReleaseRecords(this);
    attachments->locks.ReleaseFlock(this);
    if (!attachments->leases.empty()) (void)attachments->leases.Clear(*this);  // If it has one.
    if (has_write_access_) {
      attachments->PutWriteAccess();
      path_.mount->writers().fetch_sub(1, std::memory_order_relaxed);
    }
    AllowWrite();
  }
  // After the leases, whose breakers tell it.
  delete owner_if_any();
  if (is_reader_) path_.dentry->inode()->RemoveReader();
  if (!is_path_only()) NotifyPath(path_, writable() ? IN_CLOSE_WRITE : IN_CLOSE_NOWRITE);
}

Result<void> File::TakeWriteAccess() {
  if (has_write_access_ || path_.dentry == nullptr) return {};
  TRY(path_.dentry->inode()->attachments().GetWriteAccess());
  has_write_access_ = true;
  path_.mount->writers().fetch_add(1, std::memory_order_relaxed);
  return {};
}

void File::CountAsReader() {
  if (std::exchange(is_reader_, true)) return;
  path_.dentry->inode()->AddReader();
}

Result<void> File::DenyWrite() {
  if (path_.dentry == nullptr) return {};
  TRY(path_.dentry->inode()->attachments().DenyWrite());
  // Two at once only if a caller does not know what it has: the second one's claim goes back.
  if (denies_write_.exchange(true)) path_.dentry->inode()->attachments().AllowWrite();
  return {};
}

void File::AllowWrite() {
  if (denies_write_.exchange(false)) path_.dentry->inode()->attachments().AllowWrite();
}

FileOwner& File::owner() {
  if (FileOwner* existing = owner_if_any()) return *existing;
  auto made = std::make_unique<FileOwner>();
  FileOwner* expected = nullptr;
  if (owner_.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel))
    return *made.release();
  return *expected;
}

bool File::is_path_only() const { return (flags() & O_PATH) != 0; }
bool File::nonblocking() const { return (flags() & O_NONBLOCK) != 0; }

Result<void> File::SetFlags(Task& task, uint32_t flags) {
  const uint32_t old = this->flags();
  if ((flags & O_NOATIME) != 0 && (old & O_NOATIME) == 0) {
    const Attributes attributes = TRY(GetAttributes());
    const CredentialsRef credentials = task.own_credentials_ref();
    if (attributes.uid != credentials->fsuid && !credentials->HasCapability(CAP_FOWNER))
      return Errno(EPERM);
  }
  set_flags((old & ~kSettableFlags) | (flags & kSettableFlags));
  return {};
}

std::shared_ptr<Inode> File::inode() const {
  return path_.dentry == nullptr ? nullptr : path_.dentry->inode();
}

Result<size_t> File::Read(Task&, IoBuffer&, uint64_t*) {
  const InodeRef node = inode();
  return Errno(node != nullptr && node->type() == S_IFDIR ? EISDIR : EINVAL);
}

Result<size_t> File::Write(Task&, IoBuffer&, uint64_t*) { return Errno(EINVAL); }

Result<uint64_t> File::Seek(Task&, uint64_t position, int64_t offset, int whence) {
  uint64_t from = 0;
  switch (whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR:
      from = position;
      break;
    case SEEK_END:
      from = TRY(GetAttributes()).size;
      break;
    case SEEK_DATA:
    case SEEK_HOLE: {
      // Without knowledge of holes: all is data, and there is a hole at the end.
      const uint64_t size = TRY(GetAttributes()).size;
      if (offset < 0 || static_cast<uint64_t>(offset) >= size) return Errno(ENXIO);
      return whence == SEEK_DATA ? static_cast<uint64_t>(offset) : size;
    }
    default:
      return Errno(EINVAL);
  }
  int64_t result = 0;
  if (__builtin_add_overflow(static_cast<int64_t>(from), offset, &result)) {
    return Errno(offset > 0 ? EOVERFLOW : EINVAL);
  }
  if (result < 0) return Errno(EINVAL);
  return static_cast<uint64_t>(result);
}

Result<void> File::ReadDirectory(Task&, uint64_t*, const DirectorySink&) { return Errno(ENOTDIR); }
Result<uint64_t> File::Ioctl(Task&, uint32_t, uint64_t) { return Errno(ENOTTY); }
Result<uint64_t> File::Fcntl(Task&, int command, uint64_t) {
  return Errno(command == F_SETPIPE_SZ || command == F_GETPIPE_SZ ? EBADF : EINVAL);
}
Result<void> File::Sync(bool) { return Errno(EINVAL); }

Result<void> File::Allocate(int, uint64_t, uint64_t) {
  const InodeRef node = inode();
  if (node == nullptr || node->type() == S_IFIFO) return Errno(ESPIPE);
  if (node->type() == S_IFDIR) return Errno(EISDIR);
  return Errno(node->type() == S_IFREG ? EOPNOTSUPP : ENODEV);
}

Result<void> File::Truncate(uint64_t) { return Errno(EINVAL); }
Result<void> File::ConfigureMmap(MmapRequest&) { return Errno(ENODEV); }
PollMask File::Poll(PollMask interest) { return interest & (kPollReadable | kPollWritable); }

Result<Attributes> File::GetAttributes() {
  if (path_.dentry == nullptr) {
    // It may have an inode all the same.
    const InodeRef node = inode();
    if (node == nullptr) return Errno(EBADF);
    return node->GetAttributes();
  }
  return path_.dentry->inode()->GetAttributes();
}

Result<void> File::SetAttributes(const AttributeChanges& changes) {
  const InodeRef node = inode();
  if (node == nullptr) return Errno(EPERM);
  return node->SetAttributes(changes);
}

Result<void> File::OnClose(Task&) { return {}; }
std::string File::DisplayName() const { return {}; }

}  // namespace sentry
