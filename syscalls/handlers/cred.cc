#include "syscalls/handlers/cred.h"

#include <linux/capability.h>
#include <linux/securebits.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "sentry/kernel/credentials.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_namespace.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::CapabilitySet;
using sentry::Credentials;
using sentry::Task;

constexpr uint32_t kUnchanged = ~uint32_t{0};
constexpr int32_t kGroupsMax = 65536;  // NGROUPS_MAX
constexpr CapabilitySet kFileSystemCapabilities =
    (CapabilitySet{1} << CAP_CHOWN) | (CapabilitySet{1} << CAP_DAC_OVERRIDE) |
    (CapabilitySet{1} << CAP_DAC_READ_SEARCH) | (CapabilitySet{1} << CAP_FOWNER) |
    (CapabilitySet{1} << CAP_FSETID) | (CapabilitySet{1} << CAP_MAC_OVERRIDE) |
    (CapabilitySet{1} << CAP_MKNOD) | (CapabilitySet{1} << CAP_LINUX_IMMUTABLE);

bool IsSet(const Credentials& credentials, int bit) {
  return (credentials.securebits & (1U << bit)) != 0;
}

// capabilities(7), "Effect of user ID changes on capabilities".
void AdjustCapabilities(Credentials& changed, const Credentials& old) {
  if (IsSet(old, SECURE_NO_SETUID_FIXUP)) return;
  const uint32_t root = sentry::UidToGlobal(old.user_namespace, 0);
  const bool had_root = old.uid == root || old.euid == root || old.suid == root;
  const bool has_root = changed.uid == root || changed.euid == root || changed.suid == root;
  if (had_root && !has_root) {
    if (!changed.keep_capabilities) changed.permitted = changed.effective = 0;
    changed.ambient = 0;
  }
  if (old.euid == root && changed.euid != root) changed.effective = 0;
  if (old.euid != root && changed.euid == root) changed.effective = changed.permitted;
}

uint32_t Seen(Task& task, uint32_t uid) {
  return sentry::UidSeenFrom(task.own_credentials().user_namespace, uid);
}
uint32_t SeenGroup(Task& task, uint32_t gid) {
  return sentry::GidSeenFrom(task.own_credentials().user_namespace, gid);
}

// Arguments that may say "unchanged". EINVAL for ids that are not mapped.
Result<void> ToGlobalIds(std::initializer_list<uint32_t*> ids, auto&& to_global) {
  for (uint32_t* id : ids) {
    if (*id == kUnchanged) continue;
    *id = to_global(*id);
    if (*id == kUnchanged) return Errno(EINVAL);
  }
  return {};
}
Result<void> ToGlobalUids(Task& task, std::initializer_list<uint32_t*> ids) {
  const sentry::UserNamespaceRef& space = task.own_credentials().user_namespace;
  return ToGlobalIds(ids, [&](uint32_t id) { return sentry::UidToGlobal(space, id); });
}
Result<void> ToGlobalGids(Task& task, std::initializer_list<uint32_t*> ids) {
  const sentry::UserNamespaceRef& space = task.own_credentials().user_namespace;
  return ToGlobalIds(ids, [&](uint32_t id) { return sentry::GidToGlobal(space, id); });
}

template <typename Change>
Result<void> ChangeCredentials(Task& task, Change&& change) {
  const sentry::CredentialsRef old = task.credentials();
  auto changed = std::make_shared<Credentials>(*old);
  TRY(change(*changed));
  // A change of identity makes the process undumpable (prctl(2), PR_SET_DUMPABLE).
  if (changed->euid != old->euid || changed->egid != old->egid || changed->fsuid != old->fsuid ||
      changed->fsgid != old->fsgid) {
    task.memory().dumpable().store(0);
    task.parent_death_signal().store(0);
  }
  task.set_credentials(std::move(changed));
  return {};
}

bool OneOf(uint32_t id, std::initializer_list<uint32_t> allowed) {
  return std::find(allowed.begin(), allowed.end(), id) != allowed.end();
}

Result<void> CopyOutThree(Task& task,
                          std::array<std::pair<UserOut<uint32_t>, uint32_t>, 3> values) {
  for (const auto& [pointer, value] : values) TRY(task.CopyOut(pointer, value));
  return {};
}

}  // namespace

Result<uint32_t> GetUid(Task& task) { return Seen(task, task.own_credentials().uid); }
Result<uint32_t> GetEuid(Task& task) { return Seen(task, task.own_credentials().euid); }
Result<uint32_t> GetGid(Task& task) { return SeenGroup(task, task.own_credentials().gid); }
Result<uint32_t> GetEgid(Task& task) { return SeenGroup(task, task.own_credentials().egid); }

Result<void> SetUid(Task& task, uint32_t uid) {
  uid = sentry::UidToGlobal(task.own_credentials().user_namespace, uid);
  if (uid == kUnchanged) return Errno(EINVAL);
  return ChangeCredentials(task, [uid](Credentials& changed) -> Result<void> {
    const Credentials old = changed;
    if (old.HasOwnCapability(CAP_SETUID)) {
      changed.uid = changed.suid = uid;
    } else if (!OneOf(uid, {old.uid, old.suid})) {
      return Errno(EPERM);
    }
    changed.euid = changed.fsuid = uid;
    AdjustCapabilities(changed, old);
    return {};
  });
}

Result<void> SetGid(Task& task, uint32_t gid) {
  gid = sentry::GidToGlobal(task.own_credentials().user_namespace, gid);
  if (gid == kUnchanged) return Errno(EINVAL);
  return ChangeCredentials(task, [gid](Credentials& changed) -> Result<void> {
    if (changed.HasOwnCapability(CAP_SETGID)) {
      changed.gid = changed.sgid = gid;
    } else if (!OneOf(gid, {changed.gid, changed.sgid})) {
      return Errno(EPERM);
    }
    changed.egid = changed.fsgid = gid;
    return {};
  });
}

Result<void> SetReUid(Task& task, uint32_t real, uint32_t effective) {
  TRY(ToGlobalUids(task, {&real, &effective}));
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    const Credentials old = changed;
    const bool privileged = old.HasOwnCapability(CAP_SETUID);
    if (real != kUnchanged) {
      if (!privileged && !OneOf(real, {old.uid, old.euid})) return Errno(EPERM);
      changed.uid = real;
    }
    if (effective != kUnchanged) {
      if (!privileged && !OneOf(effective, {old.uid, old.euid, old.suid})) return Errno(EPERM);
      changed.euid = effective;
    }
    if (real != kUnchanged || (effective != kUnchanged && effective != old.uid))
      changed.suid = changed.euid;
    changed.fsuid = changed.euid;
    AdjustCapabilities(changed, old);
    return {};
  });
}

Result<void> SetReGid(Task& task, uint32_t real, uint32_t effective) {
  TRY(ToGlobalGids(task, {&real, &effective}));
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    const Credentials old = changed;
    const bool privileged = old.HasOwnCapability(CAP_SETGID);
    if (real != kUnchanged) {
      if (!privileged && !OneOf(real, {old.gid, old.egid})) return Errno(EPERM);
      changed.gid = real;
    }
    if (effective != kUnchanged) {
      if (!privileged && !OneOf(effective, {old.gid, old.egid, old.sgid})) return Errno(EPERM);
      changed.egid = effective;
    }
    if (real != kUnchanged || (effective != kUnchanged && effective != old.gid))
      changed.sgid = changed.egid;
    changed.fsgid = changed.egid;
    return {};
  });
}

Result<void> SetResUid(Task& task, uint32_t real, uint32_t effective, uint32_t saved) {
  TRY(ToGlobalUids(task, {&real, &effective, &saved}));
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    const Credentials old = changed;
    for (const uint32_t id : {real, effective, saved}) {
      if (id == kUnchanged || old.HasOwnCapability(CAP_SETUID)) continue;
      if (!OneOf(id, {old.uid, old.euid, old.suid})) return Errno(EPERM);
    }
    if (real != kUnchanged) changed.uid = real;
    if (effective != kUnchanged) changed.euid = effective;
    if (saved != kUnchanged) changed.suid = saved;
    changed.fsuid = changed.euid;
    AdjustCapabilities(changed, old);
    return {};
  });
}

Result<void> SetResGid(Task& task, uint32_t real, uint32_t effective, uint32_t saved) {
  TRY(ToGlobalGids(task, {&real, &effective, &saved}));
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    const Credentials old = changed;
    for (const uint32_t id : {real, effective, saved}) {
      if (id == kUnchanged || old.HasOwnCapability(CAP_SETGID)) continue;
      if (!OneOf(id, {old.gid, old.egid, old.sgid})) return Errno(EPERM);
    }
    if (real != kUnchanged) changed.gid = real;
    if (effective != kUnchanged) changed.egid = effective;
    if (saved != kUnchanged) changed.sgid = saved;
    changed.fsgid = changed.egid;
    return {};
  });
}

Result<void> GetResUid(Task& task, UserOut<uint32_t> real, UserOut<uint32_t> effective,
                       UserOut<uint32_t> saved) {
  const Credentials& own = task.own_credentials();
  return CopyOutThree(task, {{{real, Seen(task, own.uid)},
                              {effective, Seen(task, own.euid)},
                              {saved, Seen(task, own.suid)}}});
}

Result<void> GetResGid(Task& task, UserOut<uint32_t> real, UserOut<uint32_t> effective,
                       UserOut<uint32_t> saved) {
  const Credentials& own = task.own_credentials();
  return CopyOutThree(task, {{{real, SeenGroup(task, own.gid)},
                              {effective, SeenGroup(task, own.egid)},
                              {saved, SeenGroup(task, own.sgid)}}});
}

// setfsuid(2) has no errors: it returns the old value, changed or not.
Result<uint32_t> SetFsUid(Task& task, uint32_t uid) {
  const uint32_t previous = Seen(task, task.own_credentials().fsuid);
  uid = sentry::UidToGlobal(task.own_credentials().user_namespace, uid);
  if (uid == kUnchanged) return previous;
  const Result<void> changed = ChangeCredentials(task, [uid](Credentials& next) -> Result<void> {
    const Credentials old = next;
    if (!old.HasOwnCapability(CAP_SETUID) && !OneOf(uid, {old.uid, old.euid, old.suid, old.fsuid}))
      return Errno(EPERM);
    next.fsuid = uid;
    if (IsSet(old, SECURE_NO_SETUID_FIXUP)) return {};
    const uint32_t root = sentry::UidToGlobal(old.user_namespace, 0);
    if (old.fsuid == root && uid != root) next.effective &= ~kFileSystemCapabilities;
    if (old.fsuid != root && uid == root)
      next.effective |= next.permitted & kFileSystemCapabilities;
    return {};
  });
  (void)changed;  // A refusal shows by the unchanged value of the next call.
  return previous;
}

Result<uint32_t> SetFsGid(Task& task, uint32_t gid) {
  const uint32_t previous = SeenGroup(task, task.own_credentials().fsgid);
  gid = sentry::GidToGlobal(task.own_credentials().user_namespace, gid);
  if (gid == kUnchanged) return previous;
  const Result<void> changed = ChangeCredentials(task, [gid](Credentials& next) -> Result<void> {
    if (!next.HasOwnCapability(CAP_SETGID) &&
        !OneOf(gid, {next.gid, next.egid, next.sgid, next.fsgid}))
      return Errno(EPERM);
    next.fsgid = gid;
    return {};
  });
  (void)changed;  // As above.
  return previous;
}

Result<int32_t> GetGroups(Task& task, int32_t size, UserAddr list) {
  const std::vector<uint32_t>& groups = task.own_credentials().groups;
  const auto count = static_cast<int32_t>(groups.size());
  if (size < 0) return Errno(EINVAL);
  if (size == 0) return count;
  if (count > size) return Errno(EINVAL);
  std::vector<uint32_t> seen = groups;
  for (uint32_t& group : seen) group = SeenGroup(task, group);
  TRY(task.memory().CopyOutArray<uint32_t>(list, seen));
  return count;
}

Result<void> SetGroups(Task& task, int32_t size, UserAddr list) {
  const sentry::UserNamespaceRef& space = task.own_credentials().user_namespace;
  if (!task.own_credentials().HasOwnCapability(CAP_SETGID) ||
      (space != nullptr && !space->setgroups_allowed()))
    return Errno(EPERM);
  if (size < 0 || size > kGroupsMax) return Errno(EINVAL);
  std::vector<uint32_t> groups =
      TRY(task.memory().CopyInArray<uint32_t>(list, static_cast<size_t>(size)));
  for (uint32_t& group : groups) {
    group = sentry::GidToGlobal(space, group);
    if (group == kUnchanged) return Errno(EINVAL);
  }
  std::sort(groups.begin(), groups.end());
  return ChangeCredentials(task, [&groups](Credentials& changed) -> Result<void> {
    changed.groups = std::move(groups);
    return {};
  });
}

namespace {

struct CapHeader {
  uint32_t version;
  int32_t pid;
};
struct CapData {
  uint32_t effective, permitted, inheritable;
};

// Number of CapData that the version takes; writes the preferred version back for an unknown one.
Result<size_t> CapWords(Task& task, UserAddr header_address, const CapHeader& header) {
  switch (header.version) {
    case _LINUX_CAPABILITY_VERSION_1:
      return size_t{1};
    case _LINUX_CAPABILITY_VERSION_2:
    case _LINUX_CAPABILITY_VERSION_3:
      return size_t{2};
    default:
      TRY(task.CopyOut(UserOut<uint32_t>(header_address), uint32_t{_LINUX_CAPABILITY_VERSION_3}));
      return Errno(EINVAL);
  }
}

}  // namespace

Result<void> CapGet(Task& task, UserAddr header_address, UserAddr data) {
  const CapHeader header = TRY(task.CopyIn(base::UserIn<CapHeader>(header_address)));
  const Result<size_t> words = CapWords(task, header_address, header);
  if (!words.ok()) {
    // A probe for the version: no data, no error.
    if (words.error() == EINVAL && data.is_null()) return {};
    return words.error();
  }
  if (header.pid < 0) return Errno(EINVAL);
  sentry::CredentialsRef credentials = task.credentials();
  if (header.pid != 0) {
    const sentry::TaskRef other = sentry::FindTaskFor(task, header.pid);
    if (other == nullptr) return Errno(ESRCH);
    credentials = other->credentials();
  }
  std::array<CapData, 2> out{};
  for (size_t i = 0; i < words.value(); ++i) {
    out[i] = {static_cast<uint32_t>(credentials->effective >> (32 * i)),
              static_cast<uint32_t>(credentials->permitted >> (32 * i)),
              static_cast<uint32_t>(credentials->inheritable >> (32 * i))};
  }
  return task.memory().CopyOutArray<CapData>(data,
                                             std::span<const CapData>(out).first(words.value()));
}

Result<void> CapSet(Task& task, UserAddr header_address, UserAddr data) {
  const CapHeader header = TRY(task.CopyIn(base::UserIn<CapHeader>(header_address)));
  const size_t words = TRY(CapWords(task, header_address, header));
  if (header.pid != 0 && header.pid != sentry::SeenBy(task, task.tid())) return Errno(EPERM);
  const std::vector<CapData> in = TRY(task.memory().CopyInArray<CapData>(data, words));
  CapabilitySet effective = 0, permitted = 0, inheritable = 0;
  for (size_t i = 0; i < words; ++i) {
    effective |= CapabilitySet{in[i].effective} << (32 * i);
    permitted |= CapabilitySet{in[i].permitted} << (32 * i);
    inheritable |= CapabilitySet{in[i].inheritable} << (32 * i);
  }
  effective &= sentry::kAllCapabilities;
  permitted &= sentry::kAllCapabilities;
  inheritable &= sentry::kAllCapabilities;
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    const bool may_set = changed.HasOwnCapability(CAP_SETPCAP);
    if (!may_set && (inheritable & ~(changed.inheritable | changed.permitted)) != 0)
      return Errno(EPERM);
    if ((inheritable & ~(changed.inheritable | changed.bounding)) != 0) return Errno(EPERM);
    if ((permitted & ~changed.permitted) != 0) return Errno(EPERM);
    if ((effective & ~permitted) != 0) return Errno(EPERM);
    changed.effective = effective;
    changed.permitted = permitted;
    changed.inheritable = inheritable;
    changed.ambient &= permitted & inheritable;
    return {};
  });
}

}  // namespace syscalls
