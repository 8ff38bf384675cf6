#pragma once

// How tasks come into other namespaces: clone(2), unshare(2), setns(2).

#include <cstdint>
#include <memory>
#include <vector>

#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/namespaces.h"

namespace sentry {

class FsContext;
class Task;
struct TaskInit;

// CLONE_NEW* of all kinds that need CAP_SYS_ADMIN.
inline constexpr uint64_t kPrivilegedNamespaces = 0x7e020080;
inline constexpr uint64_t kUserNamespaceFlag = 0x10000000;

class NamespaceChange {
 public:
  // Fills init.credentials and init.namespaces for a child that is made with `flags`; init.fs is
  // the child's already. EPERM, ENOSPC, EINVAL, EUSERS.
  static base::Result<void> ForClone(Task& parent, uint64_t flags, TaskInit* init);
  // CLONE_NEW*, CLONE_FS; all or nothing. The flags were checked.
  static base::Result<void> Unshare(Task& task, uint64_t flags);
  // All or nothing. `wanted`: one of each kind at most.
  static base::Result<void> Enter(Task& task,
                                  const std::vector<std::shared_ptr<Namespace>>& wanted);
  // The namespaces of `subject` whose CLONE_NEW* bits are in `flags` (setns(2) with a pidfd).
  // ESRCH.
  static base::Result<std::vector<std::shared_ptr<Namespace>>> Of(Task& subject, uint64_t flags);
  // As /proc/PID/ns shows them. Null after the task's exit. `for_children`: pid, time.
  static std::shared_ptr<Namespace> Shown(Task& subject, NamespaceKind kind, bool for_children);

 private:
  static base::Result<CredentialsRef> NewUserNamespace(Task& task);
  static base::Result<NamespacesRef> Copy(Task& task, uint64_t flags, const Credentials& who,
                                          FsContext& fs);
};

}  // namespace sentry
