#pragma once

// What is in /dev: the nodes and links of a container's /dev, and the devices behind the numbers.
// The tree itself is any file system that can hold nodes (a tmpfs); numbers that are not known here
// cannot be opened (ENXIO), whoever made a node.

#include <memory>

#include "platform/base/result.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

class DevPts;
class Terminal;

// Fills an empty directory: null, zero, full, random, urandom, tty, ptmx, fd, stdin, stdout,
// stderr, and the empty directories pts, shm and mqueue to mount on. `with_console` adds the node
// "console".
base::Result<void> PopulateDev(Inode& root, bool with_console);

// For Vfs::SetCharacterDeviceOpener. `console` may be null: then the node
// "console" gives ENXIO.
Vfs::DeviceOpener NewDeviceOpener(std::shared_ptr<DevPts> dev_pts,
                                  std::shared_ptr<Terminal> console);

}  // namespace sentry
