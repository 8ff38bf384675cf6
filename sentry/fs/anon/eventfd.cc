#include "sentry/fs/anon/eventfd.h"

#include <fcntl.h>

#include <algorithm>
#include <cerrno>
#include <cinttypes>
#include <cstdio>

namespace sentry {

using base::Errno;
using base::Result;

EventFile::EventFile(Task& task, uint64_t initial, bool semaphore, uint32_t flags)
    : AnonymousFile(task, "[eventfd]", O_RDWR | flags), semaphore_(semaphore), count_(initial) {}

Result<size_t> EventFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)task, (void)offset;
  if (to.remaining() < sizeof(uint64_t)) return Errno(EINVAL);
  uint64_t taken = 0;
  {
    const absl::MutexLock lock(&mu_);
    if (count_ == 0) return Errno(EAGAIN);
    taken = semaphore_ ? 1 : count_;
    count_ -= taken;
  }
  queue_.Notify(kPollWritable);
  const size_t copied = TRY(to.CopyOut(std::as_bytes(std::span(&taken, 1))));
  if (copied < sizeof(taken)) return Errno(EFAULT);
  return copied;
}

Result<size_t> EventFile::Write(Task& task, IoBuffer& from, uint64_t* offset) {
  (void)task, (void)offset;
  if (from.remaining() < sizeof(uint64_t)) return Errno(EINVAL);
  // Copied before it is known to fit: a retry begins at the same place.
  IoBuffer source = from;
  uint64_t added = 0;
  if (TRY(source.CopyIn(std::as_writable_bytes(std::span(&added, 1)))) < sizeof(added))
    return Errno(EFAULT);
  if (added > kCountMax) return Errno(EINVAL);
  {
    const absl::MutexLock lock(&mu_);
    if (added > kCountMax - std::min(count_, kCountMax)) return Errno(EAGAIN);
    count_ += added;
  }
  from.Skip(sizeof(added));
  queue_.Notify(kPollReadable);
  return sizeof(added);
}

void EventFile::Signal(uint64_t count) {
  {
    const absl::MutexLock lock(&mu_);
    count_ = count > ~uint64_t{0} - count_ ? ~uint64_t{0} : count_ + count;
  }
  queue_.Notify(kPollReadable);
}

PollMask EventFile::Poll(PollMask interest) {
  (void)interest;
  const absl::MutexLock lock(&mu_);
  PollMask mask = 0;
  if (count_ > 0) mask |= kPollReadable;
  if (count_ < kCountMax) mask |= kPollWritable;
  if (count_ > kCountMax) mask |= POLLERR;
  return mask;
}

std::string EventFile::FdInfo() const {
  const absl::MutexLock lock(&mu_);
  char text[96];
  std::snprintf(text, sizeof(text), "eventfd-count: %16" PRIx64 "\neventfd-semaphore: %d\n", count_,
                semaphore_ ? 1 : 0);
  return text;
}

}  // namespace sentry
