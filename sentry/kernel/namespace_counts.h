#pragma once

// How many namespaces of each kind there may be (/proc/sys/user/max_*_namespaces), and what stands
// for those initial ones that have no object of their own.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "sentry/kernel/namespace.h"

namespace sentry {

class NamespaceCounts {
 public:
  static constexpr int64_t kDefaultMax = 4096;

  NamespaceCounts();
  // Counts `space` until it goes. ENOSPC.
  base::Result<void> Count(Namespace& space);
  std::atomic<int64_t>& max(NamespaceKind kind) { return max_[IndexOf(kind)]; }

  const std::shared_ptr<Namespace>& initial_user() const { return initial_user_; }
  const std::shared_ptr<Namespace>& initial_pid() const { return initial_pid_; }

 private:
  static size_t IndexOf(NamespaceKind kind);
  static constexpr size_t kKinds = 8;
  std::array<std::shared_ptr<std::atomic<int64_t>>, kKinds> counts_;
  std::array<std::atomic<int64_t>, kKinds> max_;
  const std::shared_ptr<Namespace> initial_user_;
  const std::shared_ptr<Namespace> initial_pid_;
};

}  // namespace sentry
