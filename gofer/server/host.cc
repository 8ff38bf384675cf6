#include "gofer/server/host.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>

#include "absl/status/status.h"

namespace gofer::host {
namespace {

using base::Errno;
using base::Result;

constexpr uint64_t kConfined = RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS | RESOLVE_NO_SYMLINKS;

Result<base::Fd> OpenAt2(int dir, const char* name, uint64_t flags, uint64_t mode,
                         uint64_t resolve) {
  open_how how = {};
  how.flags = flags | O_CLOEXEC;
  how.mode = mode;
  how.resolve = resolve;
  // RESOLVE_BENEATH may ask for another try when somebody renames directories meanwhile.
  constexpr int kTriesMax = 64;
  for (int i = 0; i < kTriesMax; ++i) {
    const long fd = syscall(SYS_openat2, dir, name, &how, sizeof(how));
    if (fd >= 0) return base::Fd(static_cast<int>(fd));
    if (errno != EAGAIN || resolve == 0) return base::LastErrno();
  }
  return Errno(EAGAIN);
}

// Names come as views; the kernel wants a NUL.
class CName {
 public:
  explicit CName(std::string_view name) {
    CHECK(name.size() < text_.size());
    name.copy(text_.data(), name.size());
    text_[name.size()] = '\0';
  }
  const char* get() const { return text_.data(); }

 private:
  std::array<char, kNameBytesMax + 1> text_;
};

Timestamp FromStatx(const statx_timestamp& in) { return {in.tv_sec, in.tv_nsec}; }

Result<Attributes> Statx(int dir, const char* name, int flags) {
  struct statx in;
  if (statx(dir, name, flags | AT_NO_AUTOMOUNT, STATX_BASIC_STATS | STATX_BTIME, &in) != 0) {
    return base::LastErrno();
  }
  Attributes out;
  out.dev = makedev(in.stx_dev_major, in.stx_dev_minor);
  out.ino = in.stx_ino;
  out.rdev = makedev(in.stx_rdev_major, in.stx_rdev_minor);
  out.size = in.stx_size;
  out.blocks = in.stx_blocks;
  out.mode = in.stx_mode;
  out.nlink = in.stx_nlink;
  out.uid = in.stx_uid;
  out.gid = in.stx_gid;
  out.blksize = in.stx_blksize;
  out.atime = FromStatx(in.stx_atime);
  out.mtime = FromStatx(in.stx_mtime);
  out.ctime = FromStatx(in.stx_ctime);
  if ((in.stx_mask & STATX_BTIME) != 0) out.btime = FromStatx(in.stx_btime);
  return out;
}

}  // namespace

absl::StatusOr<base::Fd> OpenProcSelfFd() {
  const long cut =
      syscall(SYS_open_tree, AT_FDCWD, "/proc/self/fd", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
  if (cut >= 0) return base::Fd(static_cast<int>(cut));
  base::Fd plain(open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC));
  if (!plain) return absl::ErrnoToStatus(errno, "the gofer needs /proc: open of /proc/self/fd");
  return plain;
}

Result<base::Fd> OpenDirectory(int path_fd) {
  return OpenAt2(path_fd, ".", O_RDONLY | O_DIRECTORY, 0, kConfined);
}

Result<base::Fd> OpenDirectoryBelow(int dir, const std::string& path) {
  return OpenAt2(dir, path.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW, 0,
                 kConfined | RESOLVE_NO_XDEV);
}

bool IsOfHostKernel(int path_fd) {
  struct statfs status;
  if (fstatfs(path_fd, &status) != 0) return true;
  switch (static_cast<uint64_t>(status.f_type)) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
    case CGROUP_SUPER_MAGIC:
    case CGROUP2_SUPER_MAGIC:
    case DEBUGFS_MAGIC:
    case TRACEFS_MAGIC:
    case SECURITYFS_MAGIC:
    case SELINUX_MAGIC:
    case BPF_FS_MAGIC:
    case PSTOREFS_MAGIC:
    case EFIVARFS_MAGIC:
    case BINFMTFS_MAGIC:
      return true;
    default:
      return false;
  }
}

Result<base::Fd> OpenPath(int dir, std::string_view name) {
  return OpenAt2(dir, CName(name).get(), O_PATH | O_NOFOLLOW, 0, kConfined);
}

Result<base::Fd> CreateExclusive(int dir, std::string_view name, uint32_t flags, uint32_t mode) {
  return OpenAt2(dir, CName(name).get(), flags | O_CREAT | O_EXCL | O_NOFOLLOW | O_NOCTTY, mode,
                 kConfined);
}

Result<base::Fd> Reopen(int proc_self_fd, int path_fd, uint32_t flags) {
  char number[16];
  snprintf(number, sizeof(number), "%d", path_fd);
  // O_PATH goes with nothing else.
  const uint32_t no_side_effects = (flags & O_PATH) == 0 ? O_NOCTTY : 0;
  return OpenAt2(proc_self_fd, number, flags | no_side_effects, 0, 0);
}

Result<Attributes> Stat(int path_fd) { return Statx(path_fd, "", AT_EMPTY_PATH); }

Result<Attributes> StatAt(int dir, const char* name) {
  return Statx(dir, name, AT_SYMLINK_NOFOLLOW);
}

Result<std::string> ReadLink(int path_fd) {
  std::array<char, kLinkBytesMax + 1> target;
  const ssize_t length = readlinkat(path_fd, "", target.data(), target.size());
  // Linux says ENOENT here for "not a link", EINVAL for a path.
  if (length < 0) return errno == ENOENT ? Errno(EINVAL) : base::LastErrno();
  if (static_cast<size_t>(length) > kLinkBytesMax) return Errno(ENAMETOOLONG);
  return std::string(target.data(), static_cast<size_t>(length));
}

}  // namespace gofer::host
