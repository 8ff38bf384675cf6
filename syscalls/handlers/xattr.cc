#include "syscalls/handlers/xattr.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/limits.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <span>
#include <string>
#include <vector>

#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::Inode;
using sentry::Path;
using sentry::Task;

namespace {

Result<std::string> CopyInName(Task& task, UserAddr addr) {
  Result<std::string> name = task.memory().CopyInString(addr, XATTR_NAME_MAX + 1);
  if (!name.ok()) return name.error() == ENAMETOOLONG ? Errno(ERANGE) : name.error();
  if (name.value().empty()) return Errno(ERANGE);
  return name;
}

// xattr_permission, and what the capability module adds for security.* (xattr(7)).
Result<void> MayAccess(Task& task, const Path& path, std::string_view name, bool write) {
  const sentry::Credentials& who = task.own_credentials();
  Inode& inode = *path.dentry->inode();
  if (write && path.mount->read_only()) return Errno(EROFS);
  if (name.starts_with("security.")) {
    if (!write) return {};
    const int needed = name == "security.capability" ? CAP_SETFCAP : CAP_SYS_ADMIN;
    return who.HasCapability(needed) ? Result<void>() : Errno(EPERM);
  }
  if (name.starts_with("system.")) return {};
  if (name.starts_with("trusted.")) {
    if (who.HasCapability(CAP_SYS_ADMIN)) return {};
    return Errno(write ? EPERM : ENODATA);
  }
  if (name.starts_with("user.")) {
    if (inode.type() != S_IFREG && inode.type() != S_IFDIR) return Errno(write ? EPERM : ENODATA);
    if (write && inode.type() == S_IFDIR) {
      const sentry::Attributes attributes = TRY(inode.GetAttributes());
      if ((attributes.mode & S_ISVTX) != 0 && attributes.uid != who.fsuid &&
          !who.HasCapabilityOver(attributes.uid, attributes.gid, CAP_FOWNER)) {
        return Errno(EPERM);
      }
    }
  }
  return inode.CheckPermission(who, write ? W_OK : R_OK);
}

Result<Path> PathOf(Task& task, UserAddr path_addr, bool follow) {
  const std::string path = TRY(CopyInPath(task, path_addr));
  return WalkAt(task, AT_FDCWD, path, follow ? 0 : AT_SYMLINK_NOFOLLOW);
}

Result<Path> PathOf(Task& task, int32_t fd) {
  const sentry::FileRef file = TRY(task.fds().GetForIo(fd));
  if (file->path().dentry == nullptr) return Errno(EOPNOTSUPP);
  return file->path();
}

Result<void> Set(Task& task, Result<Path> where, UserAddr name_addr, UserAddr value, uint64_t size,
                 int32_t flags) {
  const Path path = TRY(std::move(where));
  if ((flags & ~(XATTR_CREATE | XATTR_REPLACE)) != 0) return Errno(EINVAL);
  const std::string name = TRY(CopyInName(task, name_addr));
  if (size > XATTR_SIZE_MAX) return Errno(E2BIG);
  std::vector<std::byte> content(size);
  TRY(task.memory().CopyInExactly(value, content));
  TRY(MayAccess(task, path, name, true));
  TRY(path.dentry->inode()->SetXattr(name, content, flags));
  NotifyPath(path, IN_ATTRIB);
  return {};
}

Result<uint64_t> CopyOutSized(Task& task, UserAddr to, uint64_t size, std::string_view text) {
  if (size == 0) return uint64_t{text.size()};
  if (text.size() > size) return Errno(ERANGE);
  TRY(task.memory().CopyOutExactly(to, std::as_bytes(std::span(text.data(), text.size()))));
  return uint64_t{text.size()};
}

Result<uint64_t> Get(Task& task, Result<Path> where, UserAddr name_addr, UserAddr value,
                     uint64_t size) {
  const Path path = TRY(std::move(where));
  const std::string name = TRY(CopyInName(task, name_addr));
  TRY(MayAccess(task, path, name, false));
  return CopyOutSized(task, value, size, TRY(path.dentry->inode()->GetXattr(name)));
}

Result<uint64_t> List(Task& task, Result<Path> where, UserAddr list, uint64_t size) {
  const Path path = TRY(std::move(where));
  const bool sees_trusted = task.own_credentials().HasCapability(CAP_SYS_ADMIN);
  std::string text;
  for (const std::string& name : TRY(path.dentry->inode()->ListXattr())) {
    if (!sees_trusted && name.starts_with("trusted.")) continue;
    text.append(name.c_str(), name.size() + 1);
  }
  if (text.size() > XATTR_LIST_MAX) return Errno(E2BIG);
  return CopyOutSized(task, list, size, text);
}

Result<void> Remove(Task& task, Result<Path> where, UserAddr name_addr) {
  const Path path = TRY(std::move(where));
  const std::string name = TRY(CopyInName(task, name_addr));
  TRY(MayAccess(task, path, name, true));
  TRY(path.dentry->inode()->RemoveXattr(name));
  NotifyPath(path, IN_ATTRIB);
  return {};
}

}  // namespace

Result<void> Setxattr(Task& task, UserAddr path, UserAddr name, UserAddr value, uint64_t size,
                      int32_t flags) {
  return Set(task, PathOf(task, path, true), name, value, size, flags);
}
Result<void> Lsetxattr(Task& task, UserAddr path, UserAddr name, UserAddr value, uint64_t size,
                       int32_t flags) {
  return Set(task, PathOf(task, path, false), name, value, size, flags);
}
Result<void> Fsetxattr(Task& task, int32_t fd, UserAddr name, UserAddr value, uint64_t size,
                       int32_t flags) {
  return Set(task, PathOf(task, fd), name, value, size, flags);
}

Result<uint64_t> Getxattr(Task& task, UserAddr path, UserAddr name, UserAddr value, uint64_t size) {
  return Get(task, PathOf(task, path, true), name, value, size);
}
Result<uint64_t> Lgetxattr(Task& task, UserAddr path, UserAddr name, UserAddr value,
                           uint64_t size) {
  return Get(task, PathOf(task, path, false), name, value, size);
}
Result<uint64_t> Fgetxattr(Task& task, int32_t fd, UserAddr name, UserAddr value, uint64_t size) {
  return Get(task, PathOf(task, fd), name, value, size);
}

Result<uint64_t> Listxattr(Task& task, UserAddr path, UserAddr list, uint64_t size) {
  return List(task, PathOf(task, path, true), list, size);
}
Result<uint64_t> Llistxattr(Task& task, UserAddr path, UserAddr list, uint64_t size) {
  return List(task, PathOf(task, path, false), list, size);
}
Result<uint64_t> Flistxattr(Task& task, int32_t fd, UserAddr list, uint64_t size) {
  return List(task, PathOf(task, fd), list, size);
}

Result<void> Removexattr(Task& task, UserAddr path, UserAddr name) {
  return Remove(task, PathOf(task, path, true), name);
}
Result<void> Lremovexattr(Task& task, UserAddr path, UserAddr name) {
  return Remove(task, PathOf(task, path, false), name);
}
Result<void> Fremovexattr(Task& task, int32_t fd, UserAddr name) {
  return Remove(task, PathOf(task, fd), name);
}

}  // namespace syscalls
