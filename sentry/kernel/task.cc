#include "sentry/kernel/task.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <utility>

#include "sentry/ipc/semaphores.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/signal/signal_delivery.h"

namespace sentry {
namespace {

constexpr size_t kNameBytesMaxOfTask = 15;
constexpr int64_t kNsPerSecond = 1'000'000'000;

}  // namespace

// The CPU clock of another thread (clock_getcpuclockid(3)).
int64_t Task::HostThreadCpuNs(int32_t host_tid) {
  const clockid_t clock = static_cast<clockid_t>((~static_cast<uint32_t>(host_tid) << 3) | 6u);
  timespec now{};
  if (clock_gettime(clock, &now) != 0) return 0;
  return now.tv_sec * kNsPerSecond + now.tv_nsec;
}

void VforkCompletion::Complete() {
  done.store(true, std::memory_order_release);
  if (const TaskRef waiter = parent.lock()) waiter->Wake();
}

Task::Task(Kernel& kernel, TaskInit init)
    : kernel_(kernel),
      group_(std::move(init.group)),
      tid_(init.tid),
      start_ns_(kernel.clock().MonotonicNs()),
      memory_(std::move(init.memory)),
      memory_sharers_(std::move(init.memory_sharers)),
      fds_(std::move(init.fds)),
      fds_sharers_(std::move(init.fds_sharers)),
      fs_(std::move(init.fs)),
      credentials_(std::move(init.credentials)),
      namespaces_(std::move(init.namespaces)),
      name_(std::move(init.name)),
      scheduling_(std::move(init.scheduling)),
      registers_(init.registers),
      alternate_stack_(init.alternate_stack),
      signal_mask_(init.signal_mask & ~kUnblockable),
      context_(std::move(init.context)) {}

Task::~Task() = default;

std::shared_ptr<MemoryManager> Task::memory_ref() const {
  const absl::MutexLock lock(&resource_mu_);
  return memory_;
}

std::shared_ptr<FdTable> Task::fds_ref() const {
  const absl::MutexLock lock(&resource_mu_);
  return fds_;
}

std::shared_ptr<FsContext> Task::fs_ref() const {
  const absl::MutexLock lock(&resource_mu_);
  return fs_;
}

CredentialsRef Task::credentials() const {
  const absl::MutexLock lock(&resource_mu_);
  return credentials_;
}

NamespacesRef Task::namespaces() const {
  const absl::MutexLock lock(&resource_mu_);
  return namespaces_;
}

void Task::set_namespaces(NamespacesRef namespaces) {
  const absl::MutexLock lock(&resource_mu_);
  namespaces_.swap(namespaces);  // The old ones are released after the lock.
}

void Task::ReplaceCredentials(CredentialsRef credentials) {
  std::shared_ptr<UserAccount> account;
  if (credentials->uid != credentials_->uid) account = kernel_.UserAccountOf(credentials->uid);
  const absl::MutexLock lock(&resource_mu_);
  if (account != nullptr && account_ != nullptr) {
    account_->tasks.fetch_sub(1, std::memory_order_relaxed);
    account->tasks.fetch_add(1, std::memory_order_relaxed);
    account_ = std::move(account);
  }
  credentials_.swap(credentials);
}

void Task::set_credentials(CredentialsRef credentials) {
  ReplaceCredentials(std::move(credentials));
  PublishIdentity();
}

void Task::PublishIdentity() {
  if (kernel_.options().strace) return;  // Every call is to be seen.
  const absl::MutexLock lock(&context_mu_);
  if (context_ == nullptr) return;
  // A filter decides about every call.
  if (seccomp_.mode.load(std::memory_order_acquire) != 0) return context_->SetIdentity(nullptr);
  // Under the lock, so that of two changes the later one's is published last.
  const CredentialsRef credentials = this->credentials();
  const UserNamespaceRef& users = credentials->user_namespace;
  const PidViewRef& view = group_->pid_view();
  const platform::Identity identity{.pid = SeenBy(view, group_->id()),
                                    .tid = SeenBy(view, tid()),
                                    .parent = SeenBy(view, group_->parent_id()),
                                    .process_group = SeenBy(view, group_->process_group_id()),
                                    .uid = UidSeenFrom(users, credentials->uid),
                                    .effective_uid = UidSeenFrom(users, credentials->euid),
                                    .gid = GidSeenFrom(users, credentials->gid),
                                    .effective_gid = GidSeenFrom(users, credentials->egid)};
  context_->SetIdentity(&identity);
}

void Task::UnshareFds() {
  if (fds_sharers_->load(std::memory_order_acquire) == 1) return;
  std::shared_ptr<FdTable> copy = fds_->Copy();
  std::shared_ptr<FdTable> old;
  {
    const absl::MutexLock lock(&resource_mu_);
    old = std::exchange(fds_, std::move(copy));
  }
  // The others may have left meanwhile.
  if (fds_sharers_->fetch_sub(1, std::memory_order_acq_rel) == 1) old->CloseAll(*this);
  fds_sharers_ = NewSharerCount();
}

const std::shared_ptr<SemUndoList>& Task::sem_undo() {
  if (sem_undo_ == nullptr) sem_undo_ = std::make_shared<SemUndoList>();
  return sem_undo_;
}

void Task::DropSemUndo() {
  const std::shared_ptr<SemUndoList> list = std::move(sem_undo_);
  sem_undo_ = nullptr;
  if (list != nullptr && list->RemoveSharer()) list->Apply(group_->id());
}

void Task::UnshareFs() { ReplaceFs(fs_->Copy()); }

void Task::ReplaceFs(std::shared_ptr<FsContext> fs) {
  const absl::MutexLock lock(&resource_mu_);
  fs_.swap(fs);
}

void Task::ReplaceMemory(std::shared_ptr<MemoryManager> memory) {
  std::shared_ptr<MemoryManager> old;
  {
    const absl::MutexLock lock(&resource_mu_);
    old = std::exchange(memory_, std::move(memory));
  }
  if (memory_sharers_->fetch_sub(1, std::memory_order_acq_rel) == 1 && old != nullptr)
    old->ReleaseAll();
  memory_sharers_ = NewSharerCount();
}

void Task::DropContext() {
  std::unique_ptr<platform::Context> dropped;
  const absl::MutexLock lock(&context_mu_);
  if (context_ == nullptr) return;
  guest_ns_.store(static_cast<int64_t>(context_->GuestNs()), std::memory_order_relaxed);
  dropped = std::move(context_);
}

base::Result<int32_t> Task::InstallFile(FileRef file, bool close_on_exec) {
  return fds().Install(std::move(file), close_on_exec, fd_limit());
}

// --- Sleeping. One word holds everything that ends a sleep, so that nothing can come between
// looking and sleeping.

void Task::SleepOnWakeState(uint32_t expected, int64_t timeout_ns) {
  timespec timeout{};
  if (timeout_ns >= 0) {
    timeout.tv_sec = timeout_ns / kNsPerSecond;
    timeout.tv_nsec = timeout_ns % kNsPerSecond;
  }
  sleeps_.fetch_add(1, std::memory_order_relaxed);
  if (context_ != nullptr) context_->Blocks();
  syscall(SYS_futex, reinterpret_cast<uint32_t*>(&wake_state_), FUTEX_WAIT_PRIVATE, expected,
          timeout_ns >= 0 ? &timeout : nullptr, nullptr, 0);
  if (context_ != nullptr) context_->Unblocks();
}

void Task::SetWakeBits(uint32_t bits) {
  const uint32_t old = wake_state_.fetch_or(bits, std::memory_order_seq_cst);
  if ((old & kAsleep) != 0) {
    {
      const absl::MutexLock lock(&context_mu_);
      if (context_ != nullptr) context_->Waking();
    }
    syscall(SYS_futex, reinterpret_cast<uint32_t*>(&wake_state_), FUTEX_WAKE_PRIVATE, INT_MAX,
            nullptr, nullptr, 0);
  }
  if ((bits & (kInterrupt | kKilled)) != 0 && InGuest()) {
    const absl::MutexLock lock(&context_mu_);
    if (context_ != nullptr) context_->Interrupt();
  }
}

void Task::Wake() { SetWakeBits(kWoken); }
void Task::Interrupt() { SetWakeBits(kInterrupt); }
void Task::ClearWake() { wake_state_.fetch_and(~kWoken, std::memory_order_acq_rel); }

base::Result<void> Task::Block(Deadline deadline) {
  while (true) {
    const uint32_t state = wake_state_.load(std::memory_order_acquire);
    if ((state & kWoken) != 0) {
      wake_state_.fetch_and(~kWoken, std::memory_order_acq_rel);
      return {};
    }
    if ((state & (kInterrupt | kKilled)) != 0) return base::kRestartSys;
    int64_t timeout_ns = -1;
    if (!deadline.IsNever()) {
      timeout_ns = deadline.monotonic_ns - kernel_.clock().MonotonicNs();
      if (timeout_ns <= 0) return base::Errno(ETIMEDOUT);
    }
    const uint32_t asleep = wake_state_.fetch_or(kAsleep, std::memory_order_acq_rel) | kAsleep;
    if ((asleep & (kWoken | kInterrupt | kKilled)) == 0) SleepOnWakeState(asleep, timeout_ns);
    wake_state_.fetch_and(~kAsleep, std::memory_order_acq_rel);
  }
}

base::Result<void> Task::BlockKillable() {
  base::Result<void> result;
  wait_letter_.store('D', std::memory_order_relaxed);
  while (true) {
    const uint32_t asleep = wake_state_.fetch_or(kAsleep, std::memory_order_acq_rel) | kAsleep;
    if ((asleep & kWoken) != 0) {
      wake_state_.fetch_and(~kWoken, std::memory_order_acq_rel);
      break;
    }
    if ((asleep & kKilled) != 0) {
      result = base::kRestartNoIntr;
      break;
    }
    SleepOnWakeState(asleep, -1);
  }
  wake_state_.fetch_and(~kAsleep, std::memory_order_acq_rel);
  wait_letter_.store('S', std::memory_order_relaxed);
  return result;
}

void Task::WaitForVfork() {
  while (!waiting_for_vfork_->done.load(std::memory_order_acquire)) {
    if (!BlockKillable().ok()) break;
  }
  waiting_for_vfork_.reset();
}

// --- Names and accounting.

std::string Task::name() const {
  const absl::MutexLock lock(&resource_mu_);
  return name_;
}

void Task::set_name(std::string name) {
  if (name.size() > kNameBytesMaxOfTask) name.resize(kNameBytesMaxOfTask);
  const absl::MutexLock lock(&resource_mu_);
  name_.swap(name);
}

SchedulingAttributes Task::scheduling() const {
  const absl::MutexLock lock(&resource_mu_);
  return scheduling_;
}

void Task::set_scheduling(SchedulingAttributes attributes) {
  const absl::MutexLock lock(&resource_mu_);
  std::swap(scheduling_, attributes);
}

char Task::StateLetter() const {
  if (HasExited()) return 'Z';
  if (stopped_.load(std::memory_order_relaxed)) return 'T';
  const bool asleep = (wake_state_.load(std::memory_order_relaxed) & kAsleep) != 0;
  return asleep ? wait_letter_.load(std::memory_order_relaxed) : 'R';
}

// User time is the time spent in Switch, which is guest code and what the host took from it; system
// time is the CPU time of the task's host thread. The platform's own share (hand-over, spinning)
// counts as system time.
ResourceUsage Task::Usage() const {
  ResourceUsage usage;
  {
    const absl::MutexLock lock(&context_mu_);
    usage.user_ns = context_ != nullptr ? static_cast<int64_t>(context_->GuestNs())
                                        : guest_ns_.load(std::memory_order_relaxed);
  }
  usage.minor_faults = faults_.load(std::memory_order_relaxed);
  usage.voluntary_switches = sleeps_.load(std::memory_order_relaxed);
  const absl::MutexLock lock(&resource_mu_);
  usage.system_ns = SystemNsLocked();
  if (memory_ != nullptr) usage.resident_kib_max = memory_->Usage().resident_bytes_max / 1024;
  return usage;
}

int64_t Task::SystemNsLocked() const {
  if (system_ns_at_exit_ >= 0) return system_ns_at_exit_;
  return host_tid_ != 0 ? HostThreadCpuNs(host_tid_) - host_cpu_ns_at_start_ : 0;
}

void Task::RequestExit(int32_t status) {
  exit_requested_ = true;
  exit_status_ = status;
}

}  // namespace sentry
