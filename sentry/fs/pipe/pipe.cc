#include "sentry/fs/pipe/pipe.h"

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>

#include "platform/base/check.h"

namespace sentry {

using base::Errno;
using base::Result;

void Pipe::Open(bool reader, bool writer) {
  {
    const absl::MutexLock lock(&mu_);
    ends_.readers += reader ? 1 : 0;
    ends_.readers_ever += reader ? 1 : 0;
    ends_.writers += writer ? 1 : 0;
    ends_.writers_ever += writer ? 1 : 0;
  }
  // Who waits in open(2) looks at the counts.
  queue_.Notify(kPollReadable | kPollWritable);
}

void Pipe::Close(bool reader, bool writer) {
  {
    const absl::MutexLock lock(&mu_);
    ends_.readers -= reader ? 1 : 0;
    ends_.writers -= writer ? 1 : 0;
    if (ends_.readers == 0 && ends_.writers == 0) {
      slots_.clear();
      spare_.reset();
    }
  }
  queue_.Notify(kPollReadable | kPollWritable | POLLERR | POLLHUP);
}

Pipe::Ends Pipe::ends() const {
  const absl::MutexLock lock(&mu_);
  return ends_;
}

Pipe::Page Pipe::TakePage() {
  if (spare_ != nullptr) return std::move(spare_);
  return std::make_unique_for_overwrite<std::byte[]>(kPageBytes);
}

void Pipe::PopFront() {
  if (spare_ == nullptr) spare_ = std::move(slots_.front().page);
  slots_.pop_front();
}

Result<size_t> Pipe::Read(IoBuffer& to) {
  if (to.remaining() == 0) return size_t{0};
  size_t total = 0;
  bool was_full = false;
  Result<size_t> failure = size_t{0};
  {
    const absl::MutexLock lock(&mu_);
    was_full = IsFull();
    while (!slots_.empty() && to.remaining() > 0) {
      Slot& slot = slots_.front();
      const size_t wanted = std::min<size_t>(slot.length, to.remaining());
      const Result<size_t> copied = to.CopyOut({slot.page.get() + slot.offset, wanted});
      if (!copied.ok()) {
        failure = copied;
        break;
      }
      total += copied.value();
      slot.offset += static_cast<uint32_t>(copied.value());
      slot.length -= static_cast<uint32_t>(copied.value());
      if (copied.value() < wanted) break;
      // What the buffer has no room for of a packet is lost.
      const bool packet = slot.packet;
      if (slot.length == 0 || packet) PopFront();
      if (packet) break;
    }
    if (total == 0 && failure.ok() && ends_.writers > 0) return Errno(EAGAIN);
  }
  if (was_full && total > 0) queue_.Notify(kPollWritable);
  if (total == 0) return failure;
  return total;
}

Result<size_t> Pipe::Merge(IoBuffer& from) {
  const size_t tail = from.remaining() % kPageBytes;
  if (tail == 0 || slots_.empty()) return size_t{0};
  Slot& last = slots_.back();
  if (last.packet || last.offset + last.length + tail > kPageBytes) return size_t{0};
  const size_t copied = TRY(from.CopyIn({last.page.get() + last.offset + last.length, tail}));
  last.length += static_cast<uint32_t>(copied);
  return copied;
}

Result<size_t> Pipe::Write(IoBuffer& from, bool packets, bool partial) {
  if (from.remaining() == 0) return size_t{0};
  size_t total = 0;
  std::optional<Errno> failure;
  {
    const absl::MutexLock lock(&mu_);
    if (ends_.readers == 0) return Errno(EPIPE);
    if (!packets) {
      const Result<size_t> merged = Merge(from);
      if (!merged.ok()) return merged.error();
      total += merged.value();
    }
    while (from.remaining() > 0 && !failure.has_value()) {
      if (IsFull()) {
        if (!partial || total == 0) failure = Errno(EAGAIN);
        break;
      }
      Slot slot;
      slot.page = TakePage();
      const size_t wanted = std::min<size_t>(kPageBytes, from.remaining());
      const Result<size_t> copied = from.CopyIn({slot.page.get(), wanted});
      if (!copied.ok()) {
        spare_ = std::move(slot.page);
        if (total == 0) failure = copied.error();
        break;
      }
      slot.length = static_cast<uint32_t>(copied.value());
      slot.packet = packets;
      total += copied.value();
      slots_.push_back(std::move(slot));
      if (copied.value() < wanted) break;
    }
  }
  if (total > 0) queue_.Notify(kPollReadable);
  if (failure.has_value()) return *failure;
  return total;
}

Result<size_t> Pipe::SpliceOut(size_t length, const Sink& sink) {
  size_t total = 0;
  bool was_full = false;
  std::optional<Errno> failure;
  {
    const absl::MutexLock lock(&mu_);
    if (slots_.empty()) {
      if (ends_.writers > 0) return Errno(EAGAIN);
      return size_t{0};
    }
    was_full = IsFull();
    while (!slots_.empty() && total < length) {
      Slot& slot = slots_.front();
      const size_t wanted = std::min<size_t>(slot.length, length - total);
      const Result<size_t> taken = sink({slot.page.get() + slot.offset, wanted});
      if (!taken.ok()) {
        failure = taken.error();
        break;
      }
      CHECK(taken.value() <= wanted);
      total += taken.value();
      slot.offset += static_cast<uint32_t>(taken.value());
      slot.length -= static_cast<uint32_t>(taken.value());
      if (slot.length == 0) PopFront();
      if (taken.value() < wanted) break;
    }
  }
  if (was_full && total > 0) queue_.Notify(kPollWritable);
  if (failure.has_value() && total == 0) return *failure;
  return total;
}

Result<size_t> Pipe::SpliceIn(size_t length, const Source& source) {
  size_t total = 0;
  std::optional<Errno> failure;
  {
    const absl::MutexLock lock(&mu_);
    if (ends_.readers == 0) return Errno(EPIPE);
    if (IsFull()) return Errno(EAGAIN);
    while (!IsFull() && total < length) {
      Slot slot;
      slot.page = TakePage();
      const size_t wanted = std::min<size_t>(kPageBytes, length - total);
      const Result<size_t> given = source({slot.page.get(), wanted});
      if (!given.ok() || given.value() == 0) {
        spare_ = std::move(slot.page);
        if (!given.ok()) failure = given.error();
        break;
      }
      CHECK(given.value() <= wanted);
      slot.length = static_cast<uint32_t>(given.value());
      slots_.push_back(std::move(slot));
      total += given.value();
      if (given.value() < wanted) break;
    }
  }
  if (total > 0) queue_.Notify(kPollReadable);
  if (failure.has_value() && total == 0) return *failure;
  return total;
}

// Both locks are held.
Result<size_t> Pipe::MoveLocked(Pipe& from, Pipe& to, size_t length,
                                bool keep) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  size_t total = 0;
  for (size_t i = 0; total < length && !to.IsFull() && i < from.slots_.size();) {
    Slot& slot = from.slots_[i];
    const size_t taken = std::min<size_t>(slot.length, length - total);
    if (!keep && taken == slot.length) {
      to.slots_.push_back(std::move(slot));
      from.slots_.pop_front();
    } else {
      Slot copy;
      copy.page = to.TakePage();
      std::memcpy(copy.page.get(), slot.page.get() + slot.offset, taken);
      copy.length = static_cast<uint32_t>(taken);
      copy.packet = slot.packet;
      to.slots_.push_back(std::move(copy));
      if (!keep) {
        slot.offset += static_cast<uint32_t>(taken);
        slot.length -= static_cast<uint32_t>(taken);
      }
      ++i;
    }
    total += taken;
  }
  return total;
}

Result<size_t> Pipe::Move(Pipe& from, Pipe& to, size_t length, bool keep,
                          bool* from_empty) ABSL_NO_THREAD_SAFETY_ANALYSIS {
  CHECK(&from != &to);
  Pipe* const first = std::less<Pipe*>()(&from, &to) ? &from : &to;
  Pipe* const second = first == &from ? &to : &from;
  size_t total = 0;
  bool was_full = false;
  {
    const absl::MutexLock first_lock(&first->mu_);
    const absl::MutexLock second_lock(&second->mu_);
    *from_empty = from.slots_.empty();
    if (to.ends_.readers == 0) return Errno(EPIPE);
    if (*from_empty) {
      if (from.ends_.writers > 0) return Errno(EAGAIN);
      return size_t{0};
    }
    if (to.IsFull()) return Errno(EAGAIN);
    was_full = from.IsFull();
    total = TRY(MoveLocked(from, to, length, keep));
  }
  if (was_full && !keep) from.queue_.Notify(kPollWritable);
  to.queue_.Notify(kPollReadable);
  return total;
}

PollMask Pipe::Poll(bool reader, bool writer, uint64_t writers_ever_at_open) const {
  const absl::MutexLock lock(&mu_);
  PollMask mask = 0;
  if (reader) {
    if (!slots_.empty()) mask |= kPollReadable;
    if (ends_.writers == 0 && ends_.writers_ever != writers_ever_at_open) mask |= POLLHUP;
  }
  if (writer) {
    if (!IsFull()) mask |= kPollWritable;
    if (ends_.readers == 0) mask |= POLLERR;
  }
  return mask;
}

size_t Pipe::bytes() const {
  const absl::MutexLock lock(&mu_);
  size_t total = 0;
  for (const Slot& slot : slots_) total += slot.length;
  return total;
}

size_t Pipe::capacity_bytes() const {
  const absl::MutexLock lock(&mu_);
  return capacity_ * kPageBytes;
}

Result<size_t> Pipe::SetCapacity(uint64_t bytes, bool privileged) {
  if (bytes > kPrivilegedBytesMax) return Errno(EINVAL);
  const size_t rounded = std::bit_ceil(std::max<size_t>(bytes, kPageBytes));
  {
    const absl::MutexLock lock(&mu_);
    const size_t pages = rounded / kPageBytes;
    if (pages > capacity_ && rounded > kBytesMax && !privileged) return Errno(EPERM);
    if (pages < slots_.size()) return Errno(EBUSY);
    capacity_ = pages;
  }
  queue_.Notify(kPollWritable);
  return rounded;
}

}  // namespace sentry
