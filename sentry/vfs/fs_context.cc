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
  return root_;
}

Path FsContext::working_directory() const {
  const absl::ReaderMutexLock lock(&mu_);
  return working_directory_;
}

void FsContext::set_root(Path path) {
  const absl::MutexLock lock(&mu_);
  root_.mount.swap(path.mount);  // What was there is released after the lock.
  root_.dentry.swap(path.dentry);
}

void FsContext::set_working_directory(Path path) {
  const absl::MutexLock lock(&mu_);
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
  *root = root_;
  *working_directory = working_directory_;
  *umask = umask_;
}

std::shared_ptr<FsContext> FsContext::Copy() const {
  const absl::ReaderMutexLock lock(&mu_);
  return std::make_shared<FsContext>(root_, working_directory_, umask_);
}

Caller::Caller(Task& task) : credentials_(task.credentials()), task_(&task) {
  task.fs().Get(&root_, &working_directory_, &umask_);
}

Caller::Caller(Path root, Path working_directory, CredentialsRef credentials, uint32_t umask)
    : root_(std::move(root)),
      working_directory_(std::move(working_directory)),
      credentials_(std::move(credentials)),
      umask_(umask) {}

}  // namespace sentry
