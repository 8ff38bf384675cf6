#pragma once

// The process that makes stub processes. It is forked before the sentry's filters go up (the sentry
// cannot fork afterwards), has nothing mapped but the stub's pages, and clones itself on request.

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "platform/memory/memory_pool.h"
#include "platform/stub/image.h"
#include "platform/stub/shared_pages.h"

namespace platform {

struct SpawnedProcess {
  pid_t pid = 0;
  base::Fd pidfd;
};

class Spawner {
 public:
  // Forks. The caller's thread must live as long as the spawner: Linux ties PR_SET_PDEATHSIG to the
  // thread. `control` must outlive the spawner.
  static absl::StatusOr<std::unique_ptr<Spawner>> Create(MemoryPool& control,
                                                         const StubImage& image);
  // Kills the spawner, and with it every stub process.
  ~Spawner();
  Spawner(const Spawner&) = delete;
  Spawner& operator=(const Spawner&) = delete;

  // A new stub process, whose memory thread takes commands from the page at `command_offset` of the
  // control file. EAGAIN or ENOMEM from the host, ESRCH if the spawner is gone.
  base::Result<SpawnedProcess> Spawn(uint64_t command_offset) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  Spawner(MemoryPool& control, PoolRange mailbox_range, base::Fd pidfd);
  bool IsGone() const;

  MemoryPool& control_;
  const PoolRange mailbox_range_;
  Mailbox& mailbox_;
  const base::Fd pidfd_;
  absl::Mutex mu_;  // One request at a time.
};

}  // namespace platform
