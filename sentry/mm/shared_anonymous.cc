#include "sentry/mm/shared_anonymous.h"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <span>

namespace sentry {
namespace {

using base::Errno;
using base::Result;

// Linux's internal shmem mount is the first anonymous device.
constexpr uint64_t kShmemDevice = 1;

uint64_t NextInode() {
  static std::atomic<uint64_t> next{1024};
  return next.fetch_add(1, std::memory_order_relaxed);
}

}  // namespace

Result<std::shared_ptr<SharedAnonymous>> SharedAnonymous::Create(platform::MemoryPool& pool,
                                                                 uint64_t length) {
  const platform::PoolRange range = TRY(pool.Allocate(length));
  return std::make_shared<SharedAnonymous>(pool, range);
}

SharedAnonymous::SharedAnonymous(platform::MemoryPool& pool, platform::PoolRange range)
    : pool_(pool), range_(range), inode_(NextInode()) {}

SharedAnonymous::~SharedAnonymous() { pool_.DropReference(range_); }

Result<HostRange> SharedAnonymous::Translate(uint64_t offset, uint64_t length, bool for_write) {
  (void)for_write;
  if (offset >= range_.size()) return Errno(EFAULT);
  return HostRange{pool_.fd(), range_.start + offset, std::min(length, range_.size() - offset),
                   true};
}

Result<size_t> SharedAnonymous::ReadAt(uint64_t offset, std::span<std::byte> out) {
  if (offset >= range_.size()) return size_t{0};
  const size_t count = std::min<uint64_t>(out.size(), range_.size() - offset);
  std::memcpy(out.data(), pool_.Window(range_).data() + offset, count);
  return count;
}

Result<size_t> SharedAnonymous::WriteAt(uint64_t offset, std::span<const std::byte> data) {
  if (offset >= range_.size()) return size_t{0};
  const size_t count = std::min<uint64_t>(data.size(), range_.size() - offset);
  std::memcpy(pool_.Window(range_).data() + offset, data.data(), count);
  return count;
}

Result<void> SharedAnonymous::PunchHole(uint64_t offset, uint64_t length) {
  if (offset >= range_.size()) return {};
  const uint64_t end = offset + std::min(length, range_.size() - offset);
  pool_.Discard({range_.start + offset, range_.start + end});
  return {};
}

Mappable::Identity SharedAnonymous::identity() const { return {kShmemDevice, inode_}; }

}  // namespace sentry
