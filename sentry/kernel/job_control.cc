#include "sentry/kernel/job_control.h"

#include <linux/capability.h>

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_delivery.h"

namespace sentry {
namespace {

using base::Errno;

void SignalMembersLocked(const ProcessGroup& group, int signal) {
  for (ThreadGroup* member : group.members) {
    // Not a real-time signal: never refused.
    (void)SignalDelivery::Send(*member, nullptr, SignalInfo::FromKernel(signal), true);
  }
}

}  // namespace

base::Result<void> JobControl::SetProcessGroup(Task& task, int32_t pid, int32_t pgid) {
  ThreadGroup& caller = task.group();
  if (pid == 0) pid = caller.id();
  if (pgid == 0) pgid = pid;
  if (pgid < 0) return Errno(EINVAL);
  PidNamespace& pids = task.kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  const std::shared_ptr<ThreadGroup> target = pids.FindGroupLocked(pid);
  if (target == nullptr) return Errno(ESRCH);
  const std::shared_ptr<Session> session = caller.process_group_->session;
  if (target->parent_ == &caller) {
    if (target->process_group_->session != session) return Errno(EPERM);
    if (target->has_executed()) return Errno(EACCES);
  } else if (target.get() != &caller) {
    return Errno(ESRCH);
  }
  if (target->process_group_->session->leader == target.get()) return Errno(EPERM);
  if (pgid != pid) {
    const std::shared_ptr<ProcessGroup> group = pids.FindProcessGroupLocked(pgid);
    if (group == nullptr || group->session != session) return Errno(EPERM);
  }
  if (target->process_group_->id != pgid)
    pids.JoinProcessGroupLocked(*target, pgid, target->process_group_->session);
  return {};
}

base::Result<int32_t> JobControl::SetSession(Task& task) {
  ThreadGroup& group = task.group();
  PidNamespace& pids = task.kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  if (group.process_group_->session->leader == &group) return Errno(EPERM);
  if (pids.FindProcessGroupLocked(group.id()) != nullptr) return Errno(EPERM);
  auto session = std::make_shared<Session>(group.id());
  session->leader = &group;
  pids.JoinProcessGroupLocked(group, group.id(), session);
  return group.id();
}

base::Result<void> JobControl::SetTerminal(Task& task,
                                           std::shared_ptr<ControllingTerminal> terminal,
                                           bool steal) {
  ThreadGroup& group = task.group();
  PidNamespace& pids = task.kernel().pids();
  const bool may_steal = steal && task.own_credentials().HasCapability(CAP_SYS_ADMIN);
  const absl::MutexLock lock(&pids.tree_mu());
  Session& session = *group.process_group_->session;
  if (session.leader == &group && session.terminal == terminal) return {};
  if (session.leader != &group || session.terminal != nullptr) return Errno(EPERM);
  for (const auto& [id, weak] : pids.sessions_) {
    const std::shared_ptr<Session> other = weak.lock();
    if (other == nullptr || other->terminal != terminal) continue;
    if (!may_steal) return Errno(EPERM);
    other->terminal = nullptr;
    other->foreground.reset();
  }
  session.terminal = std::move(terminal);
  session.foreground = group.process_group_;
  return {};
}

void JobControl::MaybeSetTerminal(Task& task, std::shared_ptr<ControllingTerminal> terminal) {
  (void)SetTerminal(task, std::move(terminal), false);  // Refusals only mean that nothing changes.
}

base::Result<void> JobControl::ReleaseTerminal(Task& task, ControllingTerminal& terminal) {
  ThreadGroup& group = task.group();
  std::shared_ptr<ControllingTerminal> released;
  {
    PidNamespace& pids = task.kernel().pids();
    const absl::MutexLock lock(&pids.tree_mu());
    Session& session = *group.process_group_->session;
    if (session.terminal.get() != &terminal) return Errno(ENOTTY);
    // Only a leader gives it up for the whole session. (For others Linux forgets it per process.)
    if (session.leader != &group) return {};
    if (const std::shared_ptr<ProcessGroup> foreground = session.foreground.lock()) {
      SignalMembersLocked(*foreground, SIGHUP);
      SignalMembersLocked(*foreground, SIGCONT);
    }
    released = std::move(session.terminal);
    session.terminal = nullptr;
    session.foreground.reset();
  }
  released->OnDisassociated(false);
  return {};
}

bool JobControl::IsControlling(Task& task, const ControllingTerminal& terminal) {
  return task.group().terminal().get() == &terminal;
}

base::Result<int32_t> JobControl::Foreground(Task& task, const ControllingTerminal& terminal) {
  if (!IsControlling(task, terminal)) return Errno(ENOTTY);
  const int32_t id = task.group().terminal_foreground();
  return id < 0 ? 0 : SeenBy(task, id);
}

base::Result<int32_t> JobControl::TerminalSession(Task& task, const ControllingTerminal& terminal) {
  if (!IsControlling(task, terminal)) return Errno(ENOTTY);
  return SeenBy(task, task.group().session_id());
}

base::Result<void> JobControl::SetForeground(Task& task, ControllingTerminal& terminal,
                                             int32_t pgid) {
  if (!IsControlling(task, terminal)) return Errno(ENOTTY);
  const base::Result<void> access = CheckAccess(task, terminal, SIGTTOU);
  if (!access.ok()) return access.error() == EIO ? base::Result<void>(Errno(ENOTTY)) : access;
  if (pgid < 0) return Errno(EINVAL);
  pgid = ToGlobal(task, pgid);
  PidNamespace& pids = task.kernel().pids();
  const absl::MutexLock lock(&pids.tree_mu());
  Session& session = *task.group().process_group_->session;
  if (session.terminal.get() != &terminal) return Errno(ENOTTY);
  const std::shared_ptr<ProcessGroup> group = pids.FindProcessGroupLocked(pgid);
  if (group == nullptr) return Errno(ESRCH);
  if (group->session.get() != &session) return Errno(EPERM);
  session.foreground = group;
  return {};
}

base::Result<void> JobControl::CheckAccess(Task& task, const ControllingTerminal& terminal,
                                           int signal) {
  ThreadGroup& group = task.group();
  std::vector<std::shared_ptr<ThreadGroup>> members;
  {
    PidNamespace& pids = task.kernel().pids();
    const absl::ReaderMutexLock lock(&pids.tree_mu());
    const Session& session = *group.process_group_->session;
    if (session.terminal.get() != &terminal) return {};
    const std::shared_ptr<ProcessGroup> foreground = session.foreground.lock();
    if (foreground == nullptr || foreground == group.process_group_) return {};
    const bool passed_over = (task.signal_mask() & SignalBit(signal)) != 0 ||
                             group.handlers()->Get(signal).handler == kHandlerIgnore;
    if (passed_over)
      return signal == SIGTTIN ? base::Result<void>(Errno(EIO)) : base::Result<void>();
    if (IsOrphanedLocked(*group.process_group_, nullptr)) return Errno(EIO);
    for (ThreadGroup* member : group.process_group_->members)
      members.push_back(member->shared_from_this());
  }
  for (const std::shared_ptr<ThreadGroup>& member : members) {
    (void)member->SendSignal(
        SignalInfo::FromKernel(signal));  // Never refused: not a real-time signal.
  }
  return base::kRestartSys;
}

void JobControl::SignalForeground(Kernel& kernel, const ControllingTerminal& terminal, int signal) {
  PidNamespace& pids = kernel.pids();
  const absl::MutexLock lock(&pids.tree_mu());
  for (const auto& [id, weak] : pids.sessions_) {
    const std::shared_ptr<Session> session = weak.lock();
    if (session == nullptr || session->terminal.get() != &terminal) continue;
    if (const std::shared_ptr<ProcessGroup> group = session->foreground.lock())
      SignalMembersLocked(*group, signal);
    return;
  }
}

void JobControl::HangUp(Kernel& kernel, ControllingTerminal& terminal) {
  PidNamespace& pids = kernel.pids();
  std::shared_ptr<ControllingTerminal> released;
  const absl::MutexLock lock(&pids.tree_mu());
  for (const auto& [id, weak] : pids.sessions_) {
    const std::shared_ptr<Session> session = weak.lock();
    if (session == nullptr || session->terminal.get() != &terminal) continue;
    if (session->leader != nullptr) {
      (void)SignalDelivery::Send(*session->leader, nullptr, SignalInfo::FromKernel(SIGHUP), true);
      (void)SignalDelivery::Send(*session->leader, nullptr, SignalInfo::FromKernel(SIGCONT), true);
    }
    if (const std::shared_ptr<ProcessGroup> group = session->foreground.lock()) {
      SignalMembersLocked(*group, SIGHUP);
      SignalMembersLocked(*group, SIGCONT);
    }
    released = std::move(session->terminal);
    session->terminal = nullptr;
    session->foreground.reset();
    return;
  }
}

bool JobControl::IsOrphanedLocked(const ProcessGroup& group, const ThreadGroup* leaving) {
  for (const ThreadGroup* member : group.members) {
    if (member == leaving || member->zombie_) continue;
    const ThreadGroup* parent = member->parent_;
    if (parent == nullptr || parent->process_group_ == nullptr) continue;
    if (parent->process_group_.get() != &group && parent->process_group_->session == group.session)
      return false;
  }
  return true;
}

bool JobControl::HasStoppedMemberLocked(const ProcessGroup& group) {
  for (const ThreadGroup* member : group.members) {
    if (member->IsStopped()) return true;
  }
  return false;
}

void JobControl::NotifyIfOrphanedLocked(ThreadGroup& group, const ThreadGroup* parent) {
  const std::shared_ptr<ProcessGroup> own = group.process_group_;
  // When `group` itself leaves, `parent` is null and its own parent is the tie; otherwise the tie
  // to `parent` is about to go.
  const ThreadGroup* leaving = parent == nullptr ? &group : nullptr;
  const ThreadGroup* tie = parent == nullptr ? group.parent_ : parent;
  if (own == nullptr || tie == nullptr || tie->process_group_ == nullptr) return;
  if (tie->process_group_ == own || tie->process_group_->session != own->session) return;
  if (!IsOrphanedLocked(*own, leaving) || !HasStoppedMemberLocked(*own)) return;
  SignalMembersLocked(*own, SIGHUP);
  SignalMembersLocked(*own, SIGCONT);
}

void JobControl::OnLeaderExit(ThreadGroup& group) {
  std::shared_ptr<ControllingTerminal> released;
  {
    PidNamespace& pids = group.kernel().pids();
    const absl::MutexLock lock(&pids.tree_mu());
    if (group.process_group_ == nullptr) return;
    Session& session = *group.process_group_->session;
    if (session.leader != &group) return;
    session.leader = nullptr;
    if (session.terminal == nullptr) return;
    if (const std::shared_ptr<ProcessGroup> foreground = session.foreground.lock()) {
      SignalMembersLocked(*foreground, SIGHUP);
      SignalMembersLocked(*foreground, SIGCONT);
    }
    released = std::move(session.terminal);
    session.terminal = nullptr;
    session.foreground.reset();
  }
  released->OnDisassociated(true);
}

}  // namespace sentry
