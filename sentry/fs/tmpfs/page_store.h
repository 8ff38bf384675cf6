#pragma once

// The content of one memory file: pages of the memory pool at page offsets, with holes that read as
// zero. A map of runs, so that a file written in sequence is a few large runs (one host mapping
// each) and a 100 GB sparse file costs only what was written.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "absl/container/btree_map.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"

namespace sentry {

// How much of something a file system may use. Thread-safe.
class Quota {
 public:
  // 0: no limit.
  explicit Quota(uint64_t limit) : limit_(limit) {}
  bool Take(uint64_t amount);
  void Give(uint64_t amount) { used_.fetch_sub(amount, std::memory_order_relaxed); }
  uint64_t used() const { return used_.load(std::memory_order_relaxed); }
  uint64_t limit() const { return limit_.load(std::memory_order_relaxed); }
  // EINVAL if more is in use.
  base::Result<void> SetLimit(uint64_t limit);

 private:
  std::atomic<uint64_t> used_{0};
  std::atomic<uint64_t> limit_;
};

// Not thread-safe: the file's lock guards it. Offsets are below 2^63.
class PageStore {
 public:
  // `pool` and `quota` (in pages) outlive it.
  PageStore(platform::MemoryPool& pool, Quota& quota) : pool_(pool), quota_(quota) {}
  ~PageStore();
  PageStore(const PageStore&) = delete;
  PageStore& operator=(const PageStore&) = delete;

  void Read(uint64_t offset, std::span<std::byte> out) const;
  // Bytes written before space ran out; ENOSPC, ENOMEM if none.
  base::Result<size_t> Write(uint64_t offset, std::span<const std::byte> data);
  // Pool pages behind [offset, offset + length) from the start on, as long as they are contiguous;
  // made where there are none, `make_max` pages at most in one go. Page aligned.
  base::Result<platform::PoolRange> Back(uint64_t offset, uint64_t length, uint64_t make_max);
  // fallocate: no holes left in the range.
  base::Result<void> Fill(uint64_t offset, uint64_t length);
  // Takes whole pages [first, end) out of the file. They live until the caller, having made sure
  // that nobody shows them any more, gives them to Release.
  void TakeOut(uint64_t first_page, uint64_t end_page, std::vector<platform::PoolRange>* taken);
  void Release(const std::vector<platform::PoolRange>& taken);
  // Bytes become zero where there are pages.
  void Zero(uint64_t offset, uint64_t length);
  // The first data byte / hole byte at or after `offset`; `end` if there is none before it.
  uint64_t NextData(uint64_t offset, uint64_t end) const;
  uint64_t NextHole(uint64_t offset, uint64_t end) const;
  uint64_t pages() const { return pages_; }
  // Gives back what was kept for growth.
  void DropReserve();

 private:
  struct Run {
    uint64_t pool_start = 0;
    uint64_t pages = 0;
  };
  using Runs = absl::btree_map<uint64_t, Run>;  // By first page in the file.

  Runs::const_iterator FindRun(uint64_t page) const;
  // Makes pages for a hole at `page`: at most `wanted`, at least one, not beyond the next run.
  base::Result<void> MakePages(uint64_t page, uint64_t wanted);
  void Insert(uint64_t page, uint64_t pool_start, uint64_t count);
  std::span<std::byte> Bytes(const Run& run, uint64_t first_page, uint64_t offset,
                             uint64_t length) const;

  platform::MemoryPool& pool_;
  Quota& quota_;
  Runs runs_;
  uint64_t pages_ = 0;
  // Pool pages right behind the last run's, kept for it to grow into.
  platform::PoolRange reserve_;
};

}  // namespace sentry
