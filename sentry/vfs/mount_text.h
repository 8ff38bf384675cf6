#pragma once

// Mounts as /proc/PID/mountinfo and statmount(2) write them.

#include <string>
#include <string_view>

#include "sentry/vfs/mount.h"

namespace sentry {

// Escapes as Linux does in mount tables.
std::string EscapeMountText(std::string_view text);
// The part of the file system that it shows.
std::string RootOfMountText(const Mount& mount);
// "rw,nosuid,relatime" of the mount, "rw,size=4k" of the file system, and both in one.
std::string MountOptionsText(const Mount& mount);
std::string SuperOptionsText(const FileSystem& file_system);
std::string AllOptionsText(const Mount& mount);

}  // namespace sentry
