// semget(2), semop(2), semtimedop(2), semctl(2).

#include <linux/sem.h>

#include <algorithm>
#include <cerrno>

#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/sysv_ipc.h"
#include "syscalls/handlers/time_values.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::SemOperation;
using sentry::SemRegistry;
using sentry::Task;

namespace {

SemRegistry& RegistryOf(Task& task) { return sentry::IpcObjectsOf(task).sem(); }

Result<int32_t> Stat(Task& task, int32_t id, int32_t command, UserAddr data) {
  const bool by_index = command != abi::kIpcStat;
  const sentry::SemStatus status = TRY(
      RegistryOf(task).Status(id, by_index, command == abi::kSemStatAny, task.own_credentials()));
  abi::Semid64Ds ds{};
  ds.perm = PermissionsForGuest(status.permissions);
  ds.otime = status.operation_s;
  ds.ctime = status.change_s;
  ds.nsems = status.semaphores;
  TRY(task.CopyOut(UserOut<abi::Semid64Ds>(data), ds));
  return by_index ? status.permissions.id : 0;
}

Result<int32_t> Info(Task& task, int32_t command, UserAddr data) {
  const sentry::SemLimits limits = RegistryOf(task).limits();
  const sentry::SemTotals totals = RegistryOf(task).Totals();
  constexpr int32_t kUndoBytes = 20;  // SEMUSZ
  abi::Seminfo info{};
  info.semmni = static_cast<int32_t>(limits.sets_max);
  info.semmns = info.semmap = info.semmnu = static_cast<int32_t>(limits.semaphores_max);
  info.semmsl = static_cast<int32_t>(limits.set_size_max);
  info.semopm = info.semume = static_cast<int32_t>(limits.operations_max);
  info.semvmx = info.semaem = SemRegistry::kValueMax;
  info.semusz = kUndoBytes;
  if (command == abi::kSemInfo) {
    info.semusz = totals.sets;
    info.semaem = static_cast<int32_t>(totals.semaphores);
  }
  TRY(task.CopyOut(UserOut<abi::Seminfo>(data), info));
  return totals.index_max;
}

Result<int32_t> SetAll(Task& task, int32_t id, UserAddr data) {
  SemRegistry& registry = RegistryOf(task);
  const size_t count = TRY(registry.CountToSet(id, task.own_credentials()));
  const std::vector<uint16_t> values = TRY(task.memory().CopyInArray<uint16_t>(data, count));
  TRY(registry.SetValues(id, values, task.own_credentials(), task.group().id()));
  return 0;
}

Result<int32_t> Ask(Task& task, int32_t id, int32_t number, int32_t command) {
  using Query = SemRegistry::Query;
  const Query query = command == abi::kGetVal    ? Query::kValue
                      : command == abi::kGetPid  ? Query::kPid
                      : command == abi::kGetNcnt ? Query::kIncreaseWaiters
                                                 : Query::kZeroWaiters;
  return RegistryOf(task).Ask(id, number, query, task.own_credentials());
}

// EAGAIN of one who does not want to wait stays; of one who waited too long, too. The call is never
// made again after a signal.
Result<void> Wait(Task& task, sentry::SemSet& set, std::span<const SemOperation> operations,
                  sentry::Deadline deadline) {
  SemRegistry& registry = RegistryOf(task);
  const bool undoes = std::any_of(operations.begin(), operations.end(), [](const SemOperation& op) {
    return (op.flags & SEM_UNDO) != 0;
  });
  const SemRegistry::Caller caller{task.own_credentials(), task.group().id(),
                                   undoes ? task.sem_undo() : nullptr};
  SemRegistry::Sleeper sleeper;
  Result<void> result = registry.Operate(set, operations, caller, sleeper);
  if (!result.ok() && result.error() == EAGAIN && sleeper.registered) {
    result =
        sentry::RetryUntilReady(task, &SemRegistry::QueueOf(set), POLLIN, false, deadline,
                                [&] { return registry.Operate(set, operations, caller, sleeper); });
  }
  registry.Leave(set, sleeper);
  if (!result.ok() && result.error() == ETIMEDOUT) return Errno(EAGAIN);
  if (!result.ok() && result.error() == base::kRestartSys) return Errno(EINTR);
  return result;
}

Result<void> DoSemop(Task& task, int32_t id, UserAddr operations, uint32_t count,
                     sentry::Deadline deadline) {
  if (count < 1 || id < 0) return Errno(EINVAL);
  if (count > RegistryOf(task).limits().operations_max) return Errno(E2BIG);
  const std::vector<SemOperation> list =
      TRY(task.memory().CopyInArray<SemOperation>(operations, count));
  const auto set = TRY(RegistryOf(task).Find(id));
  return Wait(task, *set, list, deadline);
}

}  // namespace

Result<int32_t> Semget(Task& task, int32_t key, int32_t count, int32_t flags) {
  return RegistryOf(task).Get(key, count, flags, task.own_credentials());
}

Result<void> Semop(Task& task, int32_t id, UserAddr operations, uint32_t count) {
  return DoSemop(task, id, operations, count, sentry::Deadline::Never());
}

Result<void> Semtimedop(Task& task, int32_t id, UserAddr operations, uint32_t count,
                        UserAddr timeout) {
  const sentry::Deadline deadline = TRY(RelativeDeadline(task, UserIn<abi::Timespec>(timeout)));
  return DoSemop(task, id, operations, count, deadline);
}

Result<int32_t> Semctl(Task& task, int32_t id, int32_t number, int32_t command, uint64_t argument) {
  if (id < 0) return Errno(EINVAL);
  SemRegistry& registry = RegistryOf(task);
  const sentry::Credentials& who = task.own_credentials();
  const UserAddr data(argument);
  switch (command) {
    case abi::kIpcInfo:
    case abi::kSemInfo:
      return Info(task, command, data);
    case abi::kIpcStat:
    case abi::kSemStat:
    case abi::kSemStatAny:
      return Stat(task, id, command, data);
    case abi::kGetAll: {
      const std::vector<uint16_t> values = TRY(registry.Values(id, who));
      TRY(task.memory().CopyOutArray<uint16_t>(data, values));
      return 0;
    }
    case abi::kGetVal:
    case abi::kGetPid:
    case abi::kGetNcnt:
    case abi::kGetZcnt:
      return Ask(task, id, number, command);
    case abi::kSetVal:
      TRY(registry.SetValue(id, number, static_cast<int32_t>(argument), who, task.group().id()));
      return 0;
    case abi::kSetAll:
      return SetAll(task, id, data);
    case abi::kIpcSet: {
      const abi::Semid64Ds ds = TRY(task.CopyIn(UserIn<abi::Semid64Ds>(data)));
      TRY(registry.SetOwner(id, OwnerFromGuest(ds.perm), who));
      return 0;
    }
    case abi::kIpcRmid:
      TRY(registry.Remove(id, who));
      return 0;
    default:
      return Errno(EINVAL);
  }
}

}  // namespace syscalls
