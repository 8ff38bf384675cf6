#pragma once

// What a change below a shared mount does elsewhere. For the Mounts alone, under its lock.

#include <memory>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "platform/base/result.h"
#include "sentry/vfs/mounts.h"

namespace sentry {

class MountPropagation {
 public:
  // What must be released after the lock goes to `dropped`.
  MountPropagation(Mounts& mounts, Mounts::Dropped& dropped) : mounts_(mounts), dropped_(dropped) {}
  MountPropagation(const MountPropagation&) = delete;
  MountPropagation& operator=(const MountPropagation&) = delete;

  // All mounts that get what happens below `mount`, without itself.
  static std::vector<Mount*> ReceiversOf(const Mount& mount);
  // Makes copies of the tree `source`, which is about to be attached at `at` of the shared mount
  // `target`, for everybody who receives it. ENOSPC. Then Commit or Discard.
  base::Result<void> Copy(Mount& target, const DentryRef& at,
                          Mount& source) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  void Discard() ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // `owner`: of the namespace that the change comes from.
  void Commit(const DentryRef& at, const UserNamespaceRef& owner) ABSL_NO_THREAD_SAFETY_ANALYSIS;
  // A less privileged namespace gets `mount`.
  static void LockFlags(Mount& mount);

 private:
  struct PendingCopy {
    Mounts::Tree tree;
    Mount* receiver;
  };
  base::Result<void> CopyTo(Mount& receiver, Mount& source,
                            const Mounts::CopyFlags& how) ABSL_NO_THREAD_SAFETY_ANALYSIS;

  Mounts& mounts_;
  Mounts::Dropped& dropped_;
  std::vector<PendingCopy> copies_;
  absl::flat_hash_map<const MountNamespace*, size_t> added_;
};

}  // namespace sentry
