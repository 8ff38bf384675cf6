#pragma once

// Descriptors of the host that the launcher hands over at start-up, mostly stdin, stdout and
// stderr: pipes, files, terminals, sockets, /dev/null.
//
// Other processes share their open file descriptions, so O_NONBLOCK must not be set on them, and
// the position of a regular file is moved for everybody, as it would be natively. To never sleep in
// the host all the same, a read or write first asks with RWF_NOWAIT (or MSG_DONTWAIT), and where
// the host's file knows no such thing, polls and then moves a piece small enough to go through at
// once. Left out: memory mappings, terminal settings (a guest with a console of its own gets a pty,
// see sentry/tty).

#include <cstdint>

#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

class Kernel;

struct HostFileOwner {
  uint32_t uid = 0;
  uint32_t gid = 0;
};

// The inodes of host descriptors belong to it.
class HostFileSystem;
std::shared_ptr<HostFileSystem> NewHostFileSystem(Kernel& kernel);

// Takes the descriptor over. `owner` is who the guest sees as the file's owner: the user of the
// container's first process, which has to be able to open /dev/stdout again. Errors are fstat's and
// fcntl's.
base::Result<FileRef> NewHostFile(Kernel& kernel,
                                  const std::shared_ptr<HostFileSystem>& file_system,
                                  base::Fd host_fd, const HostFileOwner& owner);

}  // namespace sentry
