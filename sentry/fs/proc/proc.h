#pragma once

// The proc file system (proc(5)): processes as directories, the kernel's state as text.

#include <memory>

#include "sentry/vfs/file_system.h"

namespace sentry {

class File;
class Kernel;
class Task;

// `kernel` outlives it.
FileSystemRef NewProc(Kernel& kernel);

// The task whose directory below /proc `file` is, which serves as a pidfd (pidfd_send_signal(2)).
// Null if it is none, or gone.
std::shared_ptr<Task> TaskOfProcDirectory(const File& file);

}  // namespace sentry
