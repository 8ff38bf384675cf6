#pragma once

// Ids of tasks, processes, process groups and sessions, and the tree they form (pid_namespaces(7)).
//
// There is one namespace per sandbox. Its lock, the tree lock, guards every relation between tasks,
// processes, groups and sessions; it is taken before any process's signal lock. Ids are handed out
// in rising order, wrapping at pid_max, as Linux does.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/process_group.h"
#include "sentry/kernel/thread_group.h"

namespace sentry {

class PidNamespace {
 public:
  static constexpr int32_t kIdMax = 32768;      // Exclusive, /proc/sys/kernel/pid_max.
  static constexpr int32_t kReservedIds = 300;  // Not reused after the first round.

  explicit PidNamespace(uint64_t tasks_max) : tasks_max_(tasks_max) {}
  PidNamespace(const PidNamespace&) = delete;
  PidNamespace& operator=(const PidNamespace&) = delete;
  ~PidNamespace();

  absl::Mutex& tree_mu() ABSL_LOCK_RETURNED(tree_mu_) { return tree_mu_; }

  // --- Look-ups. Any thread. Null if there is none. Zombies that nobody has waited for are found.
  TaskRef FindTask(int32_t tid) ABSL_LOCKS_EXCLUDED(tree_mu_);
  std::shared_ptr<ThreadGroup> FindGroup(int32_t pid) ABSL_LOCKS_EXCLUDED(tree_mu_);
  std::shared_ptr<ProcessGroup> FindProcessGroup(int32_t pgid) ABSL_LOCKS_EXCLUDED(tree_mu_);
  // In ascending order of id.
  std::vector<std::shared_ptr<ThreadGroup>> Groups() ABSL_LOCKS_EXCLUDED(tree_mu_);
  std::vector<TaskRef> Tasks() ABSL_LOCKS_EXCLUDED(tree_mu_);
  // The members' processes.
  std::vector<std::shared_ptr<ThreadGroup>> Members(int32_t pgid) ABSL_LOCKS_EXCLUDED(tree_mu_);
  // Living tasks and zombies; the id given out last (/proc/loadavg).
  uint64_t task_count() ABSL_LOCKS_EXCLUDED(tree_mu_);
  int32_t last_id() ABSL_LOCKS_EXCLUDED(tree_mu_);
  // Pid 1, or null after it has gone.
  std::shared_ptr<ThreadGroup> Init() ABSL_LOCKS_EXCLUDED(tree_mu_);

  // --- For those who hold the tree lock.
  // A free id, or `wanted` if that is not 0. EAGAIN when there are no more, EEXIST if `wanted` is
  // taken. The id is taken at once: it becomes a task's by Insert or is given back by ReleaseId.
  base::Result<int32_t> ReserveIdLocked(int32_t wanted) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  // Names for `id` in `view` and the namespaces around it, innermost first; `wanted` has one for
  // each of the innermost, 0 where any will do. Forgotten once the id is free. PidView::Add's
  // errors.
  base::Result<void> AddNamesLocked(int32_t id, const PidViewRef& view,
                                    const std::vector<int32_t>& wanted)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  void ReleaseIdLocked(int32_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  // `id` was the last one given out and nobody has seen it: it is given out next. So a failed start
  // leaves pid 1 free.
  void ForgetLastIdLocked(int32_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_) {
    if (last_id_ == id) --last_id_;
  }
  TaskRef FindTaskLocked(int32_t tid) ABSL_SHARED_LOCKS_REQUIRED(tree_mu_);
  std::shared_ptr<ThreadGroup> FindGroupLocked(int32_t pid) ABSL_SHARED_LOCKS_REQUIRED(tree_mu_);
  std::shared_ptr<ProcessGroup> FindProcessGroupLocked(int32_t pgid)
      ABSL_SHARED_LOCKS_REQUIRED(tree_mu_);
  std::shared_ptr<Session> FindSessionLocked(int32_t sid) ABSL_SHARED_LOCKS_REQUIRED(tree_mu_);
  const std::map<int32_t, std::shared_ptr<ThreadGroup>>& GroupsLocked() const
      ABSL_SHARED_LOCKS_REQUIRED(tree_mu_) {
    return groups_;
  }
  // Task joins its group; the first one is the leader and puts the process into the tree below
  // `parent` (null: none) and into `parent`'s process group, or a session of its own without a
  // parent.
  void InsertLocked(const TaskRef& task, ThreadGroup* parent, int32_t parent_tid)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  // Forgets a task that has left; its id becomes free unless a group or session bears it.
  void EraseTaskLocked(Task& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  // execve by a thread: `task` takes the id of the group's leader, which has left; its own id
  // becomes free.
  void TakeOverLeaderIdLocked(Task& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  // Moves a process to a group (made if there is none of that id in the session).
  void JoinProcessGroupLocked(ThreadGroup& group, int32_t pgid,
                              const std::shared_ptr<Session>& session)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  void LeaveProcessGroupLocked(ThreadGroup& group) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);

 private:
  friend class JobControl;
  // Takes the names of `id` away if nothing bears it any more.
  void ForgetNamesLocked(int32_t id) ABSL_EXCLUSIVE_LOCKS_REQUIRED(tree_mu_);
  bool InUseLocked(int32_t id) const ABSL_SHARED_LOCKS_REQUIRED(tree_mu_);

  const uint64_t tasks_max_;
  mutable absl::Mutex tree_mu_;
  std::map<int32_t, TaskRef> tasks_ ABSL_GUARDED_BY(tree_mu_);  // Null: reserved.
  std::map<int32_t, std::shared_ptr<ThreadGroup>> groups_ ABSL_GUARDED_BY(tree_mu_);
  absl::flat_hash_map<int32_t, std::weak_ptr<ProcessGroup>> process_groups_
      ABSL_GUARDED_BY(tree_mu_);
  absl::flat_hash_map<int32_t, std::weak_ptr<Session>> sessions_ ABSL_GUARDED_BY(tree_mu_);
  absl::flat_hash_map<int32_t, PidViewRef> nested_ ABSL_GUARDED_BY(tree_mu_);  // Who has names.
  int32_t last_id_ ABSL_GUARDED_BY(tree_mu_) = 0;
  bool wrapped_ ABSL_GUARDED_BY(tree_mu_) = false;
};

}  // namespace sentry
