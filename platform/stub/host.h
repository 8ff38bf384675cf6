#pragma once

// Makes stub processes and notices their deaths, for every platform that runs guest code in them.
//
// A few processes are kept ready, each with a first thread, so that fork and exec need not wait for
// the host: one from the beginning, which comes up while the sentry does, and more once a second
// one has been asked for. One service thread refills them and waits for deaths; it sleeps in
// epoll_wait otherwise.

#include <cstdint>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/stub/cpu_pair.h"
#include "platform/stub/image.h"
#include "platform/stub/process.h"
#include "platform/stub/spawner.h"

namespace platform {

class StubHost {
 public:
  // Forks: call it with the sentry's final namespaces and credentials, before its filters, on a
  // thread that lives as long as the result.
  static absl::StatusOr<std::unique_ptr<StubHost>> Create(const StubOptions& options);
  ~StubHost();
  StubHost(const StubHost&) = delete;
  StubHost& operator=(const StubHost&) = delete;

  base::Result<std::shared_ptr<StubProcess>> NewProcess() ABSL_LOCKS_EXCLUDED(mu_);
  // Ends the process. When it returns, its threads touch no memory any more.
  void EndProcess(StubProcess& process) ABSL_LOCKS_EXCLUDED(mu_);
  // Likewise, but does not wait: `gone` runs when its threads touch no memory any more.
  void Retire(const std::shared_ptr<StubProcess>& process, std::function<void()> gone)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Returns when all `gone` have run.
  void AwaitRetired() ABSL_LOCKS_EXCLUDED(mu_);
  CpuSet& cpus() { return cpus_; }

 private:
  StubHost(const StubOptions& options, std::unique_ptr<MemoryPool> control, StubImage image,
           std::unique_ptr<Spawner> spawner, base::Fd epoll, base::Fd kick);

  base::Result<std::shared_ptr<StubProcess>> Spawn() ABSL_LOCKS_EXCLUDED(mu_);
  void Serve() ABSL_LOCKS_EXCLUDED(mu_);
  // Makes one process ready if there are too few. True if there still are.
  bool Refill() ABSL_LOCKS_EXCLUDED(mu_);
  void Kick();
  // Somebody said that the process of `pidfd` ended.
  void NoteDeath(int pidfd) ABSL_LOCKS_EXCLUDED(mu_);

  const StubOptions options_;
  CpuSet cpus_;
  const std::unique_ptr<MemoryPool> control_;  // Command pages and contexts; no guest memory.
  const StubImage image_;  // The spawner, which shares our descriptors, maps it when it gets there.
  const std::unique_ptr<Spawner> spawner_;
  const base::Fd epoll_;  // One pidfd per process, and kick_.
  const base::Fd kick_;   // eventfd

  absl::Mutex mu_;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
  std::vector<std::shared_ptr<StubProcess>> ready_ ABSL_GUARDED_BY(mu_);
  size_t ready_wanted_ ABSL_GUARDED_BY(mu_) = 1;
  bool first_tried_ ABSL_GUARDED_BY(mu_) = false;  // To make a process, by the service thread.
  bool first_taken_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<int, std::weak_ptr<StubProcess>> watched_ ABSL_GUARDED_BY(mu_);  // By pidfd.
  struct Retired {
    std::shared_ptr<StubProcess> process;
    std::function<void()> gone;
  };
  absl::flat_hash_map<int, Retired> retired_ ABSL_GUARDED_BY(mu_);  // By pidfd; in watched_, too.
  size_t leaving_ ABSL_GUARDED_BY(mu_) = 0;  // Retired, and `gone` has not returned.

  std::thread service_;
};

}  // namespace platform
