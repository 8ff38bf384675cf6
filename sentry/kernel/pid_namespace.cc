#include "sentry/kernel/pid_namespace.h"

#include <algorithm>
#include <utility>

#include "platform/base/check.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;

PidNamespace::~PidNamespace() {
  // Zombies that nobody waited for hold their process, which holds them.
  const absl::MutexLock lock(&tree_mu_);
  for (auto& [id, group] : groups_) {
    group->tasks_.clear();
    group->leader_.reset();
    group->children_.clear();
    group->process_group_.reset();
  }
}

TaskRef PidNamespace::FindTaskLocked(int32_t tid) {
  const auto found = tasks_.find(tid);
  return found == tasks_.end() ? nullptr : found->second;
}

std::shared_ptr<ThreadGroup> PidNamespace::FindGroupLocked(int32_t pid) {
  const auto found = groups_.find(pid);
  return found == groups_.end() ? nullptr : found->second;
}

std::shared_ptr<ProcessGroup> PidNamespace::FindProcessGroupLocked(int32_t pgid) {
  const auto found = process_groups_.find(pgid);
  return found == process_groups_.end() ? nullptr : found->second.lock();
}

std::shared_ptr<Session> PidNamespace::FindSessionLocked(int32_t sid) {
  const auto found = sessions_.find(sid);
  return found == sessions_.end() ? nullptr : found->second.lock();
}

TaskRef PidNamespace::FindTask(int32_t tid) {
  const absl::ReaderMutexLock lock(&tree_mu_);
  return FindTaskLocked(tid);
}

std::shared_ptr<ThreadGroup> PidNamespace::FindGroup(int32_t pid) {
  const absl::ReaderMutexLock lock(&tree_mu_);
  return FindGroupLocked(pid);
}

std::shared_ptr<ProcessGroup> PidNamespace::FindProcessGroup(int32_t pgid) {
  const absl::ReaderMutexLock lock(&tree_mu_);
  return FindProcessGroupLocked(pgid);
}

std::shared_ptr<ThreadGroup> PidNamespace::Init() { return FindGroup(1); }

std::vector<std::shared_ptr<ThreadGroup>> PidNamespace::Groups() {
  const absl::ReaderMutexLock lock(&tree_mu_);
  std::vector<std::shared_ptr<ThreadGroup>> groups;
  groups.reserve(groups_.size());
  for (const auto& [id, group] : groups_) groups.push_back(group);
  return groups;
}

std::vector<TaskRef> PidNamespace::Tasks() {
  const absl::ReaderMutexLock lock(&tree_mu_);
  std::vector<TaskRef> tasks;
  tasks.reserve(tasks_.size());
  for (const auto& [id, task] : tasks_) {
    if (task != nullptr) tasks.push_back(task);
  }
  return tasks;
}

std::vector<std::shared_ptr<ThreadGroup>> PidNamespace::Members(int32_t pgid) {
  const absl::ReaderMutexLock lock(&tree_mu_);
  std::vector<std::shared_ptr<ThreadGroup>> members;
  if (const std::shared_ptr<ProcessGroup> group = FindProcessGroupLocked(pgid)) {
    for (ThreadGroup* member : group->members) members.push_back(member->shared_from_this());
  }
  return members;
}

uint64_t PidNamespace::task_count() {
  const absl::ReaderMutexLock lock(&tree_mu_);
  return tasks_.size();
}

int32_t PidNamespace::last_id() {
  const absl::ReaderMutexLock lock(&tree_mu_);
  return last_id_;
}

bool PidNamespace::InUseLocked(int32_t id) const {
  if (tasks_.contains(id)) return true;
  const auto process_group = process_groups_.find(id);
  if (process_group != process_groups_.end() && !process_group->second.expired()) return true;
  const auto session = sessions_.find(id);
  return session != sessions_.end() && !session->second.expired();
}

base::Result<int32_t> PidNamespace::ReserveIdLocked(int32_t wanted) {
  if (tasks_.size() >= tasks_max_) return Errno(EAGAIN);
  if (wanted != 0) {
    if (wanted < 0 || wanted >= kIdMax) return Errno(EINVAL);
    if (InUseLocked(wanted)) return Errno(EEXIST);
    ForgetNamesLocked(wanted);
    tasks_[wanted] = nullptr;
    return wanted;
  }
  for (int32_t tries = 0; tries < kIdMax; ++tries) {
    int32_t next = last_id_ + 1;
    if (next >= kIdMax) {
      wrapped_ = true;
      next = kReservedIds;
    }
    last_id_ = next;
    if (InUseLocked(next)) continue;
    ForgetNamesLocked(next);
    tasks_[next] = nullptr;
    return next;
  }
  return Errno(EAGAIN);
}

void PidNamespace::ReleaseIdLocked(int32_t id) {
  tasks_.erase(id);
  ForgetNamesLocked(id);
}

base::Result<void> PidNamespace::AddNamesLocked(int32_t id, const PidViewRef& view,
                                                const std::vector<int32_t>& wanted) {
  size_t next = 0;
  for (PidView* each = view.get(); each != nullptr; each = each->parent().get(), ++next) {
    const auto added = each->Add(id, next < wanted.size() ? wanted[next] : 0);
    if (added.ok()) continue;
    for (PidView* undo = view.get(); undo != each; undo = undo->parent().get()) undo->Remove(id);
    return added.error();
  }
  if (view != nullptr) nested_[id] = view;
  return {};
}

void PidNamespace::ForgetNamesLocked(int32_t id) {
  if (nested_.empty() || InUseLocked(id)) return;
  const auto found = nested_.find(id);
  if (found == nested_.end()) return;
  for (PidView* each = found->second.get(); each != nullptr; each = each->parent().get())
    each->Remove(id);
  nested_.erase(found);
}

void PidNamespace::InsertLocked(const TaskRef& task, ThreadGroup* parent, int32_t parent_tid) {
  ThreadGroup& group = task->group();
  tasks_[task->tid()] = task;
  const bool first = group.tasks_.empty();
  group.tasks_.push_back(task);
  group.live_tasks_.fetch_add(1, std::memory_order_acq_rel);
  if (!first) return;
  group.leader_ = task;
  groups_[group.id()] = group.shared_from_this();
  if (parent == nullptr) {
    auto session = std::make_shared<Session>(group.id());
    session->leader = &group;
    sessions_[group.id()] = session;
    JoinProcessGroupLocked(group, group.id(), session);
    return;
  }
  group.parent_ = parent;
  group.parent_tid_ = parent_tid;
  group.parent_id_.store(parent->id(), std::memory_order_relaxed);
  parent->children_.push_back(group.shared_from_this());
  const std::shared_ptr<ProcessGroup>& process_group = parent->process_group_;
  JoinProcessGroupLocked(group, process_group->id, process_group->session);
}

void PidNamespace::EraseTaskLocked(Task& task) {
  ThreadGroup& group = task.group();
  const auto position = std::find_if(group.tasks_.begin(), group.tasks_.end(),
                                     [&](const TaskRef& member) { return member.get() == &task; });
  if (position != group.tasks_.end()) group.tasks_.erase(position);
  const int32_t tid = task.tid();
  tasks_.erase(tid);
  if (group.leader_.get() == &task) {
    group.leader_.reset();
    groups_.erase(group.id());
    LeaveProcessGroupLocked(group);
  }
  ForgetNamesLocked(tid);
}

void PidNamespace::TakeOverLeaderIdLocked(Task& task) {
  ThreadGroup& group = task.group();
  const TaskRef old_leader = group.leader_;
  const TaskRef self = task.shared_from_this();
  const int32_t old_tid = task.tid();
  tasks_.erase(old_tid);
  ForgetNamesLocked(old_tid);
  std::erase(group.tasks_, old_leader);
  old_leader->tid_.store(0, std::memory_order_relaxed);
  task.tid_.store(group.id(), std::memory_order_relaxed);
  tasks_[group.id()] = self;
  group.leader_ = self;
  task.PublishIdentity();
}

void PidNamespace::JoinProcessGroupLocked(ThreadGroup& group, int32_t pgid,
                                          const std::shared_ptr<Session>& session) {
  LeaveProcessGroupLocked(group);
  std::shared_ptr<ProcessGroup> target = FindProcessGroupLocked(pgid);
  if (target == nullptr || target->session != session) {
    target = std::make_shared<ProcessGroup>(pgid, session);
    process_groups_[pgid] = target;
  }
  sessions_[session->id] = session;
  target->members.push_back(&group);
  group.process_group_ = target;
  group.process_group_id_.store(pgid, std::memory_order_relaxed);
  group.session_id_.store(session->id, std::memory_order_relaxed);
  for (const TaskRef& member : group.tasks_) member->PublishIdentity();
}

void PidNamespace::LeaveProcessGroupLocked(ThreadGroup& group) {
  const std::shared_ptr<ProcessGroup> old = std::move(group.process_group_);
  group.process_group_ = nullptr;
  if (old == nullptr) return;
  std::erase(old->members, &group);
  // The weak entries of what just ended would otherwise pile up.
  if (!old->members.empty()) return;
  const auto found = process_groups_.find(old->id);
  if (found != process_groups_.end() && found->second.lock() == old) process_groups_.erase(found);
  const int32_t old_id = old->id;
  const Session& session = *old->session;
  const int32_t session_id = session.id;
  const auto own = sessions_.find(session.id);
  const bool last = old.use_count() == 1 && old->session.use_count() == 1;
  if (last && own != sessions_.end() && own->second.lock() == old->session) sessions_.erase(own);
  ForgetNamesLocked(old_id);
  ForgetNamesLocked(session_id);
}

}  // namespace sentry
