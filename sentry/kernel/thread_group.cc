#include "sentry/kernel/thread_group.h"

#include <algorithm>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/time/process_timers.h"
#include "sentry/time/timer_service.h"

namespace sentry {

// What timers know of their process.
class ThreadGroup::TimerHost final : public ProcessTimers::Host {
 public:
  explicit TimerHost(ThreadGroup& group) : group_(group) {}

  ProcessTimers::Sent SendTimerSignal(const SignalInfo& info, int32_t tid) override {
    SignalInfo marked = info;
    marked.from_timer = true;
    TaskRef target;
    {
      const absl::MutexLock lock(&group_.signal_mu_);
      if (group_.IsExiting() || group_.signal_targets_.empty()) return ProcessTimers::Sent::kGone;
      for (Task* task : group_.signal_targets_) {
        if (tid != 0 && task->tid() == tid) target = task->shared_from_this();
      }
      if (tid != 0 && target == nullptr) return ProcessTimers::Sent::kGone;
    }
    const SignalSet before = target != nullptr ? target->signal_mask() : group_.MaskOfFirst();
    const uint64_t handler = group_.handlers()->Get(info.signal).handler;
    const bool ignored =
        handler == kHandlerIgnore ||
        (handler == kHandlerDefault && (SignalBit(info.signal) & kIgnoredByDefault) != 0);
    if (ignored && (before & SignalBit(info.signal)) == 0) return ProcessTimers::Sent::kIgnored;
    const base::Result<void> sent =
        target != nullptr ? target->SendSignal(marked) : group_.SendSignal(marked);
    return sent.ok() ? ProcessTimers::Sent::kQueued : ProcessTimers::Sent::kIgnored;
  }

  CpuTimes ProcessCpuTimes() override {
    const ResourceUsage usage = group_.Usage();
    return {usage.user_ns, usage.system_ns};
  }

  std::optional<CpuTimes> ThreadCpuTimes(int32_t tid) override {
    TaskRef found;
    {
      const absl::MutexLock lock(&group_.signal_mu_);
      for (Task* task : group_.signal_targets_) {
        if (task->tid() == tid) found = task->shared_from_this();
      }
    }
    if (found == nullptr) return std::nullopt;
    const ResourceUsage usage = found->Usage();
    return CpuTimes{usage.user_ns, usage.system_ns};
  }

 private:
  ThreadGroup& group_;
};

ThreadGroup::ThreadGroup(Kernel& kernel, int32_t id, std::shared_ptr<SignalHandlers> handlers,
                         const ResourceLimitValues& limits, int32_t exit_signal,
                         PidViewRef pid_view, bool is_init)
    : kernel_(kernel),
      id_(id),
      pid_view_(std::move(pid_view)),
      is_init_(id == 1 || is_init),
      start_ns_(kernel.clock().MonotonicNs()),
      limits_(limits),
      exit_signal_(exit_signal),
      handlers_(std::move(handlers)) {
  unkillable_.store(is_init_ && (id != 1 || !kernel.options().init_is_killable),
                    std::memory_order_relaxed);
}

ThreadGroup::~ThreadGroup() = default;

SignalSet ThreadGroup::MaskOfFirst() const {
  const absl::MutexLock lock(&signal_mu_);
  return signal_targets_.empty() ? 0 : signal_targets_.front()->signal_mask();
}

TaskRef ThreadGroup::leader() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  return leader_;
}

TaskRef ThreadGroup::AnyLiveTask() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  if (leader_ != nullptr && !leader_->HasExited()) return leader_;
  for (const TaskRef& task : tasks_) {
    if (!task->HasExited()) return task;
  }
  return nullptr;
}

std::vector<TaskRef> ThreadGroup::tasks() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  return tasks_;
}

std::shared_ptr<ProcessGroup> ThreadGroup::process_group() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  return process_group_;
}

std::shared_ptr<ThreadGroup> ThreadGroup::parent() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  return parent_ != nullptr ? parent_->shared_from_this() : nullptr;
}

std::shared_ptr<ControllingTerminal> ThreadGroup::terminal() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  return process_group_ != nullptr ? process_group_->session->terminal : nullptr;
}

uint64_t ThreadGroup::terminal_device() const {
  const std::shared_ptr<ControllingTerminal> found = terminal();
  return found != nullptr ? found->device() : 0;
}

int32_t ThreadGroup::terminal_foreground() const {
  const absl::ReaderMutexLock lock(&kernel_.pids().tree_mu());
  if (process_group_ == nullptr || process_group_->session->terminal == nullptr) return -1;
  const std::shared_ptr<ProcessGroup> foreground = process_group_->session->foreground.lock();
  return foreground != nullptr ? foreground->id : -1;
}

ResourceUsage ThreadGroup::Usage() const {
  ResourceUsage total;
  std::vector<TaskRef> live;
  {
    const absl::MutexLock lock(&signal_mu_);
    for (Task* task : signal_targets_) live.push_back(task->shared_from_this());
    // Inside signal_mu_, so that a task that leaves is counted once.
    const absl::MutexLock usage_lock(&usage_mu_);
    total = dead_usage_;
  }
  for (const TaskRef& task : live) total.Add(task->Usage());
  return total;
}

ResourceUsage ThreadGroup::ChildrenUsage() const {
  const absl::MutexLock lock(&usage_mu_);
  return children_usage_;
}

std::shared_ptr<ProcessTimers> ThreadGroup::timers() {
  const absl::MutexLock lock(&timers_mu_);
  if (timers_ == nullptr && !timers_gone_) {
    timer_host_ = std::make_unique<TimerHost>(*this);
    timers_ = std::make_shared<ProcessTimers>(kernel_.clock(), kernel_.timers(), *timer_host_);
  }
  return timers_;
}

std::shared_ptr<ProcessTimers> ThreadGroup::ExistingTimers() {
  const absl::MutexLock lock(&timers_mu_);
  return timers_;
}

void ThreadGroup::DropTimers() {
  std::shared_ptr<ProcessTimers> dropped;
  std::shared_ptr<Timer> dropped_limit;
  {
    const absl::MutexLock lock(&timers_mu_);
    timers_gone_ = true;
    dropped = std::move(timers_);
    dropped_limit = std::move(cpu_limit_timer_);
  }
  // Destroyed here, without a lock: it waits for a callback that may be running.
}

void ThreadGroup::WatchCpuLimit() {
  if (Limit(RLIMIT_CPU) == ~uint64_t{0}) return;
  {
    const absl::MutexLock lock(&timers_mu_);
    if (timers_gone_) return;
    if (cpu_limit_timer_ == nullptr)
      cpu_limit_timer_ = kernel_.timers().NewTimer([this] { CheckCpuLimit(); });
  }
  CheckCpuLimit();
}

// Looks again when the limit can be reached at the earliest: when all tasks run without a pause
// until then.
void ThreadGroup::CheckCpuLimit() {
  constexpr int64_t kNsPerSecond = 1'000'000'000;
  constexpr int64_t kCheckNsMin = 10'000'000;
  constexpr uint64_t kSecondsMax = uint64_t{1} << 32;
  const ResourceLimit limit = limits_.Get(RLIMIT_CPU);
  if (limit.soft > kSecondsMax) return;
  const ResourceUsage usage = Usage();
  const int64_t used_ns = usage.user_ns + usage.system_ns;
  int64_t next_ns = static_cast<int64_t>(limit.soft) * kNsPerSecond;
  if (limit.hard <= kSecondsMax && used_ns >= static_cast<int64_t>(limit.hard) * kNsPerSecond) {
    (void)SendSignal(SignalInfo::FromKernel(SIGKILL), true);  // Never refused.
    return;
  }
  if (used_ns >= next_ns) {
    (void)SendSignal(SignalInfo::FromKernel(SIGXCPU),
                     true);  // Never refused: not a real-time signal.
    // As Linux: the soft limit moves on.
    const uint64_t moved = static_cast<uint64_t>(used_ns / kNsPerSecond) + 1;
    limits_.Set(RLIMIT_CPU, {moved, limit.hard});
    next_ns = static_cast<int64_t>(moved) * kNsPerSecond;
  }
  const int64_t wait_ns = std::max((next_ns - used_ns) / std::max(live_tasks(), 1), kCheckNsMin);
  const absl::MutexLock lock(&timers_mu_);
  if (cpu_limit_timer_ != nullptr)
    cpu_limit_timer_->Arm(Deadline::At(kernel_.clock().MonotonicNs() + wait_ns));
}

void ResourceUsage::Add(const ResourceUsage& other) {
  user_ns += other.user_ns;
  system_ns += other.system_ns;
  resident_kib_max = std::max(resident_kib_max, other.resident_kib_max);
  minor_faults += other.minor_faults;
  major_faults += other.major_faults;
  voluntary_switches += other.voluntary_switches;
  involuntary_switches += other.involuntary_switches;
}

ResourceLimitValues DefaultResourceLimits(uint64_t tasks_max) {
  ResourceLimitValues values;
  values[RLIMIT_STACK] = {uint64_t{8} << 20, ~uint64_t{0}};
  values[RLIMIT_CORE] = {0, ~uint64_t{0}};
  values[RLIMIT_NPROC] = {tasks_max, tasks_max};
  values[RLIMIT_NOFILE] = {1024, 1048576};
  values[RLIMIT_MEMLOCK] = {uint64_t{8} << 20, uint64_t{8} << 20};
  values[RLIMIT_SIGPENDING] = {tasks_max, tasks_max};
  values[RLIMIT_MSGQUEUE] = {819200, 819200};
  values[RLIMIT_NICE] = {0, 0};
  values[RLIMIT_RTPRIO] = {0, 0};
  return values;
}

}  // namespace sentry
