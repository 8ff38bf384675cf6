#pragma once

// A process: the tasks that share an id for kill(2) and wait(2), signal handlers, limits and a
// place in the family tree.
//
// Two locks guard it (see README.md): the tree lock of the PID namespace for who belongs to whom,
// and signal_mu() for pending signals, stops and the exit code. What a cheap system call wants
// (ids) is mirrored in atomics.

#include <atomic>
#include <cstdint>
#include <list>
#include <memory>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/process_group.h"
#include "sentry/kernel/resource_limits.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/signal/pending_signals.h"
#include "sentry/signal/signal_handlers.h"
#include "sentry/signal/signal_types.h"

namespace sentry {

class Kernel;
class PidView;
class Task;
using PidViewRef = std::shared_ptr<PidView>;
using TaskRef = std::shared_ptr<Task>;

class ProcessTimers;
class Timer;

class ThreadGroup : public std::enable_shared_from_this<ThreadGroup> {
 public:
  ThreadGroup(Kernel& kernel, int32_t id, std::shared_ptr<SignalHandlers> handlers,
              const ResourceLimitValues& limits, int32_t exit_signal, PidViewRef pid_view = nullptr,
              bool is_init = false);
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;
  ~ThreadGroup();

  Kernel& kernel() const { return kernel_; }
  int32_t id() const { return id_; }
  // The nested PID namespace that it lives in; null: the initial one. All ids here are the initial
  // one's (pid_view.h).
  const PidViewRef& pid_view() const { return pid_view_; }

  // --- The family. Any thread, no lock.
  // 0 for init and for processes started from outside.
  int32_t parent_id() const { return parent_id_.load(std::memory_order_relaxed); }
  int32_t process_group_id() const { return process_group_id_.load(std::memory_order_relaxed); }
  int32_t session_id() const { return session_id_.load(std::memory_order_relaxed); }
  // Not yet exited.
  int live_tasks() const { return live_tasks_.load(std::memory_order_acquire); }
  // The process has ended and waits for its parent (state Z).
  bool IsZombie() const { return live_tasks() == 0; }

  // --- Any thread; these take the tree lock.
  // The task whose tid is id(). Null after the process was reaped.
  TaskRef leader() const;
  // Some task that has not exited, the leader if possible, else null.
  TaskRef AnyLiveTask() const;
  // In order of creation; includes a leader that is a zombie.
  std::vector<TaskRef> tasks() const;
  std::shared_ptr<ProcessGroup> process_group() const;
  std::shared_ptr<ThreadGroup> parent() const;
  // Of the session, 0 if there is none (tty_nr), and the foreground process group (tpgid, -1).
  uint64_t terminal_device() const;
  int32_t terminal_foreground() const;
  std::shared_ptr<ControllingTerminal> terminal() const;

  // --- Limits and accounting. Any thread.
  ResourceLimits& limits() { return limits_; }
  // The soft limit.
  uint64_t Limit(int resource) const { return limits_.Soft(resource); }
  // After RLIMIT_CPU was set or inherited: SIGXCPU at the soft limit and each second after it,
  // SIGKILL at the hard one.
  void WatchCpuLimit() ABSL_LOCKS_EXCLUDED(timers_mu_);
  // Of all its tasks, dead ones included / of its reaped children.
  ResourceUsage Usage() const;
  ResourceUsage ChildrenUsage() const;
  // On the kernel's monotonic clock.
  int64_t start_ns() const { return start_ns_; }

  // --- Signals. Any thread.
  absl::Mutex& signal_mu() const { return signal_mu_; }
  std::shared_ptr<SignalHandlers> handlers() const;
  // To the process, as kill(2). `force`: from outside the container or from the kernel, which
  // matters to an init process only. EAGAIN (RLIMIT_SIGPENDING).
  base::Result<void> SendSignal(const SignalInfo& info, bool force = false);
  SignalSet pending() const;
  // Ends the process now, with wait status `status` unless it is ending already. The tasks leave
  // soon.
  void StartExit(int32_t status);
  bool IsExiting() const { return exiting_.load(std::memory_order_acquire); }
  // pid 1 of its namespace: signals without a handler do nothing.
  bool is_init() const { return is_init_; }
  bool unkillable() const { return unkillable_.load(std::memory_order_relaxed); }
  // Stopped by job control (for /proc and waitid).
  bool IsStopped() const;

  // Notified with POLLIN when the process has ended (pidfd).
  WaitQueue& exit_queue() { return exit_queue_; }
  // Notified with POLLIN when a child has changed state, or a thread of the group has left.
  WaitQueue& child_queue() { return child_queue_; }

  // Interval and POSIX timers (sentry/time/process_timers.h), made on first use. Any thread. Null
  // once the last task has left.
  std::shared_ptr<ProcessTimers> timers() ABSL_LOCKS_EXCLUDED(timers_mu_);

  std::atomic<bool>& child_subreaper() { return child_subreaper_; }
  std::atomic<int32_t>& oom_score_adjust() { return oom_score_adjust_; }
  // personality(2); of the process here, of the thread on Linux.
  std::atomic<uint32_t>& personality() { return personality_; }
  bool no_randomization() const {
    return (personality_.load(std::memory_order_relaxed) & 0x0040000) != 0;
  }
  // execve happened since fork: setpgid(2) by the parent is refused.
  bool has_executed() const { return has_executed_.load(std::memory_order_relaxed); }

 private:
  friend class ChildWait;
  friend class JobControl;
  friend class Kernel;
  friend class PidNamespace;
  friend class Seccomp;
  friend class SignalDelivery;
  friend class Task;
  friend class TaskClone;
  friend class TaskExit;
  friend class TaskExec;

  Kernel& kernel_;
  const int32_t id_;
  const PidViewRef pid_view_;
  const bool is_init_;
  const int64_t start_ns_;
  std::atomic<int32_t> parent_id_{0};
  std::atomic<int32_t> process_group_id_{0};
  std::atomic<int32_t> session_id_{0};
  std::atomic<int> live_tasks_{0};
  std::atomic<bool> exiting_{false};
  std::atomic<bool> unkillable_{false};
  std::atomic<bool> child_subreaper_{false};
  std::atomic<bool> has_executed_{false};
  std::atomic<int32_t> oom_score_adjust_{0};
  std::atomic<uint32_t> personality_{0};
  ResourceLimits limits_;
  WaitQueue exit_queue_;
  WaitQueue child_queue_;

  // --- Guarded by the tree lock.
  std::vector<TaskRef> tasks_;
  TaskRef leader_;
  ThreadGroup* parent_ = nullptr;
  int32_t parent_tid_ = 0;  // The thread that made it: PR_SET_PDEATHSIG, __WNOTHREAD.
  std::list<std::shared_ptr<ThreadGroup>> children_;
  std::shared_ptr<ProcessGroup> process_group_;
  int32_t exit_signal_;    // To the parent; 0 for none, -1: nobody waits for it.
  bool external_ = false;  // Started from outside: kept as a zombie until Kernel::WaitForExit.
  bool zombie_ = false;    // All tasks have left.
  bool reaped_ = false;

  mutable absl::Mutex usage_mu_;                             // A leaf.
  ResourceUsage dead_usage_ ABSL_GUARDED_BY(usage_mu_);      // Of tasks that have left.
  ResourceUsage children_usage_ ABSL_GUARDED_BY(usage_mu_);  // Of children that were waited for.

  // --- Guarded by signal_mu_.
  mutable absl::Mutex signal_mu_;
  std::shared_ptr<SignalHandlers> handlers_;  // Replaced by execve only.
  PendingSignals pending_;
  std::vector<Task*> signal_targets_;  // Tasks that have not begun to exit.
  int32_t exit_status_ = 0;            // As wait(2) reports it; valid once exiting_ or zombie_.
  Task* exec_task_ = nullptr;          // Killing the others for its execve.
  // Job control (signal(7)): set while a stop is being carried out or in force.
  int32_t stop_signal_ = 0;       // 0: none.
  int stop_remaining_ = 0;        // Tasks that have yet to stop.
  bool stopped_ = false;          // All have stopped.
  int32_t stop_report_ = 0;       // For WUNTRACED: the signal, 0 once reported.
  bool continue_report_ = false;  // For WCONTINUED.
  int32_t notify_parent_ = 0;     // CLD_CONTINUED or CLD_STOPPED, sent by the next task to run.

  SignalSet MaskOfFirst() const;
  // Null if nobody has used them.
  std::shared_ptr<ProcessTimers> ExistingTimers() ABSL_LOCKS_EXCLUDED(timers_mu_);
  void CheckCpuLimit() ABSL_LOCKS_EXCLUDED(timers_mu_);
  void DropTimers() ABSL_LOCKS_EXCLUDED(timers_mu_);

  class TimerHost;
  absl::Mutex timers_mu_;
  std::unique_ptr<TimerHost> timer_host_ ABSL_GUARDED_BY(timers_mu_);
  std::shared_ptr<ProcessTimers> timers_ ABSL_GUARDED_BY(timers_mu_);
  std::shared_ptr<Timer> cpu_limit_timer_ ABSL_GUARDED_BY(timers_mu_);
  bool timers_gone_ ABSL_GUARDED_BY(timers_mu_) = false;
};

}  // namespace sentry
