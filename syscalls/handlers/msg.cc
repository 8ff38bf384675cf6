// msgget(2), msgsnd(2), msgrcv(2), msgctl(2).

#include <sys/msg.h>

#include <algorithm>
#include <cerrno>

#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/blocking.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/sysv_ipc.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::MsgRegistry;
using sentry::Task;

namespace {

constexpr int32_t kMsgCopy = 040000;  // MSG_COPY

MsgRegistry& RegistryOf(Task& task) { return sentry::IpcObjectsOf(task).msg(); }

// Neither call is made again after a handler has run, whatever SA_RESTART says.
template <typename T>
Result<T> WithoutRestart(Result<T> result) {
  if (!result.ok() && result.error() == base::kRestartSys) return base::kRestartNoHand;
  return result;
}

Result<int32_t> Stat(Task& task, int32_t id, int32_t command, UserAddr data) {
  const bool by_index = command != abi::kIpcStat;
  const sentry::MsgStatus status = TRY(
      RegistryOf(task).Status(id, by_index, command == abi::kMsgStatAny, task.own_credentials()));
  abi::Msqid64Ds ds{};
  ds.perm = PermissionsForGuest(status.permissions);
  ds.stime = status.send_s;
  ds.rtime = status.receive_s;
  ds.ctime = status.change_s;
  ds.cbytes = status.bytes;
  ds.qnum = status.messages;
  ds.qbytes = status.bytes_max;
  ds.lspid = status.last_sender;
  ds.lrpid = status.last_receiver;
  TRY(task.CopyOut(UserOut<abi::Msqid64Ds>(data), ds));
  return by_index ? status.permissions.id : 0;
}

Result<int32_t> Info(Task& task, int32_t command, UserAddr data) {
  const sentry::MsgLimits limits = RegistryOf(task).limits();
  const sentry::MsgTotals totals = RegistryOf(task).Totals();
  constexpr int32_t kSegmentBytes = 16;
  abi::Msginfo info{};
  info.msgmax = static_cast<int32_t>(limits.message_bytes_max);
  info.msgmnb = static_cast<int32_t>(limits.queue_bytes_max);
  info.msgmni = static_cast<int32_t>(limits.queues_max);
  info.msgssz = kSegmentBytes;
  info.msgseg = 0xffff;
  if (command == abi::kMsgInfo) {
    info.msgpool = totals.queues;
    info.msgmap = static_cast<int32_t>(totals.messages);
    info.msgtql = static_cast<int32_t>(totals.bytes);
  } else {
    info.msgpool = info.msgmni * info.msgmnb / 1024;
    info.msgmap = info.msgtql = info.msgmnb;
  }
  TRY(task.CopyOut(UserOut<abi::Msginfo>(data), info));
  return totals.index_max;
}

}  // namespace

Result<int32_t> Msgget(Task& task, int32_t key, int32_t flags) {
  return RegistryOf(task).Get(key, flags, task.own_credentials());
}

Result<void> Msgsnd(Task& task, int32_t id, UserAddr message, int64_t bytes, int32_t flags) {
  MsgRegistry& registry = RegistryOf(task);
  sentry::IpcMessage sent;
  sent.type = TRY(task.CopyIn(UserIn<int64_t>(message)));
  if (bytes < 0 || bytes > int64_t{registry.limits().message_bytes_max} || id < 0)
    return Errno(EINVAL);
  if (sent.type < 1) return Errno(EINVAL);
  sent.data.resize(static_cast<size_t>(bytes));
  TRY(task.memory().CopyInExactly(TRY(message.Plus(sizeof(int64_t))), sent.data));
  const auto queue = TRY(registry.Find(id));
  return WithoutRestart(sentry::RetryUntilReady(
      task, &MsgRegistry::QueueOf(*queue), POLLOUT, (flags & IPC_NOWAIT) != 0,
      sentry::Deadline::Never(),
      [&] { return registry.Send(*queue, sent, task.own_credentials(), task.group().id()); }));
}

Result<uint64_t> Msgrcv(Task& task, int32_t id, UserAddr message, int64_t bytes, int64_t type,
                        int32_t flags) {
  MsgRegistry& registry = RegistryOf(task);
  if (id < 0 || bytes < 0) return Errno(EINVAL);
  sentry::MsgSelector selector;
  selector.type = type;
  selector.except = (flags & MSG_EXCEPT) != 0;
  selector.truncate = (flags & MSG_NOERROR) != 0;
  selector.copy = (flags & kMsgCopy) != 0;
  selector.bytes_max = static_cast<uint64_t>(bytes);
  const bool no_wait = (flags & IPC_NOWAIT) != 0;
  if (selector.copy && (selector.except || !no_wait)) return Errno(EINVAL);
  const auto queue = TRY(registry.Find(id));
  const Result<sentry::IpcMessage> received = sentry::RetryUntilReady(
      task, &MsgRegistry::QueueOf(*queue), POLLIN, no_wait, sentry::Deadline::Never(), [&] {
        return registry.Receive(*queue, selector, task.own_credentials(), task.group().id());
      });
  if (!received.ok()) {
    if (received.error() == EAGAIN) return Errno(ENOMSG);
    return WithoutRestart<uint64_t>(received.error());
  }
  const sentry::IpcMessage& got = received.value();
  const size_t count = std::min<uint64_t>(got.data.size(), selector.bytes_max);
  // As on Linux, what cannot be told to the caller is lost.
  TRY(task.CopyOut(UserOut<int64_t>(message), got.type));
  TRY(task.memory().CopyOutExactly(TRY(message.Plus(sizeof(int64_t))),
                                   std::span(got.data).first(count)));
  return uint64_t{count};
}

Result<int32_t> Msgctl(Task& task, int32_t id, int32_t command, UserAddr data) {
  if (id < 0 || command < 0) return Errno(EINVAL);
  switch (command) {
    case abi::kIpcInfo:
    case abi::kMsgInfo:
      return Info(task, command, data);
    case abi::kIpcStat:
    case abi::kMsgStat:
    case abi::kMsgStatAny:
      return Stat(task, id, command, data);
    case abi::kIpcSet: {
      const abi::Msqid64Ds ds = TRY(task.CopyIn(UserIn<abi::Msqid64Ds>(data)));
      TRY(RegistryOf(task).SetOwner(id, OwnerFromGuest(ds.perm), ds.qbytes,
                                    task.own_credentials()));
      return 0;
    }
    case abi::kIpcRmid:
      TRY(RegistryOf(task).Remove(id, task.own_credentials()));
      return 0;
    default:
      return Errno(EINVAL);
  }
}

}  // namespace syscalls
