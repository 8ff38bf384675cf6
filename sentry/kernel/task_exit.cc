// What a task leaves behind, in Linux's order (kernel/exit.c, 6.12): its signals go to siblings,
// robust locks are released and a joiner is woken while the memory is there, then memory and files
// go, then the family is told.

#include "sentry/kernel/task_exit.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "absl/time/time.h"
#include "sentry/kernel/child_wait.h"
#include "sentry/kernel/current_task.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/job_control.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_delivery.h"

namespace sentry {
namespace {

constexpr int64_t kTickNs = 10'000'000;  // USER_HZ is 100.

}  // namespace

void Task::Exit() { TaskExit::Run(*this); }

void TaskExit::Run(Task& task) {
  ThreadGroup& group = *task.group_;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    // exit_group, a fatal signal or execve decided before; else the process has its leader's
    // status.
    if (!group.IsExiting() && task.is_leader()) group.exit_status_ = task.exit_status_;
  }
  ReleaseResources(task);
  SignalDelivery::RemoveTarget(task);
  if (group.live_tasks() == 1) {
    group.DropTimers();
    JobControl::OnLeaderExit(group);
  }
  task.DropContext();
  if (group.live_tasks() == 1 && group.is_init() && group.pid_view() != nullptr)
    EndNestedNamespace(group);
  LeaveTree(task);
}

void TaskExit::ReleaseResources(Task& task) {
  const CurrentTaskScope scope(task);
  Kernel& kernel = task.kernel_;
  FutexTable& futexes = kernel.futexes();
  if (task.memory_ != nullptr) futexes.ExitRobustList(task, task.robust_list());
  futexes.ExitPiState(task, true);
  task.set_robust_list(base::UserAddr());
  const base::UserAddr clear(task.clear_child_tid_);
  if (!clear.is_null() && task.memory_sharers_->load(std::memory_order_acquire) > 1) {
    const int32_t zero = 0;
    // A bad address only means that nobody is woken.
    (void)task.memory_->CopyOut(base::UserOut<int32_t>(clear), zero);
    futexes.Wake(*task.memory_, clear, 1);
  }
  task.DropSemUndo();
  if (task.fds_sharers_->fetch_sub(1, std::memory_order_acq_rel) == 1) task.fds_->CloseAll(task);

  std::shared_ptr<MemoryManager> memory;
  std::shared_ptr<FdTable> fds;
  std::shared_ptr<FsContext> fs;
  NamespacesRef namespaces;
  {
    const absl::MutexLock lock(&task.resource_mu_);
    namespaces = std::move(task.namespaces_);
    memory = std::move(task.memory_);
    fds = std::move(task.fds_);
    fs = std::move(task.fs_);
    task.system_ns_at_exit_ = task.SystemNsLocked();
    if (task.account_ != nullptr) task.account_->tasks.fetch_sub(1, std::memory_order_relaxed);
    task.account_ = nullptr;
  }
  if (task.memory_sharers_->fetch_sub(1, std::memory_order_acq_rel) == 1 && memory != nullptr)
    memory->ReleaseAll();
  if (task.vfork_completion_ != nullptr) task.vfork_completion_->Complete();
  task.vfork_completion_.reset();
}

void TaskExit::LeaveTree(Task& task) {
  ThreadGroup& group = *task.group_;
  PidNamespace& pids = task.kernel_.pids();
  const TaskRef keep = task.shared_from_this();
  const absl::MutexLock lock(&pids.tree_mu());
  const bool last = group.live_tasks_.fetch_sub(1, std::memory_order_acq_rel) == 1;
  ReparentChildrenLocked(group, task, last);
  task.exited_.store(true, std::memory_order_release);
  if (!task.is_leader()) pids.EraseTaskLocked(task);
  Task* exec_task = nullptr;
  {
    const absl::MutexLock signal_lock(&group.signal_mu_);
    exec_task = group.exec_task_;
    if (exec_task != nullptr) exec_task->Wake();
  }
  if (!last) {
    group.exit_queue_.Notify(kPollReadable);  // Of this thread (PIDFD_THREAD).
    return;
  }
  group.zombie_ = true;
  if (group.is_init()) KillNamespaceLocked(group);
  JobControl::NotifyIfOrphanedLocked(group, nullptr);
  NotifyParentLocked(group);
  group.exit_queue_.Notify(kPollReadable);
}

// The nearest ancestor that asked for it, else init (prctl(PR_SET_CHILD_SUBREAPER)).
ThreadGroup* TaskExit::ReaperLocked(ThreadGroup& group) {
  for (ThreadGroup* ancestor = group.parent_; ancestor != nullptr; ancestor = ancestor->parent_) {
    if (ancestor->pid_view() != group.pid_view()) break;
    if (ancestor->child_subreaper_.load(std::memory_order_relaxed) && !ancestor->zombie_ &&
        ancestor->live_tasks() > 0) {
      return ancestor;
    }
  }
  PidNamespace& pids = group.kernel().pids();
  pids.tree_mu().AssertHeld();
  const PidViewRef& view = group.pid_view();
  const std::shared_ptr<ThreadGroup> init =
      pids.FindGroupLocked(view == nullptr ? 1 : view->init_global());
  return init == nullptr || init.get() == &group || init->zombie_ ? nullptr : init.get();
}

void TaskExit::AdoptLocked(ThreadGroup& child, ThreadGroup* reaper) {
  child.parent_ = reaper;
  child.parent_tid_ = reaper != nullptr ? reaper->id() : 0;
  child.parent_id_.store(reaper != nullptr ? reaper->id() : 0, std::memory_order_relaxed);
  for (const TaskRef& thread : child.tasks_) thread->PublishIdentity();
  child.exit_signal_ = SIGCHLD;
  if (reaper != nullptr) reaper->children_.push_back(child.shared_from_this());
}

void TaskExit::ReparentChildrenLocked(ThreadGroup& group, Task& leaving, bool last) {
  const int32_t tid = leaving.tid();
  int32_t heir = 0;
  for (const TaskRef& member : group.tasks_) {
    if (member.get() != &leaving && !member->HasExited()) heir = member->tid();
  }
  std::vector<std::shared_ptr<ThreadGroup>> zombies;
  const std::vector<std::shared_ptr<ThreadGroup>> children(group.children_.begin(),
                                                           group.children_.end());
  ThreadGroup* reaper = last ? ReaperLocked(group) : nullptr;
  if (last) group.children_.clear();
  for (const std::shared_ptr<ThreadGroup>& child : children) {
    if (child->parent_tid_ == tid || last) {
      for (const TaskRef& thread : child->tasks_) {
        const int32_t signal = thread->parent_death_signal().load(std::memory_order_relaxed);
        // To the process, as Linux sends it. An invalid number cannot have been set.
        if (signal != 0)
          (void)SignalDelivery::Send(*child, nullptr, SignalInfo::FromUser(signal, group.id(), 0),
                                     false);
      }
      child->parent_tid_ = heir;
    }
    if (!last) continue;
    AdoptLocked(*child, reaper);
    if (child->zombie_) {
      zombies.push_back(child);
    } else {
      JobControl::NotifyIfOrphanedLocked(*child, &group);
    }
  }
  for (const std::shared_ptr<ThreadGroup>& zombie : zombies) NotifyParentLocked(*zombie);
}

void TaskExit::NotifyParentLocked(ThreadGroup& group) {
  ThreadGroup* parent = group.parent_;
  if (parent == nullptr) {
    if (!group.external_) ChildWait::ReapLocked(group);
    return;
  }
  bool reap = false;
  int32_t signal = group.exit_signal_;
  const SignalAction action = parent->handlers()->Get(SIGCHLD);
  if (signal == SIGCHLD &&
      (action.handler == kHandlerIgnore || (action.flags & SA_NOCLDWAIT) != 0)) {
    reap = true;
    if (action.handler == kHandlerIgnore) signal = 0;
  }
  if (signal > 0) {
    SignalInfo info;
    info.signal = signal;
    const int32_t status = group.exit_status_;
    const bool exited = (status & 0x7f) == 0;
    info.code = exited ? CLD_EXITED : ((status & 0x80) != 0 ? CLD_DUMPED : CLD_KILLED);
    info.status = exited ? (status >> 8) & 0xff : status & 0x7f;
    info.pid = group.id();
    info.uid = group.leader_ != nullptr ? group.leader_->credentials()->uid : 0;
    const ResourceUsage usage = group.Usage();
    info.user_time = usage.user_ns / kTickNs;
    info.system_time = usage.system_ns / kTickNs;
    (void)SignalDelivery::Send(*parent, nullptr, info,
                               false);  // The parent polls by wait(2) if its queue is full.
  }
  if (reap) ChildWait::ReapLocked(group);
  parent->child_queue_.Notify(kPollReadable);
}

// pid_namespaces(7): when init goes, everybody goes.
void TaskExit::KillNamespaceLocked(ThreadGroup& init) {
  PidNamespace& pids = init.kernel().pids();
  pids.tree_mu().AssertHeld();
  for (const auto& [id, group] : pids.GroupsLocked()) {
    if (group.get() == &init || group->zombie_ ||
        !IsSameOrInside(group->pid_view(), init.pid_view()))
      continue;
    (void)SignalDelivery::Send(*group, nullptr, SignalInfo::FromKernel(SIGKILL), true);
  }
}

// The same for a nested one, whose init is waited for: its end tells that all have gone.
void TaskExit::EndNestedNamespace(ThreadGroup& init) {
  // Tasks leave soon after SIGKILL; should one not, the others are not to wait for ever.
  constexpr absl::Duration kPatience = absl::Seconds(10);
  init.pid_view()->Close();
  PidNamespace& pids = init.kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  KillNamespaceLocked(init);
  const auto alone = [&]() ABSL_NO_THREAD_SAFETY_ANALYSIS {
    for (const auto& [id, group] : pids.GroupsLocked()) {
      if (group.get() != &init && !group->zombie_ &&
          IsSameOrInside(group->pid_view(), init.pid_view()))
        return false;
    }
    return true;
  };
  (void)pids.tree_mu().AwaitWithTimeout(absl::Condition(&alone), kPatience);
}

}  // namespace sentry
