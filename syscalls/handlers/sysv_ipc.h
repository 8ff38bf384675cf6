#pragma once

#include <cstdint>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "sentry/ipc/permissions.h"
#include "syscalls/abi/ipc.h"

namespace sentry {
class Task;
}

namespace syscalls {

base::Result<int32_t> Shmget(sentry::Task& task, int32_t key, uint64_t bytes, int32_t flags);
base::Result<uint64_t> Shmat(sentry::Task& task, int32_t id, uint64_t address, int32_t flags);
base::Result<void> Shmdt(sentry::Task& task, uint64_t address);
base::Result<int32_t> Shmctl(sentry::Task& task, int32_t id, int32_t command, base::UserAddr data);

base::Result<int32_t> Semget(sentry::Task& task, int32_t key, int32_t count, int32_t flags);
base::Result<void> Semop(sentry::Task& task, int32_t id, base::UserAddr operations, uint32_t count);
base::Result<void> Semtimedop(sentry::Task& task, int32_t id, base::UserAddr operations,
                              uint32_t count, base::UserAddr timeout);
base::Result<int32_t> Semctl(sentry::Task& task, int32_t id, int32_t number, int32_t command,
                             uint64_t argument);

base::Result<int32_t> Msgget(sentry::Task& task, int32_t key, int32_t flags);
base::Result<void> Msgsnd(sentry::Task& task, int32_t id, base::UserAddr message, int64_t bytes,
                          int32_t flags);
base::Result<uint64_t> Msgrcv(sentry::Task& task, int32_t id, base::UserAddr message, int64_t bytes,
                              int64_t type, int32_t flags);
base::Result<int32_t> Msgctl(sentry::Task& task, int32_t id, int32_t command, base::UserAddr data);

// How the three show owner and mode.
inline abi::Ipc64Perm PermissionsForGuest(const sentry::IpcPermissions& permissions) {
  abi::Ipc64Perm perm{};
  perm.key = permissions.key;
  perm.uid = permissions.uid;
  perm.gid = permissions.gid;
  perm.cuid = permissions.cuid;
  perm.cgid = permissions.cgid;
  perm.mode = permissions.mode;
  perm.seq = permissions.sequence();
  return perm;
}
inline sentry::IpcOwnerChange OwnerFromGuest(const abi::Ipc64Perm& perm) {
  return {perm.uid, perm.gid, perm.mode};
}

}  // namespace syscalls
