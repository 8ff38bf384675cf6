#include "sentry/kernel/host_threads.h"

#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/time/time.h"
#include "sentry/kernel/task.h"

namespace sentry {
namespace {

constexpr size_t kHostStackBytes = 256 * 1024;
constexpr size_t kIdleMax = 8;
constexpr absl::Duration kIdleTime = absl::Seconds(2);

// A new thread starts where its creator is; so does one that waited, since to wake it on another
// CPU costs more than many tasks live. The platform lets it go when it sees fit. Best effort.
void BringHere(pid_t host_tid) {
  const int cpu = sched_getcpu();
  if (cpu < 0 || cpu >= CPU_SETSIZE) return;
  cpu_set_t here;
  CPU_ZERO(&here);
  CPU_SET(static_cast<size_t>(cpu), &here);
  sched_setaffinity(host_tid, sizeof(here), &here);
}

}  // namespace

struct HostThreads::Start {
  HostThreads& threads;
  std::shared_ptr<Task> task;
};

HostThreads::~HostThreads() {
  const absl::MutexLock lock(&mu_);
  stopping_ = true;
  for (Idle* idle : idle_) idle->called.Signal();
  const auto none = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return threads_ == 0; };
  mu_.Await(absl::Condition(&none));
}

base::Result<void> HostThreads::Run(std::shared_ptr<Task> task) {
  {
    const absl::MutexLock lock(&mu_);
    if (!idle_.empty()) {
      // The latest: what it uses is still in the caches.
      Idle* idle = idle_.back();
      idle_.pop_back();
      idle->task = std::move(task);
      BringHere(idle->host_tid);
      idle->called.Signal();
      return {};
    }
    ++threads_;
  }
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kHostStackBytes);
  pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  auto start = std::make_unique<Start>(Start{*this, std::move(task)});
  pthread_t thread;
  const int error = pthread_create(&thread, &attributes, &HostThreads::ThreadMain, start.get());
  pthread_attr_destroy(&attributes);
  if (error != 0) {
    const absl::MutexLock lock(&mu_);
    --threads_;
    return base::Errno(EAGAIN);
  }
  (void)start.release();  // The thread's now.
  return {};
}

void* HostThreads::ThreadMain(void* start) {
  std::unique_ptr<Start> own(static_cast<Start*>(start));
  HostThreads& threads = own->threads;
  std::shared_ptr<Task> task = std::move(own->task);
  own.reset();
  while (task != nullptr) {
    task->RunUntilExit();
    task.reset();
    task = threads.Await();
  }
  return nullptr;
}

std::shared_ptr<Task> HostThreads::Await() {
  Idle idle;
  idle.host_tid = static_cast<pid_t>(syscall(SYS_gettid));
  const absl::MutexLock lock(&mu_);
  if (!stopping_ && idle_.size() < kIdleMax) {
    idle_.push_back(&idle);
    const absl::Time deadline = absl::Now() + kIdleTime;
    bool late = false;
    while (idle.task == nullptr && !stopping_ && !late) {
      late = idle.called.WaitWithDeadline(&mu_, deadline);
    }
    if (idle.task != nullptr) return std::move(idle.task);
    std::erase(idle_, &idle);
  }
  --threads_;
  return nullptr;
}

}  // namespace sentry
