#pragma once

// The host threads that tasks run on. A new task comes with every clone(2), and making a host
// thread costs as much as a whole native clone, so a thread whose task has exited waits a little
// for the next one. Threads that find none end: an idle sandbox keeps none.

#include <pthread.h>
#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"

namespace sentry {

class Task;

class HostThreads {
 public:
  HostThreads() = default;
  // Waits until all its threads have ended: their tasks have exited by then.
  ~HostThreads();
  HostThreads(const HostThreads&) = delete;
  HostThreads& operator=(const HostThreads&) = delete;

  // `task->RunUntilExit()` on a thread of its own, which holds the reference until then. EAGAIN.
  base::Result<void> Run(std::shared_ptr<Task> task) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // A thread that waits; lives on its stack.
  struct Idle {
    absl::CondVar called;
    pid_t host_tid = 0;
    std::shared_ptr<Task> task;
  };
  struct Start;

  static void* ThreadMain(void* start);
  // The next task; null if the thread is to end.
  std::shared_ptr<Task> Await() ABSL_LOCKS_EXCLUDED(mu_);

  absl::Mutex mu_;
  std::vector<Idle*> idle_ ABSL_GUARDED_BY(mu_);
  size_t threads_ ABSL_GUARDED_BY(mu_) = 0;
  bool stopping_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sentry
