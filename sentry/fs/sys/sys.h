#pragma once

// The sysfs that a container sees (sysfs(5)): processors, one memory node, the loopback interface;
// no block devices.

#include "sentry/vfs/file_system.h"

namespace sentry {

class Kernel;

// `kernel` outlives it.
FileSystemRef NewSys(Kernel& kernel);

}  // namespace sentry
