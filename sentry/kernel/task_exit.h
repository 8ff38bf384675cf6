#pragma once

// The end of a task and of its process (exit(2), exit_group(2)).

#include <cstdint>
#include <memory>

namespace sentry {

class Task;
class ThreadGroup;

class TaskExit {
 public:
  // Own thread, or the one that made a task that was never started.
  static void Run(Task& task);

 private:
  static void ReleaseResources(Task& task);
  static void LeaveTree(Task& task);
  static void ReparentChildrenLocked(ThreadGroup& group, Task& leaving, bool last);
  static void AdoptLocked(ThreadGroup& child, ThreadGroup* reaper);
  static ThreadGroup* ReaperLocked(ThreadGroup& group);
  // Tells the parent of a process that has ended; reaps it if nobody wants to wait.
  static void NotifyParentLocked(ThreadGroup& group);
  static void EndNestedNamespace(ThreadGroup& init);
  static void KillNamespaceLocked(ThreadGroup& init);
};

}  // namespace sentry
