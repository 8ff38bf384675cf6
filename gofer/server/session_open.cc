// Opening what fids stand for, and donating it.
//
// A single thread serves the sandbox, so no open may wait: regular files do not, and nothing else
// is opened unless the attach point says so (FIFOs without blocking, sockets by a connect without
// blocking).

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <utility>

#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace gofer {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kOpenFlags = O_ACCMODE | O_TRUNC | O_DIRECT | O_NOATIME | O_SYNC | O_DSYNC;

}  // namespace

Result<base::Fd> Session::OpenNode(const Node& node, uint32_t flags) {
  if ((flags & ~kOpenFlags) != 0 || (flags & O_ACCMODE) == O_ACCMODE) {
    return Breach("an open with unknown flags");
  }
  switch (node.type) {
    case S_IFREG:
      break;
    case S_IFDIR:
      return Errno(EISDIR);
    case S_IFLNK:
      return Errno(ELOOP);
    case S_IFIFO:
      if (!node.point->allow_fifos) return Errno(ENXIO);
      break;
    case S_IFSOCK:
      return Errno(ENXIO);
    default:
      return Errno(EACCES);  // As on a mount with nodev.
  }
  const bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC) != 0;
  // A FIFO on a read-only file system may be written to.
  if (writes && node.type == S_IFREG) TRY(CheckWritable(node));
  return host::Reopen(options_.proc_self_fd.get(), node.path_fd.get(), flags | O_NONBLOCK);
}

Session::Body Session::Do(const OpenRequest& request, Outcome& outcome) {
  const Node* node = TRY(Find(request.fid));
  outcome.donated = TRY(OpenNode(*node, request.flags));
  return ResponseBody();
}

Session::Body Session::Do(const ReadLinkRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  if (node->type != S_IFLNK) return Errno(EINVAL);
  return ResponseBody(TRY(host::ReadLink(node->path_fd.get())));
}

Session::Body Session::Do(const FsyncRequest& request, Outcome&) {
  const Node* node = TRY(Find(request.fid));
  // Nothing else holds data on the host, or is opened without side effects.
  if (node->type != S_IFREG && node->type != S_IFDIR) return ResponseBody();
  const base::Fd file =
      TRY(host::Reopen(options_.proc_self_fd.get(), node->path_fd.get(), O_RDONLY | O_NONBLOCK));
  int failed = 0;
  switch (request.scope) {
    case SyncScope::kFile:
      failed = fsync(file.get());
      break;
    case SyncScope::kData:
      failed = fdatasync(file.get());
      break;
    case SyncScope::kFileSystem:
      failed = syncfs(file.get());
      break;
  }
  if (failed != 0) return base::LastErrno();
  return ResponseBody();
}

Session::Body Session::Do(const ConnectRequest& request, Outcome& outcome) {
  const Node* node = TRY(Find(request.fid));
  if (request.type != SOCK_STREAM && request.type != SOCK_DGRAM && request.type != SOCK_SEQPACKET) {
    return Breach("a connect with an unknown socket type");
  }
  if (node->type != S_IFSOCK || !node->point->allow_connect) return Errno(ECONNREFUSED);
  base::Fd socket(
      ::socket(AF_UNIX, static_cast<int>(request.type) | SOCK_NONBLOCK | SOCK_CLOEXEC, 0));
  if (!socket) return base::LastErrno();
  // connect(2) takes no directory descriptor: the path is relative to the working directory, which
  // nothing else here uses.
  if (fchdir(options_.proc_self_fd.get()) != 0) return base::LastErrno();
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  snprintf(address.sun_path, sizeof(address.sun_path), "%d", node->path_fd.get());
  if (connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0) {
    return base::LastErrno();
  }
  outcome.donated = std::move(socket);
  return ResponseBody();
}

}  // namespace gofer
