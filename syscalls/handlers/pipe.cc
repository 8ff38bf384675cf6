#include "syscalls/handlers/pipe.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

#include "sentry/fs/pipe/pipe.h"
#include "sentry/kernel/task.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserOut;
using sentry::Task;

namespace {
constexpr int32_t kNotificationPipe = O_EXCL;
}

// pipe2(2). The guest learns the two numbers before either descriptor exists, so a fault on
// `out_fds` leaves nothing behind: dropping an unfilled FdSlot returns its number to the table.
Result<void> Pipe2(Task& task, UserOut<std::array<int32_t, 2>> out_fds, int32_t flags) {
  constexpr int32_t kKnownFlags = O_CLOEXEC | O_NONBLOCK | O_DIRECT;
  if ((flags & ~(kKnownFlags | kNotificationPipe)) != 0) return Errno(EINVAL);
  if ((flags & kNotificationPipe) != 0) return Errno(ENOPKG);  // As without WATCH_QUEUE.
  const bool close_on_exec = (flags & O_CLOEXEC) != 0;

  sentry::FdSlot read_slot = TRY(task.fds().Reserve(close_on_exec, task.fd_limit()));
  sentry::FdSlot write_slot = TRY(task.fds().Reserve(close_on_exec, task.fd_limit()));
  sentry::PipeEnds pipe =
      sentry::MakePipe(task, static_cast<uint32_t>(flags & (O_NONBLOCK | O_DIRECT)));

  TRY(task.CopyOut(out_fds, std::array<int32_t, 2>{read_slot.number(), write_slot.number()}));

  std::move(read_slot).Fill(std::move(pipe.reader));
  std::move(write_slot).Fill(std::move(pipe.writer));
  return {};
}

Result<void> Pipe(Task& task, UserOut<std::array<int32_t, 2>> out_fds) {
  return Pipe2(task, out_fds, 0);
}

}  // namespace syscalls
