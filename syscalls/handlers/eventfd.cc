#include "syscalls/handlers/eventfd.h"

#include <fcntl.h>
#include <sys/eventfd.h>

#include <cerrno>
#include <memory>

#include "sentry/fs/anon/eventfd.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using sentry::Task;

Result<int32_t> Eventfd2(Task& task, uint32_t initial, int32_t flags) {
  if ((flags & ~(EFD_CLOEXEC | EFD_NONBLOCK | EFD_SEMAPHORE)) != 0) return Errno(EINVAL);
  auto file = std::make_shared<sentry::EventFile>(task, initial, (flags & EFD_SEMAPHORE) != 0,
                                                  static_cast<uint32_t>(flags & O_NONBLOCK));
  return task.InstallFile(std::move(file), (flags & EFD_CLOEXEC) != 0);
}

Result<int32_t> Eventfd(Task& task, uint32_t initial) { return Eventfd2(task, initial, 0); }

}  // namespace syscalls
