#include "sentry/kernel/seccomp.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>

#include <algorithm>
#include <utility>

#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_delivery.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kCostPerProgram = 4;
constexpr uint32_t kErrnoMax = 4095;
constexpr int32_t kCodeSeccomp = 1;  // SYS_SECCOMP

int32_t ActionOf(uint32_t verdict) {
  return static_cast<int32_t>(verdict & SECCOMP_RET_ACTION_FULL);
}

SeccompWords WordsOf(uint64_t number, uint64_t instruction_pointer,
                     const uint64_t (&arguments)[6]) {
  SeccompWords words{};
  words[0] = static_cast<uint32_t>(number);
  words[1] = AUDIT_ARCH_X86_64;
  words[2] = static_cast<uint32_t>(instruction_pointer);
  words[3] = static_cast<uint32_t>(instruction_pointer >> 32);
  for (size_t i = 0; i < 6; ++i) {
    words[4 + 2 * i] = static_cast<uint32_t>(arguments[i]);
    words[5 + 2 * i] = static_cast<uint32_t>(arguments[i] >> 32);
  }
  return words;
}

bool StrictModeAllows(uint64_t number) {
  return number == SYS_read || number == SYS_write || number == SYS_exit ||
         number == SYS_rt_sigreturn;
}

}  // namespace

SeccompFilter::SeccompFilter(std::vector<BpfInstruction> program,
                             std::shared_ptr<const SeccompFilter> previous)
    : program_(std::move(program)), previous_(std::move(previous)) {
  chain_instructions_ = program_.size() + kCostPerProgram;
  if (previous_ != nullptr) {
    chain_instructions_ += previous_->chain_instructions_;
    depth_ += previous_->depth_;
  }
  for (uint32_t number = 0; number < kNumbersCached; ++number) {
    uint32_t verdict = 0;
    always_allowed_[number] = VerdictByNumber(program_, number, AUDIT_ARCH_X86_64, &verdict) &&
                              verdict == SECCOMP_RET_ALLOW &&
                              (previous_ == nullptr || previous_->always_allowed_[number]);
  }
}

// A chain is long enough for a recursion of destructors to overrun a task's stack.
SeccompFilter::~SeccompFilter() {
  std::shared_ptr<const SeccompFilter> rest = std::move(previous_);
  while (rest != nullptr && rest.use_count() == 1) {
    // The last owner: nobody else can see the member that is moved out of.
    std::shared_ptr<const SeccompFilter> next =
        std::move(const_cast<SeccompFilter&>(*rest).previous_);
    rest = std::move(next);
  }
}

Result<std::shared_ptr<const SeccompFilter>> SeccompFilter::Make(
    std::vector<BpfInstruction> program, std::shared_ptr<const SeccompFilter> previous) {
  TRY(CheckSeccompProgram(program));
  std::shared_ptr<const SeccompFilter> filter(
      new SeccompFilter(std::move(program), std::move(previous)));
  if (filter->chain_instructions_ > kChainInstructionsMax) return Errno(ENOMEM);
  return filter;
}

uint32_t SeccompFilter::Verdict(const SeccompWords& data) const {
  uint32_t verdict = SECCOMP_RET_ALLOW;
  for (const SeccompFilter* filter = this; filter != nullptr; filter = filter->previous_.get()) {
    const uint32_t next = RunSeccompProgram(filter->program_, data);
    if (ActionOf(next) < ActionOf(verdict)) verdict = next;
  }
  return verdict;
}

bool SeccompFilter::StandsOn(const SeccompFilter* other) const {
  if (other == nullptr) return true;
  for (const SeccompFilter* filter = this; filter != nullptr; filter = filter->previous_.get()) {
    if (filter == other) return true;
  }
  return false;
}

std::optional<int64_t> Seccomp::Check(Task& task, uint64_t number, const uint64_t (&arguments)[6]) {
  SeccompState& state = task.seccomp_;
  const int mode = state.mode.load(std::memory_order_acquire);
  if (state.no_new_privileges.exchange(false, std::memory_order_acq_rel)) {
    auto changed = std::make_shared<Credentials>(task.own_credentials());
    changed->no_new_privileges = true;
    task.set_credentials(std::move(changed));
  }
  if (mode == SECCOMP_MODE_STRICT) {
    if (StrictModeAllows(number)) return std::nullopt;
    task.RequestExit(SIGKILL);
    return -int64_t{ENOSYS};
  }
  const SeccompFilter& filter = *state.current.load(std::memory_order_acquire);
  if (filter.AlwaysAllows(number)) return std::nullopt;
  const uint32_t verdict = filter.Verdict(WordsOf(number, task.registers().rip, arguments));
  const uint32_t data = verdict & SECCOMP_RET_DATA;
  switch (verdict & SECCOMP_RET_ACTION_FULL) {
    case SECCOMP_RET_ALLOW:
      return std::nullopt;
    case SECCOMP_RET_LOG:
      LOG_DEBUG("task %d: seccomp filter: call %llu is made", task.tid(),
                static_cast<unsigned long long>(number));
      return std::nullopt;
    case SECCOMP_RET_ERRNO:
      return -int64_t{std::min(data, kErrnoMax)};
    case SECCOMP_RET_TRAP: {
      SignalInfo info;
      info.signal = SIGSYS;
      info.code = kCodeSeccomp;
      info.error = static_cast<int32_t>(data);
      info.call_address = task.registers().rip;
      info.syscall = static_cast<int32_t>(number);
      info.architecture = AUDIT_ARCH_X86_64;
      task.ForceSignal(info);
      return static_cast<int64_t>(number);  // The handler finds the number where the call had it.
    }
    case SECCOMP_RET_TRACE:       // Nobody traces.
    case SECCOMP_RET_USER_NOTIF:  // Nobody listens.
      return -int64_t{ENOSYS};
    case SECCOMP_RET_KILL_THREAD:
      if (task.group().live_tasks() > 1) {
        task.RequestExit(SIGSYS);
        return -int64_t{ENOSYS};
      }
      [[fallthrough]];
    default:  // SECCOMP_RET_KILL_PROCESS, and whatever is no action.
      task.group().StartExit(SignalDelivery::FatalStatus(task, SIGSYS));
      return -int64_t{ENOSYS};
  }
}

Result<void> Seccomp::EnterStrictMode(Task& task) {
  if (task.seccomp_.mode.load(std::memory_order_relaxed) == SECCOMP_MODE_FILTER)
    return Errno(EINVAL);
  task.seccomp_.mode.store(SECCOMP_MODE_STRICT, std::memory_order_release);
  task.PublishIdentity();
  return {};
}

Result<int32_t> Seccomp::AddFilter(Task& task, std::vector<BpfInstruction> program,
                                   bool all_threads) {
  if (task.seccomp_.mode.load(std::memory_order_relaxed) == SECCOMP_MODE_STRICT)
    return Errno(EINVAL);
  PidNamespace& pids = task.kernel().pids();
  std::shared_ptr<const SeccompFilter> previous;
  {
    const absl::ReaderMutexLock lock(&pids.tree_mu());
    previous = task.seccomp_.owner;
  }
  std::shared_ptr<const SeccompFilter> filter =
      TRY(SeccompFilter::Make(std::move(program), previous));

  const absl::MutexLock lock(&pids.tree_mu());
  // A sibling's filter for all threads may have come in between.
  if (task.seccomp_.owner != previous) return base::kRestartNoIntr;
  const auto give = [&filter](Task& to) {
    to.seccomp_.owner = filter;
    to.seccomp_.current.store(filter.get(), std::memory_order_release);
    to.seccomp_.mode.store(SECCOMP_MODE_FILTER, std::memory_order_release);
    to.PublishIdentity();
  };
  if (all_threads) {
    for (const TaskRef& thread : task.group().tasks_) {
      if (thread.get() == &task || thread->HasExited()) continue;
      const SeccompState& theirs = thread->seccomp_;
      if (theirs.mode.load(std::memory_order_acquire) == SECCOMP_MODE_STRICT ||
          !filter->StandsOn(theirs.owner.get())) {
        return thread->tid();
      }
    }
    const bool no_new_privileges = task.own_credentials().no_new_privileges;
    for (const TaskRef& thread : task.group().tasks_) {
      if (thread.get() == &task || thread->HasExited()) continue;
      if (no_new_privileges) thread->seccomp_.no_new_privileges.store(true);
      give(*thread);
    }
  }
  give(task);
  return 0;
}

void Seccomp::InheritLocked(const Task& parent, Task& child) {
  child.seccomp_.owner = parent.seccomp_.owner;
  child.seccomp_.current.store(child.seccomp_.owner.get(), std::memory_order_relaxed);
  child.seccomp_.no_new_privileges.store(parent.seccomp_.no_new_privileges.load());
  child.seccomp_.mode.store(parent.seccomp_.mode.load(std::memory_order_acquire),
                            std::memory_order_release);
}

int Seccomp::Mode(const Task& task) { return task.seccomp_.mode.load(std::memory_order_acquire); }

int Seccomp::Depth(const Task& task) {
  const absl::ReaderMutexLock lock(&task.kernel().pids().tree_mu());
  return task.seccomp_.owner != nullptr ? task.seccomp_.owner->depth() : 0;
}

}  // namespace sentry
