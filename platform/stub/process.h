#pragma once

// One stub process: the channel to its memory thread, and its guest threads.
//
// Guest threads are never ended one by one (their filter has no exit); one that is not needed any
// more waits in the stub and is taken by the next Context. Whatever holds a StubProcess may read
// the contexts of its threads, also after the process died.

#include <sys/types.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/stub/cpu_pair.h"
#include "platform/stub/shared_pages.h"
#include "platform/stub/spawner.h"

namespace platform {

// What all processes of a platform have in common.
struct StubOptions {
  uint64_t thread_mode = 0;  // THREAD_* bits.
  bool traced = false;       // Guest threads are ptraced by the sentry.
};

// A thread that runs guest code, or waits to. Owned by its process.
struct StubThread {
  ThreadContext& context;       // Guest-writable.
  std::byte* const region;      // CONTEXT_BYTES from `context` on, in the sentry.
  const uint64_t stub_address;  // Of the same bytes, in the stub.
  const PoolRange range;
  Answers& answers;  // What the stub answers for it; the guest's to read.
  pid_t tid = 0;

  // Where the kernel put the first signal frame (systrap): offset in the region; 0: not known yet.
  uint64_t frame_offset = 0;
  uint64_t fpu_offset = 0;
  std::array<std::byte, 48> fpu_software{};  // As the kernel wrote it.
  // It waits in the fast path, not in the signal handler.
  bool waits_fast = false;
};

class StubProcess {
 public:
  // Asks `spawner` for a process and waits until it is there, with its first thread on the way:
  // call AwaitFirstThread before anything else. `control` and `cpus` must outlive the
  // result.
  static base::Result<std::shared_ptr<StubProcess>> Create(MemoryPool& control, Spawner& spawner,
                                                           const CpuSet& cpus,
                                                           const StubOptions& options);
  ~StubProcess();
  StubProcess(const StubProcess&) = delete;
  StubProcess& operator=(const StubProcess&) = delete;

  // Waits for that thread. Only once the death of the process would be noticed (MarkDead).
  base::Result<void> AwaitFirstThread() ABSL_LOCKS_EXCLUDED(threads_mu_);
  pid_t pid() const { return spawned_.pid; }
  int pidfd() const { return spawned_.pidfd.get(); }
  bool dead() const { return dead_.load(); }
  // Asks the host; dead() follows when the service thread has noticed.
  bool HasEnded() const;

  // Executes the entries in order, up to the first that fails. ESRCH if the process is dead.
  base::Result<void> Run(std::span<const CommandEntry> entries) ABSL_LOCKS_EXCLUDED(channel_mu_);
  // A thread that waits for its first or next entry. EAGAIN, ENOMEM: the host's limits. ESRCH.
  base::Result<StubThread*> AcquireThread() ABSL_LOCKS_EXCLUDED(threads_mu_, channel_mu_);
  // Threads that run guest code or have done so, or are ready to.
  size_t thread_count() const ABSL_LOCKS_EXCLUDED(threads_mu_);
  // Precondition: the thread waits as it did when it was acquired.
  void ReleaseThread(StubThread* thread) ABSL_LOCKS_EXCLUDED(threads_mu_);
  void SendKill();
  // SIGKILL. When it returns, no thread of the process can touch memory any more.
  void Kill() ABSL_LOCKS_EXCLUDED(threads_mu_);
  // The process is known to have ended: wakes whoever waits for it.
  void MarkDead() ABSL_LOCKS_EXCLUDED(threads_mu_);

 private:
  StubProcess(MemoryPool& control, const CpuSet& cpus, const StubOptions& options,
              PoolRange command_range);

  void WriteBatchLocked(std::span<const CommandEntry> entries)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(channel_mu_);
  base::Result<void> RunLocked(std::span<const CommandEntry> entries)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(channel_mu_);
  base::Result<void> AwaitResultLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(channel_mu_);
  // A page of answers for thread `index` if there is none yet; it is mapped as that thread starts.
  base::Result<void> AddAnswersLocked(size_t index) ABSL_EXCLUSIVE_LOCKS_REQUIRED(threads_mu_);
  base::Result<StubThread*> CreateThread() ABSL_LOCKS_EXCLUDED(threads_mu_, channel_mu_);
  // A traced thread that died stays in its process, and keeps it from ending, until its tracer has
  // waited for it. Does that for those that have died; `all`: waits until they all have.
  void ReapTracees(bool all) ABSL_LOCKS_EXCLUDED(threads_mu_);
  // A thread on paper: nothing runs yet.
  base::Result<StubThread*> AddThread() ABSL_LOCKS_EXCLUDED(threads_mu_);
  // What makes it run. The command page must not change until AwaitStart has returned.
  using ThreadCommands = std::vector<CommandEntry>;
  ThreadCommands CommandsToStartLocked(StubThread& thread)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(channel_mu_);
  base::Result<void> AwaitStart(StubThread& thread);

  MemoryPool& control_;
  const CpuSet& cpus_;
  const StubOptions options_;
  const PoolRange command_range_;
  CommandPage& page_;
  SpawnedProcess spawned_;
  std::atomic<bool> dead_ = false;

  absl::Mutex channel_mu_;                            // The command page and the memory thread.
  int memory_cpu_ ABSL_GUARDED_BY(channel_mu_) = -1;  // Where the memory thread is pinned.
  mutable absl::Mutex threads_mu_ ABSL_ACQUIRED_AFTER(channel_mu_);
  std::vector<std::unique_ptr<StubThread>> threads_ ABSL_GUARDED_BY(threads_mu_);
  std::vector<PoolRange> answer_pages_ ABSL_GUARDED_BY(threads_mu_);
  std::vector<StubThread*> idle_ ABSL_GUARDED_BY(threads_mu_);
};

}  // namespace platform
