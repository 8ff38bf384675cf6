#include "sentry/mm/io_buffer.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>

#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::Result;
using base::UserAddr;

namespace {

constexpr size_t kHostIovecsMax = 64;
constexpr uint64_t kBounceBytesMax = uint64_t{1} << 20;

}  // namespace

IoBuffer::IoBuffer(MemoryManager& memory, UserAddr addr, uint64_t length)
    : memory_(&memory), ranges_({{addr, length}}), remaining_(length) {}

IoBuffer::IoBuffer(MemoryManager& memory, const std::vector<UserRange>& ranges)
    : memory_(&memory), ranges_(ranges.begin(), ranges.end()) {
  for (const UserRange& range : ranges_) remaining_ += range.length;
}

IoBuffer::IoBuffer(std::span<std::byte> sentry_bytes)
    : ranges_({{UserAddr(reinterpret_cast<uint64_t>(sentry_bytes.data())), sentry_bytes.size()}}),
      remaining_(sentry_bytes.size()) {}

IoBuffer::IoBuffer(std::span<const std::byte> sentry_bytes)
    : ranges_({{UserAddr(reinterpret_cast<uint64_t>(sentry_bytes.data())), sentry_bytes.size()}}),
      remaining_(sentry_bytes.size()) {}

void IoBuffer::Truncate(uint64_t length) { remaining_ = std::min(remaining_, length); }

void IoBuffer::Skip(uint64_t length) {
  length = std::min(length, remaining_);
  remaining_ -= length;
  done_ += length;
  while (length > 0) {
    const uint64_t step = std::min(length, ranges_[index_].length - offset_);
    offset_ += step;
    length -= step;
    if (offset_ == ranges_[index_].length && index_ + 1 < ranges_.size()) {
      index_++;
      offset_ = 0;
    }
  }
}

// The piece at the cursor, at most `length` bytes. Empty only at the end.
IoBuffer::Cursor IoBuffer::Current(uint64_t length) {
  while (index_ + 1 < ranges_.size() && offset_ == ranges_[index_].length) {
    index_++;
    offset_ = 0;
  }
  if (index_ >= ranges_.size()) return {};
  return {ranges_[index_].addr.value() + offset_,
          std::min({length, remaining_, ranges_[index_].length - offset_})};
}

Result<size_t> IoBuffer::CopyOut(std::span<const std::byte> data) {
  const uint64_t wanted = std::min<uint64_t>(remaining_, data.size());
  size_t moved = 0;
  while (moved < wanted) {
    const Cursor cursor = Current(wanted - moved);
    size_t count = cursor.length;
    if (memory_ == nullptr) {
      std::memcpy(reinterpret_cast<void*>(cursor.address), data.data() + moved, count);
    } else {
      count = memory_->impl_->Copy(cursor.address, nullptr, data.data() + moved, cursor.length,
                                   {.write = true});
    }
    Skip(count);
    moved += count;
    if (count < cursor.length) break;
  }
  if (moved == 0 && wanted > 0) return Errno(EFAULT);
  return moved;
}

Result<size_t> IoBuffer::CopyIn(std::span<std::byte> data) {
  const uint64_t wanted = std::min<uint64_t>(remaining_, data.size());
  size_t moved = 0;
  while (moved < wanted) {
    const Cursor cursor = Current(wanted - moved);
    size_t count = cursor.length;
    if (memory_ == nullptr) {
      std::memcpy(data.data() + moved, reinterpret_cast<const void*>(cursor.address), count);
    } else {
      count = memory_->impl_->Copy(cursor.address, data.data() + moved, nullptr, cursor.length, {});
    }
    Skip(count);
    moved += count;
    if (count < cursor.length) break;
  }
  if (moved == 0 && wanted > 0) return Errno(EFAULT);
  return moved;
}

Result<size_t> IoBuffer::ZeroOut(uint64_t length) {
  const uint64_t wanted = std::min(remaining_, length);
  size_t moved = 0;
  while (moved < wanted) {
    const Cursor cursor = Current(wanted - moved);
    size_t count = cursor.length;
    if (memory_ == nullptr) {
      std::memset(reinterpret_cast<void*>(cursor.address), 0, count);
    } else {
      count = memory_->impl_->ZeroOut(cursor.address, cursor.length);
    }
    Skip(count);
    moved += count;
    if (count < cursor.length) break;
  }
  if (moved == 0 && wanted > 0) return Errno(EFAULT);
  return moved;
}

struct IoBuffer::Gathered {
  std::array<iovec, kHostIovecsMax> iovecs;
  size_t count = 0;
  uint64_t bytes = 0;
  // Why it ended before `length`.
  Piece::Kind stop = Piece::Kind::kBytes;
  uint64_t stop_address = 0;
  uint64_t stop_bytes = 0;
};

void IoBuffer::Gather(uint64_t length, bool fill, Gathered& gathered) {
  memory_->impl_->mu.AssertReaderHeld();
  size_t index = index_;
  uint64_t offset = offset_;
  while (gathered.bytes < length && gathered.count < kHostIovecsMax) {
    if (offset == ranges_[index].length) {
      index++;
      offset = 0;
      continue;
    }
    const uint64_t address = ranges_[index].addr.value() + offset;
    const uint64_t wanted = std::min(length - gathered.bytes, ranges_[index].length - offset);
    Piece piece;
    // A range that wraps cannot be reached behind the top.
    if (address >= ranges_[index].addr.value()) {
      piece = memory_->impl_->FindPieceLocked(address, wanted, {.write = fill});
    }
    if (piece.kind != Piece::Kind::kBytes) {
      gathered.stop = piece.kind;
      gathered.stop_address = address;
      gathered.stop_bytes = piece.kind == Piece::Kind::kResolve ? wanted : piece.length;
      return;
    }
    gathered.iovecs[gathered.count++] = {piece.bytes.data(), piece.bytes.size()};
    gathered.bytes += piece.bytes.size();
    offset += piece.bytes.size();
  }
}

// For memory that the sentry cannot point at: file pages that are not in the pool, and zero pages.
Result<size_t> IoBuffer::Bounce(uint64_t length, bool fill, HostOperation operation) {
  std::vector<std::byte> bounce(std::min({length, remaining_, kBounceBytesMax}));
  if (!fill) {
    // The cursor moves by what the operation took.
    IoBuffer peek = *this;
    const size_t copied = TRY(peek.CopyIn(bounce));
    const iovec vector{bounce.data(), copied};
    const size_t moved = TRY(operation(std::span(&vector, 1)));
    Skip(moved);
    return moved;
  }
  // What cannot be delivered must not be taken: only as much as is there and writable.
  IoBuffer probe = *this;
  const size_t readable = TRY(probe.CopyIn(bounce));
  const iovec vector{bounce.data(), readable};
  const size_t moved = TRY(operation(std::span(&vector, 1)));
  return CopyOut(std::span(bounce).first(moved));
}

Result<size_t> IoBuffer::WithHostMemory(uint64_t length, bool fill, HostOperation operation) {
  length = std::min(length, remaining_);
  if (length == 0) return size_t{0};
  if (memory_ == nullptr) {
    const Cursor cursor = Current(length);
    const iovec vector{reinterpret_cast<void*>(cursor.address), cursor.length};
    const size_t moved = TRY(operation(std::span(&vector, 1)));
    Skip(moved);
    return moved;
  }
  while (true) {
    Gathered gathered;
    {
      absl::ReaderMutexLock lock(&memory_->impl_->mu);
      Gather(length, fill, gathered);
      if (gathered.stop != Piece::Kind::kResolve && gathered.bytes > 0) {
        const size_t moved = TRY(operation(std::span(gathered.iovecs).first(gathered.count)));
        Skip(moved);
        return moved;
      }
    }
    switch (gathered.stop) {
      case Piece::Kind::kResolve:
        if (memory_->impl_->ResolveForCopy(gathered.stop_address, gathered.stop_bytes,
                                           {.write = fill})) {
          continue;
        }
        if (gathered.bytes == 0) return Errno(EFAULT);
        length = gathered.bytes;
        continue;
      case Piece::Kind::kFile:
      case Piece::Kind::kZero:
        return Bounce(gathered.stop_bytes, fill, operation);
      default:
        return Errno(EFAULT);
    }
  }
}

}  // namespace sentry
