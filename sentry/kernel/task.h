#pragma once

// A guest thread. It has a host thread of its own in the sentry, which runs RunUntilExit(): guest
// code until an event, the event, pending signals, and again. Only that thread changes the task's
// registers and non-atomic state; other threads reach it through the locked or atomic members named
// here.

#include <array>
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "platform/platform.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/seccomp.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/signal/pending_signals.h"
#include "sentry/signal/signal_types.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/fd_table.h"
#include "sentry/vfs/fs_context.h"

namespace sentry {

class Kernel;
class SemUndoList;
struct NamespaceSet;
using NamespacesRef = std::shared_ptr<const NamespaceSet>;

// How many tasks use an object that CLONE_* flags share: what must happen "when the last task
// leaves" cannot wait for the last reference, which /proc may hold.
using SharerCount = std::shared_ptr<std::atomic<int>>;
inline SharerCount NewSharerCount() { return std::make_shared<std::atomic<int>>(1); }

// sched_setattr(2), setpriority(2), ioprio_set(2): kept and reported, the host schedules.
struct SchedulingAttributes {
  uint32_t policy = 0;  // SCHED_OTHER
  bool reset_on_fork = false;
  int32_t nice = 0;
  uint32_t priority = 0;  // Real-time.
  int32_t io_priority = 0;
  uint64_t timer_slack_ns = 50000;
  uint64_t default_timer_slack_ns = 50000;  // What the parent had.
  std::vector<uint64_t> affinity;           // Empty: all CPUs.
};

// vfork(2): the parent sleeps until the child has given the memory back.
struct VforkCompletion {
  std::atomic<bool> done{false};
  std::weak_ptr<class Task> parent;
  void Complete();
};

struct TaskInit {
  std::shared_ptr<ThreadGroup> group;
  int32_t tid = 0;
  std::shared_ptr<MemoryManager> memory;
  SharerCount memory_sharers;
  std::shared_ptr<FdTable> fds;
  SharerCount fds_sharers;
  std::shared_ptr<FsContext> fs;
  CredentialsRef credentials;
  NamespacesRef namespaces;
  std::unique_ptr<platform::Context> context;
  platform::Registers registers;
  SignalSet signal_mask = 0;
  AlternateStack alternate_stack;
  SchedulingAttributes scheduling;
  std::string name;
};

class Task : public std::enable_shared_from_this<Task> {
 public:
  Task(Kernel& kernel, TaskInit init);
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task();

  Kernel& kernel() const { return kernel_; }
  ThreadGroup& group() const { return *group_; }
  std::shared_ptr<ThreadGroup> group_ref() const { return group_; }
  // Thread id in the root PID namespace of the sandbox; the group's id is group().id(). Changes
  // only when a thread that is not the leader calls execve.
  int32_t tid() const { return tid_.load(std::memory_order_relaxed); }
  bool is_leader() const { return tid() == group_->id(); }

  // --- What the task uses. The references are stable for the calling task's own thread between
  // execve and unshare; other threads take the shared_ptr.
  MemoryManager& memory() const { return *memory_; }
  std::shared_ptr<MemoryManager> memory_ref() const;  // Null after exit. Any thread.
  FdTable& fds() const { return *fds_; }
  std::shared_ptr<FdTable> fds_ref() const;  // Null after exit. Any thread.
  FsContext& fs() const { return *fs_; }
  // Own thread. No other task can change it: others may look.
  bool is_only_user_of_fs() const {
    if (fs_.use_count() != 1) return false;
    std::atomic_thread_fence(std::memory_order_acquire);
    return true;
  }
  bool is_only_user_of_fds() const { return fds_sharers_->load(std::memory_order_acquire) == 1; }
  std::shared_ptr<FsContext> fs_ref() const;  // Null after exit. Any thread.
  // unshare(2), close_range(2): an own copy unless the task is the only user. Own thread.
  void UnshareFds();
  void UnshareFs();
  void ReplaceFs(std::shared_ptr<FsContext> fs);
  // This task's credentials; any thread.
  CredentialsRef credentials() const;
  // Own thread only: no lock, no count.
  const Credentials& own_credentials() const { return *credentials_; }
  const CredentialsRef& own_credentials_ref() const { return credentials_; }
  void set_credentials(CredentialsRef credentials);
  // The namespaces it lives in; any thread. Null after exit.
  NamespacesRef namespaces() const;
  // Own thread only.
  const NamespaceSet& own_namespaces() const { return *namespaces_; }
  void set_namespaces(NamespacesRef namespaces);
  // RLIMIT_NOFILE's soft limit, for FdTable.
  uint64_t fd_limit() const { return group_->Limit(RLIMIT_NOFILE); }
  // Convenience: memory().CopyIn and so on.
  template <typename P>
  auto CopyIn(P pointer) {
    return memory().CopyIn(pointer);
  }
  template <typename P, typename T>
  base::Result<void> CopyOut(P pointer, const T& value) {
    return memory().CopyOut(pointer, value);
  }
  // EBADF. What the descriptor refers to, as long as the running call needs it and closes none.
  base::Result<FileHold> HoldFile(int32_t fd) const {
    return fds_->Hold(fd, is_only_user_of_fds());
  }
  // EBADF also for O_PATH descriptors.
  base::Result<FileHold> HoldFileForIo(int32_t fd) const {
    base::Result<FileHold> file = HoldFile(fd);
    if (file.ok() && file.value()->is_path_only()) return base::Errno(EBADF);
    return file;
  }
  // Shorthand for fds().Install(file, cloexec, fd_limit()).
  base::Result<int32_t> InstallFile(FileRef file, bool close_on_exec);

  // --- Registers of the guest thread. Own thread only (or a stopped task under ptrace).
  platform::Registers& registers() { return registers_; }
  platform::Context& context() { return *context_; }
  // The running system call has set all registers (rt_sigreturn, execve): its result is not put
  // into rax.
  void KeepRegisters() { keep_registers_ = true; }

  // --- Sleeping. Own thread only.
  // Sleeps until Wake(), an interrupt or the deadline. A Wake since the last BlockUntil/ClearWake
  // counts. OK when woken; ETIMEDOUT; kRestartSys when interrupted (a signal to handle, a stop, a
  // kill).
  base::Result<void> Block(Deadline deadline);
  // Only a kill ends it early (kRestartNoIntr). State D.
  base::Result<void> BlockKillable();
  void ClearWake();
  // Any thread.
  void Wake();
  // True if a signal, stop or kill waits to be handled: a long loop should give up with
  // kRestartSys.
  bool IsInterrupted() const {
    return (wake_state_.load(std::memory_order_acquire) & kInterrupt) != 0;
  }
  // The process is being killed, or another thread's execve takes this one down.
  bool IsKilled() const { return (wake_state_.load(std::memory_order_acquire) & kKilled) != 0; }
  // Any thread: leaves guest mode or Block soon, to look at signals and stops.
  void Interrupt();
  // Any thread. In guest code (or about to be); and after Interrupt(): still in the guest code that
  // it is to leave.
  bool InGuest() const { return in_guest_.load(std::memory_order_seq_cst); }
  bool HasYetToNoticeInterrupt() const {
    return InGuest() && (wake_state_.load(std::memory_order_seq_cst) & kInterrupt) != 0;
  }

  // --- Signals (signal/signals.cc). Any thread.
  // To this thread (tgkill) or to its process (kill). EAGAIN if the queue is full
  // (RLIMIT_SIGPENDING).
  base::Result<void> SendSignal(const SignalInfo& info, bool force = false);
  base::Result<void> SendSignalToGroup(const SignalInfo& info) { return group_->SendSignal(info); }
  // A synchronous fault: the action becomes default if it was ignored or blocked.
  void ForceSignal(const SignalInfo& info);
  SignalSet signal_mask() const { return signal_mask_.load(std::memory_order_relaxed); }
  // Own thread. Recomputes what is deliverable. SIGKILL and SIGSTOP are taken out.
  void set_signal_mask(SignalSet mask);
  // For the *_pwait and sigsuspend calls: `mask` for now; the old one comes back when the call
  // returns to the guest or after the handler's frame has saved it.
  void SetTemporarySignalMask(SignalSet mask);
  SignalSet pending_signals() const;  // Own and the group's.
  SignalSet own_pending_signals() const;
  // Takes the first pending signal in `set` (sigtimedwait, signalfd). Own thread... or signalfd
  // readers of this task.
  std::optional<SignalInfo> DequeueSignal(SignalSet set);
  // Notified (POLLIN) whenever a signal is queued for this task or its group; for signalfd and
  // sigtimedwait.
  WaitQueue& signal_queue() { return signal_queue_; }
  // sigtimedwait: signals in `set` interrupt Block although they are blocked. 0 to end it.
  void SetAwaitedSignals(SignalSet set);
  AlternateStack& alternate_stack() { return alternate_stack_; }

  // Of the last fault, for signal frames. Own thread.
  uint64_t fault_trap() const { return fault_trap_; }
  uint64_t fault_error() const { return fault_error_; }
  uint64_t fault_address() const { return fault_address_; }

  // --- Restart block (restart_syscall(2)): called when a call returned kRestartBlock and is
  // resumed.
  using RestartFunction = std::function<base::Result<uint64_t>(Task&)>;
  base::Result<uint64_t> RestartWith(RestartFunction function);  // Returns kRestartBlock.
  // What restart_syscall does.
  base::Result<uint64_t> RunRestart();

  // --- set_robust_list(2): the list's head; null if none (also after execve). Any thread.
  base::UserAddr robust_list() const {
    return base::UserAddr(robust_list_.load(std::memory_order_relaxed));
  }
  void set_robust_list(base::UserAddr head) {
    robust_list_.store(head.value(), std::memory_order_relaxed);
  }

  // --- Names and accounting. Any thread.
  std::string name() const;  // comm, at most 15 bytes.
  void set_name(std::string name);
  // 'R', 'S', 'D', 'T', 't', 'Z', 'X' as in /proc/PID/stat.
  char StateLetter() const;
  ResourceUsage Usage() const;
  int64_t start_ns() const { return start_ns_; }
  SchedulingAttributes scheduling() const;
  void set_scheduling(SchedulingAttributes attributes);
  // The system call it is in, or -1 (/proc/PID/syscall, wchan).
  int64_t current_syscall() const { return current_syscall_.load(std::memory_order_relaxed); }

  // --- set_tid_address(2), CLONE_CHILD_CLEARTID. Own thread.
  uint64_t clear_child_tid() const { return clear_child_tid_; }
  void set_clear_child_tid(uint64_t address) { clear_child_tid_ = address; }

  // SEM_UNDO, shared by CLONE_SYSVSEM; made by the first call. Own thread.
  const std::shared_ptr<SemUndoList>& sem_undo();
  // unshare(CLONE_SYSVSEM), exit.
  void DropSemUndo();

  // PR_SET_PDEATHSIG.
  std::atomic<int32_t>& parent_death_signal() { return parent_death_signal_; }

  // --- Life. Start() makes the host thread that runs the task; EAGAIN if the host has no more.
  base::Result<void> Start();
  // What that thread does.
  void RunUntilExit();
  // One turn of the loop: guest code until an event, and the event. False once the task has left.
  // Start()'s thread calls it until then; tests may call it instead.
  bool RunOnce();
  // Ends this task as exit(2) does, with the wait status that its process gets if it is the last
  // one: noticed when the running call returns.
  void RequestExit(int32_t status);
  // What follows a system call, on the way back to the guest: signals, stops, exit. False if the
  // task is to leave.
  bool PrepareReturnToGuest();
  // As if the running system call had returned `result`: for those who drive a task themselves.
  void FinishSyscallForTest(int64_t result) { FinishSyscall(result); }
  // Takes the task down: resources, the parent's notification. Own thread; the object stays for
  // wait(2).
  void Exit();
  bool HasHostThread() const { return has_host_thread_.load(std::memory_order_acquire); }
  bool HasExited() const { return exited_.load(std::memory_order_acquire); }

 private:
  friend class ChildWait;
  friend class FutexTable;
  friend class JobControl;
  friend class Kernel;
  friend class PidNamespace;
  friend class Seccomp;
  friend class SignalDelivery;
  friend class TaskClone;
  friend class TaskExec;
  friend class TaskExit;
  friend class ThreadGroup;

  // Bits of wake_state_.
  static constexpr uint32_t kWoken = 1;      // Wake() since the last sleep.
  static constexpr uint32_t kInterrupt = 2;  // Signals or stops to look at.
  static constexpr uint32_t kKilled = 4;     // Never cleared.
  static constexpr uint32_t kAsleep = 8;     // In Block: a waker calls futex.

  void SetWakeBits(uint32_t bits);
  void Kill() { SetWakeBits(kKilled | kInterrupt); }
  void SleepOnWakeState(uint32_t expected, int64_t timeout_ns);
  void WaitForVfork();
  void HandleEvent(platform::Event event);
  void HandleNewSyscall(platform::SyscallPath path);
  void HandleSyscall();
  void HandleFault(const platform::Event& event);
  void FinishSyscall(int64_t result);
  bool HasWork() const;
  void DeliverSignal(const struct SignalToHandle& signal);
  void RestartSyscall();
  void RestoreSavedMask();
  void ReplaceCredentials(CredentialsRef credentials) ABSL_LOCKS_EXCLUDED(resource_mu_);
  void ReplaceMemory(std::shared_ptr<MemoryManager> memory);
  void DropContext() ABSL_LOCKS_EXCLUDED(context_mu_);
  // CPU time of the task's host thread since it took over the task.
  int64_t SystemNsLocked() const ABSL_SHARED_LOCKS_REQUIRED(resource_mu_);
  // The CPU time of a thread of this host process.
  static int64_t HostThreadCpuNs(int32_t host_tid);
  // Any thread, after a change of what getpid(2), getuid(2) and so on return: the platform may
  // answer these by itself.
  void PublishIdentity() ABSL_LOCKS_EXCLUDED(context_mu_);

  Kernel& kernel_;
  const std::shared_ptr<ThreadGroup> group_;
  std::atomic<int32_t> tid_;
  const int64_t start_ns_;
  std::atomic<uint32_t> wake_state_{0};
  // In Switch: who sets kInterrupt calls Context::Interrupt. Entering sets it, then looks at
  // wake_state_, with a full barrier between.
  std::atomic<bool> in_guest_{false};
  std::atomic<char> wait_letter_{'S'};
  std::atomic<bool> exited_{false};
  std::atomic<bool> has_host_thread_{false};
  std::atomic<int64_t> current_syscall_{-1};
  std::atomic<uint64_t> robust_list_{0};
  bool left_futexes_ = false;  // Guarded by the FutexTable: exit has given its PI locks away.
  std::atomic<int32_t> parent_death_signal_{0};
  std::atomic<int64_t> guest_ns_{0};  // Of a context that has gone.
  std::atomic<uint64_t> faults_{0};
  std::atomic<uint64_t> sleeps_{0};
  SeccompState seccomp_;
  std::array<uint64_t, 3> calls_{};  // By platform::SyscallPath. The own thread's.

  // Replaced by the own thread under resource_mu_, which other threads take to look.
  mutable absl::Mutex resource_mu_;
  std::shared_ptr<MemoryManager> memory_;
  SharerCount memory_sharers_;
  std::shared_ptr<FdTable> fds_;
  SharerCount fds_sharers_;
  std::shared_ptr<FsContext> fs_;
  CredentialsRef credentials_;
  NamespacesRef namespaces_;
  std::shared_ptr<struct UserAccount>
      account_;  // Charged for this task; null before start and after exit.
  std::string name_ ABSL_GUARDED_BY(resource_mu_);
  SchedulingAttributes scheduling_ ABSL_GUARDED_BY(resource_mu_);
  int32_t host_tid_ ABSL_GUARDED_BY(resource_mu_) = 0;
  int64_t host_cpu_ns_at_start_ ABSL_GUARDED_BY(resource_mu_) = 0;
  int64_t system_ns_at_exit_ ABSL_GUARDED_BY(resource_mu_) = -1;

  // --- Own thread only.
  platform::Registers registers_;
  AlternateStack alternate_stack_;
  uint64_t clear_child_tid_ = 0;
  std::shared_ptr<SemUndoList> sem_undo_;  // Also set by the parent, before the task starts.
  RestartFunction restart_;
  bool keep_registers_ = false;
  bool exit_requested_ = false;
  int32_t exit_status_ = 0;
  int64_t restart_result_ = 0;  // Negative restart code of the call that has just ended, else 0.
  bool saved_mask_valid_ = false;
  SignalSet saved_mask_ = 0;
  std::shared_ptr<VforkCompletion> waiting_for_vfork_;  // As parent.
  std::shared_ptr<VforkCompletion> vfork_completion_;   // As child.
  uint64_t fault_trap_ = 0, fault_error_ = 0,
           fault_address_ = 0;  // Of the last fault, for signal frames.

  // --- Guarded by group().signal_mu().
  std::atomic<SignalSet> signal_mask_{
      0};  // Written under the lock by the own thread, which reads without.
  PendingSignals pending_;
  SignalSet awaited_signals_ = 0;
  bool stop_dequeued_ = false;   // Took a stop signal that no SIGCONT has annulled since.
  bool stop_requested_ = false;  // Has yet to take part in the process's stop.
  std::atomic<bool> stopped_{false};

  // Guards the pointer, so that Interrupt does not meet a context that goes away.
  mutable absl::Mutex context_mu_;
  std::unique_ptr<platform::Context> context_;

  WaitQueue signal_queue_;
};

}  // namespace sentry
