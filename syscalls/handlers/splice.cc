// splice(2), tee(2), vmsplice(2): moving bytes into and out of pipes. Pages between two pipes
// change hands; everything else is copied once, under the pipe's lock.

#include "syscalls/handlers/splice.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <memory>
#include <optional>
#include <vector>

#include "sentry/fs/pipe/pipe.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/file.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserInOut;
using sentry::File;
using sentry::FileRef;
using sentry::IoBuffer;
using sentry::Pipe;
using sentry::PipeFile;
using sentry::Task;

namespace {

constexpr uint32_t kKnownFlags = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;
constexpr uint64_t kLengthMax = 0x7ffff000;  // MAX_RW_COUNT

std::shared_ptr<PipeFile> AsPipe(const FileRef& file) {
  return std::dynamic_pointer_cast<PipeFile>(file);
}

bool NonBlocking(const File& file, uint32_t flags) {
  return file.nonblocking() || (flags & SPLICE_F_NONBLOCK) != 0;
}

// Sends SIGPIPE along with EPIPE, as writing to the pipe does.
Result<size_t> WithSigpipe(Task& task, Result<size_t> result) {
  if (!result.ok() && result.error() == EPIPE) {
    TRY(task.SendSignal(
        sentry::SignalInfo::FromUser(SIGPIPE, task.group().id(), task.own_credentials().uid)));
  }
  return result;
}

Result<uint64_t> MoveBetweenPipes(Task& task, PipeFile& in, PipeFile& out, uint64_t length,
                                  uint32_t flags, bool keep) {
  if (in.pipe() == out.pipe()) return Errno(EINVAL);
  const bool nonblocking = NonBlocking(in, flags) || NonBlocking(out, flags);
  bool from_empty = false;
  const auto attempt = [&] {
    return Pipe::Move(*in.pipe(), *out.pipe(), length, keep, &from_empty);
  };
  Result<size_t> moved = attempt();
  // Waits for the one that holds it up, then looks at both again.
  while (!moved.ok() && moved.error() == EAGAIN && !nonblocking) {
    PipeFile& blocker = from_empty ? in : out;
    const bool waits_for_data = from_empty;
    moved = sentry::RetryUntilReady(
        task, blocker.wait_queue(), waits_for_data ? sentry::kPollReadable : sentry::kPollWritable,
        /*nonblocking=*/false, sentry::Deadline::Never(), [&]() -> Result<size_t> {
          Result<size_t> result = attempt();
          // The other side holds it up now: leave this wait for that one.
          if (!result.ok() && result.error() == EAGAIN && from_empty != waits_for_data)
            return size_t{0};
          return result;
        });
    if (moved.ok() && moved.value() == 0 && from_empty != waits_for_data) moved = Errno(EAGAIN);
  }
  return TRY(WithSigpipe(task, moved));
}

// The position to use on the side that is not a pipe: the caller's, or the file's own.
class SplicePosition {
 public:
  static Result<SplicePosition> Make(Task& task, File& file, UserInOut<int64_t> pointer) {
    SplicePosition position;
    if (pointer.is_null()) return position;
    if (!file.seekable()) return Errno(EINVAL);
    const int64_t value = TRY(task.CopyIn(pointer));
    if (value < 0) return Errno(EINVAL);
    position.explicit_ = static_cast<uint64_t>(value);
    return position;
  }
  // Runs `operation` with the position.
  template <typename Operation>
  Result<size_t> Use(File& file, Operation&& operation) {
    if (explicit_.has_value()) return operation(&*explicit_);
    if (!file.seekable()) return operation(nullptr);
    const absl::MutexLock lock(&file.position_mutex());
    return operation(&file.position());
  }
  Result<void> Report(Task& task, UserInOut<int64_t> pointer) const {
    if (!explicit_.has_value()) return {};
    return task.CopyOut(pointer, static_cast<int64_t>(*explicit_));
  }

 private:
  std::optional<uint64_t> explicit_;
};

Result<void> RefuseDirectories(File& file) {
  const Result<sentry::Attributes> attributes = file.GetAttributes();
  if (attributes.ok() && attributes.value().IsDirectory()) return Errno(EINVAL);
  return {};
}

Result<uint64_t> FromPipe(Task& task, PipeFile& in, File& out, UserInOut<int64_t> out_offset,
                          uint64_t length, uint32_t flags) {
  if ((out.flags() & O_APPEND) != 0) return Errno(EINVAL);
  TRY(RefuseDirectories(out));
  SplicePosition position = TRY(SplicePosition::Make(task, out, out_offset));
  bool sink_blocks = false;
  const Pipe::Sink sink = [&](std::span<const std::byte> bytes) {
    return position.Use(out, [&](uint64_t* offset) -> Result<size_t> {
      IoBuffer buffer(bytes);
      const Result<size_t> written = out.Write(task, buffer, offset);
      sink_blocks = !written.ok() && written.error() == EAGAIN;
      if (sink_blocks && buffer.done() > 0) return buffer.done();
      return written;
    });
  };
  const auto attempt = [&] { return in.pipe()->SpliceOut(length, sink); };
  while (true) {
    sink_blocks = false;
    Result<size_t> moved = sentry::RetryUntilReady(
        task, in.wait_queue(), sentry::kPollReadable, NonBlocking(in, flags),
        sentry::Deadline::Never(), [&]() -> Result<size_t> {
          const Result<size_t> result = attempt();
          if (!result.ok() && result.error() == EAGAIN && sink_blocks) return size_t{0};
          return result;
        });
    if (!moved.ok()) return moved.error();
    if (moved.value() > 0 || !sink_blocks) {
      TRY(position.Report(task, out_offset));
      return moved.value();
    }
    if (out.nonblocking()) return Errno(EAGAIN);
    // Data is there, the other file is full.
    TRY(sentry::RetryUntilReady(
        task, out.wait_queue(), sentry::kPollWritable, /*nonblocking=*/false,
        sentry::Deadline::Never(), [&]() -> Result<void> {
          if ((out.Poll(sentry::kPollWritable) & (sentry::kPollWritable | POLLERR)) != 0) return {};
          return Errno(EAGAIN);
        }));
  }
}

Result<uint64_t> ToPipe(Task& task, File& in, UserInOut<int64_t> in_offset, PipeFile& out,
                        uint64_t length, uint32_t flags) {
  TRY(RefuseDirectories(in));
  SplicePosition position = TRY(SplicePosition::Make(task, in, in_offset));
  bool source_blocks = false;
  const Pipe::Source source = [&](std::span<std::byte> bytes) {
    return position.Use(in, [&](uint64_t* offset) -> Result<size_t> {
      IoBuffer buffer(bytes);
      const Result<size_t> read = in.Read(task, buffer, offset);
      source_blocks = !read.ok() && read.error() == EAGAIN;
      return read;
    });
  };
  while (true) {
    source_blocks = false;
    const Result<size_t> moved = sentry::RetryUntilReady(
        task, out.wait_queue(), sentry::kPollWritable, NonBlocking(out, flags),
        sentry::Deadline::Never(), [&]() -> Result<size_t> {
          const Result<size_t> result = out.pipe()->SpliceIn(length, source);
          if (!result.ok() && result.error() == EAGAIN && source_blocks) return size_t{0};
          return result;
        });
    if (!moved.ok()) return TRY(WithSigpipe(task, moved));
    if (moved.value() > 0 || !source_blocks) {
      TRY(position.Report(task, in_offset));
      return moved.value();
    }
    if (in.nonblocking()) return Errno(EAGAIN);
    TRY(sentry::RetryUntilReady(task, in.wait_queue(), sentry::kPollReadable, /*nonblocking=*/false,
                                sentry::Deadline::Never(), [&]() -> Result<void> {
                                  constexpr sentry::PollMask kEnough =
                                      sentry::kPollReadable | POLLERR | POLLHUP;
                                  if ((in.Poll(sentry::kPollReadable) & kEnough) != 0) return {};
                                  return Errno(EAGAIN);
                                }));
  }
}

}  // namespace

Result<uint64_t> Splice(Task& task, int32_t in_fd, UserInOut<int64_t> in_offset, int32_t out_fd,
                        UserInOut<int64_t> out_offset, uint64_t length, uint32_t flags) {
  if (length == 0) return uint64_t{0};
  if ((flags & ~kKnownFlags) != 0) return Errno(EINVAL);
  const FileRef in = TRY(task.fds().GetForIo(in_fd));
  const FileRef out = TRY(task.fds().GetForIo(out_fd));
  if (!in->readable() || !out->writable()) return Errno(EBADF);
  length = std::min(length, kLengthMax);
  const std::shared_ptr<PipeFile> in_pipe = AsPipe(in);
  const std::shared_ptr<PipeFile> out_pipe = AsPipe(out);
  if ((in_pipe != nullptr && !in_offset.is_null()) ||
      (out_pipe != nullptr && !out_offset.is_null())) {
    return Errno(ESPIPE);
  }
  if (in_pipe != nullptr && out_pipe != nullptr) {
    return MoveBetweenPipes(task, *in_pipe, *out_pipe, length, flags, /*keep=*/false);
  }
  if (in_pipe != nullptr) return FromPipe(task, *in_pipe, *out, out_offset, length, flags);
  if (out_pipe != nullptr) return ToPipe(task, *in, in_offset, *out_pipe, length, flags);
  return Errno(EINVAL);
}

Result<uint64_t> Tee(Task& task, int32_t in_fd, int32_t out_fd, uint64_t length, uint32_t flags) {
  if ((flags & ~kKnownFlags) != 0) return Errno(EINVAL);
  if (length == 0) return uint64_t{0};
  const FileRef in = TRY(task.fds().GetForIo(in_fd));
  const FileRef out = TRY(task.fds().GetForIo(out_fd));
  if (!in->readable() || !out->writable()) return Errno(EBADF);
  const std::shared_ptr<PipeFile> in_pipe = AsPipe(in);
  const std::shared_ptr<PipeFile> out_pipe = AsPipe(out);
  if (in_pipe == nullptr || out_pipe == nullptr) return Errno(EINVAL);
  return MoveBetweenPipes(task, *in_pipe, *out_pipe, std::min(length, kLengthMax), flags,
                          /*keep=*/true);
}

Result<uint64_t> Vmsplice(Task& task, int32_t fd, UserAddr ranges, uint64_t count, uint32_t flags) {
  struct Iovec {
    uint64_t base = 0;
    uint64_t length = 0;
  };
  if ((flags & ~kKnownFlags) != 0) return Errno(EINVAL);
  const FileRef file = TRY(task.fds().GetForIo(fd));
  const std::shared_ptr<PipeFile> pipe = AsPipe(file);
  if (pipe == nullptr) return Errno(EBADF);
  if (count > UIO_MAXIOV) return Errno(EINVAL);
  const std::vector<Iovec> vectors = TRY(task.memory().CopyInArray<Iovec>(ranges, count));
  std::vector<sentry::UserRange> user_ranges;
  uint64_t total = 0;
  for (const Iovec& vector : vectors) {
    if (vector.length > static_cast<uint64_t>(std::numeric_limits<int64_t>::max()))
      return Errno(EINVAL);
    const uint64_t length = std::min(vector.length, kLengthMax - total);
    total += length;
    user_ranges.push_back({UserAddr(vector.base), length});
  }
  if (total == 0) return uint64_t{0};
  IoBuffer buffer(task.memory(), std::move(user_ranges));
  const bool nonblocking = NonBlocking(*file, flags);
  if (pipe->writable()) {
    const Result<size_t> written = sentry::RetryUntilReady(
        task, pipe->wait_queue(), sentry::kPollWritable, nonblocking, sentry::Deadline::Never(),
        [&] { return pipe->pipe()->Write(buffer, /*packets=*/false, /*partial=*/nonblocking); });
    if (buffer.done() > 0) return buffer.done();
    return TRY(WithSigpipe(task, written));
  }
  return TRY(sentry::RetryUntilReady(task, pipe->wait_queue(), sentry::kPollReadable, nonblocking,
                                     sentry::Deadline::Never(),
                                     [&] { return pipe->pipe()->Read(buffer); }));
}

}  // namespace syscalls
