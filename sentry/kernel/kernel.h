#pragma once

// Everything that makes up one sandbox's kernel. No singletons: all state hangs off this object.

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/platform.h"
#include "sentry/kernel/task.h"
#include "sentry/time/clock.h"
#include "sentry/time/timer_service.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

class FutexTable;
class HostPoller;
class NetworkNamespace;
class PidNamespace;

// How the sentry runs a system call: handed in by the executable (syscalls/), so that the sentry includes nothing above itself.
// Takes number and arguments from task.registers(); returns the value or negative errno / restart code to be put into rax.
class Dispatcher {
 public:
  virtual ~Dispatcher() = default;
  virtual int64_t Dispatch(Task& task, uint64_t number, const uint64_t (&arguments)[6]) = 0;
};

struct KernelOptions {
  std::string host_name = "ravelin";
  std::string domain_name = "(none)";
  uint32_t cpu_count = 1;
  uint64_t memory_bytes = 0;       // What free(1) shows as total.
  uint64_t tasks_max = 32768;
  bool strace = false;
};

class Kernel {
 public:
  // All references outlive the kernel.
  Kernel(platform::Platform& platform, platform::MemoryPool& pool, Dispatcher& dispatcher, const Clock& clock,
         Random& random, const KernelOptions& options);
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
  TimerService& timers() { return *timers_; }
  FutexTable& futexes() { return *futexes_; }
  PidNamespace& pids() { return *pids_; }
  HostPoller& host_poller() { return *host_poller_; }
  NetworkNamespace& network() { return *network_; }  // sentry/socket/network_namespace.h

  // To be completed by sentry/kernel: the init process, waiting for it, kill all, host name under a lock, boot time, ...

 private:
  platform::Platform& platform_;
  platform::MemoryPool& pool_;
  Dispatcher& dispatcher_;
  const Clock& clock_;
  Random& random_;
  const KernelOptions options_;
  std::unique_ptr<Vfs> vfs_;
  std::unique_ptr<TimerService> timers_;
  std::unique_ptr<FutexTable> futexes_;
  std::unique_ptr<PidNamespace> pids_;
  std::unique_ptr<HostPoller> host_poller_;
  std::unique_ptr<NetworkNamespace> network_;
};

}  // namespace sentry
