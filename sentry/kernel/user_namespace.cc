#include "sentry/kernel/user_namespace.h"

#include <linux/capability.h>

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kMapTextBytesMax = 4096;

bool Overlaps(uint32_t first_a, uint32_t first_b, uint32_t count_a, uint32_t count_b) {
  return first_a <= first_b + count_b - 1 && first_b <= first_a + count_a - 1;
}

// Three numbers and nothing else. In octal or hexadecimal, too, as simple_strtoul takes them.
Result<IdExtent> ParseExtent(std::string_view line) {
  uint32_t numbers[3] = {};
  for (size_t i = 0; i < 3; ++i) {
    const size_t start = line.find_first_not_of(" \t\v\f\r");
    if (start == std::string_view::npos || (i > 0 && start == 0)) return Errno(EINVAL);
    line.remove_prefix(start);
    int base = 10;
    if (line.starts_with("0x") || line.starts_with("0X")) {
      base = 16;
      line.remove_prefix(2);
    } else if (line.size() > 1 && line[0] == '0') {
      base = 8;
    }
    const auto [end, error] =
        std::from_chars(line.data(), line.data() + line.size(), numbers[i], base);
    if (error != std::errc()) return Errno(EINVAL);
    line.remove_prefix(static_cast<size_t>(end - line.data()));
  }
  if (line.find_first_not_of(" \t\v\f\r") != std::string_view::npos) return Errno(EINVAL);
  return IdExtent{numbers[0], numbers[1], numbers[2]};
}

Result<std::vector<IdExtent>> ParseMap(std::string_view text) {
  std::vector<IdExtent> extents;
  while (!text.empty()) {
    const size_t newline = std::min(text.find('\n'), text.size());
    const std::string_view line = text.substr(0, newline);
    text.remove_prefix(std::min(newline + 1, text.size()));
    const IdExtent extent = TRY(ParseExtent(line));
    if (extent.inside == kInvalidId || extent.outside == kInvalidId) return Errno(EINVAL);
    if (extent.inside + extent.count <= extent.inside ||
        extent.outside + extent.count <= extent.outside)
      return Errno(EINVAL);
    for (const IdExtent& other : extents) {
      if (Overlaps(extent.inside, other.inside, extent.count, other.count) ||
          Overlaps(extent.outside, other.outside, extent.count, other.count))
        return Errno(EINVAL);
    }
    if (extents.size() >= IdMap::kExtentsMax) return Errno(EINVAL);
    extents.push_back(extent);
  }
  if (extents.empty()) return Errno(EINVAL);
  return extents;
}

const IdExtent* FindExtent(const std::vector<IdExtent>& extents, uint32_t id,
                           uint32_t IdExtent::* first) {
  const auto after = std::upper_bound(
      extents.begin(), extents.end(), id,
      [first](uint32_t wanted, const IdExtent& extent) { return wanted < extent.*first; });
  if (after == extents.begin()) return nullptr;
  const IdExtent& extent = *std::prev(after);
  return id - extent.*first < extent.count ? &extent : nullptr;
}

}  // namespace

IdMap::IdMap(std::vector<IdExtent> extents) : by_inside_(extents), by_outside_(std::move(extents)) {
  std::sort(by_inside_.begin(), by_inside_.end(),
            [](const IdExtent& a, const IdExtent& b) { return a.inside < b.inside; });
  std::sort(by_outside_.begin(), by_outside_.end(),
            [](const IdExtent& a, const IdExtent& b) { return a.outside < b.outside; });
}

uint32_t IdMap::ToOutside(uint32_t inside, uint32_t count) const {
  const IdExtent* extent = FindExtent(by_inside_, inside, &IdExtent::inside);
  if (extent == nullptr || count - 1 > extent->count - 1 - (inside - extent->inside))
    return kInvalidId;
  return extent->outside + (inside - extent->inside);
}

uint32_t IdMap::ToInside(uint32_t outside) const {
  const IdExtent* extent = FindExtent(by_outside_, outside, &IdExtent::outside);
  return extent == nullptr ? kInvalidId : extent->inside + (outside - extent->outside);
}

UserNamespace::UserNamespace(UserNamespaceRef parent, uint32_t owner_uid, uint32_t owner_gid,
                             int level)
    : Namespace(NamespaceKind::kUser, std::move(parent)),
      level_(level),
      owner_uid_(owner_uid),
      owner_gid_(owner_gid) {}

Result<UserNamespaceRef> UserNamespace::Make(const Credentials& creator, bool may_set_file_caps) {
  const UserNamespaceRef& parent = creator.user_namespace;
  const int level = parent == nullptr ? 1 : parent->level() + 1;
  if (level > kLevelMax) return Errno(ENOSPC);
  if (parent != nullptr && (parent->FromGlobal(IdKind::kUser, creator.euid) == kInvalidId ||
                            parent->FromGlobal(IdKind::kGroup, creator.egid) == kInvalidId))
    return Errno(EPERM);
  auto made = std::make_shared<UserNamespace>(parent, creator.euid, creator.egid, level);
  made->parent_could_set_file_caps_ = may_set_file_caps;
  if (parent != nullptr && parent->setgroups_denied()) made->setgroups_allowed_.store(false);
  return UserNamespaceRef(std::move(made));
}

Result<void> UserNamespace::WriteSetgroups(std::string_view text) {
  const size_t end = text.find_last_not_of(" \t\n\v\f\r");
  text = end == std::string_view::npos ? std::string_view() : text.substr(0, end + 1);
  if (text != "allow" && text != "deny") return Errno(EINVAL);
  const absl::MutexLock lock(&mu_);
  if (text == "allow") {
    return setgroups_denied() ? Result<void>(Errno(EPERM)) : Result<void>();
  }
  if (map(IdKind::kGroup) != nullptr) return Errno(EPERM);
  setgroups_allowed_.store(false, std::memory_order_release);
  return {};
}

bool UserNamespace::MayMap(IdKind kind, const Credentials& opener, const Credentials& writer,
                           std::span<const IdExtent> extents) const {
  const bool users = kind == IdKind::kUser;
  if (users && std::any_of(extents.begin(), extents.end(),
                           [](const IdExtent& extent) { return extent.outside == 0; })) {
    // File capabilities of the parent's root would be the child's to set.
    const bool inside = opener.user_namespace.get() == this;
    if (inside ? !parent_could_set_file_caps_ : !opener.HasCapabilityIn(parent(), CAP_SETFCAP))
      return false;
  }
  if (extents.size() == 1 && extents[0].count == 1 && owner_uid_ == opener.euid) {
    const uint32_t id = extents[0].outside;
    if (users && UidToGlobal(parent(), id) == opener.euid) return true;
    if (!users && setgroups_denied() && GidToGlobal(parent(), id) == opener.egid) return true;
  }
  const int needed = users ? CAP_SETUID : CAP_SETGID;
  return writer.HasCapabilityIn(parent(), needed) && opener.HasCapabilityIn(parent(), needed);
}

Result<void> UserNamespace::WriteMap(IdKind kind, const Credentials& opener,
                                     const Credentials& writer, std::string_view text) {
  if (text.size() >= kMapTextBytesMax) return Errno(EINVAL);
  if (opener.user_namespace.get() != this && opener.user_namespace != parent()) return Errno(EPERM);
  const absl::MutexLock lock(&mu_);
  if (map(kind) != nullptr) return Errno(EPERM);
  // Of the file's opener over this one, which is its owner's in the parent by being that.
  const bool rules =
      opener.user_namespace.get() == this
          ? ((opener.effective >> CAP_SYS_ADMIN) & 1) != 0
          : opener.HasCapabilityIn(parent(), CAP_SYS_ADMIN) || opener.euid == owner_uid_;
  if (!rules) return Errno(EPERM);
  std::vector<IdExtent> extents = TRY(ParseMap(text));
  if (!MayMap(kind, opener, writer, extents)) return Errno(EPERM);
  if (parent() != nullptr) {
    const IdMap* outer = parent()->map(kind);
    for (IdExtent& extent : extents) {
      extent.outside =
          outer == nullptr ? kInvalidId : outer->ToOutside(extent.outside, extent.count);
      if (extent.outside == kInvalidId) return Errno(EPERM);
    }
  }
  auto made = std::make_unique<const IdMap>(std::move(extents));
  maps_[static_cast<size_t>(kind)].store(made.get(), std::memory_order_release);
  own_maps_[static_cast<size_t>(kind)] = std::move(made);
  return {};
}

std::string UserNamespace::MapText(IdKind kind, const UserNamespaceRef& viewer) const {
  std::string text;
  const IdMap* ids = map(kind);
  if (ids == nullptr) return text;
  // Those who look from inside see the parent's ids.
  const UserNamespaceRef& lower = viewer.get() == this ? parent() : viewer;
  for (const IdExtent& extent : ids->extents()) {
    const uint32_t outside =
        lower == nullptr ? extent.outside : lower->FromGlobal(kind, extent.outside);
    char line[64];
    snprintf(line, sizeof line, "%10u %10u %10u\n", extent.inside, outside, extent.count);
    text += line;
  }
  return text;
}

bool IsSameOrInside(const UserNamespaceRef& inner, const UserNamespaceRef& outer) {
  if (outer == nullptr) return true;
  for (const UserNamespace* each = inner.get(); each != nullptr; each = each->parent().get()) {
    if (each == outer.get()) return true;
  }
  return false;
}

bool Credentials::HasCapabilityIn(const UserNamespaceRef& target, int capability) const {
  const int own_level = user_namespace == nullptr ? 0 : user_namespace->level();
  const UserNamespace* at = target.get();
  while (at != user_namespace.get()) {
    // An outer or unrelated namespace.
    if (at == nullptr || at->level() <= own_level) return false;
    if (at->parent() == user_namespace && at->owner_uid() == euid) return true;
    at = at->parent().get();
  }
  return HasOwnCapability(capability);
}

bool Credentials::MapsOwner(uint32_t owner, uint32_t group) const {
  return user_namespace == nullptr ||
         (user_namespace->FromGlobal(UserNamespace::IdKind::kUser, owner) != kInvalidId &&
          user_namespace->FromGlobal(UserNamespace::IdKind::kGroup, group) != kInvalidId);
}

}  // namespace sentry
