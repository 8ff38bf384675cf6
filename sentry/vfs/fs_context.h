#pragma once

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "sentry/vfs/path.h"

namespace sentry {

// Root, working directory and umask; shared by tasks that clone with CLONE_FS. Thread-safe.
class FsContext {
 public:
  FsContext(Path root, Path working_directory, uint32_t umask);
  Path root() const ABSL_LOCKS_EXCLUDED(mu_);
  Path working_directory() const ABSL_LOCKS_EXCLUDED(mu_);
  void set_root(Path path) ABSL_LOCKS_EXCLUDED(mu_);
  void set_working_directory(Path path) ABSL_LOCKS_EXCLUDED(mu_);
  uint32_t umask() const ABSL_LOCKS_EXCLUDED(mu_);
  // All of it at once.
  void Get(Path* root, Path* working_directory, uint32_t* umask) const ABSL_LOCKS_EXCLUDED(mu_);
  // Without the lock: for the only task that uses it, on its own thread, as long as it changes
  // nothing.
  const Path& root_of_only_user() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return root_; }
  const Path& directory_of_only_user() const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    return working_directory_;
  }
  uint32_t umask_of_only_user() const ABSL_NO_THREAD_SAFETY_ANALYSIS { return umask_; }
  uint32_t set_umask(uint32_t mask) ABSL_LOCKS_EXCLUDED(mu_);  // Returns the old one.
  std::shared_ptr<FsContext> Copy() const ABSL_LOCKS_EXCLUDED(mu_);

  // pivot_root(2) by another task: whichever of the two is at `from` goes to `to`. It happens when
  // a task that uses this comes to look, on its own thread, since the only user looks without the
  // lock.
  void MoveLater(const Path& from, const Path& to) ABSL_LOCKS_EXCLUDED(mu_);
  bool has_to_move() const { return has_to_move_.load(std::memory_order_acquire); }
  // On the thread of a task that uses it.
  void MoveNow() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  Path root_ ABSL_GUARDED_BY(mu_);
  Path working_directory_ ABSL_GUARDED_BY(mu_);
  uint32_t umask_ ABSL_GUARDED_BY(mu_);
  std::atomic<bool> has_to_move_{false};
  // Null: stays.
  Path next_root_ ABSL_GUARDED_BY(mu_);
  Path next_working_directory_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
