// The order is Linux's (fs/exec.c, begin_new_exec, 6.12): whatever can be refused is refused while
// the old program is whole; then the other threads go, then memory, files, signals and credentials
// change.

#include "sentry/kernel/task_exec.h"

#include <utility>

#include "sentry/kernel/exec_credentials.h"
#include "sentry/kernel/futex.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/memory_limit.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/time/process_timers.h"

namespace sentry {
namespace {

using base::Errno;

constexpr uint64_t kInterruptFlag = 0x200;

}  // namespace

// The other threads are told to leave, and waited for. A kill of the process meanwhile ends it.
base::Result<void> TaskExec::KillOtherThreads(Task& task) {
  ThreadGroup& group = *task.group_;
  {
    const absl::MutexLock lock(&group.signal_mu_);
    if (group.IsExiting() || group.exec_task_ != nullptr) return base::kRestartNoIntr;
    group.exec_task_ = &task;
    SignalDelivery::KillOthersLocked(group, &task);
  }
  base::Result<void> result;
  while (group.live_tasks() > 1) {
    result = task.BlockKillable();
    if (!result.ok()) break;
  }
  if (result.ok()) BecomeLeader(task);
  const absl::MutexLock lock(&group.signal_mu_);
  group.exec_task_ = nullptr;
  return result;
}

void TaskExec::BecomeLeader(Task& task) {
  ThreadGroup& group = *task.group_;
  PidNamespace& pids = task.kernel_.pids();
  const absl::MutexLock lock(&pids.tree_mu());
  if (!task.is_leader()) pids.TakeOverLeaderIdLocked(task);
  for (const std::shared_ptr<ThreadGroup>& child : group.children_) child->parent_tid_ = group.id();
  group.exit_signal_ = SIGCHLD;
}

// What the old memory still owes to others (exec_mm_release).
void TaskExec::LeaveOldMemory(Task& task) {
  if (task.memory_ == nullptr) return;
  FutexTable& futexes = task.kernel_.futexes();
  futexes.ExitRobustList(task, task.robust_list());
  futexes.ExitPiState(task, false);
  task.set_robust_list(base::UserAddr());
  const base::UserAddr clear(task.clear_child_tid_);
  if (!clear.is_null() && task.memory_sharers_->load(std::memory_order_acquire) > 1) {
    const int32_t zero = 0;
    // A bad address only means that nobody is woken.
    (void)task.memory_->CopyOut(base::UserOut<int32_t>(clear), zero);
    futexes.Wake(*task.memory_, clear, 1);
  }
  task.clear_child_tid_ = 0;
}

void TaskExec::ResetState(Task& task, const PreparedProgram& program) {
  ThreadGroup& group = *task.group_;
  std::shared_ptr<SignalHandlers> handlers = group.handlers()->Copy();
  handlers->ResetHandled();
  {
    const absl::MutexLock lock(&group.signal_mu_);
    group.handlers_ = std::move(handlers);
  }
  if (const std::shared_ptr<ProcessTimers> timers = group.ExistingTimers()) timers->OnExec();
  task.alternate_stack_ = AlternateStack{};
  task.restart_ = nullptr;
  task.set_name(program.name);
  group.has_executed_.store(true, std::memory_order_relaxed);
  task.UnshareFds();
  task.fds().CloseOnExec(task);
}

void TaskExec::ResetRegisters(Task& task, const LoadedImage& image) {
  task.registers_ = platform::Registers{};
  task.registers_.orig_rax = ~uint64_t{0};
  task.registers_.rip = image.entry;
  task.registers_.rsp = image.stack_pointer;
  task.registers_.eflags = kInterruptFlag;
  task.registers_.cs = 0x33;
  task.registers_.ss = 0x2b;
  task.context_->ResetFpu();
  task.KeepRegisters();
}

// Whether the new program may get the old one's address space, emptied. Whatever was left there by
// the old program could meddle with the new one: that must be nothing that it could not do to any
// program of its user.
bool TaskExec::MayStayInPlace(const Task& task, const ExecCredentials& credentials) {
  return task.memory_ != nullptr && task.vfork_completion_ == nullptr &&
         task.memory_sharers_->load(std::memory_order_acquire) == 1 && !credentials.ids_changed &&
         !credentials.secure && task.memory_->dumpable().load() == 1;
}

base::Result<std::shared_ptr<MemoryManager>> TaskExec::NewMemory(Task& task, uint64_t seed) {
  Kernel& kernel = task.kernel_;
  std::shared_ptr<MemoryManager> memory =
      TRY(MemoryManager::Create(kernel.platform(), kernel.pool(), seed));
  const base::Result<void> prepared = task.context_->Prepare(memory->address_space());
  if (!prepared.ok()) {
    memory->ReleaseAll();
    return prepared.error();
  }
  return memory;
}

base::Result<void> TaskExec::Exec(Task& task, ExecRequest request) {
  Kernel& kernel = task.kernel_;
  ThreadGroup& group = *task.group_;
  const uint64_t stack_limit = group.Limit(RLIMIT_STACK);
  const std::unique_ptr<ProgramOpener> opener = MakeProgramOpener(task);
  FileRef file = TRY(OpenExecutable(task, request.executable));
  PrepareRequest prepare;
  prepare.program = MakeProgramFile(task, std::move(file));
  prepare.path = std::move(request.name);
  prepare.path_is_closed = request.name_is_closed;
  prepare.arguments = std::move(request.arguments);
  prepare.stack_limit_bytes = stack_limit;
  const PreparedProgram program = TRY(PrepareProgram(std::move(prepare), *opener));
  ExecutableOwner owner;
  if (program.executable != nullptr) owner = TRY(OwnerOf(*program.executable));
  const ExecCredentials credentials = TRY(CredentialsAfterExec(task.own_credentials(), owner));
  const bool randomize = !group.no_randomization();
  const uint64_t seed = randomize ? kernel.random().Next() : 0;
  std::shared_ptr<MemoryManager> memory;
  if (!MayStayInPlace(task, credentials)) memory = TRY(NewMemory(task, seed));
  const base::Result<void> alone = KillOtherThreads(task);
  if (!alone.ok()) {
    if (memory != nullptr) memory->ReleaseAll();
    return alone;
  }

  // The point of no return.
  LeaveOldMemory(task);
  if (memory == nullptr) memory = task.memory_->TakeOver(seed);
  if (memory == nullptr) {
    base::Result<std::shared_ptr<MemoryManager>> made = NewMemory(task, seed);
    if (!made.ok()) {
      group.StartExit(SIGKILL);
      task.KeepRegisters();
      return made.error();
    }
    memory = std::move(made).value();
  }
  memory->SetLimits({group.Limit(RLIMIT_AS), group.Limit(RLIMIT_DATA), stack_limit,
                     group.Limit(RLIMIT_MEMLOCK), CommitBytes(group.kernel())});
  const LoadRequest load{.program = program,
                         .credentials = credentials.credentials,
                         .secure = credentials.secure,
                         .stack_limit_bytes = stack_limit,
                         .randomize = randomize,
                         .random = kernel.random(),
                         .vdso = kernel.vdso()};
  memory->StartLoading();
  const base::Result<LoadedImage> image = LoadProgram(load, *memory);
  memory->FinishLoading();
  // The program's own file is held as long as the memory; libraries may be replaced in place.
  if (program.interpreter != nullptr && program.interpreter->file() != nullptr)
    program.interpreter->file()->AllowWrite();
  memory->dumpable().store(credentials.ids_changed ? 0 : 1);
  task.ReplaceMemory(std::move(memory));
  if (task.vfork_completion_ != nullptr) task.vfork_completion_->Complete();
  task.vfork_completion_.reset();
  ResetState(task, program);
  if (credentials.ids_changed) task.parent_death_signal_.store(0, std::memory_order_relaxed);
  task.set_credentials(credentials.credentials);
  if (!image.ok()) {
    group.StartExit(SIGSEGV);
    task.KeepRegisters();
    return image.error();
  }
  ResetRegisters(task, image.value());
  return {};
}

}  // namespace sentry
