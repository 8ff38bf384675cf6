#include "sentry/kernel/namespace_counts.h"

namespace sentry {

NamespaceCounts::NamespaceCounts()
    : initial_user_(std::make_shared<Namespace>(NamespaceKind::kUser, nullptr, kInitialUserNumber)),
      initial_pid_(std::make_shared<Namespace>(NamespaceKind::kPid, nullptr, kInitialPidNumber)) {
  for (auto& count : counts_) count = std::make_shared<std::atomic<int64_t>>(0);
  for (auto& max : max_) max.store(kDefaultMax, std::memory_order_relaxed);
}

size_t NamespaceCounts::IndexOf(NamespaceKind kind) {
  switch (kind) {
    case NamespaceKind::kMount:
      return 0;
    case NamespaceKind::kCgroup:
      return 1;
    case NamespaceKind::kUts:
      return 2;
    case NamespaceKind::kIpc:
      return 3;
    case NamespaceKind::kUser:
      return 4;
    case NamespaceKind::kPid:
      return 5;
    case NamespaceKind::kNet:
      return 6;
    case NamespaceKind::kTime:
      return 7;
  }
  return 0;
}

Namespace::~Namespace() {
  if (count_ != nullptr) count_->fetch_sub(1, std::memory_order_relaxed);
}

bool Namespace::CountIn(const std::shared_ptr<std::atomic<int64_t>>& count, int64_t max) {
  if (count->fetch_add(1, std::memory_order_relaxed) >= max) {
    count->fetch_sub(1, std::memory_order_relaxed);
    return false;
  }
  count_ = count;
  return true;
}

base::Result<void> NamespaceCounts::Count(Namespace& space) {
  const size_t index = IndexOf(space.kind());
  if (!space.CountIn(counts_[index], max_[index].load(std::memory_order_relaxed)))
    return base::Errno(ENOSPC);
  return {};
}

}  // namespace sentry
