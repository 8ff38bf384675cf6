#pragma once

// The bounded cache of directory entries. Every file system can look its names up again, so any
// entry that nothing but its parent's table refers to may go: the second-chance ("clock") rule
// picks among them, so that a hit costs one relaxed store and no list manipulation.

#include <cstddef>
#include <deque>
#include <memory>
#include <string_view>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/dentry.h"

namespace sentry {

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
  static void PruneTree(const DentryRef& root);

  // Entries in the cache or recently dropped from it.
  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  DentryRef Put(const DentryRef& directory, std::string_view name, InodeRef inode, bool replace);
  // Puts `entry` under the clock hand's eyes, and lets the hand advance a little if the cache is
  // full.
  void Track(const DentryRef& entry) ABSL_LOCKS_EXCLUDED(mu_);
  bool TryEvict(DentryRef& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const size_t entries_max_;
  mutable absl::Mutex mu_;
  std::deque<std::weak_ptr<Dentry>> clock_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
