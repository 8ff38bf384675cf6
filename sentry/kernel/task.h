#pragma once

// A guest thread. It has a host thread of its own in the sentry, which runs Run(): guest code until an event,
// the event, pending signals, and again. Only that thread changes the task's registers and non-atomic state; other threads
// reach it through the locked or atomic members named here.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "platform/platform.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/signal/signal_types.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/fd_table.h"
#include "sentry/vfs/fs_context.h"

namespace sentry {

class Kernel;
class ThreadGroup;

class Task : public std::enable_shared_from_this<Task> {
 public:
  Task(const Task&) = delete;
  Task& operator=(const Task&) = delete;
  ~Task();

  Kernel& kernel() const { return kernel_; }
  ThreadGroup& group() const { return *group_; }
  // Thread id in the root PID namespace of the sandbox; the group's id is group().id().
  int32_t tid() const { return tid_; }

  // --- What the task uses. The references are stable for the calling task's own thread between
  // execve and unshare; other threads take the shared_ptr.
  MemoryManager& memory() const { return *memory_; }
  std::shared_ptr<MemoryManager> memory_ref() const;  // Null after exit. Any thread.
  FdTable& fds() const { return *fds_; }
  std::shared_ptr<FdTable> fds_ref() const;  // Null after exit. Any thread.
  FsContext& fs() const { return *fs_; }
  std::shared_ptr<FsContext> fs_ref() const;  // Null after exit. Any thread.
  // This task's credentials; any thread.
  CredentialsRef credentials() const;
  void set_credentials(CredentialsRef credentials);
  // RLIMIT_NOFILE's soft limit, for FdTable.
  uint64_t fd_limit() const;
  // Convenience: memory().CopyIn and so on.
  template <typename P>
  auto CopyIn(P pointer) {
    return memory().CopyIn(pointer);
  }
  template <typename P, typename T>
  base::Result<void> CopyOut(P pointer, const T& value) {
    return memory().CopyOut(pointer, value);
  }
  // Shorthand for fds().Install(file, cloexec, fd_limit()).
  base::Result<int32_t> InstallFile(FileRef file, bool close_on_exec);

  // --- Registers of the guest thread. Own thread only (or a stopped task under ptrace).
  platform::Registers& registers() { return registers_; }
  platform::Context& context() { return *context_; }

  // --- Sleeping. Own thread only.
  // Sleeps until Wake(), an interrupt or the deadline. A Wake since the last BlockUntil/ClearWake counts.
  // OK when woken; ETIMEDOUT; kRestartSys when interrupted (a signal to handle, a stop, a kill).
  base::Result<void> Block(Deadline deadline);
  void ClearWake();
  // Any thread.
  void Wake();
  // True if a signal, stop or kill waits to be handled: a long loop should give up with kRestartSys.
  bool IsInterrupted() const;
  // Any thread: leaves guest mode or Block soon, to look at signals and stops.
  void Interrupt();

  // --- Signals (signal/signals.cc). Any thread.
  // To this thread (tgkill) or to its process (kill). EAGAIN if the queue is full (RLIMIT_SIGPENDING).
  base::Result<void> SendSignal(const SignalInfo& info);
  base::Result<void> SendSignalToGroup(const SignalInfo& info);
  // A synchronous fault: the action becomes default if it was ignored or blocked.
  void ForceSignal(const SignalInfo& info);
  SignalSet signal_mask() const;
  // Own thread. Recomputes what is deliverable. SIGKILL and SIGSTOP are taken out.
  void set_signal_mask(SignalSet mask);
  // For the *_pwait and sigsuspend calls: `mask` for now; the old one comes back when the call returns to the guest or
  // after the handler's frame has saved it.
  void SetTemporarySignalMask(SignalSet mask);
  SignalSet pending_signals() const;  // Own and the group's.
  // Takes the first pending signal in `set` (sigtimedwait, signalfd). Own thread... or signalfd readers of this task.
  std::optional<SignalInfo> DequeueSignal(SignalSet set);
  // Notified (POLLIN) whenever a signal is queued for this task or its group; for signalfd and sigtimedwait.
  WaitQueue& signal_queue();
  AlternateStack& alternate_stack() { return alternate_stack_; }

  // --- Restart block (restart_syscall(2)): called when a call returned kRestartBlock and is resumed.
  using RestartFunction = std::function<base::Result<uint64_t>(Task&)>;
  base::Result<uint64_t> RestartWith(RestartFunction function);  // Returns kRestartBlock.

  // --- set_robust_list(2): the list's head; null if none (also after execve). Any thread.
  base::UserAddr robust_list() const { return base::UserAddr(robust_list_.load(std::memory_order_relaxed)); }
  void set_robust_list(base::UserAddr head) { robust_list_.store(head.value(), std::memory_order_relaxed); }

  // --- Names and accounting.
  std::string name() const;  // comm, at most 15 bytes.
  void set_name(std::string name);

  // To be completed by sentry/kernel: construction (Kernel, clone), Run, exit, futex and robust state, ptrace, rseq, ...

 private:
  Kernel& kernel_;
  std::shared_ptr<ThreadGroup> group_;
  int32_t tid_;
  std::shared_ptr<MemoryManager> memory_;
  std::shared_ptr<FdTable> fds_;
  std::shared_ptr<FsContext> fs_;
  platform::Registers registers_;
  std::unique_ptr<platform::Context> context_;
  AlternateStack alternate_stack_;
  std::atomic<uint64_t> robust_list_{0};
  friend class FutexTable;
  bool left_futexes_ = false;  // Guarded by the FutexTable: exit has given its PI locks away.
};

using TaskRef = std::shared_ptr<Task>;

}  // namespace sentry
