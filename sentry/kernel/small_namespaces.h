#pragma once

// The namespaces that are little more than a name: uts, ipc, cgroup and time.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/synchronization/mutex.h"
#include "sentry/kernel/namespace.h"

namespace sentry {

// uname(2).
class UtsNamespace final : public Namespace {
 public:
  UtsNamespace(UserNamespaceRef owner, std::string host_name, std::string domain_name,
               uint32_t number = 0)
      : Namespace(NamespaceKind::kUts, std::move(owner), number),
        host_name_(std::move(host_name)),
        domain_name_(std::move(domain_name)) {}

  std::string host_name() const ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::ReaderMutexLock lock(&mu_);
    return host_name_;
  }
  std::string domain_name() const ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::ReaderMutexLock lock(&mu_);
    return domain_name_;
  }
  void set_host_name(std::string name) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    host_name_ = std::move(name);
  }
  void set_domain_name(std::string name) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    domain_name_ = std::move(name);
  }

 private:
  mutable absl::Mutex mu_;
  std::string host_name_ ABSL_GUARDED_BY(mu_);
  std::string domain_name_ ABSL_GUARDED_BY(mu_);
};

// ipc_namespaces(7). System V objects and message queues hang on it: each family keeps what it has
// in a slot of its own, made on first use.
class IpcNamespace final : public Namespace {
 public:
  enum Slot : uint8_t { kSystemV, kMessageQueues, kSlots };
  explicit IpcNamespace(UserNamespaceRef owner, uint32_t number = 0)
      : Namespace(NamespaceKind::kIpc, std::move(owner), number) {}

  // make() gives a std::shared_ptr<T>; T is always the same for a slot.
  template <typename T, typename Make>
  std::shared_ptr<T> Get(Slot slot, Make&& make) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    if (slots_[slot] == nullptr) slots_[slot] = make();
    return std::static_pointer_cast<T>(slots_[slot]);
  }

 private:
  absl::Mutex mu_;
  std::shared_ptr<void> slots_[kSlots] ABSL_GUARDED_BY(mu_);
};

// cgroup_namespaces(7): which group is shown as the root.
class CgroupNamespace final : public Namespace {
 public:
  explicit CgroupNamespace(UserNamespaceRef owner, uint32_t number = 0)
      : Namespace(NamespaceKind::kCgroup, std::move(owner), number) {}
};

// time_namespaces(7). The offsets can be set until a task lives in it.
class TimeNamespace final : public Namespace {
 public:
  explicit TimeNamespace(UserNamespaceRef owner, uint32_t number = 0)
      : Namespace(NamespaceKind::kTime, std::move(owner), number) {}
  std::atomic<int64_t>& monotonic_offset_ns() { return monotonic_offset_ns_; }
  std::atomic<int64_t>& boottime_offset_ns() { return boottime_offset_ns_; }
  std::atomic<bool>& frozen() { return frozen_; }

 private:
  std::atomic<int64_t> monotonic_offset_ns_{0};
  std::atomic<int64_t> boottime_offset_ns_{0};
  std::atomic<bool> frozen_{false};
};

}  // namespace sentry
