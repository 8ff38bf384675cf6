#pragma once

// The bounded cache of directory entries: a table per directory, which owns them, and one index of
// all that is read without locks.
// Every file system can look its names up again, so any
// entry that nothing but its parent's table refers to may go: the second-chance ("clock") rule
// picks among them, so that a hit costs one relaxed store and no list manipulation.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/read_sections.h"

namespace sentry {

// All entries that may be used as they are, by directory and name. Finding one takes no lock; it
// may fail for an entry that is there (one that is just being renamed): then the directory's own
// table decides.
class DentryIndex {
 public:
  DentryIndex();
  // In a read section. Null: look under the lock.
  Dentry* Find(const Dentry& directory, std::string_view name) const;
  // Under the directory's lock of its table.
  void Add(Dentry& entry, const Dentry& directory, std::string_view name) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(Dentry& entry) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  static constexpr size_t kBuckets = 16384;
  std::atomic<Dentry*>& BucketOf(uint64_t hash) const { return buckets_[hash % kBuckets]; }

  const std::unique_ptr<std::atomic<Dentry*>[]> buckets_;
  absl::Mutex mu_;  // Writers.
};

// Thread-safe.
class DentryCache {
 public:
  static constexpr size_t kEntriesMax = 65536;
  explicit DentryCache(size_t entries_max = kEntriesMax) : entries_max_(entries_max) {}

  // The cached entry, negative ones too; null if nothing is known.
  static DentryRef Find(const Dentry& directory, std::string_view name);
  // Makes an entry unless there is one: the one that is there afterwards. Null `inode`: negative.
  DentryRef Insert(const DentryRef& directory, std::string_view name, InodeRef inode);
  // Makes an entry in place of what is there (which becomes deleted if it was positive).
  DentryRef Replace(const DentryRef& directory, std::string_view name, InodeRef inode);
  // `child` was unlinked from `directory`, or found stale. With `leave_negative` its absence is
  // remembered.
  void Remove(const DentryRef& directory, Dentry& child, bool leave_negative);
  // rename: `child` goes from one place to the other, replacing what is there. The rename lock and
  // the directories' change locks are held.
  void Move(const DentryRef& from, const DentryRef& child, const DentryRef& to,
            std::string_view name, bool leave_negative);
  void Exchange(const DentryRef& directory_a, const DentryRef& a, const DentryRef& directory_b,
                const DentryRef& b);
  // Forgets everything below `root`, so that the tree can be freed. What is still in use lives on
  // by its own references.
  void PruneTree(const DentryRef& root);

  // --- Reading without locks.
  ReadSections& sections() { return sections_; }
  const DentryIndex& index() const { return index_; }
  // A walk that saw the index between these two, and the same number from both, has met no rename
  // half done.
  uint64_t renames_finished() const { return renames_finished_.load(std::memory_order_acquire); }
  uint64_t renames_begun() const {
    std::atomic_thread_fence(std::memory_order_acquire);
    return renames_begun_.load(std::memory_order_relaxed);
  }

  // Entries in the cache or recently dropped from it.
  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  DentryRef Put(const DentryRef& directory, std::string_view name, InodeRef inode, bool replace);
  // Puts `entry` under the clock hand's eyes, and lets the hand advance a little if the cache is
  // full.
  void Track(const DentryRef& entry) ABSL_LOCKS_EXCLUDED(mu_);
  bool TryEvict(const DentryRef& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void AddToIndex(Dentry& entry, const Dentry& directory, std::string_view name);
  // `child` is at `name` in `to`; its name and parent changed.
  void SetPlace(const DentryRef& child, const DentryRef& to, std::string_view name);
  void Prune(const DentryRef& root);

  const size_t entries_max_;
  ReadSections sections_;
  DentryIndex index_;
  std::atomic<uint64_t> renames_begun_{0};
  std::atomic<uint64_t> renames_finished_{0};
  mutable absl::Mutex mu_;
  std::deque<std::weak_ptr<Dentry>> clock_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
