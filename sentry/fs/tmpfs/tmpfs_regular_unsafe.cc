// Regular files of tmpfs: content that is read, written and mapped.
//
// A copy between guest memory and the file may need a page of this very file (a program that reads
// a file into its own mapping). So the copy happens inside IoBuffer::WithHostMemory, which has made
// the guest's pages present and holds what keeps them; mu_ is taken inside, and a fault handler may
// take it through Translate at any other time.

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "platform/base/user_addr.h"
#include "sentry/fs/tmpfs/tmpfs_inode.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/dentry.h"

#ifndef F_SEAL_EXEC
#define F_SEAL_EXEC 0x0020
#endif

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::Result;

namespace {

constexpr uint64_t kSizeMax = std::numeric_limits<int64_t>::max();
constexpr uint64_t kFaultPagesMin = 16;
constexpr uint64_t kFaultPagesMax = 512;
constexpr uint32_t kWriteSeals = F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;

uint64_t PageOf(uint64_t offset) { return offset / kPageSize; }
// Not PageUp(): the largest size must not wrap.
uint64_t PagesFor(uint64_t size) { return size / kPageSize + (size % kPageSize != 0 ? 1 : 0); }

std::span<std::byte> Bytes(const iovec& vector) {
  return {static_cast<std::byte*>(vector.iov_base), vector.iov_len};
}

}  // namespace

TmpfsRegular::TmpfsRegular(Tmpfs& file_system, const CreateContext& context)
    : TmpfsInode(file_system, S_IFREG, context),
      content_(file_system.pool(), file_system.pages()),
      seals_(F_SEAL_SEAL),
      fault_pages_(kFaultPagesMin) {}

TmpfsRegular::~TmpfsRegular() = default;

void TmpfsRegular::FillSize(Attributes* attributes) const {
  attributes->size = size_;
  attributes->blocks = content_.pages() * (kPageSize / 512);
}

uint64_t TmpfsRegular::size() const {
  const absl::ReaderMutexLock lock(&mu_);
  return size_;
}

void TmpfsRegular::OnWriterClosed() {
  const absl::MutexLock lock(&mu_);
  content_.DropReserve();
}

Result<size_t> TmpfsRegular::ReadInto(IoBuffer& to, uint64_t offset) {
  size_t done = 0;
  while (to.remaining() > 0) {
    uint64_t available = 0;
    {
      const absl::ReaderMutexLock lock(&mu_);
      if (offset >= size_) break;
      available = size_ - offset;
    }
    const Result<size_t> moved = to.WithHostMemory(
        std::min(available, to.remaining()), true,
        [&](std::span<const iovec> vectors) -> Result<size_t> {
          const absl::ReaderMutexLock lock(&mu_);
          size_t count = 0;
          for (const iovec& vector : vectors) {
            if (offset + count >= size_) break;
            const std::span<std::byte> out = Bytes(vector);
            const size_t length = std::min<uint64_t>(out.size(), size_ - offset - count);
            content_.Read(offset + count, out.first(length));
            count += length;
          }
          return count;
        });
    if (!moved.ok()) {
      if (done != 0) break;
      return moved.error();
    }
    if (moved.value() == 0) break;
    done += moved.value();
    offset += moved.value();
  }
  return done;
}

Result<size_t> TmpfsRegular::WriteFrom(IoBuffer& from, uint64_t* offset, bool append) {
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock write_lock(&write_mu_);
  uint32_t seals = 0;
  uint64_t size = 0;
  {
    const absl::ReaderMutexLock lock(&mu_);
    size = size_;
    seals = seals_;
  }
  if (append) *offset = size;
  if ((seals & kWriteSeals) != 0) return Errno(EPERM);
  if (*offset >= kSizeMax && from.remaining() > 0) return Errno(EFBIG);
  from.Truncate(kSizeMax - *offset);
  if ((seals & F_SEAL_GROW) != 0) {
    if (from.remaining() > 0 && (*offset >= size || from.remaining() > size - *offset))
      return Errno(EPERM);
  }
  size_t done = 0;
  while (from.remaining() > 0) {
    const uint64_t start = *offset + done;
    const Result<size_t> moved = from.WithHostMemory(
        from.remaining(), false, [&](std::span<const iovec> vectors) -> Result<size_t> {
          const absl::MutexLock lock(&mu_);
          size_t count = 0;
          for (const iovec& vector : vectors) {
            const Result<size_t> written = content_.Write(start + count, Bytes(vector));
            if (!written.ok()) {
              if (count == 0) return written.error();
              break;
            }
            count += written.value();
            if (written.value() < vector.iov_len) break;
          }
          size_ = std::max(size_, start + count);
          mtime_ = ctime_ = now;
          return count;
        });
    if (!moved.ok()) {
      if (done == 0) return moved.error();
      break;
    }
    if (moved.value() == 0) break;
    done += moved.value();
  }
  *offset += done;
  return done;
}

Result<void> TmpfsRegular::Resize(uint64_t size) {
  if (size > kSizeMax) return Errno(EFBIG);
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock write_lock(&write_mu_);
  uint64_t old_size = 0;
  {
    const absl::MutexLock lock(&mu_);
    old_size = size_;
    if (size < old_size && (seals_ & F_SEAL_SHRINK) != 0) return Errno(EPERM);
    if (size > old_size && (seals_ & F_SEAL_GROW) != 0) return Errno(EPERM);
    size_ = size;
    mtime_ = ctime_ = now;
    // What is behind the end in the last page would show up when the file grows again.
    if (size < old_size && size % kPageSize != 0)
      content_.Zero(size, std::min(old_size - size, kPageSize - size % kPageSize));
  }
  if (size < old_size) mappings_.Truncate(*this, size);
  if (PagesFor(size) < PagesFor(old_size))
    DiscardPages(PagesFor(size), std::numeric_limits<uint64_t>::max() / kPageSize);
  return {};
}

void TmpfsRegular::DiscardPages(uint64_t first_page, uint64_t end_page) {
  std::vector<platform::PoolRange> taken;
  {
    const absl::MutexLock lock(&mu_);
    content_.TakeOut(first_page, end_page, &taken);
  }
  if (taken.empty()) return;
  const uint64_t start = first_page * kPageSize;
  const uint64_t length = (end_page - first_page) * kPageSize;
  mappings_.Invalidate(*this, start, std::min(length, kSizeMax - start));
  const absl::MutexLock lock(&mu_);
  content_.Release(taken);
}

Result<void> TmpfsRegular::PunchHoleLocked(uint64_t offset, uint64_t length) {
  const uint64_t end = offset + length;
  const uint64_t first_page = PagesFor(offset);
  const uint64_t end_page = PageOf(end);
  {
    const absl::MutexLock lock(&mu_);
    if (first_page > end_page || first_page * kPageSize > end) {
      content_.Zero(offset, length);
      return {};
    }
    content_.Zero(offset, first_page * kPageSize - offset);
    content_.Zero(end_page * kPageSize, end - end_page * kPageSize);
  }
  if (first_page < end_page) DiscardPages(first_page, end_page);
  return {};
}

Result<void> TmpfsRegular::PunchHole(uint64_t offset, uint64_t length) {
  const absl::MutexLock write_lock(&write_mu_);
  if ((seals() & kWriteSeals) != 0) return Errno(EPERM);
  return PunchHoleLocked(offset, std::min(length, kSizeMax - offset));
}

Result<void> TmpfsRegular::Allocate(int mode, uint64_t offset, uint64_t length) {
  const bool keep_size = (mode & FALLOC_FL_KEEP_SIZE) != 0;
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock write_lock(&write_mu_);
  const uint32_t held = seals();
  const uint64_t end = offset + length;
  if (mode == (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE)) {
    if ((held & kWriteSeals) != 0) return Errno(EPERM);
    TRY(PunchHoleLocked(offset, length));
    const absl::MutexLock lock(&mu_);
    mtime_ = ctime_ = now;
    return {};
  }
  if ((mode & ~(FALLOC_FL_KEEP_SIZE | FALLOC_FL_ZERO_RANGE)) != 0) return Errno(EOPNOTSUPP);
  // Linux's tmpfs does not know this one, but the file systems that an image's programs expect on /
  // do.
  const bool zeroes = (mode & FALLOC_FL_ZERO_RANGE) != 0;
  if (zeroes && (held & kWriteSeals) != 0) return Errno(EPERM);
  if (zeroes) TRY(PunchHoleLocked(offset, length));
  const absl::MutexLock lock(&mu_);
  if (!keep_size && end > size_ && (held & F_SEAL_GROW) != 0) return Errno(EPERM);
  TRY(content_.Fill(offset, length));
  if (!keep_size) size_ = std::max(size_, end);
  mtime_ = ctime_ = now;
  return {};
}

Result<uint64_t> TmpfsRegular::SeekData(uint64_t offset, bool hole) const {
  const absl::ReaderMutexLock lock(&mu_);
  if (offset >= size_) return Errno(ENXIO);
  if (hole) return content_.NextHole(offset, size_);
  const uint64_t data = content_.NextData(offset, size_);
  if (data >= size_) return Errno(ENXIO);
  return data;
}

uint32_t TmpfsRegular::seals() const {
  const absl::ReaderMutexLock lock(&mu_);
  return seals_;
}

void TmpfsRegular::InitSeals(uint32_t seals) {
  const absl::MutexLock lock(&mu_);
  seals_ = seals;
}

Result<void> TmpfsRegular::AddSeals(uint32_t seals) {
  constexpr uint32_t kAllSeals =
      F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE | F_SEAL_EXEC;
  if ((seals & ~kAllSeals) != 0) return Errno(EINVAL);
  const absl::MutexLock write_lock(&write_mu_);
  const absl::MutexLock lock(&mu_);
  if ((seals_ & F_SEAL_SEAL) != 0) return Errno(EPERM);
  if ((seals & F_SEAL_WRITE) != 0 && (seals_ & F_SEAL_WRITE) == 0 &&
      mappings_.HasWritableMappings()) {
    return Errno(EBUSY);
  }
  // An executable that cannot change its mode cannot change its content either.
  if ((seals & F_SEAL_EXEC) != 0 && (mode_ & 0111) != 0) {
    seals |= F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_FUTURE_WRITE;
  }
  seals_ |= seals;
  return {};
}

Result<HostRange> TmpfsRegular::Translate(uint64_t offset, uint64_t length, bool for_write) {
  (void)for_write;  // A hole that is read gets pages too: the mapping must see later writes.
  const absl::MutexLock lock(&mu_);
  const uint64_t end = PagesFor(size_) * kPageSize;
  if (offset >= end) return Errno(EFAULT);
  length = std::min(length, end - offset);
  // Sequential faults make more and more at once.
  fault_pages_ = PageOf(offset) == next_fault_page_ ? std::min(fault_pages_ * 2, kFaultPagesMax)
                                                    : kFaultPagesMin;
  const Result<platform::PoolRange> range = content_.Back(offset, length, fault_pages_);
  if (!range.ok()) return Errno(ENOMEM);
  next_fault_page_ = PageOf(offset) + range.value().size() / kPageSize;
  return HostRange{tmpfs().pool().fd(), range.value().start, range.value().size(), true};
}

Result<size_t> TmpfsRegular::ReadAt(uint64_t offset, std::span<std::byte> out) {
  const absl::ReaderMutexLock lock(&mu_);
  if (offset >= size_) return size_t{0};
  out = out.first(std::min<uint64_t>(out.size(), size_ - offset));
  content_.Read(offset, out);
  return out.size();
}

Result<size_t> TmpfsRegular::WriteAt(uint64_t offset, std::span<const std::byte> data) {
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock lock(&mu_);
  if (offset >= size_) return size_t{0};
  const size_t written =
      TRY(content_.Write(offset, data.first(std::min<uint64_t>(data.size(), size_ - offset))));
  mtime_ = ctime_ = now;
  return written;
}

void TmpfsRegular::AddMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                              bool shared_writable) {
  mappings_.Add(memory, offset, length, shared_writable);
}

void TmpfsRegular::RemoveMapping(MemoryManager& memory, uint64_t offset, uint64_t length,
                                 bool shared_writable) {
  mappings_.Remove(memory, offset, length, shared_writable);
}

Result<FileRef> TmpfsRegular::Open(Task& task, const Path& path, uint32_t flags) {
  return FileRef(
      std::make_shared<TmpfsFile>(path, flags, task.own_credentials_ref(),
                                  std::static_pointer_cast<TmpfsRegular>(shared_from_this())));
}

// --- The open file.

Result<size_t> TmpfsFile::Read(Task&, IoBuffer& to, uint64_t* offset) {
  const size_t count = TRY(regular_->ReadInto(to, *offset));
  *offset += count;
  regular_->TouchAccess(*this);
  return count;
}

Result<size_t> TmpfsFile::Write(Task&, IoBuffer& from, uint64_t* offset) {
  return regular_->WriteFrom(from, offset, (flags() & O_APPEND) != 0);
}

Result<uint64_t> TmpfsFile::Seek(Task& task, uint64_t position, int64_t offset, int whence) {
  if (whence != SEEK_DATA && whence != SEEK_HOLE) return File::Seek(task, position, offset, whence);
  if (offset < 0) return Errno(ENXIO);
  return regular_->SeekData(static_cast<uint64_t>(offset), whence == SEEK_HOLE);
}

Result<void> TmpfsFile::Allocate(int mode, uint64_t offset, uint64_t length) {
  return regular_->Allocate(mode, offset, length);
}

Result<void> TmpfsFile::Truncate(uint64_t size) { return regular_->Resize(size); }

Result<uint64_t> TmpfsFile::Fcntl(Task& task, int command, uint64_t argument) {
  if (command == F_GET_SEALS) return uint64_t{regular_->seals()};
  if (command == F_ADD_SEALS) {
    if (!writable()) return Errno(EPERM);
    TRY(regular_->AddSeals(static_cast<uint32_t>(argument)));
    return uint64_t{0};
  }
  return File::Fcntl(task, command, argument);
}

Result<void> TmpfsFile::OnClose(Task&) {
  if (writable()) regular_->OnWriterClosed();
  return {};
}

Result<void> TmpfsFile::ConfigureMmap(MmapRequest& request) {
  if ((request.flags & MAP_SHARED) != 0 && (regular_->seals() & kWriteSeals) != 0) {
    if ((request.protection & PROT_WRITE) != 0) return Errno(EPERM);
    request.file_writable = false;
  }
  request.mappable = regular_;
  return {};
}

}  // namespace sentry
