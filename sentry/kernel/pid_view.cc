#include "sentry/kernel/pid_view.h"

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;

Result<PidViewRef> PidView::Make(PidViewRef parent, UserNamespaceRef owner) {
  const int level = parent == nullptr ? 1 : parent->level() + 1;
  if (level > kLevelMax) return Errno(ENOSPC);
  return std::make_shared<PidView>(std::move(parent), std::move(owner), level);
}

PidView::PidView(PidViewRef parent, UserNamespaceRef owner, int level)
    : Namespace(NamespaceKind::kPid, std::move(owner)), parent_(std::move(parent)), level_(level) {}

int32_t PidView::FromGlobal(int32_t global) const {
  const absl::ReaderMutexLock lock(&mu_);
  const auto found = from_global_.find(global);
  return found == from_global_.end() ? 0 : found->second;
}

int32_t PidView::ToGlobal(int32_t local) const {
  const absl::ReaderMutexLock lock(&mu_);
  const auto found = to_global_.find(local);
  return found == to_global_.end() ? 0 : found->second;
}

Result<int32_t> PidView::Add(int32_t global, int32_t wanted) {
  const absl::MutexLock lock(&mu_);
  if (closed_) return Errno(ENOMEM);
  int32_t local = wanted;
  if (wanted != 0) {
    if (wanted < 0 || wanted >= kIdMax) return Errno(EINVAL);
    // The first one is init.
    if (wanted != 1 && last_id_ == 0 && to_global_.empty()) return Errno(EINVAL);
    if (to_global_.contains(wanted)) return Errno(EEXIST);
  } else {
    // There are never more names than tasks, which are as many at most as there are ids.
    int tries = 0;
    do {
      if (++tries > kIdMax) return Errno(EAGAIN);
      if (++last_id_ >= kIdMax) {
        wrapped_ = true;
        last_id_ = kReservedIds;
      }
      local = last_id_;
    } while (to_global_.contains(local));
  }
  to_global_[local] = global;
  from_global_[global] = local;
  return local;
}

void PidView::Remove(int32_t global) {
  const absl::MutexLock lock(&mu_);
  const auto found = from_global_.find(global);
  if (found == from_global_.end()) return;
  to_global_.erase(found->second);
  from_global_.erase(found);
}

void PidView::Close() {
  const absl::MutexLock lock(&mu_);
  closed_ = true;
}

int32_t PidView::last_id() const {
  const absl::ReaderMutexLock lock(&mu_);
  return last_id_;
}

void PidView::set_last_id(int32_t id) {
  const absl::MutexLock lock(&mu_);
  last_id_ = id;
}

bool IsSameOrInside(const PidViewRef& inner, const PidViewRef& outer) {
  if (outer == nullptr) return true;
  for (const PidView* each = inner.get(); each != nullptr; each = each->parent().get()) {
    if (each == outer.get()) return true;
  }
  return false;
}

int32_t SeenBy(const Task& viewer, int32_t global) {
  return SeenBy(viewer.group().pid_view(), global);
}
int32_t SeenBy(const ThreadGroup& viewer, int32_t global) {
  return SeenBy(viewer.pid_view(), global);
}
int32_t ToGlobal(const Task& caller, int32_t local) {
  return ToGlobal(caller.group().pid_view(), local);
}

TaskRef FindTaskFor(const Task& caller, int32_t local) {
  const int32_t global = ToGlobal(caller, local);
  return global <= 0 ? nullptr : caller.kernel().pids().FindTask(global);
}

std::shared_ptr<ThreadGroup> FindGroupFor(const Task& caller, int32_t local) {
  const int32_t global = ToGlobal(caller, local);
  return global <= 0 ? nullptr : caller.kernel().pids().FindGroup(global);
}

}  // namespace sentry
