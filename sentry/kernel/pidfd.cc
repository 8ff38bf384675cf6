#include "sentry/kernel/pidfd.h"

#include <fcntl.h>

#include <utility>

#include "sentry/kernel/current_task.h"
#include "sentry/kernel/pid_view.h"

namespace sentry {

PidFile::PidFile(Task& task, std::shared_ptr<ThreadGroup> group, TaskRef thread, uint32_t flags)
    : AnonymousFile(task, "[pidfd]", O_RDWR | flags),
      group_(std::move(group)),
      thread_(std::move(thread)) {}

int32_t PidFile::pid() const {
  if (thread_ != nullptr)
    return thread_->HasExited() && !thread_->is_leader() ? -1 : thread_->tid();
  return group_->leader() == nullptr ? -1 : group_->id();
}

// No lock is taken: called with those of poll and epoll held.
PollMask PidFile::Poll(PollMask interest) {
  const bool ended = thread_ != nullptr ? thread_->HasExited() : group_->IsZombie();
  return ended ? kPollReadable & interest : 0;
}

std::string PidFile::FdInfo() const {
  const Task* reader = CurrentTask();
  const int32_t number = pid();
  const std::string id =
      std::to_string(reader == nullptr || number < 0 ? number : SeenBy(*reader, number));
  return "Pid:\t" + id + "\nNSpid:\t" + id + "\n";
}

base::Result<std::shared_ptr<PidFile>> GetPidFile(Task& task, int32_t fd) {
  const FileRef file = TRY(task.fds().GetForIo(fd));
  std::shared_ptr<PidFile> pid_file = std::dynamic_pointer_cast<PidFile>(file);
  if (pid_file == nullptr) return base::Errno(EBADF);
  return pid_file;
}

}  // namespace sentry
