#pragma once

// The host file system, one step at a time.
//
// How a step is confined: every name is a single component (IsComponent), resolved by openat2(2)
// below a descriptor with RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS and RESOLVE_NO_SYMLINKS. A
// symbolic link is opened as itself (O_PATH | O_NOFOLLOW) and never followed; "..", which alone
// could leave a tree, never reaches the kernel.
//
// How a file is opened for use: its O_PATH descriptor names an inode that has been looked at, so
// the open goes through that descriptor, as <number> in /proc/self/fd, a directory that was opened
// before the process lost sight of /proc (ProcSelfFd). There is no second look-up by name that
// somebody could race.

#include <sys/stat.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "gofer/protocol/messages.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer::host {

// /proc/self/fd for this process, to be called by the process that will use it, before its filter.
// Where the process may (CAP_SYS_ADMIN), the directory is cut out of /proc, so that not even ".."
// leads from it to the rest.
absl::StatusOr<base::Fd> OpenProcSelfFd();

// Opens the directory that `path_fd` stands for.
base::Result<base::Fd> OpenDirectory(int path_fd);
// Opens the directory at `path` below `dir`: components joined by slashes, each of them
// IsComponent. EXDEV if a mount is in the way.
base::Result<base::Fd> OpenDirectoryBelow(int dir, const std::string& path);
// True for what the host's kernel shows of itself there (/proc, /sys and what is mounted in them).
bool IsOfHostKernel(int path_fd);

// Precondition for all: IsComponent(name).
// An O_PATH descriptor of `name` in `dir`, whatever it is.
base::Result<base::Fd> OpenPath(int dir, std::string_view name);
// Makes and opens a regular file. EEXIST if the name is taken.
base::Result<base::Fd> CreateExclusive(int dir, std::string_view name, uint32_t flags,
                                       uint32_t mode);

// Opens what the O_PATH descriptor `path_fd` stands for. Precondition: it is a regular file or a
// directory, or the flags are O_PATH, or it is a FIFO and the flags have O_NONBLOCK.
base::Result<base::Fd> Reopen(int proc_self_fd, int path_fd, uint32_t flags);

// Of an O_PATH descriptor itself, or of `name` in it.
base::Result<Attributes> Stat(int path_fd);
base::Result<Attributes> StatAt(int dir, const char* name);
base::Result<std::string> ReadLink(int path_fd);

}  // namespace gofer::host
