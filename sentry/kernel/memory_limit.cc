#include "sentry/kernel/memory_limit.h"

#include <malloc.h>
#include <signal.h>

#include <algorithm>
#include <vector>

#include "platform/base/log.h"
#include "platform/memory/pool_watch.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/memory_manager.h"

namespace sentry {
namespace {

// Two CPUs fill about 4 GB/s by populating; leave as much again.
constexpr uint64_t kFillBytesPerNs = 8;
constexpr int64_t kWaitNsMin = 2'000'000;
constexpr int64_t kWaitNsMax = 1'000'000'000;
// A victim that is dead gives its pages back when its stub process has gone.
constexpr int64_t kAfterDeathNs = 50'000'000;
constexpr int64_t kVictimNsMax = 2'000'000'000;
constexpr int32_t kNever = -1000;  // OOM_SCORE_ADJ_MIN

// Where files stop growing, and where there are no more tasks: a guest whose files are full must be
// able to remove them.
uint64_t FilesMax(uint64_t limit) { return limit / 16 * 15; }
uint64_t TasksMax(uint64_t limit) { return limit / 64 * 63; }
uint64_t WatchFrom(uint64_t limit) { return limit / 2; }

uint64_t HeapBytes() {
  const struct mallinfo2 info = mallinfo2();
  return info.arena + info.hblkhd;
}

}  // namespace

uint64_t CommitBytes(const Kernel& kernel) {
  const uint64_t bytes = kernel.options().memory_bytes;
  return bytes != 0 ? bytes : ~uint64_t{0};
}

uint64_t TasksWithin(uint64_t limit_bytes, uint64_t wanted) {
  if (limit_bytes == 0) return wanted;
  constexpr uint64_t kTasksMin = 64;
  // Somebody may want fewer than the least (--pids-limit).
  const uint64_t fitting = limit_bytes / 4 / (kProcessCostBytes + kThreadCostBytes);
  return std::min(wanted, std::max(fitting, kTasksMin));
}

int64_t OomPoints(ThreadGroup& group, uint64_t total_bytes) {
  const TaskRef task = group.AnyLiveTask();
  const int32_t adjust = group.oom_score_adjust().load(std::memory_order_relaxed);
  if (task == nullptr || adjust == kNever || total_bytes == 0) return -1;
  const std::shared_ptr<MemoryManager> memory = task->memory_ref();
  if (memory == nullptr) return -1;
  const MemoryUsage usage = memory->Usage();
  const uint64_t bytes =
      usage.resident_bytes - std::min(usage.shared_bytes, usage.resident_bytes) + kProcessCostBytes;
  const auto points = static_cast<int64_t>(bytes / std::max<uint64_t>(total_bytes / 1000, 1));
  return std::max<int64_t>(points + adjust, 0);
}

MemoryLimit::MemoryLimit(Kernel& kernel, uint64_t limit_bytes)
    : kernel_(kernel), watch_(platform::WatchOf(kernel.pool())), limit_bytes_(limit_bytes) {
  if (limit_bytes_ == 0) return;
  timer_ = kernel_.timers().NewTimer([this] { Look(); });
  watch_.SetWatcher([this] { Await(0); });
  watch_.Watch(WatchFrom(limit_bytes_));
}

MemoryLimit::~MemoryLimit() {
  if (limit_bytes_ != 0) watch_.SetWatcher(nullptr);
}

uint64_t MemoryLimit::charged_bytes() const {
  const uint64_t groups = kernel_.pids().Groups().size();
  return kernel_.pool().resident_bytes() + groups * kProcessCostBytes +
         kernel_.pids().task_count() * kThreadCostBytes + HeapBytes();
}

void MemoryLimit::Await(int64_t wait_ns) {
  timer_->Arm(Deadline::At(kernel_.clock().MonotonicNs() + wait_ns));
}

void MemoryLimit::Look() {
  const uint64_t charged = charged_bytes();
  watch_.Refuse(charged > FilesMax(limit_bytes_), charged > TasksMax(limit_bytes_));
  if (charged > limit_bytes_) {
    Kill(charged);
    return Await(kWaitNsMin);
  }
  // If the guest has given back so much, the next one to go beyond tells.
  if (watch_.Watch(WatchFrom(limit_bytes_))) return;
  const auto wait_ns = static_cast<int64_t>((limit_bytes_ - charged) / kFillBytesPerNs);
  Await(std::clamp(wait_ns, kWaitNsMin, kWaitNsMax));
}

void MemoryLimit::Kill(uint64_t charged) {
  const int64_t now = kernel_.clock().MonotonicNs();
  const int64_t since = now - victim_since_ns_;
  for (const std::weak_ptr<ThreadGroup>& victim : victims_) {
    const std::shared_ptr<ThreadGroup> group = victim.lock();
    if (group != nullptr && !group->IsZombie() && since < kVictimNsMax) return;
  }
  // The last has died: its pages are on their way.
  if (!victims_.empty()) {
    victims_.clear();
    victim_since_ns_ = now;
    return;
  }
  if (since < kAfterDeathNs) return;
  struct Candidate {
    int64_t points;
    std::shared_ptr<ThreadGroup> group;
  };
  std::vector<Candidate> candidates;
  for (const std::shared_ptr<ThreadGroup>& group : kernel_.pids().Groups()) {
    if (group->IsZombie() || group->IsExiting()) continue;
    const int64_t points = OomPoints(*group, limit_bytes_);
    if (points >= 0) candidates.push_back({points, group});
  }
  // Of equals the youngest, which has done least.
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return a.points != b.points ? a.points > b.points : a.group->id() > b.group->id();
  });
  auto excess = static_cast<int64_t>((charged - limit_bytes_) / (limit_bytes_ / 1000 + 1)) + 1;
  victim_since_ns_ = now;
  for (const Candidate& candidate : candidates) {
    if (excess <= 0) break;
    KillOne(candidate.group, charged);
    victims_.push_back(candidate.group);
    excess -= std::max<int64_t>(candidate.points, 1);
  }
}

void MemoryLimit::KillOne(const std::shared_ptr<ThreadGroup>& group, uint64_t charged) {
  const TaskRef task = group->AnyLiveTask();
  if (task == nullptr) return;
  LOG_WARNING("out of memory: %llu of %llu KiB in use; process %d (%s) is killed",
              static_cast<unsigned long long>(charged / 1024),
              static_cast<unsigned long long>(limit_bytes_ / 1024), group->id(),
              task->name().c_str());
  kills_.fetch_add(1, std::memory_order_relaxed);
  const std::shared_ptr<MemoryManager> memory = task->memory_ref();
  for (const std::shared_ptr<ThreadGroup>& other : kernel_.pids().Groups()) {
    const TaskRef member = other->AnyLiveTask();
    if (other != group &&
        (member == nullptr || memory == nullptr || member->memory_ref() != memory))
      continue;
    (void)other->SendSignal(SignalInfo::FromKernel(SIGKILL), true);  // SIGKILL is never refused.
  }
}

}  // namespace sentry
