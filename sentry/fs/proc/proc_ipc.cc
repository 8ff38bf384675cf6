// System V IPC in /proc: sysvipc/{msg,sem,shm} and the limits in sys/kernel (proc_sysvipc(5),
// proc_sys_kernel(5)).

#include <algorithm>
#include <array>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "platform/base/strings.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/proc/proc_internal.h"
#include "sentry/ipc/ipc_objects.h"
#include "sentry/kernel/kernel.h"

namespace sentry {
namespace {

using base::Absl;
using base::Errno;
using base::Result;

using ulong_type = unsigned long long;
constexpr int64_t kIntMax = std::numeric_limits<int32_t>::max();

IpcObjects& IpcOf(Task& task) { return IpcObjectsOf(task); }

Result<std::string> ShmText(Task& task) {
  std::string text =
      "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  "
      "cgid "
      "     atime      dtime      ctime                   rss                  swap\n";
  for (const ShmStatus& status : IpcOf(task).shm().All()) {
    const IpcPermissions& p = status.permissions;
    text += Format(
        "%10d %10d  %4o %21llu %5d %5d  %5llu %5u %5u %5u %5u %10lld %10lld %10lld %21llu %21llu\n",
        p.key, p.id, p.mode, static_cast<ulong_type>(status.bytes), status.creator_pid,
        status.last_pid, static_cast<ulong_type>(status.attachments), p.uid, p.gid, p.cuid, p.cgid,
        static_cast<long long>(status.attach_s), static_cast<long long>(status.detach_s),
        static_cast<long long>(status.change_s), ulong_type{0}, ulong_type{0});
  }
  return text;
}

Result<std::string> SemText(Task& task) {
  std::string text =
      "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
  for (const SemStatus& status : IpcOf(task).sem().All()) {
    const IpcPermissions& p = status.permissions;
    text +=
        Format("%10d %10d  %4o %10llu %5u %5u %5u %5u %10lld %10lld\n", p.key, p.id, p.mode,
               static_cast<ulong_type>(status.semaphores), p.uid, p.gid, p.cuid, p.cgid,
               static_cast<long long>(status.operation_s), static_cast<long long>(status.change_s));
  }
  return text;
}

Result<std::string> MsgText(Task& task) {
  std::string text =
      "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid      "
      "stime      rtime      ctime\n";
  for (const MsgStatus& status : IpcOf(task).msg().All()) {
    const IpcPermissions& p = status.permissions;
    text +=
        Format("%10d %10d  %4o  %10llu %10llu %5d %5d %5u %5u %5u %5u %10lld %10lld %10lld\n",
               p.key, p.id, p.mode, static_cast<ulong_type>(status.bytes),
               static_cast<ulong_type>(status.messages), status.last_sender, status.last_receiver,
               p.uid, p.gid, p.cuid, p.cgid, static_cast<long long>(status.send_s),
               static_cast<long long>(status.receive_s), static_cast<long long>(status.change_s));
  }
  return text;
}

// A file with one number. `get` and `set` see the namespace of who reads and writes.
using Getter = uint64_t (*)(IpcObjects&);
using Setter = void (*)(IpcObjects&, uint64_t);

void AddLimit(ProcFileSystem& file_system, StaticDirectory& directory, std::string name, Getter get,
              Setter set, uint64_t most) {
  AddText(
      file_system, directory, std::move(name),
      [get](Task& task) -> Result<std::string> { return std::to_string(get(IpcOf(task))) + "\n"; },
      0644,
      [set, most](Task& task, std::string_view text) -> Result<void> {
        uint64_t value = 0;
        if (!absl::SimpleAtoi(absl::StripAsciiWhitespace(Absl(text)), &value) || value > most)
          return Errno(EINVAL);
        set(IpcOf(task), value);
        return {};
      });
}

// msg_next_id and the others: -1, or an id to be given out next.
void AddNextId(ProcFileSystem& file_system, StaticDirectory& directory, std::string name,
               int32_t (*get)(IpcObjects&), void (*set)(IpcObjects&, int32_t)) {
  AddText(
      file_system, directory, std::move(name),
      [get](Task& task) -> Result<std::string> { return std::to_string(get(IpcOf(task))) + "\n"; },
      0644,
      [set](Task& task, std::string_view text) -> Result<void> {
        const int64_t value = TRY(ParseControlNumber(text));
        if (value < 0 || value > kIntMax) return Errno(EINVAL);
        set(IpcOf(task), static_cast<int32_t>(value));
        return {};
      });
}

Result<std::string> SemLimitsText(Task& task) {
  const SemLimits limits = IpcOf(task).sem().limits();
  return Format("%u\t%u\t%u\t%u\n", limits.set_size_max, limits.semaphores_max,
                limits.operations_max, limits.sets_max);
}

// Fewer numbers than four change the first ones.
Result<void> WriteSemLimits(Task& task, std::string_view text) {
  SemRegistry& registry = IpcOf(task).sem();
  SemLimits limits = registry.limits();
  const std::array<uint32_t*, 4> fields = {&limits.set_size_max, &limits.semaphores_max,
                                           &limits.operations_max, &limits.sets_max};
  size_t count = 0;
  for (const absl::string_view word :
       absl::StrSplit(Absl(text), absl::ByAnyChar(" \t\n"), absl::SkipEmpty())) {
    uint32_t value = 0;
    if (count == fields.size() || !absl::SimpleAtoi(word, &value) || value > kIntMax)
      return Errno(EINVAL);
    *fields[count++] = value;
  }
  // What one call may bring along stays bounded.
  constexpr uint32_t kOperationsMax = 32000;
  if (limits.sets_max > kIpcIdsMax || limits.set_size_max > SemRegistry::kTotalMax)
    return Errno(ERANGE);
  limits.operations_max = std::min(limits.operations_max, kOperationsMax);
  registry.set_limits(limits);
  return {};
}

template <typename Limits, typename Registry>
void Change(Registry& registry, uint32_t Limits::* field, uint64_t value) {
  Limits limits = registry.limits();
  limits.*field = static_cast<uint32_t>(value);
  registry.set_limits(limits);
}
template <typename Registry>
void Change(Registry& registry, uint64_t ShmLimits::* field, uint64_t value) {
  ShmLimits limits = registry.limits();
  limits.*field = value;
  registry.set_limits(limits);
}

}  // namespace

void AddSysvIpcDirectory(ProcFileSystem& file_system, StaticDirectory& root) {
  auto directory = std::make_shared<StaticDirectory>(file_system, 0555);
  root.Add("sysvipc", directory);
  AddText(file_system, *directory, "msg", MsgText);
  AddText(file_system, *directory, "sem", SemText);
  AddText(file_system, *directory, "shm", ShmText);
}

void AddIpcSysctls(ProcFileSystem& file_system, StaticDirectory& kernel_directory) {
  const auto limit = [&](const char* name, Getter get, Setter set, uint64_t most) {
    AddLimit(file_system, kernel_directory, name, get, set, most);
  };
  constexpr uint64_t kIntegerMax = kIntMax;
  // What one message brings along, and what one queue holds, is the sentry's memory.
  constexpr uint64_t kMessageBytesMax = 1 << 20;
  limit(
      "shmmax", [](IpcObjects& ipc) { return ipc.shm().limits().segment_bytes_max; },
      [](IpcObjects& ipc, uint64_t v) { Change(ipc.shm(), &ShmLimits::segment_bytes_max, v); },
      ~uint64_t{0});
  limit(
      "shmall", [](IpcObjects& ipc) { return ipc.shm().limits().pages_max; },
      [](IpcObjects& ipc, uint64_t v) { Change(ipc.shm(), &ShmLimits::pages_max, v); },
      ~uint64_t{0});
  limit(
      "shmmni", [](IpcObjects& ipc) { return uint64_t{ipc.shm().limits().segments_max}; },
      [](IpcObjects& ipc, uint64_t v) {
        Change<ShmLimits>(ipc.shm(), &ShmLimits::segments_max, v);
      },
      kIpcIdsMax);
  limit(
      "msgmax", [](IpcObjects& ipc) { return uint64_t{ipc.msg().limits().message_bytes_max}; },
      [](IpcObjects& ipc, uint64_t v) {
        Change<MsgLimits>(ipc.msg(), &MsgLimits::message_bytes_max, v);
      },
      kMessageBytesMax);
  limit(
      "msgmnb", [](IpcObjects& ipc) { return uint64_t{ipc.msg().limits().queue_bytes_max}; },
      [](IpcObjects& ipc, uint64_t v) {
        Change<MsgLimits>(ipc.msg(), &MsgLimits::queue_bytes_max, v);
      },
      kIntegerMax);
  limit(
      "msgmni", [](IpcObjects& ipc) { return uint64_t{ipc.msg().limits().queues_max}; },
      [](IpcObjects& ipc, uint64_t v) { Change<MsgLimits>(ipc.msg(), &MsgLimits::queues_max, v); },
      kIpcIdsMax);
  AddText(file_system, kernel_directory, "sem", SemLimitsText, 0644, WriteSemLimits);
  AddNextId(
      file_system, kernel_directory, "shm_next_id",
      [](IpcObjects& ipc) { return ipc.shm().next_id(); },
      [](IpcObjects& ipc, int32_t id) { ipc.shm().set_next_id(id); });
  AddNextId(
      file_system, kernel_directory, "sem_next_id",
      [](IpcObjects& ipc) { return ipc.sem().next_id(); },
      [](IpcObjects& ipc, int32_t id) { ipc.sem().set_next_id(id); });
  AddNextId(
      file_system, kernel_directory, "msg_next_id",
      [](IpcObjects& ipc) { return ipc.msg().next_id(); },
      [](IpcObjects& ipc, int32_t id) { ipc.msg().set_next_id(id); });
}

void AddMqueueSysctls(ProcFileSystem& file_system, StaticDirectory& directory) {
  struct Entry {
    const char* name;
    std::atomic<uint32_t> MqueueLimits::* field;
    uint32_t most;
  };
  constexpr Entry kEntries[] = {
      {"msg_default", &MqueueLimits::messages_default, MqueueLimits::kHardMessagesMax},
      {"msg_max", &MqueueLimits::messages_max, MqueueLimits::kHardMessagesMax},
      {"msgsize_default", &MqueueLimits::bytes_default, MqueueLimits::kHardBytesMax},
      {"msgsize_max", &MqueueLimits::bytes_max, MqueueLimits::kHardBytesMax},
      {"queues_max", &MqueueLimits::queues_max, MqueueLimits::kHardQueuesMax}};
  for (const Entry& entry : kEntries) {
    AddText(
        file_system, directory, entry.name,
        [field = entry.field](Task& task) -> Result<std::string> {
          return std::to_string((IpcOf(task).mqueue().limits().*field).load()) + "\n";
        },
        0644,
        [field = entry.field, most = entry.most](Task& task,
                                                 std::string_view text) -> Result<void> {
          const int64_t value = TRY(ParseControlNumber(text));
          if (value < 1 || value > int64_t{most}) return Errno(EINVAL);
          (IpcOf(task).mqueue().limits().*field).store(static_cast<uint32_t>(value));
          return {};
        });
  }
}

}  // namespace sentry
