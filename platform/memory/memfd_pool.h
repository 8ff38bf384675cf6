#pragma once

// MemoryPool over one sealed memfd.
//
// Two maps describe it: `segments_` (live pages, with their reference counts, as maximal runs of
// equal count) and `free_` (pages nobody holds, known to read as zero). A page that is being
// punched out is in neither. Space is taken from the upper end of the best-fitting free range,
// since Linux's mmap hands out guest addresses downwards too: a guest that maps areas one after
// another gets one contiguous run of the file, hence one VMA in its stub. The file itself is used
// from the bottom, in chunks, because the depth of the host's page index follows the highest page
// used.

#include <pthread.h>

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/memory/pool_watch.h"

namespace platform {

class MemfdPool final : public MemoryPool, public PoolWatch {
 public:
  // `window` maps all `bytes_max` bytes of `memfd`, read-write and shared. Takes both over.
  MemfdPool(base::Fd memfd, std::byte* window, uint64_t bytes_max);
  ~MemfdPool() override;
  MemfdPool(const MemfdPool&) = delete;
  MemfdPool& operator=(const MemfdPool&) = delete;

  int fd() const override { return memfd_.get(); }
  base::Result<PoolRange> Allocate(uint64_t bytes, uint64_t alignment) override
      ABSL_LOCKS_EXCLUDED(mu_);
  void AddReference(PoolRange range) override ABSL_LOCKS_EXCLUDED(mu_);
  void DropReference(PoolRange range) override ABSL_LOCKS_EXCLUDED(mu_);
  bool IsUnique(PoolRange range) const override ABSL_LOCKS_EXCLUDED(mu_);
  void Discard(PoolRange range) override;
  // Gives back what is kept warm.
  void Trim() ABSL_LOCKS_EXCLUDED(mu_);
  void Populate(PoolRange range) override;
  std::span<std::byte> Window(PoolRange range) override;
  uint64_t allocated_bytes() const override ABSL_LOCKS_EXCLUDED(mu_);
  uint64_t resident_bytes() const override;
  void SetWatcher(std::function<void()> crossed) override ABSL_LOCKS_EXCLUDED(watcher_mu_);
  bool Watch(uint64_t allocated_bytes_max) override ABSL_LOCKS_EXCLUDED(mu_);
  void Refuse(bool files, bool tasks) override {
    refuses_files_.store(files, std::memory_order_relaxed);
    refuses_tasks_.store(tasks, std::memory_order_relaxed);
  }
  bool refuses_files() const override { return refuses_files_.load(std::memory_order_relaxed); }
  bool refuses_tasks() const override { return refuses_tasks_.load(std::memory_order_relaxed); }

 private:
  struct Segment {
    uint64_t end = 0;
    uint64_t references = 0;
  };
  using Segments = absl::btree_map<uint64_t, Segment>;

  void CheckShape(PoolRange range) const;
  // Makes `offset` a segment boundary if it lies inside a segment.
  void SplitLocked(uint64_t offset) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Joins equal neighbours around [start, end).
  void MergeLocked(PoolRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void InsertFreeLocked(PoolRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void EraseFreeLocked(PoolRange range) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Opens up more of the file, so that `bytes` at `alignment` fit. False at the limit.
  bool GrowLocked(uint64_t bytes, uint64_t alignment) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // The free range to cut from; empty if none fits.
  PoolRange FindFreeLocked(uint64_t bytes, uint64_t alignment) const
      ABSL_SHARED_LOCKS_REQUIRED(mu_);

  base::Result<PoolRange> TryAllocate(uint64_t bytes, uint64_t alignment) ABSL_LOCKS_EXCLUDED(mu_);
  void AddAllocatedLocked(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void CallWatcher() ABSL_LOCKS_EXCLUDED(watcher_mu_);
  // Pages of nobody go back to the host, and the range to the free ones.
  void GiveBack(PoolRange range) ABSL_LOCKS_EXCLUDED(mu_);
  // A range that nobody refers to any more: kept warm, or given back to the host.
  void Release(PoolRange range) ABSL_LOCKS_EXCLUDED(mu_);
  bool IsResident(PoolRange range) const;
  // Zeroes a big range that the host holds and keeps it. False: it is to be given back.
  bool KeepBig(PoolRange range) ABSL_LOCKS_EXCLUDED(mu_);
  PoolRange TakeBigLocked(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool StartTrimmerLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Gives back the big ranges that nobody asked for lately. A thread of its own.
  void TrimBig() ABSL_LOCKS_EXCLUDED(mu_);
  // A range of exactly this size from the warm ones; empty if there is none.
  PoolRange TakeWarmLocked(uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const base::Fd memfd_;
  std::byte* const window_;
  const uint64_t bytes_max_;

  mutable absl::Mutex mu_;
  Segments segments_ ABSL_GUARDED_BY(mu_);
  absl::btree_map<uint64_t, uint64_t> free_ ABSL_GUARDED_BY(mu_);  // start -> end
  absl::btree_set<std::pair<uint64_t, uint64_t>> free_by_size_ ABSL_GUARDED_BY(mu_);  // size, start
  // Small ranges, zeroed, that the host still holds: to free and allocate their pages costs more
  // than to zero them, and programs fork, map and unmap the same sizes again and again.
  std::vector<PoolRange> warm_ ABSL_GUARDED_BY(mu_);
  uint64_t warm_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  // Big ones likewise, but only as long as such ranges come and go.
  std::vector<PoolRange> big_ ABSL_GUARDED_BY(mu_);
  uint64_t big_bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool big_in_use_ ABSL_GUARDED_BY(mu_) = false;  // Since the trimmer looked last.
  bool trims_ ABSL_GUARDED_BY(mu_) = false;       // trimmer_ is there.
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  pthread_t trimmer_ ABSL_GUARDED_BY(mu_) = {};
  uint64_t opened_ ABSL_GUARDED_BY(mu_) = 0;  // Bytes of the file in use at all.
  uint64_t allocated_ ABSL_GUARDED_BY(mu_) = 0;
  uint64_t watched_ ABSL_GUARDED_BY(mu_) = ~uint64_t{0};  // The mark; nobody watches.
  std::atomic<bool> crossed_{false};                      // The watcher is to be called.

  absl::Mutex watcher_mu_;
  std::function<void()> watcher_ ABSL_GUARDED_BY(watcher_mu_);
  std::atomic<bool> refuses_files_{false};
  std::atomic<bool> refuses_tasks_{false};
};

}  // namespace platform
