#pragma once

// Descriptors that stand for a process or thread (pidfd_open(2)).

#include <cstdint>
#include <memory>
#include <string>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"

namespace sentry {

class PidFile final : public AnonymousFile {
 public:
  // `thread`: PIDFD_THREAD, else null. `flags`: O_NONBLOCK or 0.
  PidFile(Task& task, std::shared_ptr<ThreadGroup> group, TaskRef thread, uint32_t flags);

  const std::shared_ptr<ThreadGroup>& group() const { return group_; }
  const TaskRef& thread() const { return thread_; }
  // The id, or -1 once the process has been reaped.
  int32_t pid() const;

  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return &group_->exit_queue(); }
  std::string FdInfo() const override;

 private:
  const std::shared_ptr<ThreadGroup> group_;
  const TaskRef thread_;
};

// What `fd` refers to. EBADF if it is not a pidfd.
base::Result<std::shared_ptr<PidFile>> GetPidFile(Task& task, int32_t fd);

}  // namespace sentry
