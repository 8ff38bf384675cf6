#include "sentry/ipc/permissions.h"

#include <linux/capability.h>

#include <cerrno>

namespace sentry {

using base::Errno;
using base::Result;

IpcPermissions NewIpcPermissions(int32_t key, int32_t flags, const Credentials& creator) {
  IpcPermissions permissions;
  permissions.key = key;
  permissions.uid = permissions.cuid = creator.euid;
  permissions.gid = permissions.cgid = creator.egid;
  permissions.mode = static_cast<uint32_t>(flags) & 0777;
  return permissions;
}

Result<void> CheckIpcAccess(const IpcPermissions& permissions, const Credentials& who,
                            uint32_t wanted) {
  const uint32_t requested = (wanted >> 6) | (wanted >> 3) | wanted;
  uint32_t granted = permissions.mode;
  const auto in_group = [&who](uint32_t group) { return group == who.egid || who.InGroup(group); };
  if (who.euid == permissions.cuid || who.euid == permissions.uid) {
    granted >>= 6;
  } else if (in_group(permissions.cgid) || in_group(permissions.gid)) {
    granted >>= 3;
  }
  if ((requested & ~granted & 07) != 0 && !who.HasCapability(CAP_IPC_OWNER)) return Errno(EACCES);
  return {};
}

Result<void> CheckIpcOwner(const IpcPermissions& permissions, const Credentials& who) {
  if (who.euid != permissions.cuid && who.euid != permissions.uid &&
      !who.HasCapability(CAP_SYS_ADMIN)) {
    return Errno(EPERM);
  }
  return {};
}

Result<void> ApplyIpcOwner(IpcPermissions& permissions, const IpcOwnerChange& change) {
  constexpr uint32_t kNobody = ~uint32_t{0};
  if (change.uid == kNobody || change.gid == kNobody) return Errno(EINVAL);
  permissions.uid = change.uid;
  permissions.gid = change.gid;
  permissions.mode = (permissions.mode & ~0777U) | (change.mode & 0777);
  return {};
}

}  // namespace sentry
