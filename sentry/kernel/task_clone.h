#pragma once

// New tasks (clone(2), clone3(2), fork(2), vfork(2)).

#include <cstdint>
#include <memory>
#include <vector>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/kernel/task.h"

namespace sentry {

// struct clone_args after copying in, or the registers of clone(2).
struct CloneArguments {
  uint64_t flags = 0;  // CLONE_*, without the signal.
  int32_t exit_signal = 0;
  uint64_t pidfd = 0;
  uint64_t child_tid = 0;
  uint64_t parent_tid = 0;
  uint64_t stack = 0;  // Its top; 0: the parent's.
  uint64_t tls = 0;
  std::vector<int32_t> set_tid = {};  // Of the innermost namespaces; empty: any.
};

class TaskClone {
 public:
  // The new id, as the parent sees it. Errors are clone(2)'s.
  static base::Result<int32_t> Clone(Task& parent, const CloneArguments& arguments);
  // The task alone, without CLONE_VFORK, CLONE_PIDFD and Start(): for those who drive a task
  // themselves.
  static base::Result<TaskRef> CloneWithoutThread(Task& parent, const CloneArguments& arguments);

 private:
  static base::Result<void> CheckFlags(Task& parent, const CloneArguments& arguments);
  static base::Result<void> CheckProcessLimit(Task& parent);
  static base::Result<TaskInit> ShareOrCopy(Task& parent, const CloneArguments& arguments);
  static base::Result<TaskRef> Insert(Task& parent, const CloneArguments& arguments, TaskInit init);
  // The host had no thread for it: as if it had never been.
  static void Undo(const TaskRef& child);
};

}  // namespace sentry
