// fcntl(2) and flock(2).

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/file.h>

#include <limits>

#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/directory_notice.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/file_owner.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/open.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserInOut;
using sentry::File;
using sentry::FileOwner;
using sentry::FileRef;
using sentry::RecordLock;
using sentry::Task;

namespace {

// struct flock on x86-64.
struct AbiFlock {
  int16_t type;
  int16_t whence;
  int32_t pad;
  int64_t start;
  int64_t length;
  int32_t pid;
  int32_t pad2;
};
static_assert(sizeof(AbiFlock) == 32);

struct OwnerEx {
  int32_t type;
  int32_t pid;
};

// flock_to_posix_lock: the range in absolute offsets.
Result<RecordLock> RangeOf(File& file, const AbiFlock& request) {
  int64_t origin = 0;
  switch (request.whence) {
    case SEEK_SET:
      break;
    case SEEK_CUR: {
      const absl::MutexLock lock(&file.position_mutex());
      origin = static_cast<int64_t>(file.position());
      break;
    }
    case SEEK_END:
      origin = static_cast<int64_t>(TRY(file.GetAttributes()).size);
      break;
    default:
      return Errno(EINVAL);
  }
  int64_t start = 0;
  if (__builtin_add_overflow(origin, request.start, &start)) return Errno(EOVERFLOW);
  if (start < 0) return Errno(EINVAL);
  int64_t last = std::numeric_limits<int64_t>::max();
  if (request.length > 0) {
    if (__builtin_add_overflow(start, request.length - 1, &last)) return Errno(EOVERFLOW);
  } else if (request.length < 0) {
    last = start - 1;
    if (__builtin_add_overflow(start, request.length, &start) || start < 0) return Errno(EINVAL);
  }
  RecordLock lock;
  lock.start = static_cast<uint64_t>(start);
  lock.last = static_cast<uint64_t>(last);
  return lock;
}

Result<sentry::FileLocks*> LocksOf(File& file) {
  const sentry::InodeRef inode = file.inode();
  if (inode == nullptr) return Errno(EINVAL);
  return &inode->attachments().locks;
}

Result<uint64_t> GetLock(Task& task, File& file, UserInOut<AbiFlock> pointer, bool of_description) {
  AbiFlock request = TRY(task.CopyIn(pointer));
  if (request.type != F_RDLCK && request.type != F_WRLCK &&
      !(of_description && request.type == F_UNLCK)) {
    return Errno(EINVAL);
  }
  if (of_description && request.pid != 0) return Errno(EINVAL);
  RecordLock wanted = TRY(RangeOf(file, request));
  wanted.exclusive = request.type == F_WRLCK;
  wanted.owner = of_description ? static_cast<const void*>(&file) : &task.fds();
  const auto conflict = TRY(LocksOf(file))->TestRecord(wanted);
  if (!conflict) {
    request.type = F_UNLCK;
  } else {
    request.type = conflict->exclusive ? F_WRLCK : F_RDLCK;
    request.whence = SEEK_SET;
    request.start = static_cast<int64_t>(conflict->start);
    request.length = conflict->last == RecordLock::kLastByte
                         ? 0
                         : static_cast<int64_t>(conflict->last - conflict->start + 1);
    request.pid = sentry::SeenBy(task, conflict->pid);
  }
  TRY(task.CopyOut(pointer, request));
  return uint64_t{0};
}

Result<uint64_t> SetLock(Task& task, File& file, UserInOut<AbiFlock> pointer, bool of_description,
                         bool wait) {
  const AbiFlock request = TRY(task.CopyIn(pointer));
  RecordLock wanted = TRY(RangeOf(file, request));
  if (of_description && request.pid != 0) return Errno(EINVAL);
  wanted.owner = of_description ? static_cast<const void*>(&file) : &task.fds();
  wanted.pid = of_description ? -1 : task.group().id();
  wanted.exclusive = request.type == F_WRLCK;
  sentry::FileLocks& locks = *TRY(LocksOf(file));
  switch (request.type) {
    case F_UNLCK:
      TRY(locks.ClearRecord(wanted.owner, wanted.start, wanted.last));
      return uint64_t{0};
    case F_RDLCK:
      if (!file.readable()) return Errno(EBADF);
      break;
    case F_WRLCK:
      if (!file.writable()) return Errno(EBADF);
      break;
    default:
      return Errno(EINVAL);
  }
  sentry::LockWaits& waits = VfsOf(task).lock_waits();
  const auto attempt = [&]() -> Result<void> {
    RecordLock blocker;
    const Result<void> result = locks.SetRecord(wanted, &blocker);
    if (result.ok() || result.error() != EAGAIN || !wait || of_description) return result;
    TRY(waits.Enter(&task, wanted.owner, blocker.owner));
    return result;
  };
  const Result<void> result =
      RetryUntilReady(task, &locks.queue(), POLLOUT, !wait, sentry::Deadline::Never(), attempt);
  if (wait && !of_description) waits.Leave(&task);
  TRY(result);
  return uint64_t{0};
}

Result<uint64_t> OwnerCommand(Task& task, File& file, int32_t command, uint64_t argument) {
  using Kind = FileOwner::Kind;
  const FileOwner* existing = file.owner_if_any();
  const FileOwner::Id id = existing != nullptr ? existing->Get() : FileOwner::Id{};
  switch (command) {
    case F_SETOWN: {
      const auto number = static_cast<int32_t>(argument);
      if (number == std::numeric_limits<int32_t>::min()) return Errno(EINVAL);
      const FileOwner::Id wanted =
          number < 0 ? FileOwner::Id{Kind::kGroup, sentry::ToGlobal(task, -number)}
                     : FileOwner::Id{Kind::kProcess, sentry::ToGlobal(task, number)};
      if (number != 0 && wanted.number == 0) return Errno(ESRCH);
      TRY(file.owner().Set(task, wanted));
      return uint64_t{0};
    }
    case F_GETOWN: {
      const int32_t seen = sentry::SeenBy(task, id.number);
      return static_cast<uint64_t>(int64_t{id.kind == Kind::kGroup ? -seen : seen});
    }
    case F_SETSIG:
      if (argument > static_cast<uint64_t>(sentry::kSignalMax)) return Errno(EINVAL);
      file.owner().SetSignal(static_cast<int32_t>(argument));
      return uint64_t{0};
    case F_GETSIG:
      return static_cast<uint64_t>(existing != nullptr ? existing->signal() : 0);
    case F_SETOWN_EX: {
      const OwnerEx owner = TRY(task.CopyIn(base::UserIn<OwnerEx>(UserAddr(argument))));
      if (owner.type < F_OWNER_TID || owner.type > F_OWNER_PGRP) return Errno(EINVAL);
      const int32_t number = sentry::ToGlobal(task, owner.pid);
      if (owner.pid != 0 && number == 0) return Errno(ESRCH);
      TRY(file.owner().Set(task, {static_cast<Kind>(owner.type), number}));
      return uint64_t{0};
    }
    default: {
      const OwnerEx answer{static_cast<int32_t>(id.kind), sentry::SeenBy(task, id.number)};
      TRY(task.CopyOut(base::UserOut<OwnerEx>(UserAddr(argument)), answer));
      return uint64_t{0};
    }
  }
}

constexpr int32_t kCreatedQuery = 1028;  // F_CREATED_QUERY

// Who hears of the lease, or of the directory, unless somebody else was named.
Result<void> OwnIfNobody(Task& task, File& file) {
  FileOwner& owner = file.owner();
  if (owner.Get().number != 0) return {};
  return owner.Set(task, {FileOwner::Kind::kProcess, task.group().id()});
}

Result<uint64_t> SetLease(Task& task, File& file, int32_t fd, int32_t type) {
  const sentry::InodeRef inode = file.inode();
  if (inode == nullptr) return Errno(EINVAL);
  if (type == F_UNLCK) {
    TRY(inode->attachments().leases.Clear(file));
    return uint64_t{0};
  }
  const sentry::Credentials& who = task.own_credentials();
  if (TRY(file.GetAttributes()).uid != who.fsuid && !who.HasCapability(CAP_LEASE))
    return Errno(EACCES);
  if (inode->type() != S_IFREG) return Errno(EINVAL);
  if (type != F_RDLCK && type != F_WRLCK) return Errno(EINVAL);
  TRY(inode->attachments().leases.Set(file, fd, type, *inode, task.kernel().leases()));
  TRY(OwnIfNobody(task, file));
  return uint64_t{0};
}

uint64_t GetLease(Task& task, File& file) {
  const sentry::InodeRef inode = file.inode();
  sentry::Inode::Attachments* attachments =
      inode != nullptr ? inode->attachments_if_any() : nullptr;
  if (attachments == nullptr) return F_UNLCK;
  return static_cast<uint64_t>(
      attachments->leases.TypeOf(file, task.kernel().clock().MonotonicNs()));
}

Result<uint64_t> SetDirectoryNotice(Task& task, const FileRef& file, int32_t fd, uint32_t events) {
  const sentry::InodeRef inode = file->inode();
  if (inode == nullptr || inode->type() != S_IFDIR) return Errno(ENOTDIR);
  if (events != 0) TRY(OwnIfNobody(task, *file));
  TRY(sentry::SetDirectoryNotice(file, &task.fds(), fd, events));
  return uint64_t{0};
}

bool AllowedOnPath(int32_t command) {
  return command == F_DUPFD || command == F_DUPFD_CLOEXEC || command == F_GETFD ||
         command == F_SETFD || command == F_GETFL;
}

}  // namespace

// O_ASYNC is the file's only if it has somebody to tell; then the descriptor it came through is
// what the signal names.
Result<void> SetStatusFlags(Task& task, File& file, int32_t fd, uint32_t flags) {
  const uint32_t before = file.flags();
  if (!file.SupportsAsync()) flags &= ~static_cast<uint32_t>(O_ASYNC);
  TRY(file.SetFlags(task, flags));
  if (((before ^ file.flags()) & O_ASYNC) == 0) return {};
  if ((flags & O_ASYNC) != 0) {
    file.owner().Arm(task, file, fd);
  } else {
    file.owner().Disarm();
  }
  return {};
}

Result<uint64_t> Fcntl(Task& task, int32_t fd, int32_t command, uint64_t argument) {
  const FileRef file = TRY(task.fds().Get(fd));
  if (file->is_path_only() && !AllowedOnPath(command)) return Errno(EBADF);
  const UserInOut<AbiFlock> lock{UserAddr(argument)};
  switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC: {
      const auto minimum = static_cast<uint32_t>(argument);
      if (minimum >= task.fd_limit() || minimum > std::numeric_limits<int32_t>::max())
        return Errno(EINVAL);
      return static_cast<uint64_t>(TRY(task.fds().Install(
          file, command == F_DUPFD_CLOEXEC, task.fd_limit(), static_cast<int32_t>(minimum))));
    }
    case F_GETFD:
      return uint64_t{TRY(task.fds().close_on_exec(fd)) ? FD_CLOEXEC : 0U};
    case F_SETFD:
      TRY(task.fds().set_close_on_exec(fd, (argument & FD_CLOEXEC) != 0));
      return uint64_t{0};
    case F_GETFL:
      return uint64_t{file->flags()};
    case F_SETFL:
      TRY(SetStatusFlags(task, *file, fd, static_cast<uint32_t>(argument)));
      return uint64_t{0};
    case F_GETLK:
    case F_OFD_GETLK:
      return GetLock(task, *file, lock, command == F_OFD_GETLK);
    case F_SETLK:
    case F_SETLKW:
      return SetLock(task, *file, lock, false, command == F_SETLKW);
    case F_OFD_SETLK:
    case F_OFD_SETLKW:
      return SetLock(task, *file, lock, true, command == F_OFD_SETLKW);
    case F_SETOWN:
    case F_GETOWN:
    case F_SETSIG:
    case F_GETSIG:
    case F_SETOWN_EX:
    case F_GETOWN_EX:
      return OwnerCommand(task, *file, command, argument);
    case F_SETLEASE:
      return SetLease(task, *file, fd, static_cast<int32_t>(argument));
    case F_GETLEASE:
      return GetLease(task, *file);
    case F_NOTIFY:
      return SetDirectoryNotice(task, file, fd, static_cast<uint32_t>(argument));
    case kCreatedQuery:
      return uint64_t{file->has_created()};
    default:
      return file->Fcntl(task, command, argument);
  }
}

Result<void> Flock(Task& task, int32_t fd, int32_t operation) {
  const int32_t kind = operation & ~LOCK_NB;
  if (kind != LOCK_SH && kind != LOCK_EX && kind != LOCK_UN) return Errno(EINVAL);
  const FileRef file = TRY(task.fds().GetForIo(fd));
  sentry::FileLocks& locks = *TRY(LocksOf(*file));
  if (kind == LOCK_UN) {
    locks.ReleaseFlock(file.get());
    return {};
  }
  return RetryUntilReady(task, &locks.queue(), POLLOUT, (operation & LOCK_NB) != 0,
                         sentry::Deadline::Never(),
                         [&] { return locks.SetFlock(file.get(), kind == LOCK_EX); });
}

}  // namespace syscalls
