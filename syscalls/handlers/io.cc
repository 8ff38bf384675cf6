// read(2), write(2) and their variants. A File never sleeps; RetryUntilReady does, and a call that
// has moved some bytes returns their number whatever stops it.

#include "syscalls/handlers/io.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/inotify.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <vector>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/notify.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/iovec.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserInOut;
using sentry::File;
using sentry::FileHold;
using sentry::FileRef;
using sentry::IoBuffer;
using sentry::Task;

namespace {

constexpr size_t kCopyChunkBytes = size_t{128} << 10;
constexpr int32_t kKnownRwf = RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND;

struct Iovec {
  uint64_t base;
  uint64_t length;
};

// Where a transfer happens: at the description's position, or at one of the call's own.
struct Place {
  uint64_t* own_offset = nullptr;
};

template <typename Operation>
auto AtPlace(File& file, const Place& place, Operation&& operation)
    -> decltype(operation(nullptr)) {
  if (place.own_offset != nullptr) return operation(place.own_offset);
  if (!file.seekable()) return operation(nullptr);
  const absl::MutexLock lock(&file.position_mutex());
  return operation(&file.position());
}

// RLIMIT_FSIZE: cuts the write, or refuses it with SIGXFSZ.
Result<void> ApplyFileSizeLimit(Task& task, File& file, IoBuffer& from, const uint64_t* offset) {
  const uint64_t limit = task.group().Limit(RLIMIT_FSIZE);
  if (limit == RLIM_INFINITY || offset == nullptr || from.remaining() == 0) return {};
  const sentry::InodeRef inode = file.inode();
  if (inode == nullptr || inode->type() != S_IFREG) return {};
  const uint64_t start =
      (file.flags() & O_APPEND) != 0 ? TRY(inode->GetAttributes()).size : *offset;
  if (start >= limit) {
    TRY(task.SendSignal(sentry::SignalInfo::FromKernel(SIGXFSZ)));
    return Errno(EFBIG);
  }
  from.Truncate(limit - start);
  return {};
}

Result<uint64_t> DoRead(Task& task, File& file, IoBuffer& to, const Place& place,
                        bool nowait = false) {
  if (!file.readable()) return Errno(EBADF);
  const auto attempt = [&] {
    return AtPlace(file, place, [&](uint64_t* offset) { return file.Read(task, to, offset); });
  };
  const Result<size_t> result =
      RetryUntilReady(task, file.wait_queue(), sentry::kPollReadable, nowait || file.nonblocking(),
                      file.ReadDeadline(task), attempt);
  const size_t count = result.ok() ? std::max<size_t>(result.value(), to.done()) : to.done();
  if (count == 0 && !result.ok())
    return result.error() == ETIMEDOUT ? Errno(EAGAIN) : result.error();
  if (count != 0) NotifyPath(file.path(), IN_ACCESS);
  return uint64_t{count};
}

Result<uint64_t> DoWrite(Task& task, File& file, IoBuffer& from, const Place& place,
                         bool nowait = false) {
  if (!file.writable()) return Errno(EBADF);
  const sentry::DentryRef& dentry = file.path().dentry;
  if (dentry != nullptr && !task.own_credentials().HasCapability(CAP_FSETID))
    TRY(sentry::DropPrivilegesBeforeWrite(*dentry->inode(), task.own_credentials()));
  const auto attempt = [&] {
    return AtPlace(file, place, [&](uint64_t* offset) -> Result<size_t> {
      TRY(ApplyFileSizeLimit(task, file, from, offset));
      return file.Write(task, from, offset);
    });
  };
  const Result<size_t> result =
      RetryUntilReady(task, file.wait_queue(), sentry::kPollWritable, nowait || file.nonblocking(),
                      file.WriteDeadline(task), attempt);
  const size_t count = result.ok() ? std::max<size_t>(result.value(), from.done()) : from.done();
  if (count == 0 && !result.ok())
    return result.error() == ETIMEDOUT ? Errno(EAGAIN) : result.error();
  if (count != 0) NotifyPath(file.path(), IN_MODIFY);
  return uint64_t{count};
}

// For the calls with an offset.
Result<FileHold> GetSeekable(Task& task, int32_t fd, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  FileHold file = TRY(task.HoldFileForIo(fd));
  if (!file->seekable()) return Errno(ESPIPE);
  return file;
}

// What a call that may have an offset of its own works on.
class OffsetArgument {
 public:
  OffsetArgument(Task& task, UserInOut<int64_t> pointer) : task_(task), pointer_(pointer) {}
  Result<void> Load(File& file) {
    if (pointer_.is_null()) {
      if (!file.seekable()) return {};
      const absl::MutexLock lock(&file.position_mutex());
      file.FetchPosition();
      value_ = file.position();
      return {};
    }
    if (!file.seekable()) return Errno(ESPIPE);
    const int64_t value = TRY(task_.CopyIn(pointer_));
    if (value < 0) return Errno(EINVAL);
    value_ = static_cast<uint64_t>(value);
    return {};
  }
  Result<void> Store(File& file) {
    if (!pointer_.is_null()) return task_.CopyOut(pointer_, static_cast<int64_t>(value_));
    if (!file.seekable()) return {};
    const absl::MutexLock lock(&file.position_mutex());
    file.position() = value_;
    file.PublishPosition();
    return {};
  }
  uint64_t& value() { return value_; }

 private:
  Task& task_;
  UserInOut<int64_t> pointer_;
  uint64_t value_ = 0;
};

// Copies until `count`, the end of `in`, or a stop; the offsets follow what was written. Bytes that
// `in` gave and `out` did not take are only possible for an `in` without positions, which callers
// exclude or accept (sendfile from a pipe or socket).
Result<uint64_t> CopyBetween(Task& task, File& in, uint64_t* in_offset, File& out,
                             uint64_t* out_offset, uint64_t count) {
  uint64_t done = 0;
  const size_t chunk_bytes = std::min<uint64_t>(count, kCopyChunkBytes);
  const auto chunk = std::make_unique_for_overwrite<std::byte[]>(chunk_bytes);
  while (done < count) {
    const std::span<std::byte> space(chunk.get(), std::min<uint64_t>(count - done, chunk_bytes));
    IoBuffer to(space);
    uint64_t read_offset = *in_offset;
    const Result<uint64_t> got =
        in.seekable() ? DoRead(task, in, to, {&read_offset}) : DoRead(task, in, to, {});
    if (!got.ok()) {
      if (done == 0) return got.error();
      break;
    }
    if (got.value() == 0) break;
    IoBuffer from(std::span<const std::byte>(space.data(), got.value()));
    const Result<uint64_t> put = DoWrite(task, out, from, {out.seekable() ? out_offset : nullptr});
    if (!put.ok()) {
      if (done == 0) return put.error();
      break;
    }
    done += put.value();
    *in_offset += put.value();
    if (put.value() < got.value()) break;
  }
  return done;
}

}  // namespace

Result<IoBuffer> OneBuffer(Task& task, UserAddr addr, uint64_t length) {
  if (static_cast<int64_t>(length) < 0) return Errno(EINVAL);
  return IoBuffer(task.memory(), addr, std::min(length, kTransferMax));
}

Result<IoBuffer> CopyInVectors(Task& task, UserAddr vectors, uint64_t count) {
  if (count > kIovMax) return Errno(EINVAL);
  const std::vector<Iovec> raw = TRY(task.memory().CopyInArray<Iovec>(vectors, count));
  std::vector<sentry::UserRange> ranges;
  ranges.reserve(raw.size());
  for (const Iovec& each : raw) {
    if (static_cast<int64_t>(each.length) < 0) return Errno(EINVAL);
    if (each.length != 0)
      ranges.push_back({UserAddr(each.base), std::min(each.length, kTransferMax)});
  }
  IoBuffer buffer(task.memory(), std::move(ranges));
  buffer.Truncate(kTransferMax);
  return buffer;
}

Result<uint64_t> Read(Task& task, int32_t fd, UserAddr buffer, uint64_t count) {
  const FileHold file = TRY(task.HoldFileForIo(fd));
  IoBuffer to = TRY(OneBuffer(task, buffer, count));
  return DoRead(task, *file, to, {});
}

Result<uint64_t> Write(Task& task, int32_t fd, UserAddr buffer, uint64_t count) {
  const FileHold file = TRY(task.HoldFileForIo(fd));
  IoBuffer from = TRY(OneBuffer(task, buffer, count));
  return DoWrite(task, *file, from, {});
}

Result<uint64_t> Pread64(Task& task, int32_t fd, UserAddr buffer, uint64_t count, int64_t offset) {
  const FileHold file = TRY(GetSeekable(task, fd, offset));
  IoBuffer to = TRY(OneBuffer(task, buffer, count));
  auto place = static_cast<uint64_t>(offset);
  return DoRead(task, *file, to, {&place});
}

Result<uint64_t> Pwrite64(Task& task, int32_t fd, UserAddr buffer, uint64_t count, int64_t offset) {
  const FileHold file = TRY(GetSeekable(task, fd, offset));
  IoBuffer from = TRY(OneBuffer(task, buffer, count));
  auto place = static_cast<uint64_t>(offset);
  return DoWrite(task, *file, from, {&place});
}

Result<uint64_t> Readv(Task& task, int32_t fd, UserAddr vectors, uint64_t count) {
  const FileHold file = TRY(task.HoldFileForIo(fd));
  if (!file->readable()) return Errno(EBADF);
  IoBuffer to = TRY(CopyInVectors(task, vectors, count));
  return DoRead(task, *file, to, {});
}

Result<uint64_t> Writev(Task& task, int32_t fd, UserAddr vectors, uint64_t count) {
  const FileHold file = TRY(task.HoldFileForIo(fd));
  if (!file->writable()) return Errno(EBADF);
  IoBuffer from = TRY(CopyInVectors(task, vectors, count));
  return DoWrite(task, *file, from, {});
}

Result<uint64_t> Preadv(Task& task, int32_t fd, UserAddr vectors, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  return Preadv2(task, fd, vectors, count, offset, 0, 0);
}

Result<uint64_t> Pwritev(Task& task, int32_t fd, UserAddr vectors, uint64_t count, int64_t offset) {
  if (offset < 0) return Errno(EINVAL);
  return Pwritev2(task, fd, vectors, count, offset, 0, 0);
}

Result<uint64_t> Preadv2(Task& task, int32_t fd, UserAddr vectors, uint64_t count, int64_t offset,
                         uint64_t, int32_t flags) {
  const bool at_position = offset == -1;
  const FileHold file =
      at_position ? TRY(task.HoldFileForIo(fd)) : TRY(GetSeekable(task, fd, offset));
  if (!file->readable()) return Errno(EBADF);
  IoBuffer to = TRY(CopyInVectors(task, vectors, count));
  if ((flags & ~kKnownRwf) != 0 || (flags & RWF_APPEND) != 0) return Errno(EOPNOTSUPP);
  auto place = static_cast<uint64_t>(offset);
  return DoRead(task, *file, to, {at_position ? nullptr : &place}, (flags & RWF_NOWAIT) != 0);
}

Result<uint64_t> Pwritev2(Task& task, int32_t fd, UserAddr vectors, uint64_t count, int64_t offset,
                          uint64_t, int32_t flags) {
  const bool at_position = offset == -1;
  const FileHold file =
      at_position ? TRY(task.HoldFileForIo(fd)) : TRY(GetSeekable(task, fd, offset));
  if (!file->writable()) return Errno(EBADF);
  IoBuffer from = TRY(CopyInVectors(task, vectors, count));
  if ((flags & ~kKnownRwf) != 0) return Errno(EOPNOTSUPP);
  auto place = static_cast<uint64_t>(offset);
  Place where{at_position ? nullptr : &place};
  if ((flags & RWF_APPEND) != 0 && file->seekable()) {
    // The position is left alone unless it was to be used.
    place = TRY(file->GetAttributes()).size;
    where.own_offset = &place;
  }
  const uint64_t written = TRY(DoWrite(task, *file, from, where, (flags & RWF_NOWAIT) != 0));
  if ((flags & RWF_APPEND) != 0 && at_position && file->seekable()) {
    const absl::MutexLock lock(&file->position_mutex());
    file->position() = place;
    file->PublishPosition();
  }
  if (written != 0 && (flags & (RWF_SYNC | RWF_DSYNC)) != 0)
    TRY(file->Sync((flags & RWF_SYNC) == 0));
  return written;
}

Result<uint64_t> Lseek(Task& task, int32_t fd, int64_t offset, uint32_t whence) {
  const FileHold file = TRY(task.HoldFileForIo(fd));
  if (whence > SEEK_HOLE) return Errno(EINVAL);
  if (!file->seekable()) return Errno(ESPIPE);
  const absl::MutexLock lock(&file->position_mutex());
  const uint64_t position =
      TRY(file->Seek(task, file->position(), offset, static_cast<int>(whence)));
  file->position() = position;
  return position;
}

Result<uint64_t> Sendfile(Task& task, int32_t out_fd, int32_t in_fd, UserInOut<int64_t> offset,
                          uint64_t count) {
  const FileRef in = TRY(task.fds().GetForIo(in_fd));
  if (!in->readable()) return Errno(EBADF);
  OffsetArgument in_offset(task, offset);
  TRY(in_offset.Load(*in));
  const FileRef out = TRY(task.fds().GetForIo(out_fd));
  if (!out->writable()) return Errno(EBADF);
  if ((out->flags() & O_APPEND) != 0) return Errno(EINVAL);
  const sentry::InodeRef in_inode = in->inode();
  if (in_inode != nullptr && in_inode->type() == S_IFDIR) return Errno(EINVAL);
  if (static_cast<int64_t>(count) < 0) return Errno(EINVAL);
  OffsetArgument out_offset(task, UserInOut<int64_t>(UserAddr(0)));
  TRY(out_offset.Load(*out));
  const uint64_t done = TRY(CopyBetween(task, *in, &in_offset.value(), *out, &out_offset.value(),
                                        std::min(count, kTransferMax)));
  TRY(out_offset.Store(*out));
  TRY(in_offset.Store(*in));
  return done;
}

Result<uint64_t> CopyFileRange(Task& task, int32_t in_fd, UserInOut<int64_t> in_pointer,
                               int32_t out_fd, UserInOut<int64_t> out_pointer, uint64_t length,
                               uint32_t flags) {
  const FileRef in = TRY(task.fds().GetForIo(in_fd));
  const FileRef out = TRY(task.fds().GetForIo(out_fd));
  if (flags != 0) return Errno(EINVAL);
  const sentry::InodeRef in_inode = in->inode();
  const sentry::InodeRef out_inode = out->inode();
  for (const sentry::InodeRef& inode : {in_inode, out_inode}) {
    if (inode != nullptr && inode->type() == S_IFDIR) return Errno(EISDIR);
    if (inode == nullptr || inode->type() != S_IFREG) return Errno(EINVAL);
  }
  if (!in->readable() || !out->writable() || (out->flags() & O_APPEND) != 0) return Errno(EBADF);
  OffsetArgument in_offset(task, in_pointer);
  OffsetArgument out_offset(task, out_pointer);
  TRY(in_offset.Load(*in));
  TRY(out_offset.Load(*out));
  uint64_t end = 0;
  if (__builtin_add_overflow(in_offset.value(), length, &end) || static_cast<int64_t>(end) < 0)
    return Errno(EOVERFLOW);
  if (__builtin_add_overflow(out_offset.value(), length, &end) || static_cast<int64_t>(end) < 0)
    return Errno(EOVERFLOW);
  const uint64_t size = TRY(in_inode->GetAttributes()).size;
  length = in_offset.value() >= size ? 0 : std::min(length, size - in_offset.value());
  if (in_inode == out_inode && in_offset.value() < out_offset.value() + length &&
      out_offset.value() < in_offset.value() + length) {
    return Errno(EINVAL);
  }
  if (length == 0) return uint64_t{0};
  const uint64_t done = TRY(CopyBetween(task, *in, &in_offset.value(), *out, &out_offset.value(),
                                        std::min(length, kTransferMax)));
  TRY(in_offset.Store(*in));
  TRY(out_offset.Store(*out));
  return done;
}

}  // namespace syscalls
