#pragma once

// Who is told by a signal that an open file description has become ready: F_SETOWN, F_SETSIG,
// O_ASYNC (fcntl(2)). A waiter in the file's queue like any other; the target is found when it is
// set, so that a reused id does not inherit signals.

#include <cstdint>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"

namespace sentry {

class File;
class PidNamespace;
class Task;
class ThreadGroup;

class FileOwner final : public Waiter {
 public:
  enum class Kind : int32_t { kThread = 0, kProcess = 1, kGroup = 2 };  // F_OWNER_TID and so on
  struct Id {
    Kind kind = Kind::kProcess;
    int32_t number = 0;  // 0: nobody.
  };

  FileOwner() = default;
  ~FileOwner() override { Detach(); }

  // ESRCH if there is no such thread, process or group.
  base::Result<void> Set(Task& caller, Id id) ABSL_LOCKS_EXCLUDED(mu_);
  Id Get() const ABSL_LOCKS_EXCLUDED(mu_);
  // 0: SIGIO without details.
  void SetSignal(int32_t signal) ABSL_LOCKS_EXCLUDED(mu_);
  int32_t signal() const ABSL_LOCKS_EXCLUDED(mu_);

  // O_ASYNC was set through descriptor `fd` / taken away. One caller at a time.
  void Arm(Task& task, File& file, int32_t fd) ABSL_LOCKS_EXCLUDED(mu_);
  void Disarm() { Detach(); }

  bool OnEvent(PollMask mask) override ABSL_LOCKS_EXCLUDED(mu_);
  // Of something other than readiness (a lease is broken, a directory has changed): POLL_MSG, named
  // by `fd`.
  void Tell(int32_t fd) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // What Linux keeps of who set the owner, to check whether it may signal the target.
  struct Sender {
    uint32_t uid = 0;
    uint32_t euid = 0;
  };
  struct Target {
    Id id;
    std::weak_ptr<Task> thread;
    std::weak_ptr<ThreadGroup> process;
    PidNamespace* pids = nullptr;  // For a group, whose number stays taken while it has members.
    Sender sender;
  };
  static void SendTo(const Target& target, int32_t signal, int32_t fd, PollMask mask);
  static void Send(Task& task, bool to_thread, const Sender& sender, int32_t signal, int32_t fd,
                   PollMask mask);

  mutable absl::Mutex mu_;
  Target target_ ABSL_GUARDED_BY(mu_);
  int32_t signal_ ABSL_GUARDED_BY(mu_) = 0;
  int32_t fd_ ABSL_GUARDED_BY(mu_) = -1;
  std::weak_ptr<File> file_ ABSL_GUARDED_BY(mu_);  // Its own end is no event for it.
};

}  // namespace sentry
