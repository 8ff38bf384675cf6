#pragma once

#include <cstdint>
#include <utility>

#include "sentry/kernel/credentials.h"
#include "sentry/vfs/path.h"

namespace sentry {

class FsContext;
class Task;

// On whose behalf a path is walked: where its root and working directory are, and what it may do.
// Converts from a Task, so that calls read `vfs.Walk(task, ...)`; set-up code and tests make one by
// hand.
//
// It borrows what only the task itself can change, so it must not outlive a change: of
// credentials, root or working directory.
class Caller {
 public:
  // On the task's own thread.
  Caller(Task& task);  // NOLINT: implicit by design
  Caller(Path root, Path working_directory, CredentialsRef credentials, uint32_t umask);
  Caller(const Caller&) = delete;
  Caller& operator=(const Caller&) = delete;

  const Path& root() const { return *root_; }
  const Path& working_directory() const { return *working_directory_; }
  const Credentials& credentials() const { return *credentials_; }
  uint32_t umask() const { return umask_; }
  // access(2): the same place with other rights.
  void set_credentials(CredentialsRef credentials) {
    own_credentials_ = std::move(credentials);
    credentials_ = own_credentials_.get();
  }
  // Null for the kernel itself: magic links are not followed then.
  Task* task() const { return task_; }

 private:
  const Path* root_;
  const Path* working_directory_;
  const Credentials* credentials_;
  uint32_t umask_ = 0;
  // Where they are not borrowed.
  Path own_root_;
  Path own_working_directory_;
  CredentialsRef own_credentials_;
  Task* task_ = nullptr;
};

}  // namespace sentry
