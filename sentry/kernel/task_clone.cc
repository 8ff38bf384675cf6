#include "sentry/kernel/task_clone.h"

#include <linux/capability.h>
#include <linux/sched.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "platform/memory/pool_watch.h"
#include "sentry/ipc/semaphores.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_change.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/pidfd.h"
#include "sentry/signal/signal_delivery.h"

namespace sentry {
namespace {

using base::Errno;

bool Has(uint64_t flags, uint64_t wanted) { return (flags & wanted) == wanted; }

// Keyrings of a thread or a process are not its child's.
CredentialsRef WithoutOwnKeyrings(CredentialsRef own, bool thread) {
  if (own->thread_keyring == nullptr && (thread || own->process_keyring == nullptr)) return own;
  auto copy = std::make_shared<Credentials>(*own);
  copy->thread_keyring = nullptr;
  if (!thread) copy->process_keyring = nullptr;
  return copy;
}

// An id in the initial namespace, and one in each that is nested between it and `view`. `wanted`
// begins with the innermost.
base::Result<int32_t> ReserveIds(PidNamespace& pids, const PidViewRef& view,
                                 const std::vector<int32_t>& wanted)
    ABSL_NO_THREAD_SAFETY_ANALYSIS {
  const auto levels = static_cast<size_t>(view == nullptr ? 0 : view->level());
  if (wanted.size() > levels + 1) return Errno(EINVAL);
  const int32_t id = TRY(pids.ReserveIdLocked(wanted.size() > levels ? wanted[levels] : 0));
  const base::Result<void> named = pids.AddNamesLocked(id, view, wanted);
  if (named.ok()) return id;
  pids.ReleaseIdLocked(id);
  return named.error();
}

}  // namespace

base::Result<void> TaskClone::CheckFlags(Task& parent, const CloneArguments& arguments) {
  const uint64_t flags = arguments.flags;
  if ((flags & CLONE_FS) != 0 && (flags & (CLONE_NEWNS | CLONE_NEWUSER)) != 0) return Errno(EINVAL);
  if (Has(flags, CLONE_THREAD) && !Has(flags, CLONE_SIGHAND)) return Errno(EINVAL);
  if (Has(flags, CLONE_SIGHAND) && !Has(flags, CLONE_VM)) return Errno(EINVAL);
  if (Has(flags, CLONE_SIGHAND | CLONE_CLEAR_SIGHAND)) return Errno(EINVAL);
  // The siblings of an init process would have no parent.
  if (Has(flags, CLONE_PARENT) && parent.group().is_init()) return Errno(EINVAL);
  if (Has(flags, CLONE_THREAD) && (flags & (CLONE_NEWUSER | CLONE_NEWPID)) != 0)
    return Errno(EINVAL);
  if (Has(flags, CLONE_PIDFD | CLONE_DETACHED)) return Errno(EINVAL);
  if (Has(flags, CLONE_PIDFD | CLONE_PARENT_SETTID) && arguments.pidfd == arguments.parent_tid)
    return Errno(EINVAL);
  if (Has(flags, CLONE_NEWIPC | CLONE_SYSVSEM)) return Errno(EINVAL);
  return {};
}

base::Result<void> TaskClone::CheckProcessLimit(Task& parent) {
  if (platform::WatchOf(parent.kernel().pool()).refuses_tasks()) return Errno(ENOMEM);
  const Credentials& credentials = parent.own_credentials();
  if (credentials.HasCapability(CAP_SYS_RESOURCE) || credentials.HasCapability(CAP_SYS_ADMIN))
    return {};
  if (credentials.uid == 0) return {};
  const uint64_t count =
      parent.kernel().UserAccountOf(credentials.uid)->tasks.load(std::memory_order_relaxed);
  if (count >= parent.group().Limit(RLIMIT_NPROC)) return Errno(EAGAIN);
  return {};
}

base::Result<TaskInit> TaskClone::ShareOrCopy(Task& parent, const CloneArguments& arguments) {
  const uint64_t flags = arguments.flags;
  TaskInit init;
  init.context = TRY(parent.kernel().platform().NewContext());
  platform::FpuState fpu;
  parent.context().GetFpu(fpu);
  TRY(init.context->SetFpu(fpu));
  init.registers = parent.registers();
  init.registers.rax = 0;
  init.registers.orig_rax = ~uint64_t{0};
  if (arguments.stack != 0) init.registers.rsp = arguments.stack;
  if (Has(flags, CLONE_SETTLS)) init.registers.fs_base = arguments.tls;
  init.signal_mask = parent.saved_mask_valid_ ? parent.saved_mask_ : parent.signal_mask();
  // A child that shares the memory must not share the stack that handlers run on, unless the parent
  // sleeps.
  if ((flags & (CLONE_VM | CLONE_VFORK)) != CLONE_VM)
    init.alternate_stack = parent.alternate_stack();
  init.name = parent.name();
  init.scheduling = parent.scheduling();
  init.scheduling.default_timer_slack_ns = init.scheduling.timer_slack_ns;
  if (init.scheduling.reset_on_fork) {
    init.scheduling.policy = 0;
    init.scheduling.priority = 0;
    init.scheduling.nice = std::max(init.scheduling.nice, 0);
    init.scheduling.reset_on_fork = false;
  }
  if (Has(flags, CLONE_VM)) {
    init.memory = parent.memory_;
    init.memory_sharers = parent.memory_sharers_;
  } else {
    init.memory =
        TRY(parent.memory().Fork(parent.memory_sharers_->load(std::memory_order_acquire) == 1));
    init.memory_sharers = NewSharerCount();
    init.memory_sharers->store(0, std::memory_order_relaxed);
  }
  TRY(init.context->Prepare(init.memory->address_space()));
  init.fds = Has(flags, CLONE_FILES) ? parent.fds_ : parent.fds().Copy();
  init.fds_sharers =
      Has(flags, CLONE_FILES) ? parent.fds_sharers_ : std::make_shared<std::atomic<int>>(0);
  init.fs = Has(flags, CLONE_FS) ? parent.fs_ : parent.fs().Copy();
  TRY(NamespaceChange::ForClone(parent, flags, &init));
  init.credentials = WithoutOwnKeyrings(std::move(init.credentials), Has(flags, CLONE_THREAD));
  // Counted now: from here on the child's exit (or Undo) takes it back.
  init.memory_sharers->fetch_add(1, std::memory_order_acq_rel);
  init.fds_sharers->fetch_add(1, std::memory_order_acq_rel);
  return init;
}

base::Result<TaskRef> TaskClone::Insert(Task& parent, const CloneArguments& arguments,
                                        TaskInit init) {
  Kernel& kernel = parent.kernel();
  PidNamespace& pids = kernel.pids();
  ThreadGroup& parent_group = parent.group();
  const bool thread = Has(arguments.flags, CLONE_THREAD);
  std::shared_ptr<SignalHandlers> handlers = parent_group.handlers();
  if (!Has(arguments.flags, CLONE_SIGHAND)) {
    handlers = handlers->Copy();
    if (Has(arguments.flags, CLONE_CLEAR_SIGHAND)) handlers->ResetHandled();
  }
  const SharerCount memory_sharers = init.memory_sharers;
  const SharerCount fds_sharers = init.fds_sharers;

  const absl::MutexLock lock(&pids.tree_mu());
  const PidViewRef view = thread ? parent_group.pid_view() : init.namespaces->pid_for_children;
  base::Result<int32_t> id = ReserveIds(pids, view, arguments.set_tid);
  if (!id.ok()) {
    // Only the counts: memory and files that are the child's alone go with `init`.
    memory_sharers->fetch_sub(1, std::memory_order_acq_rel);
    fds_sharers->fetch_sub(1, std::memory_order_acq_rel);
    return id.error();
  }
  init.tid = id.value();
  if (thread) {
    init.group = parent.group_ref();
  } else {
    const bool sibling = Has(arguments.flags, CLONE_PARENT);
    const int32_t exit_signal = sibling ? parent_group.exit_signal_ : arguments.exit_signal;
    init.group = std::make_shared<ThreadGroup>(kernel, init.tid, std::move(handlers),
                                               parent_group.limits().all(), exit_signal, view,
                                               view != nullptr && view->init_global() == init.tid);
    init.group->oom_score_adjust_.store(parent_group.oom_score_adjust_.load());
    init.group->personality_.store(parent_group.personality_.load());
  }
  const auto child = std::make_shared<Task>(kernel, std::move(init));
  if (Has(arguments.flags, CLONE_SYSVSEM)) {
    child->sem_undo_ = parent.sem_undo();
    child->sem_undo_->AddSharer();
  }
  ThreadGroup* family = Has(arguments.flags, CLONE_PARENT) ? parent_group.parent_ : &parent_group;
  const int32_t family_tid =
      Has(arguments.flags, CLONE_PARENT) ? parent_group.parent_tid_ : parent.tid();
  pids.InsertLocked(child, family, family_tid);
  Seccomp::InheritLocked(parent, *child);
  child->account_ = kernel.UserAccountOf(child->own_credentials().uid);
  child->account_->tasks.fetch_add(1, std::memory_order_relaxed);
  SignalDelivery::AddTarget(*child);
  kernel.forks_.fetch_add(1, std::memory_order_relaxed);
  return child;
}

void TaskClone::Undo(const TaskRef& child) {
  child->group().exit_signal_ = 0;
  child->vfork_completion_.reset();
  child->clear_child_tid_ = 0;
  child->Exit();
  PidNamespace& pids = child->kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  if (child->group().zombie_) {
    std::erase(child->group().parent_->children_, child->group_ref());
    child->group().parent_ = nullptr;
    pids.EraseTaskLocked(*child);
  }
}

base::Result<TaskRef> TaskClone::CloneWithoutThread(Task& parent, const CloneArguments& arguments) {
  TRY(CheckFlags(parent, arguments));
  TRY(CheckProcessLimit(parent));
  const uint64_t flags = arguments.flags;
  TaskRef child = TRY(Insert(parent, arguments, TRY(ShareOrCopy(parent, arguments))));
  const int32_t tid = child->tid();
  if (Has(flags, CLONE_CHILD_CLEARTID)) child->clear_child_tid_ = arguments.child_tid;
  // Linux tells of no fault here: the child exists already.
  if (Has(flags, CLONE_PARENT_SETTID)) {
    (void)parent.CopyOut(base::UserOut<int32_t>(base::UserAddr(arguments.parent_tid)),
                         SeenBy(parent, tid));
  }
  if (Has(flags, CLONE_CHILD_SETTID)) {
    (void)child->CopyOut(base::UserOut<int32_t>(base::UserAddr(arguments.child_tid)),
                         SeenBy(*child, tid));
  }
  return child;
}

base::Result<int32_t> TaskClone::Clone(Task& parent, const CloneArguments& arguments) {
  // A signal comes first: the child would otherwise inherit a state in which only the parent saw
  // it.
  if (parent.IsInterrupted()) return base::kRestartNoIntr;
  const uint64_t flags = arguments.flags;
  std::optional<FdSlot> pidfd;
  if (Has(flags, CLONE_PIDFD)) {
    TRY(CheckFlags(parent, arguments));
    pidfd.emplace(TRY(parent.fds().Reserve(true, parent.fd_limit())));
    TRY(parent.CopyOut(base::UserOut<int32_t>(base::UserAddr(arguments.pidfd)), pidfd->number()));
  }
  const TaskRef child = TRY(CloneWithoutThread(parent, arguments));
  if (!Has(flags, CLONE_THREAD)) child->group().WatchCpuLimit();
  const int32_t tid = SeenBy(parent, child->tid());
  std::shared_ptr<VforkCompletion> completion;
  if (Has(flags, CLONE_VFORK)) {
    completion = std::make_shared<VforkCompletion>();
    completion->parent = parent.shared_from_this();
    child->vfork_completion_ = completion;
  }
  const std::shared_ptr<ThreadGroup> child_group = child->group_ref();
  const base::Result<void> started = child->Start();
  if (!started.ok()) {
    Undo(child);
    return started.error();
  }
  parent.waiting_for_vfork_ = std::move(completion);
  if (pidfd) {
    const bool of_thread = Has(flags, CLONE_THREAD);
    std::move(*pidfd).Fill(
        std::make_shared<PidFile>(parent, child_group, of_thread ? child : nullptr, 0));
  }
  return tid;
}

}  // namespace sentry
