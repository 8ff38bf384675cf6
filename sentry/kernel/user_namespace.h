#pragma once

// user_namespaces(7): ids by which a set of tasks calls users, and a domain for capabilities.
//
// Everything in the sentry keeps ids of the initial namespace, as Linux keeps kuid_t. They are
// translated where a call takes them from a guest or gives them to it.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/namespace.h"

namespace sentry {

// What an id that is not mapped looks like (/proc/sys/kernel/overflowuid).
inline constexpr uint32_t kOverflowId = 65534;
inline constexpr uint32_t kInvalidId = ~uint32_t{0};

// `outside` is an id of the initial namespace.
struct IdExtent {
  uint32_t inside = 0;
  uint32_t outside = 0;
  uint32_t count = 0;
};

class IdMap {
 public:
  static constexpr size_t kExtentsMax = 340;
  explicit IdMap(std::vector<IdExtent> extents);
  // kInvalidId if there is none. A range that is mapped only in part, or to several places, is not.
  uint32_t ToOutside(uint32_t inside, uint32_t count = 1) const;
  uint32_t ToInside(uint32_t outside) const;
  const std::vector<IdExtent>& extents() const { return by_inside_; }

 private:
  std::vector<IdExtent> by_inside_;
  std::vector<IdExtent> by_outside_;
};

class UserNamespace final : public Namespace {
 public:
  static constexpr int kLevelMax = 32;
  enum class IdKind { kUser, kGroup };

  // A child of the creator's namespace; ENOSPC below 32 levels, EPERM if the creator's own ids are
  // not mapped in it or its root is not its namespace's.
  static base::Result<UserNamespaceRef> Make(const Credentials& creator, bool may_set_file_caps);
  UserNamespace(UserNamespaceRef parent, uint32_t owner_uid, uint32_t owner_gid, int level);

  const UserNamespaceRef& parent() const { return owner(); }
  int level() const { return level_; }
  uint32_t owner_uid() const { return owner_uid_; }
  uint32_t owner_gid() const { return owner_gid_; }

  // Null until it is written.
  const IdMap* map(IdKind kind) const {
    return maps_[static_cast<size_t>(kind)].load(std::memory_order_acquire);
  }
  uint32_t ToGlobal(IdKind kind, uint32_t inside) const {
    const IdMap* ids = map(kind);
    return ids == nullptr ? kInvalidId : ids->ToOutside(inside);
  }
  uint32_t FromGlobal(IdKind kind, uint32_t global) const {
    const IdMap* ids = map(kind);
    return ids == nullptr ? kInvalidId : ids->ToInside(global);
  }
  bool setgroups_allowed() const {
    return setgroups_allowed_.load(std::memory_order_acquire) && map(IdKind::kGroup) != nullptr;
  }
  bool setgroups_denied() const { return !setgroups_allowed_.load(std::memory_order_acquire); }
  // /proc/PID/setgroups. EINVAL, EPERM.
  base::Result<void> WriteSetgroups(std::string_view text) ABSL_LOCKS_EXCLUDED(mu_);
  // /proc/PID/uid_map, gid_map: `writer` writes, `opener` opened the file. EINVAL, EPERM.
  base::Result<void> WriteMap(IdKind kind, const Credentials& opener, const Credentials& writer,
                              std::string_view text) ABSL_LOCKS_EXCLUDED(mu_);
  // As seen from `viewer`.
  std::string MapText(IdKind kind, const UserNamespaceRef& viewer) const;

 private:
  bool MayMap(IdKind kind, const Credentials& opener, const Credentials& writer,
              std::span<const IdExtent> extents) const;

  const int level_;
  const uint32_t owner_uid_;
  const uint32_t owner_gid_;
  bool parent_could_set_file_caps_ = false;
  std::atomic<bool> setgroups_allowed_{true};
  absl::Mutex mu_;  // Writers.
  std::array<std::atomic<const IdMap*>, 2> maps_{};
  std::array<std::unique_ptr<const IdMap>, 2> own_maps_ ABSL_GUARDED_BY(mu_);
};

// --- Ids on their way in and out. Null namespace: the initial one, where they stay as they are.
// EINVAL is what a call answers to kInvalidId.
inline uint32_t UidToGlobal(const UserNamespaceRef& space, uint32_t uid) {
  return space == nullptr ? uid : space->ToGlobal(UserNamespace::IdKind::kUser, uid);
}
inline uint32_t GidToGlobal(const UserNamespaceRef& space, uint32_t gid) {
  return space == nullptr ? gid : space->ToGlobal(UserNamespace::IdKind::kGroup, gid);
}
inline uint32_t UidSeenFrom(const UserNamespaceRef& space, uint32_t uid) {
  if (space == nullptr) return uid;
  const uint32_t seen = space->FromGlobal(UserNamespace::IdKind::kUser, uid);
  return seen == kInvalidId ? kOverflowId : seen;
}
inline uint32_t GidSeenFrom(const UserNamespaceRef& space, uint32_t gid) {
  if (space == nullptr) return gid;
  const uint32_t seen = space->FromGlobal(UserNamespace::IdKind::kGroup, gid);
  return seen == kInvalidId ? kOverflowId : seen;
}

// True if `inner` is `outer` or a descendant of it.
bool IsSameOrInside(const UserNamespaceRef& inner, const UserNamespaceRef& outer);

}  // namespace sentry
