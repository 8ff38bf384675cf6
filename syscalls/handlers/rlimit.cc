#include "syscalls/handlers/rlimit.h"

#include <linux/capability.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <memory>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/user_namespace.h"
#include "syscalls/abi/rusage.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::Credentials;
using sentry::ResourceLimit;
using sentry::ResourceUsage;
using sentry::Task;
using sentry::TaskRef;

constexpr int64_t kNsPerTick = 10'000'000;  // USER_HZ is 100.
constexpr uint64_t kFilesMax = 1048576;     // /proc/sys/fs/nr_open

struct RlimitData {
  uint64_t soft, hard;
};

// prlimit(2): all three user ids and group ids of the target equal the caller's real ones, or
// CAP_SYS_RESOURCE.
bool MayTouch(Task& task, const Credentials& target) {
  const Credentials& own = task.own_credentials();
  if (own.HasCapability(CAP_SYS_RESOURCE)) return true;
  return own.uid == target.uid && own.uid == target.euid && own.uid == target.suid &&
         own.gid == target.gid && own.gid == target.egid && own.gid == target.sgid;
}

Result<void> Change(Task& task, sentry::ThreadGroup& group, int resource,
                    const RlimitData& wanted) {
  if (wanted.soft > wanted.hard) return Errno(EINVAL);
  if (resource == RLIMIT_NOFILE && wanted.hard > kFilesMax) return Errno(EPERM);
  const ResourceLimit old = group.limits().Get(resource);
  if (wanted.hard > old.hard && !task.own_credentials().HasCapability(CAP_SYS_RESOURCE))
    return Errno(EPERM);
  group.limits().Set(resource, {wanted.soft, wanted.hard});
  if (resource == RLIMIT_CPU) group.WatchCpuLimit();
  const TaskRef member = group.AnyLiveTask();
  const std::shared_ptr<sentry::MemoryManager> memory =
      member != nullptr ? member->memory_ref() : nullptr;
  if (memory != nullptr) {
    memory->SetLimits({group.Limit(RLIMIT_AS), group.Limit(RLIMIT_DATA), group.Limit(RLIMIT_STACK),
                       group.Limit(RLIMIT_MEMLOCK)});
  }
  return {};
}

// Calls `visit` for the tasks that getpriority's (which, who) name, where 0 is the caller's own.
// ESRCH if there are none.
template <typename Visit>
Result<void> ForEachTask(Task& task, int32_t which, int32_t who, bool threads_of_process,
                         Visit&& visit) {
  bool found = false;
  auto visit_one = [&](const TaskRef& member) -> Result<void> {
    found = true;
    return visit(*member);
  };
  sentry::PidNamespace& pids = task.kernel().pids();
  switch (which) {
    case PRIO_PROCESS: {
      const TaskRef member = who == 0 ? task.shared_from_this() : sentry::FindTaskFor(task, who);
      if (member != nullptr) TRY(visit_one(member));
      break;
    }
    case PRIO_PGRP:
      for (const auto& group :
           pids.Members(who == 0 ? task.group().process_group_id() : sentry::ToGlobal(task, who))) {
        for (const TaskRef& member : group->tasks()) {
          TRY(visit_one(member));
          if (!threads_of_process) break;
        }
      }
      break;
    case PRIO_USER: {
      const uint32_t uid = who == 0 ? task.own_credentials().uid
                                    : sentry::UidToGlobal(task.own_credentials().user_namespace,
                                                          static_cast<uint32_t>(who));
      for (const TaskRef& member : pids.Tasks()) {
        if (member->credentials()->uid == uid) TRY(visit_one(member));
      }
      break;
    }
    default:
      return Errno(EINVAL);
  }
  if (!found) return Errno(ESRCH);
  return {};
}

bool SameUser(Task& task, Task& target) {
  const Credentials& own = task.own_credentials();
  const sentry::CredentialsRef other = target.credentials();
  return own.euid == other->uid || own.euid == other->euid;
}

}  // namespace

abi::Rusage ToAbi(const ResourceUsage& usage) {
  abi::Rusage data{};
  data.user = {usage.user_ns / 1'000'000'000, usage.user_ns / 1000 % 1'000'000};
  data.system = {usage.system_ns / 1'000'000'000, usage.system_ns / 1000 % 1'000'000};
  data.resident_kib_max = static_cast<int64_t>(usage.resident_kib_max);
  data.minor_faults = static_cast<int64_t>(usage.minor_faults);
  data.major_faults = static_cast<int64_t>(usage.major_faults);
  data.voluntary_switches = static_cast<int64_t>(usage.voluntary_switches);
  data.involuntary_switches = static_cast<int64_t>(usage.involuntary_switches);
  return data;
}

Result<void> GetRlimit(Task& task, uint32_t resource, UserAddr limit) {
  if (resource >= sentry::kResourceLimitCount) return Errno(EINVAL);
  const ResourceLimit value = task.group().limits().Get(static_cast<int>(resource));
  return task.CopyOut(UserOut<RlimitData>(limit), RlimitData{value.soft, value.hard});
}

Result<void> SetRlimit(Task& task, uint32_t resource, UserAddr limit) {
  const RlimitData wanted = TRY(task.CopyIn(UserIn<RlimitData>(limit)));
  if (resource >= sentry::kResourceLimitCount) return Errno(EINVAL);
  return Change(task, task.group(), static_cast<int>(resource), wanted);
}

Result<void> Prlimit64(Task& task, int32_t pid, uint32_t resource, UserAddr new_limit,
                       UserAddr old_limit) {
  if (resource >= sentry::kResourceLimitCount) return Errno(EINVAL);
  RlimitData wanted{};
  if (!new_limit.is_null()) wanted = TRY(task.CopyIn(UserIn<RlimitData>(new_limit)));
  const TaskRef target = pid == 0 ? task.shared_from_this() : sentry::FindTaskFor(task, pid);
  if (target == nullptr) return Errno(ESRCH);
  if (target.get() != &task && !MayTouch(task, *target->credentials())) return Errno(EPERM);
  const ResourceLimit old = target->group().limits().Get(static_cast<int>(resource));
  if (!new_limit.is_null()) TRY(Change(task, target->group(), static_cast<int>(resource), wanted));
  if (!old_limit.is_null())
    TRY(task.CopyOut(UserOut<RlimitData>(old_limit), RlimitData{old.soft, old.hard}));
  return {};
}

Result<void> GetRusage(Task& task, int32_t who, UserAddr usage) {
  ResourceUsage used;
  switch (who) {
    case RUSAGE_SELF:
      used = task.group().Usage();
      break;
    case RUSAGE_CHILDREN:
      used = task.group().ChildrenUsage();
      break;
    case RUSAGE_THREAD:
      used = task.Usage();
      break;
    default:
      return Errno(EINVAL);
  }
  return task.CopyOut(UserOut<abi::Rusage>(usage), ToAbi(used));
}

Result<int64_t> Times(Task& task, UserAddr buffer) {
  if (!buffer.is_null()) {
    const ResourceUsage own = task.group().Usage();
    const ResourceUsage children = task.group().ChildrenUsage();
    const std::array<int64_t, 4> ticks{own.user_ns / kNsPerTick, own.system_ns / kNsPerTick,
                                       children.user_ns / kNsPerTick,
                                       children.system_ns / kNsPerTick};
    TRY(task.memory().CopyOutArray<int64_t>(buffer, ticks));
  }
  return task.kernel().clock().MonotonicNs() / kNsPerTick;
}

// The kernel's answer is 20 - nice, 1..40: the library turns it round.
Result<int32_t> GetPriority(Task& task, int32_t which, int32_t who) {
  int32_t best = 0;
  TRY(ForEachTask(task, which, who, true, [&best](Task& member) -> Result<void> {
    best = std::max(best, 20 - member.scheduling().nice);
    return {};
  }));
  return best;
}

Result<void> SetPriority(Task& task, int32_t which, int32_t who, int32_t nice) {
  nice = std::clamp(nice, -20, 19);
  return ForEachTask(task, which, who, true, [&task, nice](Task& member) -> Result<void> {
    const bool privileged = task.own_credentials().HasCapability(CAP_SYS_NICE);
    if (!SameUser(task, member) && !privileged) return Errno(EPERM);
    sentry::SchedulingAttributes attributes = member.scheduling();
    // RLIMIT_NICE: the ceiling is 20 - limit.
    const uint64_t limit = member.group().Limit(RLIMIT_NICE);
    if (nice < attributes.nice && !privileged && static_cast<uint64_t>(20 - nice) > limit)
      return Errno(EACCES);
    attributes.nice = nice;
    member.set_scheduling(std::move(attributes));
    return {};
  });
}

namespace {
// ioprio's `which` is PRIO_*'s plus one.
constexpr int32_t kIoPrioOffset = 1;
constexpr int32_t kIoClassShift = 13;
}  // namespace

Result<int32_t> IoPrioGet(Task& task, int32_t which, int32_t who) {
  int32_t best = 0;
  TRY(ForEachTask(task, which - kIoPrioOffset, who, true, [&best](Task& member) -> Result<void> {
    best = std::max(best, member.scheduling().io_priority);
    return {};
  }));
  return best;
}

Result<void> IoPrioSet(Task& task, int32_t which, int32_t who, int32_t priority) {
  enum IoClass { kNone, kRealTime, kBestEffort, kIdle };
  const int32_t level = priority & ((1 << kIoClassShift) - 1);
  switch (priority >> kIoClassShift) {
    case kNone:
      if (level != 0) return Errno(EINVAL);
      break;
    case kRealTime:
      if (!task.own_credentials().HasCapability(CAP_SYS_NICE)) return Errno(EPERM);
      [[fallthrough]];
    case kBestEffort:
      if ((level & 7) != level) return Errno(EINVAL);
      break;
    case kIdle:
      break;
    default:
      return Errno(EINVAL);
  }
  return ForEachTask(task, which - kIoPrioOffset, who, true, [&](Task& member) -> Result<void> {
    if (!SameUser(task, member) && !task.own_credentials().HasCapability(CAP_SYS_NICE))
      return Errno(EPERM);
    sentry::SchedulingAttributes attributes = member.scheduling();
    attributes.io_priority = priority;
    member.set_scheduling(std::move(attributes));
    return {};
  });
}

}  // namespace syscalls
