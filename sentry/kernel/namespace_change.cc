#include "sentry/kernel/namespace_change.h"

#include <linux/capability.h>
#include <linux/sched.h>

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_counts.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/task_clone.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Whoever enters a user namespace has everything in it.
CredentialsRef CredentialsInside(const Credentials& old, UserNamespaceRef space) {
  auto changed = std::make_shared<Credentials>(old);
  changed->securebits = 0;
  changed->inheritable = changed->ambient = 0;
  changed->permitted = changed->effective = changed->bounding = kAllCapabilities;
  changed->user_namespace = std::move(space);
  return changed;
}

bool IsInitial(const Namespace& space) {
  return space.number() == kInitialUserNumber || space.number() == kInitialPidNumber;
}

}  // namespace

Result<CredentialsRef> NamespaceChange::NewUserNamespace(Task& task) {
  const Credentials& own = task.own_credentials();
  Kernel& kernel = task.kernel();
  // In a chroot, whose owner could not be told from the namespace's.
  if (kernel.vfs().mounts().RootOf(*task.own_namespaces().mount) != task.fs().root())
    return Errno(EPERM);
  UserNamespaceRef made = TRY(UserNamespace::Make(own, own.HasOwnCapability(CAP_SETFCAP)));
  TRY(kernel.namespace_counts().Count(*made));
  return CredentialsInside(own, std::move(made));
}

Result<NamespacesRef> NamespaceChange::Copy(Task& task, uint64_t flags, const Credentials& who,
                                            FsContext& fs) {
  const NamespaceSet& old = task.own_namespaces();
  const UserNamespaceRef& owner = who.user_namespace;
  if (!who.HasOwnCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
  NamespaceCounts& counts = task.kernel().namespace_counts();
  auto set = std::make_shared<NamespaceSet>(old);
  if ((flags & CLONE_NEWUTS) != 0) {
    set->uts = std::make_shared<UtsNamespace>(owner, old.uts->host_name(), old.uts->domain_name());
    TRY(counts.Count(*set->uts));
  }
  if ((flags & CLONE_NEWIPC) != 0) {
    set->ipc = std::make_shared<IpcNamespace>(owner);
    TRY(counts.Count(*set->ipc));
  }
  if ((flags & CLONE_NEWPID) != 0) {
    const PidViewRef& active = task.group().pid_view();
    if (active != old.pid_for_children) return Errno(EINVAL);
    if (!IsSameOrInside(owner, active == nullptr ? nullptr : active->owner())) return Errno(EINVAL);
    set->pid_for_children = TRY(PidView::Make(active, owner));
    TRY(counts.Count(*set->pid_for_children));
  }
  if ((flags & CLONE_NEWCGROUP) != 0) {
    set->cgroup = std::make_shared<CgroupNamespace>(owner);
    TRY(counts.Count(*set->cgroup));
  }
  if ((flags & CLONE_NEWNET) != 0) {
    set->network = std::make_shared<NetworkNamespace>(owner);
    TRY(counts.Count(*set->network));
  }
  if ((flags & CLONE_NEWTIME) != 0) {
    set->time_for_children = std::make_shared<TimeNamespace>(owner);
    set->time_for_children->monotonic_offset_ns() = old.time->monotonic_offset_ns().load();
    set->time_for_children->boottime_offset_ns() = old.time->boottime_offset_ns().load();
    TRY(counts.Count(*set->time_for_children));
  }
  if ((flags & CLONE_NEWNS) != 0) {
    set->mount = TRY(task.kernel().vfs().mounts().CopyNamespace(*old.mount, owner, fs));
    TRY(counts.Count(*set->mount));
  }
  return NamespacesRef(std::move(set));
}

Result<void> NamespaceChange::ForClone(Task& parent, uint64_t flags, TaskInit* init) {
  init->credentials = parent.own_credentials_ref();
  init->namespaces = parent.namespaces();
  if ((flags & kUserNamespaceFlag) != 0) init->credentials = TRY(NewUserNamespace(parent));
  if ((flags & kPrivilegedNamespaces) != 0)
    init->namespaces = TRY(Copy(parent, flags, *init->credentials, *init->fs));
  if ((flags & CLONE_THREAD) != 0) {
    // Threads of one process see the same ids.
    if (init->namespaces->pid_for_children != parent.group().pid_view()) return Errno(EINVAL);
  } else if (init->namespaces->time != init->namespaces->time_for_children) {
    auto set = std::make_shared<NamespaceSet>(*init->namespaces);
    set->time = set->time_for_children;
    set->time->frozen().store(true);
    init->namespaces = std::move(set);
  }
  return {};
}

Result<void> NamespaceChange::Unshare(Task& task, uint64_t flags) {
  CredentialsRef credentials = task.own_credentials_ref();
  if ((flags & kUserNamespaceFlag) != 0) credentials = TRY(NewUserNamespace(task));
  std::shared_ptr<FsContext> fs;
  if ((flags & (CLONE_FS | CLONE_NEWNS | kUserNamespaceFlag)) != 0) fs = task.fs().Copy();
  NamespacesRef namespaces;
  if ((flags & kPrivilegedNamespaces) != 0)
    namespaces = TRY(Copy(task, flags, *credentials, fs != nullptr ? *fs : task.fs()));
  if (fs != nullptr) task.ReplaceFs(std::move(fs));
  if ((flags & kUserNamespaceFlag) != 0) task.set_credentials(std::move(credentials));
  // What is to be undone is of the old one.
  if ((flags & (CLONE_NEWIPC | CLONE_SYSVSEM)) != 0) task.DropSemUndo();
  if (namespaces != nullptr) task.set_namespaces(std::move(namespaces));
  return {};
}

Result<void> NamespaceChange::Enter(Task& task,
                                    const std::vector<std::shared_ptr<Namespace>>& wanted) {
  CredentialsRef credentials = task.own_credentials_ref();
  auto set = std::make_shared<NamespaceSet>(task.own_namespaces());
  std::shared_ptr<FsContext> fs;
  // The user namespace first: what it gives counts for the others.
  for (const std::shared_ptr<Namespace>& space : wanted) {
    if (space->kind() != NamespaceKind::kUser) continue;
    // Who is below the initial one cannot rule it.
    if (IsInitial(*space)) return Errno(credentials->user_namespace == nullptr ? EINVAL : EPERM);
    const UserNamespaceRef target = std::static_pointer_cast<UserNamespace>(space);
    if (target == credentials->user_namespace || task.group().live_tasks() > 1 ||
        !task.is_only_user_of_fs())
      return Errno(EINVAL);
    if (!credentials->HasCapabilityIn(target, CAP_SYS_ADMIN)) return Errno(EPERM);
    credentials = CredentialsInside(*credentials, target);
  }
  const Credentials& who = *credentials;
  for (const std::shared_ptr<Namespace>& space : wanted) {
    if (space->kind() == NamespaceKind::kUser) continue;
    const UserNamespaceRef& owner = space->owner();
    if (!who.HasCapabilityIn(owner, CAP_SYS_ADMIN) || !who.HasOwnCapability(CAP_SYS_ADMIN))
      return Errno(EPERM);
    switch (space->kind()) {
      case NamespaceKind::kMount: {
        if (!who.HasOwnCapability(CAP_SYS_CHROOT)) return Errno(EPERM);
        set->mount = std::static_pointer_cast<MountNamespace>(space);
        if (set->mount->is_detached_tree() || !task.is_only_user_of_fs()) return Errno(EINVAL);
        const Path root = task.kernel().vfs().mounts().RootOf(*set->mount);
        if (!root) return Errno(EINVAL);
        fs = std::make_shared<FsContext>(root, root, task.fs().umask());
        break;
      }
      case NamespaceKind::kPid: {
        const PidViewRef target =
            IsInitial(*space) ? nullptr : std::static_pointer_cast<PidView>(space);
        if (!IsSameOrInside(target, task.group().pid_view())) return Errno(EINVAL);
        set->pid_for_children = target;
        break;
      }
      case NamespaceKind::kTime:
        if (task.group().live_tasks() > 1) return Errno(EUSERS);
        set->time = set->time_for_children = std::static_pointer_cast<TimeNamespace>(space);
        set->time->frozen().store(true);
        break;
      case NamespaceKind::kUts:
        set->uts = std::static_pointer_cast<UtsNamespace>(space);
        break;
      case NamespaceKind::kIpc:
        task.DropSemUndo();  // What is to be undone is of the old one.
        set->ipc = std::static_pointer_cast<IpcNamespace>(space);
        break;
      case NamespaceKind::kNet:
        set->network = std::static_pointer_cast<NetworkNamespace>(space);
        break;
      case NamespaceKind::kCgroup:
        set->cgroup = std::static_pointer_cast<CgroupNamespace>(space);
        break;
      case NamespaceKind::kUser:
        break;
    }
  }
  if (fs != nullptr) task.ReplaceFs(std::move(fs));
  if (credentials != task.own_credentials_ref()) task.set_credentials(std::move(credentials));
  task.set_namespaces(std::move(set));
  return {};
}

std::shared_ptr<Namespace> NamespaceChange::Shown(Task& subject, NamespaceKind kind,
                                                  bool for_children) {
  const NamespacesRef set = subject.namespaces();
  if (set == nullptr) return nullptr;
  const NamespaceCounts& counts = subject.kernel().namespace_counts();
  switch (kind) {
    case NamespaceKind::kMount:
      return set->mount;
    case NamespaceKind::kUts:
      return set->uts;
    case NamespaceKind::kIpc:
      return set->ipc;
    case NamespaceKind::kNet:
      return set->network;
    case NamespaceKind::kCgroup:
      return set->cgroup;
    case NamespaceKind::kTime:
      return for_children ? set->time_for_children : set->time;
    case NamespaceKind::kUser: {
      const UserNamespaceRef space = subject.credentials()->user_namespace;
      return space == nullptr ? counts.initial_user() : space;
    }
    case NamespaceKind::kPid: {
      const PidViewRef view = for_children ? set->pid_for_children : subject.group().pid_view();
      return view == nullptr ? counts.initial_pid() : view;
    }
  }
  return nullptr;
}

Result<std::vector<std::shared_ptr<Namespace>>> NamespaceChange::Of(Task& subject, uint64_t flags) {
  std::vector<std::shared_ptr<Namespace>> all;
  for (const NamespaceKind kind :
       {NamespaceKind::kUser, NamespaceKind::kMount, NamespaceKind::kUts, NamespaceKind::kIpc,
        NamespaceKind::kPid, NamespaceKind::kCgroup, NamespaceKind::kNet, NamespaceKind::kTime}) {
    if ((flags & static_cast<uint64_t>(kind)) == 0) continue;
    std::shared_ptr<Namespace> space = Shown(subject, kind, false);
    if (space == nullptr) return Errno(ESRCH);
    all.push_back(std::move(space));
  }
  return all;
}

}  // namespace sentry
