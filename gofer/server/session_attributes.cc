// Attributes, extended attributes and file-system figures of what fids stand for.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <limits>
#include <string>
#include <utility>

#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace gofer {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kPermissionBits = 07777;

Result<void> Check(int returned) {
  if (returned != 0) return base::LastErrno();
  return {};
}

// What utimensat(2) is to do with one of the two times.
timespec TimeArgument(uint32_t mask, uint32_t set, uint32_t now, const Timestamp& time) {
  if ((mask & now) != 0) return {0, UTIME_NOW};
  if ((mask & set) != 0) return {time.seconds, static_cast<long>(time.nanoseconds)};
  return {0, UTIME_OMIT};
}

// security.* and trusted.* mean something to the host: a guest that could set file capabilities
// would leave privileged programs behind in a volume.
bool MayWriteXattr(std::string_view name) {
  return name.starts_with("user.") || name == "system.posix_acl_access" ||
         name == "system.posix_acl_default";
}

Result<void> SetMode(int proc_self_fd, int path_fd, uint32_t mode) {
  // fchmod refuses O_PATH descriptors, and fchmodat2 is younger than the hosts we run on.
  char number[16];
  snprintf(number, sizeof(number), "%d", path_fd);
  return Check(fchmodat(proc_self_fd, number, mode & kPermissionBits, 0));
}

Result<void> SetSize(int proc_self_fd, int path_fd, uint64_t size) {
  if (size > static_cast<uint64_t>(std::numeric_limits<off_t>::max())) return Errno(EINVAL);
  const base::Fd file = TRY(host::Reopen(proc_self_fd, path_fd, O_WRONLY | O_NONBLOCK));
  return Check(ftruncate(file.get(), static_cast<off_t>(size)));
}

}  // namespace

Session::Body Session::Do(const GetAttrRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  return ResponseBody(TRY(host::Stat(node->path_fd.get())));
}

Session::Body Session::Do(const SetAttrRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  const uint32_t mask = request.mask;
  if ((mask & ~kSetAll) != 0) return Breach("a setattr with unknown bits");
  if (((mask & kSetMode) != 0 && (request.mode & ~kPermissionBits) != 0)) {
    return Breach("a setattr that would change the type of a file");
  }
  TRY(CheckWritable(*node));
  const int path_fd = node->path_fd.get();
  const int proc = options_.proc_self_fd.get();
  if ((mask & kSetSize) != 0) {
    if (node->type == S_IFDIR) return Errno(EISDIR);
    if (node->type != S_IFREG) return Errno(EINVAL);
    TRY(SetSize(proc, path_fd, request.size));
  }
  // Before the mode: a change of owner clears the set-id bits.
  if ((mask & (kSetUid | kSetGid)) != 0) {
    const uid_t uid = (mask & kSetUid) != 0 ? request.uid : static_cast<uid_t>(-1);
    const gid_t gid = (mask & kSetGid) != 0 ? request.gid : static_cast<gid_t>(-1);
    TRY(Check(fchownat(path_fd, "", uid, gid, AT_EMPTY_PATH)));
  }
  if ((mask & kSetMode) != 0) {
    if (node->type == S_IFLNK) return Errno(EOPNOTSUPP);
    TRY(SetMode(proc, path_fd, request.mode));
  }
  if ((mask & (kSetAtime | kSetAtimeNow | kSetMtime | kSetMtimeNow)) != 0) {
    const timespec times[2] = {TimeArgument(mask, kSetAtime, kSetAtimeNow, request.atime),
                               TimeArgument(mask, kSetMtime, kSetMtimeNow, request.mtime)};
    TRY(Check(utimensat(path_fd, "", times, AT_EMPTY_PATH)));
  }
  return ResponseBody(TRY(host::Stat(path_fd)));
}

Session::Body Session::Do(const StatFsRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  struct statfs in;
  if (fstatfs(node->path_fd.get(), &in) != 0) return base::LastErrno();
  StatFsReply out;
  out.type = static_cast<uint64_t>(in.f_type);
  out.block_size = static_cast<uint64_t>(in.f_bsize);
  out.blocks = in.f_blocks;
  out.blocks_free = in.f_bfree;
  out.blocks_available = in.f_bavail;
  out.files = in.f_files;
  out.files_free = in.f_ffree;
  out.name_bytes_max = static_cast<uint64_t>(in.f_namelen);
  out.fragment_size = static_cast<uint64_t>(in.f_frsize);
  out.flags = static_cast<uint64_t>(in.f_flags);
  static_assert(sizeof(in.f_fsid) == sizeof(out.fsid));
  std::memcpy(&out.fsid, &in.f_fsid, sizeof(out.fsid));
  return ResponseBody(out);
}

Session::Body Session::Do(const XattrRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  const bool lists = request.action == XattrAction::kList;
  if (!lists && (request.name.empty() || request.name.find('\0') != std::string_view::npos)) {
    return Breach("an xattr without a name");
  }
  if ((request.flags & ~static_cast<uint32_t>(XATTR_CREATE | XATTR_REPLACE)) != 0) {
    return Breach("an xattr request with unknown flags");
  }
  const bool writes = request.action == XattrAction::kSet || request.action == XattrAction::kRemove;
  if (writes) {
    TRY(CheckWritable(*node));
    if (!MayWriteXattr(request.name)) return Errno(EPERM);
  }
  // The calls on descriptors refuse O_PATH, and other types cannot be opened without side effects;
  // the user.* attributes exist on these two only.
  if (node->type != S_IFREG && node->type != S_IFDIR) {
    if (lists) return ResponseBody(std::string());
    return Errno(writes ? EPERM : ENODATA);
  }
  const base::Fd file =
      TRY(host::Reopen(options_.proc_self_fd.get(), node->path_fd.get(), O_RDONLY | O_NONBLOCK));
  const std::string name(request.name);
  switch (request.action) {
    case XattrAction::kSet:
      TRY(Check(fsetxattr(file.get(), name.c_str(), request.value.data(), request.value.size(),
                          static_cast<int>(request.flags))));
      return ResponseBody();
    case XattrAction::kRemove:
      TRY(Check(fremovexattr(file.get(), name.c_str())));
      return ResponseBody();
    case XattrAction::kGet:
    case XattrAction::kList:
      break;
  }
  std::string value(kXattrValueBytesMax, '\0');
  const ssize_t size = lists ? flistxattr(file.get(), value.data(), value.size())
                             : fgetxattr(file.get(), name.c_str(), value.data(), value.size());
  if (size < 0) return base::LastErrno();
  value.resize(static_cast<size_t>(size));
  return ResponseBody(std::move(value));
}

}  // namespace gofer
