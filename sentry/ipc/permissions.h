#pragma once

// Who may do what with a System V IPC object (sysvipc(7)).

#include <cstdint>

#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"

namespace sentry {

struct IpcPermissions {
  int32_t key = 0;
  int32_t id = 0;
  uint32_t uid = 0, gid = 0;    // Owner.
  uint32_t cuid = 0, cgid = 0;  // Creator.
  uint32_t mode = 0;            // Nine permission bits; SHM_DEST and SHM_LOCKED above them.
  uint16_t sequence() const { return static_cast<uint16_t>(id >> 15); }
};

// IPC_PRIVATE
inline constexpr int32_t kIpcPrivateKey = 0;
// Objects of one kind: what fits into the index part of an id.
inline constexpr uint32_t kIpcIdsMax = 1 << 15;

IpcPermissions NewIpcPermissions(int32_t key, int32_t flags, const Credentials& creator);

// EACCES. `wanted`: any of the nine bits, as in the flags of the *get calls; S_IRUGO, S_IWUGO.
base::Result<void> CheckIpcAccess(const IpcPermissions& permissions, const Credentials& who,
                                  uint32_t wanted);
// IPC_SET, IPC_RMID: EPERM for others than owner, creator and CAP_SYS_ADMIN.
base::Result<void> CheckIpcOwner(const IpcPermissions& permissions, const Credentials& who);

inline constexpr uint32_t kIpcRead = 0444;
inline constexpr uint32_t kIpcWrite = 0222;

// What IPC_SET changes.
struct IpcOwnerChange {
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t mode = 0;
};
// EINVAL for ids that are none.
base::Result<void> ApplyIpcOwner(IpcPermissions& permissions, const IpcOwnerChange& change);

}  // namespace sentry
