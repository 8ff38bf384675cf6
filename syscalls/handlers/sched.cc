#include "syscalls/handlers/sched.h"

#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserIn;
using base::UserOut;
using sentry::SchedulingAttributes;
using sentry::Task;
using sentry::TaskRef;

constexpr uint32_t kPriorityMax = 99;
constexpr uint32_t kAttributesBytesMin = 48;  // SCHED_ATTR_SIZE_VER0

// struct sched_attr, first version.
struct SchedAttrData {
  uint32_t size, policy;
  uint64_t flags;
  int32_t nice;
  uint32_t priority;
  uint64_t runtime, deadline, period;
};
static_assert(sizeof(SchedAttrData) == kAttributesBytesMin);

bool IsRealTime(uint32_t policy) { return policy == SCHED_FIFO || policy == SCHED_RR; }
bool IsFair(uint32_t policy) {
  return policy == SCHED_OTHER || policy == SCHED_BATCH || policy == SCHED_IDLE;
}

Result<TaskRef> Find(Task& task, int32_t tid) {
  if (tid < 0) return Errno(EINVAL);
  TaskRef found = tid == 0 ? task.shared_from_this() : sentry::FindTaskFor(task, tid);
  if (found == nullptr) return Errno(ESRCH);
  return found;
}

bool MayChange(Task& task, Task& target) {
  const sentry::Credentials& own = task.own_credentials();
  const sentry::CredentialsRef other = target.credentials();
  return own.euid == other->uid || own.euid == other->euid || own.HasCapability(CAP_SYS_NICE);
}

// The mask of the CPUs that exist.
std::vector<uint64_t> AllCpus(Task& task) {
  const uint32_t cpus = task.kernel().options().cpu_count;
  std::vector<uint64_t> mask((cpus + 63) / 64, 0);
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) mask[cpu / 64] |= uint64_t{1} << (cpu % 64);
  return mask;
}

Result<void> SetPolicy(Task& task, Task& target, uint32_t policy, uint32_t priority,
                       bool reset_on_fork) {
  if (policy == SCHED_DEADLINE)
    return Errno(EPERM);  // As without CAP_SYS_NICE in the initial namespace.
  if (!IsRealTime(policy) && !IsFair(policy)) return Errno(EINVAL);
  if (IsRealTime(policy) != (priority != 0) || priority > kPriorityMax) return Errno(EINVAL);
  const bool privileged = task.own_credentials().HasCapability(CAP_SYS_NICE);
  SchedulingAttributes attributes = target.scheduling();
  if (!privileged) {
    const uint64_t limit = target.group().Limit(RLIMIT_RTPRIO);
    if (IsRealTime(policy) && (policy != attributes.policy || priority > attributes.priority) &&
        priority > limit) {
      return Errno(EPERM);
    }
    if (!MayChange(task, target)) return Errno(EPERM);
    if (attributes.reset_on_fork && !reset_on_fork) return Errno(EPERM);
  }
  attributes.policy = policy;
  attributes.priority = priority;
  attributes.reset_on_fork = reset_on_fork;
  target.set_scheduling(std::move(attributes));
  return {};
}

}  // namespace

Result<void> SchedYield(Task& task) {
  (void)task;
  sched_yield();
  return {};
}

Result<int32_t> SchedGetAffinity(Task& task, int32_t tid, uint32_t bytes, UserAddr mask) {
  const uint32_t cpus = task.kernel().options().cpu_count;
  if (uint64_t{bytes} * 8 < cpus || bytes % 8 != 0) return Errno(EINVAL);
  if (tid < 0) return Errno(ESRCH);
  const TaskRef target = TRY(Find(task, tid));
  std::vector<uint64_t> bits = target->scheduling().affinity;
  if (bits.empty()) bits = AllCpus(task);
  TRY(task.memory().CopyOutArray<uint64_t>(mask, bits));
  return static_cast<int32_t>(bits.size() * 8);
}

Result<void> SchedSetAffinity(Task& task, int32_t tid, uint32_t bytes, UserAddr mask) {
  std::vector<uint64_t> all = AllCpus(task);
  std::vector<uint64_t> wanted(all.size(), 0);
  const size_t taken = std::min<size_t>(bytes, wanted.size() * 8);
  TRY(task.memory().CopyInExactly(mask, std::as_writable_bytes(std::span(wanted)).first(taken)));
  if (tid < 0) return Errno(ESRCH);
  const TaskRef target = TRY(Find(task, tid));
  if (!MayChange(task, *target)) return Errno(EPERM);
  bool any = false;
  for (size_t i = 0; i < wanted.size(); ++i) any = (wanted[i] &= all[i]) != 0 || any;
  if (!any) return Errno(EINVAL);
  SchedulingAttributes attributes = target->scheduling();
  attributes.affinity = std::move(wanted);
  target->set_scheduling(std::move(attributes));
  return {};
}

Result<int32_t> SchedGetScheduler(Task& task, int32_t tid) {
  const SchedulingAttributes attributes = TRY(Find(task, tid))->scheduling();
  return static_cast<int32_t>(attributes.policy |
                              (attributes.reset_on_fork ? SCHED_RESET_ON_FORK : 0));
}

Result<void> SchedSetScheduler(Task& task, int32_t tid, int32_t policy, UserAddr parameters) {
  if (policy < 0 || tid < 0 || parameters.is_null()) return Errno(EINVAL);
  const int32_t priority = TRY(task.CopyIn(UserIn<int32_t>(parameters)));
  const TaskRef target = TRY(Find(task, tid));
  if (priority < 0) return Errno(EINVAL);
  const bool reset = (policy & SCHED_RESET_ON_FORK) != 0;
  return SetPolicy(task, *target, static_cast<uint32_t>(policy & ~SCHED_RESET_ON_FORK),
                   static_cast<uint32_t>(priority), reset);
}

Result<void> SchedGetParam(Task& task, int32_t tid, UserAddr parameters) {
  if (parameters.is_null()) return Errno(EINVAL);
  const SchedulingAttributes attributes = TRY(Find(task, tid))->scheduling();
  return task.CopyOut(UserOut<uint32_t>(parameters), attributes.priority);
}

Result<void> SchedSetParam(Task& task, int32_t tid, UserAddr parameters) {
  if (tid < 0 || parameters.is_null()) return Errno(EINVAL);
  const int32_t priority = TRY(task.CopyIn(UserIn<int32_t>(parameters)));
  const TaskRef target = TRY(Find(task, tid));
  if (priority < 0) return Errno(EINVAL);
  const SchedulingAttributes attributes = target->scheduling();
  return SetPolicy(task, *target, attributes.policy, static_cast<uint32_t>(priority),
                   attributes.reset_on_fork);
}

Result<int32_t> SchedGetPriorityMax(Task& task, int32_t policy) {
  (void)task;
  if (policy < 0) return Errno(EINVAL);
  const auto known = static_cast<uint32_t>(policy);
  if (IsRealTime(known)) return static_cast<int32_t>(kPriorityMax);
  if (IsFair(known) || policy == SCHED_DEADLINE) return 0;
  return Errno(EINVAL);
}

Result<int32_t> SchedGetPriorityMin(Task& task, int32_t policy) {
  const int32_t highest = TRY(SchedGetPriorityMax(task, policy));
  return highest > 0 ? 1 : 0;
}

Result<void> SchedRrGetInterval(Task& task, int32_t tid, UserAddr interval) {
  const SchedulingAttributes attributes = TRY(Find(task, tid))->scheduling();
  constexpr int64_t kRoundRobinNs = 100'000'000,
                    kFairNs = 3'000'000;  // RR_TIMESLICE; a usual fair slice.
  const int64_t slice = attributes.policy == SCHED_RR ? kRoundRobinNs
                        : IsFair(attributes.policy)   ? kFairNs
                                                      : 0;
  const std::array<int64_t, 2> value{0, slice};
  return task.memory().CopyOutArray<int64_t>(interval, value);
}

Result<void> SchedGetAttr(Task& task, int32_t tid, UserAddr attributes, uint32_t size,
                          uint32_t flags) {
  constexpr uint32_t kPageBytes = 4096;
  if (attributes.is_null() || tid < 0 || flags != 0 || size < kAttributesBytesMin ||
      size > kPageBytes)
    return Errno(EINVAL);
  const SchedulingAttributes own = TRY(Find(task, tid))->scheduling();
  SchedAttrData data{};
  data.size = kAttributesBytesMin;
  data.policy = own.policy;
  data.flags = own.reset_on_fork ? SCHED_FLAG_RESET_ON_FORK : 0;
  if (IsFair(own.policy)) data.nice = own.nice;
  data.priority = own.priority;
  return task.CopyOut(UserOut<SchedAttrData>(attributes), data);
}

Result<void> SchedSetAttr(Task& task, int32_t tid, UserAddr attributes, uint32_t flags) {
  if (attributes.is_null() || tid < 0 || flags != 0) return Errno(EINVAL);
  const uint32_t size = TRY(task.CopyIn(UserIn<uint32_t>(attributes)));
  constexpr uint32_t kPageBytes = 4096;
  if ((size != 0 && size < kAttributesBytesMin) || size > kPageBytes) {
    TRY(task.CopyOut(UserOut<uint32_t>(attributes), kAttributesBytesMin));
    return Errno(E2BIG);
  }
  const SchedAttrData data = TRY(task.CopyIn(UserIn<SchedAttrData>(attributes)));
  if ((data.flags & ~uint64_t{SCHED_FLAG_RESET_ON_FORK}) != 0) return Errno(EINVAL);
  const TaskRef target = TRY(Find(task, tid));
  TRY(SetPolicy(task, *target, data.policy, data.priority,
                (data.flags & SCHED_FLAG_RESET_ON_FORK) != 0));
  if (IsFair(data.policy)) {
    SchedulingAttributes changed = target->scheduling();
    const int32_t nice = std::clamp(data.nice, -20, 19);
    if (nice < changed.nice && !task.own_credentials().HasCapability(CAP_SYS_NICE) &&
        static_cast<uint64_t>(20 - nice) > target->group().Limit(RLIMIT_NICE)) {
      return Errno(EPERM);
    }
    changed.nice = nice;
    target->set_scheduling(std::move(changed));
  }
  return {};
}

Result<void> GetCpu(Task& task, UserAddr cpu, UserAddr node) {
  const uint32_t number =
      static_cast<uint32_t>(std::max(sched_getcpu(), 0)) % task.kernel().options().cpu_count;
  if (!cpu.is_null()) TRY(task.CopyOut(UserOut<uint32_t>(cpu), number));
  if (!node.is_null()) TRY(task.CopyOut(UserOut<uint32_t>(node), uint32_t{0}));
  return {};
}

}  // namespace syscalls
