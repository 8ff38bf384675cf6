#include <asm/ioctls.h>
#include <fcntl.h>
#include <linux/capability.h>

#include <algorithm>
#include <cerrno>
#include <memory>
#include <utility>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/fs/pipe/pipe.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/inode_attachments.h"

namespace sentry {

using base::Errno;
using base::Result;

PipeFile::PipeFile(std::shared_ptr<Pipe> pipe, Path path, uint32_t flags,
                   CredentialsRef credentials, bool is_fifo)
    : File(std::move(path), flags, std::move(credentials)),
      pipe_(std::move(pipe)),
      is_fifo_(is_fifo) {
  pipe_->Open(readable(), writable());
}

PipeFile::~PipeFile() { pipe_->Close(readable(), writable()); }

Result<size_t> PipeFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)task, (void)offset;
  return pipe_->Read(to);
}

Result<size_t> PipeFile::Write(Task& task, IoBuffer& from, uint64_t* offset) {
  (void)offset;
  const Result<size_t> written = pipe_->Write(from, (flags() & O_DIRECT) != 0, nonblocking());
  if (!written.ok() && written.error() == EPIPE) {
    // A reader that leaves in the middle of a long write makes it a short one, but the signal comes
    // all the same.
    TRY(task.SendSignal(
        SignalInfo::FromUser(SIGPIPE, task.group().id(), task.own_credentials().uid)));
    if (from.done() > 0) return size_t{0};
  }
  return written;
}

Result<uint64_t> PipeFile::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  if (command != FIONREAD) return Errno(ENOTTY);
  const auto bytes = static_cast<int32_t>(std::min<size_t>(pipe_->bytes(), INT32_MAX));
  TRY(task.CopyOut(base::UserOut<int32_t>(base::UserAddr(argument)), bytes));
  return uint64_t{0};
}

Result<uint64_t> PipeFile::Fcntl(Task& task, int command, uint64_t argument) {
  switch (command) {
    case F_GETPIPE_SZ:
      return pipe_->capacity_bytes();
    case F_SETPIPE_SZ:
      return TRY(pipe_->SetCapacity(static_cast<uint32_t>(argument),
                                    task.own_credentials().HasCapability(CAP_SYS_RESOURCE)));
    default:
      return Errno(EINVAL);
  }
}

PollMask PipeFile::Poll(PollMask interest) {
  (void)interest;
  return pipe_->Poll(readable(), writable(), writers_ever_at_open_);
}

PipeEnds MakePipe(Task& task, uint32_t flags) {
  auto pipe = std::make_shared<Pipe>();
  const CredentialsRef credentials = task.own_credentials_ref();
  const Path path = task.kernel().anonymous_files().MakePipePath(pipe, *credentials);
  PipeEnds ends;
  ends.reader =
      std::make_shared<PipeFile>(pipe, path, O_RDONLY | flags, credentials, /*is_fifo=*/false);
  ends.writer =
      std::make_shared<PipeFile>(pipe, path, O_WRONLY | flags, credentials, /*is_fifo=*/false);
  return ends;
}

namespace {

// The pipe behind a FIFO's inode, made by its first open.
std::shared_ptr<Pipe> PipeOf(Inode& inode) {
  Inode::Attachments& attachments = inode.attachments();
  const absl::MutexLock lock(&attachments.mu);
  if (attachments.fifo == nullptr) attachments.fifo = std::make_shared<Pipe>();
  return std::static_pointer_cast<Pipe>(attachments.fifo);
}

Result<void> WaitUntil(Task& task, Pipe& pipe, const std::function<bool()>& condition) {
  TaskWaiter waiter(task);
  task.ClearWake();
  pipe.queue().Add(waiter, kPollReadable | kPollWritable);
  Result<void> slept;
  while (slept.ok() && !condition()) slept = task.Block(Deadline::Never());
  pipe.queue().Remove(waiter);
  return slept;
}

}  // namespace

Result<FileRef> OpenFifo(Task& task, const Path& path, uint32_t flags) {
  Inode& inode = *path.dentry->inode();
  std::shared_ptr<Pipe> pipe = PipeOf(inode);
  // Opening pipe(2)'s own by /proc/PID/fd/N waits for nobody (fifo_open in fs/pipe.c).
  const bool is_fifo = inode.file_system().type_name() != "pipefs";
  const bool reads = (flags & O_ACCMODE) != O_WRONLY;
  const bool writes = (flags & O_ACCMODE) != O_RDONLY;
  const bool nonblocking = (flags & O_NONBLOCK) != 0;
  // Looked at before this end exists: an end that opens later sees this one, and may be gone again
  // before we look.
  const Pipe::Ends before = pipe->ends();
  if (is_fifo && !reads && nonblocking && before.readers == 0) return Errno(ENXIO);

  auto file = std::make_shared<PipeFile>(pipe, path, flags, task.own_credentials_ref(), is_fifo);
  if (!is_fifo) return FileRef(std::move(file));
  if (reads && !writes && before.writers == 0) {
    if (nonblocking) {
      file->set_writers_ever_at_open(before.writers_ever);
    } else {
      TRY(WaitUntil(task, *pipe, [&] { return pipe->ends().writers_ever != before.writers_ever; }));
    }
  }
  if (writes && !reads && before.readers == 0) {
    TRY(WaitUntil(task, *pipe, [&] { return pipe->ends().readers_ever != before.readers_ever; }));
  }
  return FileRef(std::move(file));
}

}  // namespace sentry
