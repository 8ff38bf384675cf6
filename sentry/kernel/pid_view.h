#pragma once

// pid_namespaces(7): the ids by which a nested namespace calls tasks.
//
// Everything in the sentry keeps the ids of the initial namespace (PidNamespace), which hold for
// tasks, processes, process groups and sessions alike; a nested namespace is a second name for
// some of them. So a call translates what it takes and what it gives, and nothing else knows.

#include <cstdint>
#include <memory>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/namespace.h"

namespace sentry {

class PidView;
class Task;
class ThreadGroup;
// Null: the initial namespace, where ids are what they are.
using PidViewRef = std::shared_ptr<PidView>;

class PidView final : public Namespace {
 public:
  static constexpr int kLevelMax = 32;
  static constexpr int32_t kIdMax = 32768;
  static constexpr int32_t kReservedIds = 300;

  // ENOSPC below 32 levels.
  static base::Result<PidViewRef> Make(PidViewRef parent, UserNamespaceRef owner);
  PidView(PidViewRef parent, UserNamespaceRef owner, int level);

  const PidViewRef& parent() const { return parent_; }
  int level() const { return level_; }

  // 0 if it has no such name here.
  int32_t FromGlobal(int32_t global) const ABSL_LOCKS_EXCLUDED(mu_);
  int32_t ToGlobal(int32_t local) const ABSL_LOCKS_EXCLUDED(mu_);
  // A name for `global`: `wanted`, or the next free one. EEXIST, EINVAL, EAGAIN; ENOMEM once the
  // namespace's init has gone.
  base::Result<int32_t> Add(int32_t global, int32_t wanted) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(int32_t global) ABSL_LOCKS_EXCLUDED(mu_);
  // Init has gone: no task is born here any more.
  void Close() ABSL_LOCKS_EXCLUDED(mu_);
  // The process with id 1; 0 before there is one.
  int32_t init_global() const { return ToGlobal(1); }

  // /proc/sys/kernel/ns_last_pid.
  int32_t last_id() const ABSL_LOCKS_EXCLUDED(mu_);
  void set_last_id(int32_t id) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  const PidViewRef parent_;
  const int level_;
  mutable absl::Mutex mu_;  // A leaf.
  absl::flat_hash_map<int32_t, int32_t> to_global_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<int32_t, int32_t> from_global_ ABSL_GUARDED_BY(mu_);
  int32_t last_id_ ABSL_GUARDED_BY(mu_) = 0;
  bool wrapped_ ABSL_GUARDED_BY(mu_) = false;
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
};

// True if `inner` is `outer` or nested in it.
bool IsSameOrInside(const PidViewRef& inner, const PidViewRef& outer);

// Ids on their way out and in. 0 stays 0 and what is not there becomes 0; negative ones stay.
inline int32_t SeenBy(const PidViewRef& view, int32_t global) {
  return view == nullptr || global <= 0 ? global : view->FromGlobal(global);
}
inline int32_t ToGlobal(const PidViewRef& view, int32_t local) {
  return view == nullptr || local <= 0 ? local : view->ToGlobal(local);
}
// From the caller's namespace.
int32_t SeenBy(const Task& viewer, int32_t global);
int32_t SeenBy(const ThreadGroup& viewer, int32_t global);
int32_t ToGlobal(const Task& caller, int32_t local);
// Null if the caller knows no task by that id.
std::shared_ptr<Task> FindTaskFor(const Task& caller, int32_t local);
std::shared_ptr<ThreadGroup> FindGroupFor(const Task& caller, int32_t local);

}  // namespace sentry
