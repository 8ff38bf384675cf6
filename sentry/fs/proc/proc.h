#pragma once

// The proc file system (proc(5)): processes as directories, the kernel's state as text.

#include "sentry/vfs/file_system.h"

namespace sentry {

class Kernel;

// `kernel` outlives it.
FileSystemRef NewProc(Kernel& kernel);

}  // namespace sentry
