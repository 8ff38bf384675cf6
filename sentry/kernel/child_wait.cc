#include "sentry/kernel/child_wait.h"

#include <linux/wait.h>
#include <signal.h>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"

namespace sentry {
namespace {

using base::Errno;

constexpr int32_t kContinuedStatus = 0xffff;

void DescribeExit(int32_t status, WaitResult& result) {
  result.status = status;
  if ((status & 0x7f) == 0) {
    result.code = CLD_EXITED;
    result.code_status = (status >> 8) & 0xff;
  } else {
    result.code = (status & 0x80) != 0 ? CLD_DUMPED : CLD_KILLED;
    result.code_status = status & 0x7f;
  }
}

}  // namespace

bool ChildWait::MatchesLocked(const ThreadGroup& child, const Task& task,
                              const WaitRequest& request) {
  if (request.which == WaitRequest::Which::kProcess && child.id() != request.id) return false;
  if (request.which == WaitRequest::Which::kProcessGroup && child.process_group_id() != request.id)
    return false;
  if ((request.options & __WNOTHREAD) != 0 && child.parent_tid_ != task.tid()) return false;
  // "Clone" children are those that tell by another signal than SIGCHLD, or none.
  if ((request.options & __WALL) != 0) return true;
  return (child.exit_signal_ != SIGCHLD) == ((request.options & __WCLONE) != 0);
}

bool ChildWait::ReportLocked(ThreadGroup& child, const WaitRequest& request, WaitResult& result) {
  const bool keep = (request.options & WNOWAIT) != 0;
  if (child.zombie_) {
    if ((request.options & WEXITED) == 0) return false;
    DescribeExit(child.exit_status_, result);
  } else {
    const absl::MutexLock lock(&child.signal_mu_);
    if (child.stopped_ && child.stop_report_ != 0 && (request.options & WSTOPPED) != 0) {
      result.code = CLD_STOPPED;
      result.code_status = child.stop_report_;
      result.status = (child.stop_report_ << 8) | 0x7f;
      if (!keep) child.stop_report_ = 0;
    } else if (child.continue_report_ && (request.options & WCONTINUED) != 0) {
      result.code = CLD_CONTINUED;
      result.code_status = SIGCONT;
      result.status = kContinuedStatus;
      if (!keep) child.continue_report_ = false;
    } else {
      return false;
    }
  }
  // Reaping takes its names away.
  result.pid = child.parent_ != nullptr ? SeenBy(*child.parent_, child.id()) : child.id();
  result.uid = child.leader_ != nullptr ? child.leader_->credentials()->uid : 0;
  result.usage = child.Usage();
  result.usage.Add(child.ChildrenUsage());
  if (child.zombie_ && !keep) ReapLocked(child);
  return true;
}

base::Result<WaitResult> ChildWait::TryLocked(Task& task, const WaitRequest& request) {
  ThreadGroup& group = task.group();
  bool eligible = false;
  for (const std::shared_ptr<ThreadGroup>& entry : group.children_) {
    const std::shared_ptr<ThreadGroup> child = entry;  // Reaping takes it off the list.
    if (!MatchesLocked(*child, task, request)) continue;
    eligible = true;
    WaitResult result;
    if (ReportLocked(*child, request, result)) return result;
  }
  if (!eligible) return Errno(ECHILD);
  return Errno(EAGAIN);
}

base::Result<WaitResult> ChildWait::Wait(Task& task, const WaitRequest& request) {
  PidNamespace& pids = task.kernel().pids();
  const bool nonblocking = (request.options & WNOHANG) != 0 || request.nonblocking_fd;
  base::Result<WaitResult> result = RetryUntilReady(
      task, &task.group().child_queue(), kPollReadable, nonblocking, Deadline::Never(), [&]() {
        const absl::MutexLock lock(&pids.tree_mu());
        return TryLocked(task, request);
      });
  if (!result.ok() && result.error() == EAGAIN && !request.nonblocking_fd) return WaitResult{};
  return result;
}

void ChildWait::ReapLocked(ThreadGroup& group) {
  if (group.reaped_) return;
  group.reaped_ = true;
  const std::shared_ptr<ThreadGroup> self = group.shared_from_this();
  if (ThreadGroup* parent = group.parent_) {
    ResourceUsage usage = group.Usage();
    usage.Add(group.ChildrenUsage());
    {
      const absl::MutexLock lock(&parent->usage_mu_);
      parent->children_usage_.Add(usage);
    }
    std::erase(parent->children_, self);
    group.parent_ = nullptr;
  }
  PidNamespace& pids = group.kernel().pids();
  pids.tree_mu().AssertHeld();
  if (const TaskRef leader = group.leader_) pids.EraseTaskLocked(*leader);
}

}  // namespace sentry
