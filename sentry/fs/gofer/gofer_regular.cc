// Regular files: content goes through donated descriptors, straight between the host's page cache
// and guest memory.

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "platform/base/user_addr.h"
#include "sentry/fs/gofer/gofer_inode.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::Result;

namespace {

constexpr uint64_t kSizeMax = std::numeric_limits<int64_t>::max();

Result<size_t> Count(ssize_t result) {
  if (result < 0) return base::LastErrno();
  return static_cast<size_t>(result);
}

Result<void> Check(int result) {
  if (result != 0) return base::LastErrno();
  return {};
}

size_t TotalOf(std::span<const iovec> vectors) {
  size_t total = 0;
  for (const iovec& vector : vectors) total += vector.iov_len;
  return total;
}

gofer::Timestamp FromHost(const timespec& time) {
  return {time.tv_sec, static_cast<uint32_t>(time.tv_nsec)};
}

// Moves bytes between `buffer` and the host, piece by piece, until it is empty or the host does
// less than it was asked for. `move(iovecs, done)` is one host call. An error after the first piece
// is for the next call to report.
template <typename Move>
Result<size_t> MoveAll(IoBuffer& buffer, bool fill, Move move) {
  size_t done = 0;
  while (buffer.remaining() > 0) {
    size_t asked = 0;
    const Result<size_t> moved =
        buffer.WithHostMemory(buffer.remaining(), fill, [&](std::span<const iovec> vectors) {
          asked = TotalOf(vectors);
          return move(vectors, done);
        });
    if (!moved.ok()) {
      if (done == 0) return moved.error();
      break;
    }
    done += moved.value();
    if (moved.value() < asked) break;
  }
  return done;
}

}  // namespace

GoferRegular::~GoferRegular() {
  base::Fd(read_fd_.load());
  base::Fd(write_fd_.load());
}

// ---- Donated descriptors.

int GoferRegular::read_fd() const {
  const int fd = read_fd_.load(std::memory_order_acquire);
  if (fd >= 0) return fd;
  return write_fd_reads_.load(std::memory_order_acquire) ? write_fd() : -1;
}

Result<base::Fd> GoferRegular::Donation(uint32_t flags) {
  const auto ask = [&]() -> Result<base::Fd> {
    if (const FidPin pin = PinIfBound()) return gofer().client().Open(pin.fid(), flags);
    Result<base::Fd> opened = Errno(EIO);
    TRY(Bind(flags, &opened));
    return opened;
  };
  Result<base::Fd> fd = ask();
  const bool out_of_room = !fd.ok() && (fd.error() == EMFILE || fd.error() == ENFILE);
  if (out_of_room && gofer().MakeRoom()) return ask();
  return fd;
}

Result<void> GoferRegular::OpenHost(bool write) {
  bool donated = false;
  {
    const absl::MutexLock lock(&open_mu_);
    if ((write ? write_fd() : read_fd()) < 0) {
      Result<base::Fd> fd = Donation(write ? O_RDWR : O_RDONLY);
      bool reads = true;
      if (!fd.ok() && write && fd.error() == EACCES) {
        fd = Donation(O_WRONLY);
        reads = false;
      }
      if (!fd.ok()) return fd.error();
      if (write) {
        write_fd_reads_.store(reads, std::memory_order_release);
        write_fd_.store(std::move(fd).value().Release(), std::memory_order_release);
      } else {
        read_fd_.store(std::move(fd).value().Release(), std::memory_order_release);
      }
      donated = true;
    }
    open_files_.fetch_add(1, std::memory_order_acq_rel);
  }
  if (donated) MarkHeld();
  return {};
}

void GoferRegular::AdoptHostFile(base::Fd fd) {
  {
    const absl::MutexLock lock(&open_mu_);
    if (write_fd() >= 0) return;
    write_fd_.store(fd.Release(), std::memory_order_release);
  }
  MarkHeld();
}

void GoferRegular::AdoptReadOnlyHostFile(base::Fd fd) {
  {
    const absl::MutexLock lock(&open_mu_);
    if (read_fd() >= 0) return;
    read_fd_.store(fd.Release(), std::memory_order_release);
  }
  MarkHeld();
}

bool GoferRegular::InUse() const {
  return open_files_.load(std::memory_order_acquire) > 0 || mappings_.HasMappings();
}

bool GoferRegular::ReleaseHostFiles() {
  base::Fd read_side;
  base::Fd write_side;
  if (!open_mu_.TryLock()) return false;
  const bool idle = !InUse();
  if (idle) {
    read_side = base::Fd(read_fd_.exchange(-1, std::memory_order_acq_rel));
    write_side = base::Fd(write_fd_.exchange(-1, std::memory_order_acq_rel));
    write_fd_reads_.store(true, std::memory_order_release);
  }
  open_mu_.Unlock();
  return idle;
}

Result<FileRef> GoferRegular::Open(Task& task, const Path& path, uint32_t flags) {
  TRY(OpenHost((flags & O_ACCMODE) != O_RDONLY));
  return FileRef(std::make_shared<GoferFile>(path, flags, task.own_credentials_ref(),
                                             std::static_pointer_cast<GoferRegular>(self())));
}

// ---- Attributes.

std::optional<gofer::Attributes> GoferRegular::LocalAttributes() {
  // The lock keeps the descriptor open.
  const absl::MutexLock lock(&open_mu_);
  const int fd = read_fd() >= 0 ? read_fd() : write_fd();
  struct stat host;
  if (fd < 0 || fstat(fd, &host) != 0) return std::nullopt;
  gofer::Attributes out;
  out.dev = host.st_dev;
  out.ino = host.st_ino;
  out.rdev = host.st_rdev;
  out.size = static_cast<uint64_t>(host.st_size);
  out.blocks = static_cast<uint64_t>(host.st_blocks);
  out.mode = host.st_mode;
  out.nlink = static_cast<uint32_t>(host.st_nlink);
  out.uid = host.st_uid;
  out.gid = host.st_gid;
  out.blksize = static_cast<uint32_t>(host.st_blksize);
  out.atime = FromHost(host.st_atim);
  out.mtime = FromHost(host.st_mtim);
  out.ctime = FromHost(host.st_ctim);
  return out;
}

std::optional<Result<void>> GoferRegular::LocalSetSize(uint64_t size) {
  const absl::MutexLock lock(&open_mu_);
  if (write_fd() < 0) return std::nullopt;
  if (size > kSizeMax) return Errno(EFBIG);
  return Check(ftruncate(write_fd(), static_cast<off_t>(size)));
}

void GoferRegular::SizeChanged(uint64_t old_size, uint64_t new_size) {
  if (new_size < old_size && mappings_.HasMappings()) mappings_.Truncate(*this, new_size);
}

// ---- Data.

Result<size_t> GoferRegular::ReadInto(IoBuffer& to, uint64_t offset) {
  const int fd = read_fd();
  if (fd < 0) return Errno(EACCES);
  const size_t count = TRY(MoveAll(to, true, [&](std::span<const iovec> vectors, size_t done) {
    return Count(preadv2(fd, vectors.data(), static_cast<int>(vectors.size()),
                         static_cast<off_t>(offset + done), 0));
  }));
  MarkRead();
  return count;
}

Result<size_t> GoferRegular::WriteFrom(IoBuffer& from, uint64_t* offset, uint32_t flags) {
  const int fd = write_fd();
  const bool append = (flags & O_APPEND) != 0;
  int host_flags = append ? RWF_APPEND : 0;
  if ((flags & O_SYNC) == O_SYNC) {
    host_flags |= RWF_SYNC;
  } else if ((flags & O_DSYNC) != 0) {
    host_flags |= RWF_DSYNC;
  }
  // Where an appending write ended is only known if no other one is under way.
  std::optional<absl::MutexLock> lock;
  if (append) lock.emplace(&append_mu_);
  const uint64_t start = append ? 0 : *offset;
  const Result<size_t> moved =
      MoveAll(from, false, [&](std::span<const iovec> vectors, size_t done) {
        return Count(pwritev2(fd, vectors.data(), static_cast<int>(vectors.size()),
                              static_cast<off_t>(start + done), host_flags));
      });
  MarkStale();
  const size_t count = TRY(moved);
  *offset = append ? TRY(GetAttributes()).size : *offset + count;
  return count;
}

Result<uint64_t> GoferRegular::SeekData(uint64_t offset, bool hole) {
  const int fd = read_fd() >= 0 ? read_fd() : write_fd();
  const off_t found = lseek(fd, static_cast<off_t>(offset), hole ? SEEK_HOLE : SEEK_DATA);
  if (found < 0) return base::LastErrno();
  return static_cast<uint64_t>(found);
}

Result<void> GoferRegular::SyncHost(bool data_only) {
  const int fd = write_fd() >= 0 ? write_fd() : read_fd();
  return Check(data_only ? fdatasync(fd) : fsync(fd));
}

Result<void> GoferRegular::Allocate(int mode, uint64_t offset, uint64_t length) {
  const Result<void> result =
      Check(fallocate(write_fd(), mode, static_cast<off_t>(offset), static_cast<off_t>(length)));
  MarkStale();
  // Ranges that move take the pages behind them along.
  if (result.ok() && (mode & (FALLOC_FL_COLLAPSE_RANGE | FALLOC_FL_INSERT_RANGE)) != 0) {
    mappings_.Invalidate(*this, base::PageDown(offset),
                         kSizeMax - kPageSize - base::PageDown(offset));
  }
  return result;
}

Result<void> GoferRegular::Truncate(uint64_t size) {
  if (size > kSizeMax) return Errno(EFBIG);
  const uint64_t old_size = TRY(GetAttributes()).size;
  TRY(Check(ftruncate(write_fd(), static_cast<off_t>(size))));
  MarkStale();
  SizeChanged(old_size, size);
  return {};
}

// ---- Mappings.

Result<HostRange> GoferRegular::Translate(uint64_t offset, uint64_t length, bool for_write) {
  const uint64_t size = TRY(GetAttributes()).size;
  if (offset >= size) return Errno(EFAULT);
  const int fd = for_write ? write_fd() : read_fd();
  if (fd < 0) return Errno(EACCES);
  return HostRange{fd, offset, std::min(length, base::PageUp(size - offset)), false};
}

Result<size_t> GoferRegular::ReadContent(uint64_t offset, std::span<std::byte> out) {
  TRY(OpenHost(false));
  const Result<size_t> count = ReadAt(offset, out);
  CloseHost();
  return count;
}

Result<size_t> GoferRegular::ReadAt(uint64_t offset, std::span<std::byte> out) {
  const int fd = read_fd();
  if (fd < 0) return Errno(EACCES);
  size_t done = 0;
  while (done < out.size()) {
    const size_t moved = TRY(
        Count(pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done))));
    if (moved == 0) break;
    done += moved;
  }
  return done;
}

Result<size_t> GoferRegular::WriteAt(uint64_t offset, std::span<const std::byte> data) {
  const int fd = write_fd();
  if (fd < 0) return Errno(EACCES);
  // A store through a mapping never makes a file longer.
  const uint64_t size = TRY(GetAttributes()).size;
  if (offset >= size) return size_t{0};
  data = data.first(std::min<uint64_t>(data.size(), size - offset));
  size_t done = 0;
  while (done < data.size()) {
    done += TRY(Count(
        pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done))));
  }
  MarkStale();
  return done;
}

void GoferRegular::AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                              bool shared_writable) {
  mappings_.Add(memory, offset, length, shared_writable);
}

void GoferRegular::RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                                 bool shared_writable) {
  mappings_.Remove(memory, offset, length, shared_writable);
  // Stores may have gone by without our seeing them.
  if (shared_writable) MarkStale();
}

Result<void> GoferRegular::Sync(uint64_t, uint64_t) {
  const int fd = write_fd();
  if (fd < 0) return {};
  return Check(fdatasync(fd));
}

// ---- The open file.

Result<size_t> GoferFile::Read(Task&, IoBuffer& to, uint64_t* offset) {
  const size_t count = TRY(regular_->ReadInto(to, *offset));
  *offset += count;
  return count;
}

Result<size_t> GoferFile::Write(Task&, IoBuffer& from, uint64_t* offset) {
  return regular_->WriteFrom(from, offset, flags());
}

Result<uint64_t> GoferFile::Seek(Task& task, uint64_t position, int64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return File::Seek(task, position, offset, whence);
  if (offset < 0) return Errno(ENXIO);
  return regular_->SeekData(static_cast<uint64_t>(offset), whence == SEEK_HOLE);
}

Result<void> GoferFile::Allocate(int mode, uint64_t offset, uint64_t length) {
  return regular_->Allocate(mode, offset, length);
}

Result<void> GoferFile::ConfigureMmap(MmapRequest& request) {
  request.mappable = regular_;
  return {};
}

}  // namespace sentry
