#include "platform/memory/memfd_pool.h"

#include <fcntl.h>
#include <linux/falloc.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "platform/base/check.h"
#include "platform/base/log.h"
#include "platform/base/user_addr.h"

namespace platform {
namespace {

using base::Errno;
using base::kPageSize;
using base::PageUp;
using base::Result;

constexpr uint64_t kChunkBytes = uint64_t{1} << 30;
// Free ranges tried for an aligned request before one that is large enough in any case is taken.
constexpr int kAlignedProbesMax = 16;

// What is kept warm: ranges up to this size, and so much of them.
constexpr uint64_t kWarmRangeBytesMax = uint64_t{64} << 10;
constexpr uint64_t kWarmBytesMax = uint64_t{256} << 10;
// Bigger ones, of which so much is kept, for a request for as much or less; when nobody has come or
// gone for so long, they are given back.
constexpr uint64_t kBigBytesMax = uint64_t{48} << 20;
constexpr absl::Duration kBigIdle = absl::Seconds(1);
constexpr size_t kTrimmerStackBytes = size_t{128} << 10;

constexpr uint64_t AlignDown(uint64_t value, uint64_t alignment) {
  return value & ~(alignment - 1);
}

// Where a block of `bytes` at the upper end of `range` starts; range.end if it does not fit.
uint64_t UpperEndFit(PoolRange range, uint64_t bytes, uint64_t alignment) {
  if (range.size() < bytes) return range.end;
  uint64_t start = AlignDown(range.end - bytes, alignment);
  return start >= range.start ? start : range.end;
}

// True if the range reads as zero afterwards.
bool PunchHole(int fd, PoolRange range) {
  int result = 0;
  do {
    result = fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                       static_cast<off_t>(range.start), static_cast<off_t>(range.size()));
  } while (result != 0 && errno == EINTR);
  return result == 0;
}

}  // namespace

Result<std::unique_ptr<MemoryPool>> MemoryPool::Create(uint64_t bytes_max) {
  if (bytes_max == 0 || bytes_max > uint64_t{1} << 46) return Errno(EINVAL);
  const uint64_t bytes = PageUp(bytes_max);
  base::Fd memfd(memfd_create("ravelin-memory", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!memfd) return base::LastErrno();
  if (ftruncate(memfd.get(), static_cast<off_t>(bytes)) != 0) return base::LastErrno();
  // Stubs share the descriptor for mapping; a broken one must not be able to cut the file short,
  // which would turn the sentry's own accesses into SIGBUS.
  if (fcntl(memfd.get(), F_ADD_SEALS, F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) != 0) {
    return base::LastErrno();
  }
  void* window =
      mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, memfd.get(), 0);
  if (window == MAP_FAILED) return base::LastErrno();
  // Core dumps of the sentry would otherwise walk the guest's memory.
  madvise(window, bytes, MADV_DONTDUMP);
  return std::unique_ptr<MemoryPool>(
      std::make_unique<MemfdPool>(std::move(memfd), static_cast<std::byte*>(window), bytes));
}

MemfdPool::MemfdPool(base::Fd memfd, std::byte* window, uint64_t bytes_max)
    : memfd_(std::move(memfd)), window_(window), bytes_max_(bytes_max) {}

MemfdPool::~MemfdPool() {
  pthread_t trimmer{};
  bool trims = false;
  {
    absl::MutexLock lock(&mu_);
    stopping_ = true;
    trims = trims_;
    trimmer = trimmer_;
  }
  if (trims) pthread_join(trimmer, nullptr);
  munmap(window_, bytes_max_);
}

void MemfdPool::CheckShape(PoolRange range) const {
  CHECK(range.start < range.end && range.end <= bytes_max_);
  CHECK(range.start % kPageSize == 0 && range.end % kPageSize == 0);
}

Result<PoolRange> MemfdPool::Allocate(uint64_t bytes, uint64_t alignment) {
  CHECK(bytes % kPageSize == 0 && bytes > 0);
  CHECK(std::has_single_bit(alignment) && alignment >= kPageSize);
  if (bytes > bytes_max_ || alignment > bytes_max_) return Errno(ENOMEM);
  Result<PoolRange> range = TryAllocate(bytes, alignment);
  if (range.ok()) return range;
  Trim();
  return TryAllocate(bytes, alignment);
}

Result<PoolRange> MemfdPool::TryAllocate(uint64_t bytes, uint64_t alignment) {
  absl::MutexLock lock(&mu_);
  if (alignment == kPageSize) {
    const PoolRange warm =
        bytes <= kWarmRangeBytesMax ? TakeWarmLocked(bytes) : TakeBigLocked(bytes);
    if (warm.size() != 0) {
      segments_.emplace(warm.start, Segment{warm.end, 1});
      MergeLocked(warm);
      allocated_ += bytes;
      return warm;
    }
  }
  PoolRange hole = FindFreeLocked(bytes, alignment);
  if (hole.size() == 0) {
    if (!GrowLocked(bytes, alignment)) return Errno(ENOMEM);
    hole = FindFreeLocked(bytes, alignment);
    if (hole.size() == 0) return Errno(ENOMEM);
  }
  const uint64_t start = UpperEndFit(hole, bytes, alignment);
  const PoolRange range{start, start + bytes};
  EraseFreeLocked(hole);
  if (hole.start < range.start) InsertFreeLocked({hole.start, range.start});
  if (range.end < hole.end) InsertFreeLocked({range.end, hole.end});
  segments_.emplace(range.start, Segment{range.end, 1});
  MergeLocked(range);
  allocated_ += bytes;
  return range;
}

void MemfdPool::AddReference(PoolRange range) {
  CheckShape(range);
  absl::MutexLock lock(&mu_);
  SplitLocked(range.start);
  SplitLocked(range.end);
  uint64_t at = range.start;
  for (auto it = segments_.find(at); at < range.end; ++it) {
    CHECK(it != segments_.end() && it->first == at);
    it->second.references++;
    at = it->second.end;
  }
  MergeLocked(range);
}

void MemfdPool::DropReference(PoolRange range) {
  CheckShape(range);
  std::vector<PoolRange> dead;
  {
    absl::MutexLock lock(&mu_);
    SplitLocked(range.start);
    SplitLocked(range.end);
    uint64_t at = range.start;
    for (auto it = segments_.find(at); at < range.end;) {
      CHECK(it != segments_.end() && it->first == at);
      at = it->second.end;
      if (--it->second.references > 0) {
        ++it;
        continue;
      }
      if (!dead.empty() && dead.back().end == it->first) {
        dead.back().end = at;
      } else {
        dead.push_back({it->first, at});
      }
      it = segments_.erase(it);
    }
    MergeLocked(range);
    for (const PoolRange& gone : dead) allocated_ -= gone.size();
  }
  // Outside the lock: the host takes time in proportion to the pages it frees, and nobody else
  // knows of these any more.
  for (const PoolRange& gone : dead) Release(gone);
}

bool MemfdPool::IsResident(PoolRange range) const {
  const auto start = static_cast<off_t>(range.start);
  return lseek(memfd_.get(), start, SEEK_HOLE) >= static_cast<off_t>(range.end);
}

PoolRange MemfdPool::TakeWarmLocked(uint64_t bytes) {
  // The latest: it may still be in the caches.
  for (size_t i = warm_.size(); i-- > 0;) {
    if (warm_[i].size() != bytes) continue;
    const PoolRange range = warm_[i];
    warm_.erase(warm_.begin() + static_cast<ptrdiff_t>(i));
    warm_bytes_ -= bytes;
    return range;
  }
  return {};
}

PoolRange MemfdPool::TakeBigLocked(uint64_t bytes) {
  auto best = big_.end();
  for (auto it = big_.begin(); it != big_.end(); ++it) {
    if (it->size() < bytes) continue;
    if (best == big_.end() || it->size() < best->size()) best = it;
  }
  if (best == big_.end()) return {};
  big_in_use_ = true;
  big_bytes_ -= bytes;
  const PoolRange range{best->end - bytes, best->end};
  best->end = range.start;
  if (best->start == best->end) big_.erase(best);
  return range;
}

bool MemfdPool::KeepBig(PoolRange range) {
  {
    absl::MutexLock lock(&mu_);
    if (big_bytes_ + range.size() > kBigBytesMax || !StartTrimmerLocked()) return false;
    big_bytes_ += range.size();
    big_in_use_ = true;
  }
  std::span<std::byte> bytes = Window(range);
  // Best effort: without it, the window's pages come by fault, one by one.
  madvise(bytes.data(), bytes.size(), MADV_POPULATE_WRITE);
  std::memset(bytes.data(), 0, bytes.size());
  absl::MutexLock lock(&mu_);
  big_.push_back(range);
  return true;
}

bool MemfdPool::StartTrimmerLocked() {
  if (trims_) return true;
  pthread_attr_t attributes;
  if (pthread_attr_init(&attributes) != 0) return false;
  pthread_attr_setstacksize(&attributes, kTrimmerStackBytes);
  const auto run = [](void* pool) -> void* {
    static_cast<MemfdPool*>(pool)->TrimBig();
    return nullptr;
  };
  trims_ = pthread_create(&trimmer_, &attributes, run, this) == 0;
  pthread_attr_destroy(&attributes);
  return trims_;
}

void MemfdPool::TrimBig() {
  const auto has_work = [this]()
                            ABSL_SHARED_LOCKS_REQUIRED(mu_) { return stopping_ || !big_.empty(); };
  for (;;) {
    std::vector<PoolRange> idle;
    {
      absl::MutexLock lock(&mu_);
      mu_.Await(absl::Condition(&has_work));
      if (mu_.AwaitWithTimeout(absl::Condition(&stopping_), kBigIdle)) return;
      if (std::exchange(big_in_use_, false)) continue;
      idle.swap(big_);
      for (const PoolRange& range : idle) big_bytes_ -= range.size();
    }
    for (const PoolRange& range : idle) GiveBack(range);
  }
}

void MemfdPool::Release(PoolRange range) {
  if (range.size() > kWarmRangeBytesMax && IsResident(range) && KeepBig(range)) return;
  if (range.size() <= kWarmRangeBytesMax && IsResident(range)) {
    std::memset(Window(range).data(), 0, range.size());
    absl::MutexLock lock(&mu_);
    warm_.push_back(range);
    warm_bytes_ += range.size();
    if (warm_bytes_ <= kWarmBytesMax) return;
    // The oldest, which nobody has asked for in a while, goes instead.
    range = warm_.front();
    warm_.erase(warm_.begin());
    warm_bytes_ -= range.size();
  }
  GiveBack(range);
}

void MemfdPool::Trim() {
  std::vector<PoolRange> warm;
  {
    absl::MutexLock lock(&mu_);
    warm.swap(warm_);
    warm_bytes_ = 0;
    warm.insert(warm.end(), big_.begin(), big_.end());
    for (const PoolRange& range : big_) big_bytes_ -= range.size();
    big_.clear();
  }
  for (const PoolRange& range : warm) GiveBack(range);
}

void MemfdPool::GiveBack(PoolRange range) {
  if (!PunchHole(memfd_.get(), range)) {
    // It may hold another process's data: it must never be given out again.
    LOG_ERROR("memory pool: cannot give back %llu bytes, errno %d; they are lost",
              static_cast<unsigned long long>(range.size()), errno);
    return;
  }
  absl::MutexLock lock(&mu_);
  InsertFreeLocked(range);
}

bool MemfdPool::IsUnique(PoolRange range) const {
  CheckShape(range);
  absl::ReaderMutexLock lock(&mu_);
  auto it = segments_.upper_bound(range.start);
  CHECK(it != segments_.begin());
  --it;
  // Neighbours of equal count are merged, so a unique range lies in one segment.
  CHECK(range.start < it->second.end);
  return it->second.references == 1 && range.end <= it->second.end;
}

void MemfdPool::Discard(PoolRange range) {
  CheckShape(range);
  if (PunchHole(memfd_.get(), range)) return;
  // The contract is that the pages read as zero, whatever the host says.
  std::span<std::byte> bytes = Window(range);
  std::fill(bytes.begin(), bytes.end(), std::byte{0});
}

void MemfdPool::Populate(PoolRange range) {
  CheckShape(range);
  // Best effort: without it, pages come by fault, one by one.
  (void)fallocate(memfd_.get(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(range.start),
                  static_cast<off_t>(range.size()));
}

std::span<std::byte> MemfdPool::Window(PoolRange range) {
  CheckShape(range);
  return {window_ + range.start, range.size()};
}

uint64_t MemfdPool::allocated_bytes() const {
  absl::ReaderMutexLock lock(&mu_);
  return allocated_;
}

uint64_t MemfdPool::resident_bytes() const {
  struct stat status{};
  if (fstat(memfd_.get(), &status) != 0) return 0;
  return static_cast<uint64_t>(status.st_blocks) * 512;
}

void MemfdPool::SplitLocked(uint64_t offset) {
  auto it = segments_.upper_bound(offset);
  if (it == segments_.begin()) return;
  --it;
  if (it->first == offset || it->second.end <= offset) return;
  const Segment upper = it->second;
  it->second.end = offset;
  segments_.emplace(offset, upper);
}

void MemfdPool::MergeLocked(PoolRange range) {
  auto it = segments_.lower_bound(range.start);
  if (it != segments_.begin()) --it;
  while (it != segments_.end() && it->first <= range.end) {
    auto next = std::next(it);
    if (next != segments_.end() && next->first == it->second.end &&
        next->second.references == it->second.references) {
      const uint64_t start = it->first;
      it->second.end = next->second.end;
      segments_.erase(next);
      it = segments_.find(start);
    } else {
      it = next;
    }
  }
}

void MemfdPool::InsertFreeLocked(PoolRange range) {
  auto next = free_.lower_bound(range.start);
  CHECK(next == free_.end() || range.end <= next->first);
  if (next != free_.end() && next->first == range.end) {
    const PoolRange above{next->first, next->second};
    range.end = above.end;
    EraseFreeLocked(above);
    next = free_.lower_bound(range.start);
  }
  if (next != free_.begin()) {
    auto below = std::prev(next);
    CHECK(below->second <= range.start);
    if (below->second == range.start) {
      const PoolRange lower{below->first, below->second};
      range.start = lower.start;
      EraseFreeLocked(lower);
    }
  }
  free_.emplace(range.start, range.end);
  free_by_size_.emplace(range.size(), range.start);
}

void MemfdPool::EraseFreeLocked(PoolRange range) {
  CHECK(free_.erase(range.start) == 1);
  CHECK(free_by_size_.erase({range.size(), range.start}) == 1);
}

bool MemfdPool::GrowLocked(uint64_t bytes, uint64_t alignment) {
  uint64_t wanted = bytes + (alignment > kPageSize ? alignment : 0);
  wanted = (wanted + kChunkBytes - 1) / kChunkBytes * kChunkBytes;
  const uint64_t grown = std::min(wanted, bytes_max_ - opened_);
  if (grown == 0) return false;
  InsertFreeLocked({opened_, opened_ + grown});
  opened_ += grown;
  return true;
}

PoolRange MemfdPool::FindFreeLocked(uint64_t bytes, uint64_t alignment) const {
  auto it = free_by_size_.lower_bound({bytes, 0});
  for (int probe = 0; it != free_by_size_.end() && probe < kAlignedProbesMax; ++it, ++probe) {
    const PoolRange hole{it->second, it->second + it->first};
    if (UpperEndFit(hole, bytes, alignment) != hole.end) return hole;
  }
  it = free_by_size_.lower_bound({bytes + alignment, 0});
  if (it == free_by_size_.end()) return {};
  return {it->second, it->second + it->first};
}

}  // namespace platform
