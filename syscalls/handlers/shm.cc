// shmget(2), shmat(2), shmdt(2), shmctl(2).

#include <linux/capability.h>
#include <sys/mman.h>
#include <sys/shm.h>

#include <cerrno>

#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/memory_manager.h"
#include "syscalls/handlers/sysv_ipc.h"

namespace syscalls {

using base::Errno;
using base::kPageSize;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::ShmRegistry;
using sentry::Task;

namespace {

ShmRegistry& RegistryOf(Task& task) { return sentry::IpcObjectsOf(task).shm(); }

Result<int32_t> Stat(Task& task, int32_t id, int32_t command, UserAddr data) {
  const bool by_index = command != abi::kIpcStat;
  const sentry::ShmStatus status = TRY(
      RegistryOf(task).Status(id, by_index, command == abi::kShmStatAny, task.own_credentials()));
  abi::Shmid64Ds ds{};
  ds.perm = PermissionsForGuest(status.permissions);
  ds.segsz = status.bytes;
  ds.atime = status.attach_s;
  ds.dtime = status.detach_s;
  ds.ctime = status.change_s;
  ds.cpid = status.creator_pid;
  ds.lpid = status.last_pid;
  ds.nattch = status.attachments;
  TRY(task.CopyOut(UserOut<abi::Shmid64Ds>(data), ds));
  return by_index ? status.permissions.id : 0;
}

Result<int32_t> Info(Task& task, int32_t command, UserAddr data) {
  const sentry::ShmTotals totals = RegistryOf(task).Totals();
  if (command == abi::kIpcInfo) {
    const sentry::ShmLimits limits = RegistryOf(task).limits();
    abi::Shminfo64 info{};
    info.shmmax = limits.segment_bytes_max;
    info.shmmin = 1;
    info.shmmni = info.shmseg = limits.segments_max;
    info.shmall = limits.pages_max;
    TRY(task.CopyOut(UserOut<abi::Shminfo64>(data), info));
  } else {
    abi::ShmInfo info{};
    info.used_ids = totals.segments;
    info.shm_tot = totals.pages;
    TRY(task.CopyOut(UserOut<abi::ShmInfo>(data), info));
  }
  return totals.index_max;
}

}  // namespace

Result<int32_t> Shmget(Task& task, int32_t key, uint64_t bytes, int32_t flags) {
  return RegistryOf(task).Get(key, bytes, flags, task.own_credentials(), task.group().id());
}

Result<uint64_t> Shmat(Task& task, int32_t id, uint64_t address, int32_t flags) {
  if (id < 0) return Errno(EINVAL);
  if (address % kPageSize != 0) {
    if ((flags & SHM_RND) == 0) return Errno(EINVAL);
    address -= address % kPageSize;
    // There is no telling whether nothing was asked for.
    if (address == 0 && (flags & SHM_REMAP) != 0) return Errno(EINVAL);
  } else if (address == 0 && (flags & SHM_REMAP) != 0) {
    return Errno(EINVAL);
  }
  sentry::MmapRequest request;
  uint32_t access = sentry::kIpcRead;
  request.protection = PROT_READ;
  if ((flags & SHM_RDONLY) == 0) {
    request.protection |= PROT_WRITE;
    access |= sentry::kIpcWrite;
  }
  if ((flags & SHM_EXEC) != 0) {
    request.protection |= PROT_EXEC;
    access |= 0111;
  }
  ShmRegistry::Attachment attachment =
      TRY(RegistryOf(task).Attach(id, access, task.own_credentials()));
  request.address = address;
  request.length = attachment.bytes;
  request.flags = MAP_SHARED;
  if (address != 0) request.flags |= (flags & SHM_REMAP) != 0 ? MAP_FIXED : MAP_FIXED_NOREPLACE;
  request.mappable = std::move(attachment.mappable);
  request.name = std::move(attachment.name);
  request.file_writable = (flags & SHM_RDONLY) == 0;
  const Result<uint64_t> mapped = task.memory().Mmap(request);
  if (!mapped.ok() && mapped.error() == EEXIST) return Errno(EINVAL);
  return mapped;
}

Result<void> Shmdt(Task& task, uint64_t address) {
  if (address % kPageSize != 0) return Errno(EINVAL);
  return task.memory().UnmapObject(address, &ShmRegistry::IsAttachment);
}

Result<int32_t> Shmctl(Task& task, int32_t id, int32_t command, UserAddr data) {
  if (command < 0 || id < 0) return Errno(EINVAL);
  ShmRegistry& registry = RegistryOf(task);
  switch (command) {
    case abi::kIpcInfo:
    case abi::kShmInfo:
      return Info(task, command, data);
    case abi::kIpcStat:
    case abi::kShmStat:
    case abi::kShmStatAny:
      return Stat(task, id, command, data);
    case abi::kIpcSet: {
      const abi::Shmid64Ds ds = TRY(task.CopyIn(UserIn<abi::Shmid64Ds>(data)));
      TRY(registry.SetOwner(id, OwnerFromGuest(ds.perm), task.own_credentials()));
      return 0;
    }
    case abi::kIpcRmid:
      TRY(registry.Remove(id, task.own_credentials()));
      return 0;
    case abi::kShmLock:
    case abi::kShmUnlock:
      TRY(registry.SetLocked(id, command == abi::kShmLock, task.group().Limit(RLIMIT_MEMLOCK),
                             task.own_credentials()));
      return 0;
    default:
      return Errno(EINVAL);
  }
}

}  // namespace syscalls
