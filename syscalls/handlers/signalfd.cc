#include "syscalls/handlers/signalfd.h"

#include <fcntl.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <memory>

#include "sentry/fs/anon/signalfd.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserIn;
using sentry::Task;

Result<int32_t> Signalfd4(Task& task, int32_t fd, UserIn<uint64_t> mask, uint64_t mask_bytes,
                          int32_t flags) {
  if (mask_bytes != sizeof(uint64_t)) return Errno(EINVAL);
  const uint64_t signals = TRY(task.CopyIn(mask));
  if ((flags & ~(SFD_CLOEXEC | SFD_NONBLOCK)) != 0) return Errno(EINVAL);
  if (fd == -1) {
    auto file = std::make_shared<sentry::SignalFile>(task, signals,
                                                     static_cast<uint32_t>(flags & O_NONBLOCK));
    return task.InstallFile(std::move(file), (flags & SFD_CLOEXEC) != 0);
  }
  const auto file = std::dynamic_pointer_cast<sentry::SignalFile>(TRY(task.fds().GetForIo(fd)));
  if (file == nullptr) return Errno(EINVAL);
  file->set_mask(signals);
  return fd;
}

Result<int32_t> Signalfd(Task& task, int32_t fd, UserIn<uint64_t> mask, uint64_t mask_bytes) {
  return Signalfd4(task, fd, mask, mask_bytes, 0);
}

}  // namespace syscalls
