// Making, linking, removing and renaming directory entries.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <string>
#include <utility>

#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace gofer {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kSetIdBits = S_ISUID | S_ISGID;
constexpr uint32_t kCreateFlags = O_ACCMODE | O_TRUNC | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC;

Result<void> Check(int returned) {
  if (returned != 0) return base::LastErrno();
  return {};
}

// The change has been made: that its outcome cannot be looked at is no reason to call it failed.
// The client asks again for what is missing.
Attributes StatOrNone(int path_fd) { return host::Stat(path_fd).value_or(Attributes{}); }

// Gives a new file its owner. A gofer without the capability keeps it as its own: EPERM is no
// error. Set-id bits, which a change of owner clears, come back.
Result<void> SetOwner(int proc_self_fd, int path_fd, const MakeRequest& request) {
  if (fchownat(path_fd, "", request.uid, request.gid, AT_EMPTY_PATH) != 0) {
    if (errno == EPERM) return {};
    return base::LastErrno();
  }
  if ((request.mode & kSetIdBits) == 0 || S_ISLNK(request.mode)) return {};
  char number[16];
  snprintf(number, sizeof(number), "%d", path_fd);
  return Check(fchmodat(proc_self_fd, number, request.mode & 07777, 0));
}

}  // namespace

// Owner, attributes and fid of what has just been made.
Result<Attributes> Session::Made(const Node& dir, const MakeRequest& request, base::Fd path_fd) {
  TRY(SetOwner(options_.proc_self_fd.get(), path_fd.get(), request));
  const Attributes attributes = TRY(host::Stat(path_fd.get()));
  // Somebody else has put something of another type there.
  if (((attributes.mode ^ request.mode) & S_IFMT) != 0) return Errno(ESTALE);
  if (request.fid != kNoFid) {
    Bind(request.fid, std::move(path_fd), attributes, dir.point, dir.is_closed);
  }
  return attributes;
}

Session::Body Session::Do(const MakeRequest& request, Outcome& outcome) {
  Node* dir = TRY(FindDirectory(request.dir));
  TRY(CheckName(request.name));
  const uint32_t type = request.mode & S_IFMT;
  if ((request.mode & ~static_cast<uint32_t>(S_IFMT | 07777)) != 0 ||
      (request.open && type != S_IFREG) || (type == S_IFLNK) == request.target.empty() ||
      request.target.find('\0') != std::string_view::npos) {
    return Breach("a make that contradicts itself");
  }
  if (request.open && ((request.open_flags & ~kCreateFlags) != 0 ||
                       (request.open_flags & O_ACCMODE) == O_ACCMODE)) {
    return Breach("a create with unknown flags");
  }
  TRY(CheckWritable(*dir));
  TRY(CheckNewFid(request.fid));
  const std::string name(request.name);
  const int dir_fd = dir->path_fd.get();
  const uint32_t permissions = request.mode & 07777;
  base::Fd file;
  switch (type) {
    case S_IFREG:
      // The host clears O_TRUNC's effect on a new file itself; O_NONBLOCK as in OpenNode.
      file = TRY(host::CreateExclusive(dir_fd, name, request.open_flags | O_NONBLOCK, permissions));
      break;
    case S_IFDIR:
      TRY(Check(mkdirat(dir_fd, name.c_str(), permissions)));
      break;
    case S_IFLNK:
      TRY(Check(symlinkat(std::string(request.target).c_str(), dir_fd, name.c_str())));
      break;
    case S_IFIFO:
    case S_IFSOCK:
      TRY(Check(mknodat(dir_fd, name.c_str(), request.mode, 0)));
      break;
    default:
      return Errno(EPERM);  // Devices.
  }
  Result<base::Fd> path_fd = file.valid()
                                 ? host::Reopen(options_.proc_self_fd.get(), file.get(), O_PATH)
                                 : host::OpenPath(dir_fd, name);
  Result<Attributes> attributes = path_fd.ok() ? Made(*dir, request, std::move(path_fd).value())
                                               : Result<Attributes>(path_fd.error());
  if (!attributes.ok()) {
    // Not half a file: the error stands, whether or not the name could be taken back.
    (void)unlinkat(dir_fd, name.c_str(), type == S_IFDIR ? AT_REMOVEDIR : 0);
    return attributes.error();
  }
  if (request.open) outcome.donated = std::move(file);
  return ResponseBody(ChangeReply{attributes.value(), StatOrNone(dir_fd), {}});
}

Session::Body Session::Do(const LinkRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  const Node* dir = TRY(FindDirectory(request.dir));
  TRY(CheckName(request.name));
  TRY(CheckWritable(*dir));
  if (node->point != dir->point) return Errno(EXDEV);
  // Through /proc/self/fd: AT_EMPTY_PATH would need CAP_DAC_READ_SEARCH. The magic link is
  // followed, a symbolic link that it stands for is not.
  char number[16];
  snprintf(number, sizeof(number), "%d", node->path_fd.get());
  TRY(Check(linkat(options_.proc_self_fd.get(), number, dir->path_fd.get(),
                   std::string(request.name).c_str(), AT_SYMLINK_FOLLOW)));
  return ResponseBody(
      ChangeReply{StatOrNone(node->path_fd.get()), StatOrNone(dir->path_fd.get()), {}});
}

Session::Body Session::Do(const UnlinkRequest& request, Outcome&) {
  const Node* dir = TRY(FindDirectory(request.dir));
  TRY(CheckName(request.name));
  if ((request.flags & ~static_cast<uint32_t>(AT_REMOVEDIR)) != 0) {
    return Breach("an unlink with unknown flags");
  }
  TRY(CheckWritable(*dir));
  TRY(Check(unlinkat(dir->path_fd.get(), std::string(request.name).c_str(),
                     static_cast<int>(request.flags))));
  return ResponseBody(ChangeReply{{}, StatOrNone(dir->path_fd.get()), {}});
}

Session::Body Session::Do(const RenameRequest& request, Outcome&) {
  const Node* old_dir = TRY(FindDirectory(request.old_dir));
  const Node* new_dir = TRY(FindDirectory(request.new_dir));
  TRY(CheckName(request.old_name));
  TRY(CheckName(request.new_name));
  // RENAME_WHITEOUT would make a device.
  if ((request.flags & ~static_cast<uint32_t>(RENAME_NOREPLACE | RENAME_EXCHANGE)) != 0) {
    return Breach("a rename with unknown flags");
  }
  TRY(CheckWritable(*old_dir));
  TRY(CheckWritable(*new_dir));
  if (old_dir->point != new_dir->point) return Errno(EXDEV);
  TRY(Check(renameat2(old_dir->path_fd.get(), std::string(request.old_name).c_str(),
                      new_dir->path_fd.get(), std::string(request.new_name).c_str(),
                      request.flags)));
  return ResponseBody(
      ChangeReply{{}, StatOrNone(old_dir->path_fd.get()), StatOrNone(new_dir->path_fd.get())});
}

}  // namespace gofer
