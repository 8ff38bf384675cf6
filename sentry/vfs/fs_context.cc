#include "sentry/vfs/fs_context.h"

#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/vfs/caller.h"

namespace sentry {

FsContext::FsContext(Path root, Path working_directory, uint32_t umask)
    : root_(std::move(root)),
      working_directory_(std::move(working_directory)),
      umask_(umask & 0777) {}

Path FsContext::root() const {
  const absl::ReaderMutexLock lock(&mu_);
  return next_root_ ? next_root_ : root_;
}

Path FsContext::working_directory() const {
  const absl::ReaderMutexLock lock(&mu_);
  return next_working_directory_ ? next_working_directory_ : working_directory_;
}

void FsContext::MoveLater(const Path& from, const Path& to) {
  const absl::MutexLock lock(&mu_);
  const auto move = [&](const Path& now, Path* next) {
    if ((*next ? *next : now) == from) *next = to;
  };
  move(root_, &next_root_);
  move(working_directory_, &next_working_directory_);
  has_to_move_.store(next_root_ || next_working_directory_, std::memory_order_release);
}

void FsContext::MoveNow() {
  Path root;
  Path working_directory;
  const absl::MutexLock lock(&mu_);
  std::swap(root, next_root_);
  std::swap(working_directory, next_working_directory_);
  if (root) std::swap(root, root_);
  if (working_directory) std::swap(working_directory, working_directory_);
  has_to_move_.store(false, std::memory_order_release);
}

void FsContext::set_root(Path path) {
  Path next;
  const absl::MutexLock lock(&mu_);
  root_.mount.swap(path.mount);  // What was there is released after the lock.
  root_.dentry.swap(path.dentry);
  std::swap(next, next_root_);
}

void FsContext::set_working_directory(Path path) {
  Path next;
  const absl::MutexLock lock(&mu_);
  std::swap(next, next_working_directory_);
  working_directory_.mount.swap(path.mount);
  working_directory_.dentry.swap(path.dentry);
}

uint32_t FsContext::umask() const {
  const absl::ReaderMutexLock lock(&mu_);
  return umask_;
}

uint32_t FsContext::set_umask(uint32_t mask) {
  const absl::MutexLock lock(&mu_);
  return std::exchange(umask_, mask & 0777);
}

void FsContext::Get(Path* root, Path* working_directory, uint32_t* umask) const {
  const absl::ReaderMutexLock lock(&mu_);
  *root = next_root_ ? next_root_ : root_;
  *working_directory = next_working_directory_ ? next_working_directory_ : working_directory_;
  *umask = umask_;
}

std::shared_ptr<FsContext> FsContext::Copy() const {
  const absl::ReaderMutexLock lock(&mu_);
  return std::make_shared<FsContext>(
      next_root_ ? next_root_ : root_,
      next_working_directory_ ? next_working_directory_ : working_directory_, umask_);
}

Caller::Caller(Task& task)
    : root_(&own_root_),
      working_directory_(&own_working_directory_),
      credentials_(&task.own_credentials()),
      task_(&task) {
  FsContext& fs = task.fs();
  if (fs.has_to_move()) fs.MoveNow();
  if (task.is_only_user_of_fs()) {
    root_ = &fs.root_of_only_user();
    working_directory_ = &fs.directory_of_only_user();
    umask_ = fs.umask_of_only_user();
  } else {
    fs.Get(&own_root_, &own_working_directory_, &umask_);
  }
}

Caller::Caller(Path root, Path working_directory, CredentialsRef credentials, uint32_t umask)
    : root_(&own_root_),
      working_directory_(&own_working_directory_),
      credentials_(credentials.get()),
      umask_(umask),
      own_root_(std::move(root)),
      own_working_directory_(std::move(working_directory)),
      own_credentials_(std::move(credentials)) {}

}  // namespace sentry
