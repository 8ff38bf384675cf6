#pragma once

// Everything that makes up one sandbox's kernel. No singletons: all state hangs off this object.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/platform.h"
#include "sentry/kernel/host_threads.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/time/clock.h"
#include "sentry/time/timer_service.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

class AnonymousFiles;
class FutexTable;
class HostPoller;
class KeyRegistry;
class NamespaceCounts;
class NetworkNamespace;
class Vdso;
struct LeaseSettings;
struct RewriteStats;

// How the sentry runs a system call: handed in by the executable (syscalls/), so that the sentry
// includes nothing above itself. Takes number and arguments from task.registers(); returns the
// value or negative errno / restart code to be put into rax.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  virtual int64_t Dispatch(Task& task, uint64_t number, const uint64_t (&arguments)[6]) = 0;
};

struct KernelOptions {
  std::string host_name = "ravelin";
  std::string domain_name = "(none)";
  uint32_t cpu_count = 1;
  uint64_t memory_bytes = 0;  // What free(1) shows as total.
  uint64_t tasks_max = 32768;
  bool strace = false;
  // The first process dies of signals like any other (`do`: Ctrl-C must end `sleep 60`), instead of
  // being shielded as the init of a PID namespace (signal(7), pid_namespaces(7)).
  bool init_is_killable = false;
};

// A process to be started from outside: the container's first one, or `runsc exec`.
struct ProcessArguments {
  std::string
      executable;  // Path; if it has no slash, PATH of `environment` is searched. Empty: argv[0].
  std::vector<std::string> argv;
  std::vector<std::string> environment;
  std::string working_directory = "/";
  Path root;                     // Empty: the root of the mount tree.
  std::shared_ptr<FdTable> fds;  // Null: none open.
  CredentialsRef credentials;    // Null: root.
  uint32_t umask = 0022;
  std::vector<std::pair<int, ResourceLimit>> limits;  // RLIMIT_* that differ from the defaults.
  std::shared_ptr<ControllingTerminal> terminal;      // Of the new session; may be null.
  int32_t oom_score_adjust = 0;
};

// Counts of one user, shared by its processes (RLIMIT_SIGPENDING, RLIMIT_NPROC).
struct UserAccount {
  std::atomic<uint64_t> signals{0};
  std::atomic<uint64_t> tasks{0};
};

class Kernel {
 public:
  // All references outlive the kernel.
  Kernel(platform::Platform& platform, platform::MemoryPool& pool, Dispatcher& dispatcher,
         const Clock& clock, Random& random, const KernelOptions& options);
  // Kills what still runs and waits for it.
  ~Kernel();
  Kernel(const Kernel&) = delete;
  Kernel& operator=(const Kernel&) = delete;

  platform::Platform& platform() const { return platform_; }
  platform::MemoryPool& pool() const { return pool_; }
  Dispatcher& dispatcher() const { return dispatcher_; }
  const Clock& clock() const { return clock_; }
  Random& random() const { return random_; }
  const KernelOptions& options() const { return options_; }
  Vfs& vfs() { return *vfs_; }
  RewriteStats& rewrite_stats() { return *rewrite_stats_; }  // sentry/mm/rewrite_stats.h
  TimerService& timers() { return *timers_; }
  FutexTable& futexes() { return *futexes_; }
  PidNamespace& pids() { return *pids_; }
  HostPoller& host_poller() { return *host_poller_; }
  AnonymousFiles& anonymous_files() {
    return *anonymous_files_;
  }  // sentry/fs/anon/anonymous_files.h, (vfs, clock)
  LeaseSettings& leases() { return *leases_; }  // sentry/vfs/lease.h
  KeyRegistry& keys() { return *keys_; }        // sentry/keys/keys.h
  NamespaceCounts& namespace_counts() { return *namespace_counts_; }
  uint64_t nsfs_device() const { return nsfs_device_; }
  // Those of a process that is started from outside.
  NamespacesRef initial_namespaces() const;
  NetworkNamespace& network() { return *network_; }  // sentry/socket/network_namespace.h

  // Mapped into each new program; null: none. Set before the first process, normally to the clock
  // that the kernel was given.
  const Vdso* vdso() const { return vdso_.get(); }
  void set_vdso(std::shared_ptr<const Vdso> vdso) { vdso_ = std::move(vdso); }

  // --- Processes from outside.
  // Loads and starts a process without a parent; the first one is init. Its id. Errors are
  // execve's.
  base::Result<int32_t> CreateProcess(const ProcessArguments& arguments);
  // The same without a program, not started, its memory empty or null: for execve, or for those who
  // drive a task themselves.
  base::Result<TaskRef> MakeProcess(const ProcessArguments& arguments, bool with_memory);
  // Sleeps until the process has ended and returns its wait status; the process is reaped. ECHILD
  // if there is no such process or it has a parent. Any host thread that is not a task's.
  base::Result<int32_t> WaitForExit(int32_t pid);
  // From outside: init has no protection from SIGKILL and SIGSTOP. ESRCH.
  base::Result<void> SignalProcess(int32_t pid, int32_t signal);
  base::Result<void> SignalAll(int32_t signal);
  // The foreground group of the terminal of `pid`'s session, else `pid` itself.
  base::Result<void> SignalForeground(int32_t pid, int32_t signal);
  // SIGKILL to all, without waiting.
  void KillAll();
  // No task is left.
  void WaitUntilEmpty() ABSL_LOCKS_EXCLUDED(life_mu_);
  // No guest code runs from the return of Pause until Resume (runsc pause). Tasks that sleep keep
  // sleeping.
  void Pause() ABSL_LOCKS_EXCLUDED(life_mu_);
  void Resume() ABSL_LOCKS_EXCLUDED(life_mu_);
  bool IsPaused() const { return paused_.load(std::memory_order_acquire); }

  // Monotonic and real time when the kernel started.
  int64_t boot_monotonic_ns() const { return boot_monotonic_ns_; }
  int64_t boot_realtime_ns() const { return boot_realtime_ns_; }
  // Tasks made since boot (/proc/stat).
  uint64_t forks() const { return forks_.load(std::memory_order_relaxed); }
  std::shared_ptr<UserAccount> UserAccountOf(uint32_t uid) ABSL_LOCKS_EXCLUDED(user_mu_);

 private:
  friend class Task;
  friend class TaskClone;
  friend class TaskExit;
  base::Result<void> LoadFirstProgram(Task& task, const ProcessArguments& arguments);
  HostThreads& host_threads() { return host_threads_; }
  void TaskStarted() ABSL_LOCKS_EXCLUDED(life_mu_);
  void TaskLeft() ABSL_LOCKS_EXCLUDED(life_mu_);
  // Sleeps while the kernel is paused.
  void WaitWhilePaused(Task& task) ABSL_LOCKS_EXCLUDED(life_mu_);

  platform::Platform& platform_;
  platform::MemoryPool& pool_;
  Dispatcher& dispatcher_;
  const Clock& clock_;
  Random& random_;
  const KernelOptions options_;
  const int64_t boot_monotonic_ns_;
  const int64_t boot_realtime_ns_;
  std::atomic<uint64_t> forks_{0};
  const std::unique_ptr<RewriteStats> rewrite_stats_;

  absl::Mutex user_mu_;
  absl::flat_hash_map<uint32_t, std::shared_ptr<UserAccount>> users_ ABSL_GUARDED_BY(user_mu_);

  absl::Mutex life_mu_;
  int running_tasks_ ABSL_GUARDED_BY(life_mu_) = 0;
  int threads_paused_ ABSL_GUARDED_BY(life_mu_) = 0;
  std::atomic<bool> paused_{false};

  // shared_ptr: their types are complete only where they are made.
  std::shared_ptr<Vfs> vfs_;
  std::shared_ptr<TimerService> timers_;
  std::shared_ptr<FutexTable> futexes_;
  std::shared_ptr<PidNamespace> pids_;
  std::shared_ptr<HostPoller> host_poller_;
  std::shared_ptr<AnonymousFiles> anonymous_files_;
  std::shared_ptr<KeyRegistry> keys_;
  std::shared_ptr<LeaseSettings> leases_;
  std::shared_ptr<NetworkNamespace> network_;
  const std::unique_ptr<NamespaceCounts> namespace_counts_;
  const uint64_t nsfs_device_;
  const NamespacesRef first_namespaces_;  // But for mounts and network.
  std::shared_ptr<const Vdso> vdso_;
  // The last: its threads use everything above.
  HostThreads host_threads_;
};

}  // namespace sentry
