#include "sentry/kernel/kernel.h"

#include <linux/capability.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/time/time.h"
#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/kernel/child_wait.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/host_poller.h"
#include "sentry/kernel/job_control.h"
#include "sentry/kernel/namespace_counts.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/task_exec.h"
#include "sentry/keys/keys.h"
#include "sentry/mm/rewrite_stats.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/vfs/lease.h"
#include "sentry/vfs/mounts.h"

namespace sentry {
namespace {

using base::Errno;

constexpr std::string_view kDefaultPath =
    "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

std::string_view SearchPath(const std::vector<std::string>& environment) {
  for (const std::string& variable : environment) {
    if (variable.starts_with("PATH=")) return std::string_view(variable).substr(5);
  }
  return kDefaultPath;
}

NamespacesRef FirstNamespaces(const KernelOptions& options) {
  auto set = std::make_shared<NamespaceSet>();
  set->uts = std::make_shared<UtsNamespace>(nullptr, options.host_name, options.domain_name,
                                            kInitialUtsNumber);
  set->ipc = std::make_shared<IpcNamespace>(nullptr, kInitialIpcNumber);
  set->cgroup = std::make_shared<CgroupNamespace>(nullptr, kInitialCgroupNumber);
  set->time = std::make_shared<TimeNamespace>(nullptr, kInitialTimeNumber);
  set->time->frozen().store(true);
  set->time_for_children = set->time;
  return set;
}

}  // namespace

Kernel::Kernel(platform::Platform& platform, platform::MemoryPool& pool, Dispatcher& dispatcher,
               const Clock& clock, Random& random, const KernelOptions& options)
    : platform_(platform),
      pool_(pool),
      dispatcher_(dispatcher),
      clock_(clock),
      random_(random),
      options_(options),
      boot_monotonic_ns_(clock.MonotonicNs()),
      boot_realtime_ns_(clock.RealtimeNs()),
      rewrite_stats_(std::make_unique<RewriteStats>()),
      vfs_(std::make_shared<Vfs>()),
      timers_(NewTimerService(clock)),
      futexes_(std::make_shared<FutexTable>()),
      pids_(std::make_shared<PidNamespace>(options.tasks_max)),
      anonymous_files_(std::make_shared<AnonymousFiles>(*vfs_, clock)),
      keys_(std::make_shared<KeyRegistry>(clock, random)),
      leases_(std::make_shared<LeaseSettings>()),
      network_(std::make_shared<NetworkNamespace>()),
      namespace_counts_(std::make_unique<NamespaceCounts>()),
      nsfs_device_(AllocateDevice()),
      first_namespaces_(FirstNamespaces(options)) {
  // Without epoll on the host there are no files that need it: users of host_poller() check their
  // own set-up.
  base::Result<std::unique_ptr<HostPoller>> poller = NewHostPoller();
  if (poller.ok()) host_poller_ = std::move(poller).value();
}

Kernel::~Kernel() {
  KillAll();
  WaitUntilEmpty();
  platform_.AwaitRetired();
}

// --- Lives of host threads.

void Kernel::TaskStarted() {
  const absl::MutexLock lock(&life_mu_);
  ++running_tasks_;
}

void Kernel::TaskLeft() {
  const absl::MutexLock lock(&life_mu_);
  --running_tasks_;
}

void Kernel::WaitUntilEmpty() {
  const absl::MutexLock lock(&life_mu_);
  const auto empty = [this]()
                         ABSL_EXCLUSIVE_LOCKS_REQUIRED(life_mu_) { return running_tasks_ == 0; };
  life_mu_.Await(absl::Condition(&empty));
}

void Kernel::Pause() {
  {
    const absl::MutexLock lock(&life_mu_);
    paused_.store(true, std::memory_order_release);
  }
  for (const TaskRef& task : pids_->Tasks()) {
    task->Interrupt();
    while (task->InGuest()) usleep(100);
  }
}

void Kernel::Resume() {
  const absl::MutexLock lock(&life_mu_);
  paused_.store(false, std::memory_order_release);
}

void Kernel::WaitWhilePaused(Task& task) {
  const absl::MutexLock lock(&life_mu_);
  const auto may_go_on = [&]() { return !IsPaused() || task.IsKilled(); };
  while (!life_mu_.AwaitWithTimeout(absl::Condition(&may_go_on), absl::Milliseconds(100))) {
  }
}

// --- Names and users.

std::shared_ptr<UserAccount> Kernel::UserAccountOf(uint32_t uid) {
  const absl::MutexLock lock(&user_mu_);
  std::shared_ptr<UserAccount>& account = users_[uid];
  if (account == nullptr) account = std::make_shared<UserAccount>();
  return account;
}

// --- Processes from outside.

NamespacesRef Kernel::initial_namespaces() const {
  auto set = std::make_shared<NamespaceSet>(*first_namespaces_);
  set->mount = vfs_->mounts().initial();
  set->network = network_;
  return set;
}

base::Result<TaskRef> Kernel::MakeProcess(const ProcessArguments& arguments, bool with_memory) {
  ResourceLimitValues limits = DefaultResourceLimits(options_.tasks_max);
  for (const auto& [resource, limit] : arguments.limits)
    limits[static_cast<size_t>(resource)] = limit;
  TaskInit init;
  init.context = TRY(platform_.NewContext());
  if (with_memory) init.memory = TRY(MemoryManager::Create(platform_, pool_, 0));
  init.memory_sharers = NewSharerCount();
  init.fds = arguments.fds != nullptr ? arguments.fds : std::make_shared<FdTable>();
  init.fds_sharers = NewSharerCount();
  const Path root = arguments.root ? arguments.root : vfs_->root();
  init.fs = std::make_shared<FsContext>(root, root, arguments.umask);
  init.credentials = arguments.credentials != nullptr ? arguments.credentials : RootCredentials();
  init.namespaces = initial_namespaces();
  init.name = "init";

  const absl::MutexLock lock(&pids_->tree_mu());
  init.tid = TRY(pids_->ReserveIdLocked(0));
  init.group =
      std::make_shared<ThreadGroup>(*this, init.tid, std::make_shared<SignalHandlers>(), limits, 0);
  init.group->external_ = true;
  init.group->oom_score_adjust_.store(arguments.oom_score_adjust);
  const auto task = std::make_shared<Task>(*this, std::move(init));
  pids_->InsertLocked(task, nullptr, 0);
  if (arguments.terminal != nullptr) {
    Session& session = *task->group().process_group_->session;
    session.terminal = arguments.terminal;
    session.foreground = task->group().process_group_;
  }
  task->account_ = UserAccountOf(task->own_credentials().uid);
  task->account_->tasks.fetch_add(1, std::memory_order_relaxed);
  SignalDelivery::AddTarget(*task);
  forks_.fetch_add(1, std::memory_order_relaxed);
  return task;
}

base::Result<void> Kernel::LoadFirstProgram(Task& task, const ProcessArguments& arguments) {
  const Path directory =
      TRY(vfs_->Walk(task, Path{}, arguments.working_directory, {.directory_only = true}));
  task.fs().set_working_directory(directory);
  ExecRequest request;
  request.arguments = {arguments.argv, arguments.environment};
  std::string name = arguments.executable;
  if (name.empty() && !arguments.argv.empty()) name = arguments.argv.front();
  if (name.empty()) return Errno(ENOENT);
  if (name.find('/') != std::string::npos) {
    request.executable = TRY(vfs_->Walk(task, Path{}, name, {}));
    request.name = name;
    return TaskExec::Exec(task, std::move(request));
  }
  // As execvp(3) looks for it: the first that is there and may be executed; else what was wrong
  // with the last that was there.
  Errno error(ENOENT);
  std::string_view rest = SearchPath(arguments.environment);
  while (!rest.empty()) {
    const size_t end = std::min(rest.find(':'), rest.size());
    const std::string candidate = (end == 0 ? "." : std::string(rest.substr(0, end))) + "/" + name;
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const base::Result<Path> found = vfs_->Walk(task, Path{}, candidate, {});
    if (!found.ok()) {
      if (!(found.error() == ENOENT) && !(found.error() == ENOTDIR)) error = found.error();
      continue;
    }
    ExecRequest attempt = request;
    attempt.executable = found.value();
    attempt.name = candidate;
    const base::Result<void> result = TaskExec::Exec(task, std::move(attempt));
    if (result.ok() || !(result.error() == EACCES)) return result;
    error = result.error();
  }
  return error;
}

base::Result<int32_t> Kernel::CreateProcess(const ProcessArguments& arguments) {
  const TaskRef task = TRY(MakeProcess(arguments, false));
  ThreadGroup& group = task->group();
  base::Result<void> result = LoadFirstProgram(*task, arguments);
  if (result.ok() && !group.IsExiting()) result = task->Start();
  if (result.ok()) group.WatchCpuLimit();
  if (!result.ok()) {
    const int32_t id = group.id();
    task->Exit();
    const absl::MutexLock lock(&pids_->tree_mu());
    ChildWait::ReapLocked(group);
    pids_->ForgetLastIdLocked(id);
    return result.error();
  }
  return group.id();
}

base::Result<int32_t> Kernel::WaitForExit(int32_t pid) {
  const absl::MutexLock lock(&pids_->tree_mu());
  const std::shared_ptr<ThreadGroup> group = pids_->FindGroupLocked(pid);
  if (group == nullptr || !group->external_) return Errno(ECHILD);
  const auto ended = [&]() { return group->zombie_ || group->reaped_; };
  pids_->tree_mu().Await(absl::Condition(&ended));
  if (group->reaped_) return Errno(ECHILD);
  const int32_t status = group->exit_status_;
  ChildWait::ReapLocked(*group);
  return status;
}

base::Result<void> Kernel::SignalProcess(int32_t pid, int32_t signal) {
  if (!IsValidSignal(signal)) return Errno(EINVAL);
  const std::shared_ptr<ThreadGroup> group = pids_->FindGroup(pid);
  if (group == nullptr || group->IsZombie()) return Errno(ESRCH);
  return group->SendSignal(SignalInfo::FromUser(signal, 0, 0), true);
}

base::Result<void> Kernel::SignalAll(int32_t signal) {
  if (!IsValidSignal(signal)) return Errno(EINVAL);
  for (const std::shared_ptr<ThreadGroup>& group : pids_->Groups()) {
    if (!group->IsZombie()) TRY(group->SendSignal(SignalInfo::FromUser(signal, 0, 0), true));
  }
  return {};
}

base::Result<void> Kernel::SignalForeground(int32_t pid, int32_t signal) {
  if (!IsValidSignal(signal)) return Errno(EINVAL);
  const std::shared_ptr<ThreadGroup> group = pids_->FindGroup(pid);
  if (group == nullptr) return Errno(ESRCH);
  const int32_t foreground = group->terminal_foreground();
  if (foreground <= 0) return SignalProcess(pid, signal);
  for (const std::shared_ptr<ThreadGroup>& member : pids_->Members(foreground)) {
    TRY(member->SendSignal(SignalInfo::FromUser(signal, 0, 0), true));
  }
  return {};
}

void Kernel::KillAll() {
  for (const std::shared_ptr<ThreadGroup>& group : pids_->Groups()) {
    (void)group->SendSignal(SignalInfo::FromKernel(SIGKILL), true);  // SIGKILL is never refused.
  }
}

}  // namespace sentry
