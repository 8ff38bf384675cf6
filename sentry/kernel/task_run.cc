// The loop of a task: guest code until an event, the event, and on the way back signals, stops,
// restarts and exit (Linux: exit_to_user_mode_loop, arch_do_signal_or_restart).

#include <sys/syscall.h>
#include <unistd.h>

#include <utility>

#include "platform/base/log.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/rewrite_stats.h"
#include "sentry/signal/signal_delivery.h"
#include "sentry/signal/signal_frame.h"

namespace sentry {
namespace {

constexpr uint64_t kNoSyscall = ~uint64_t{0};
constexpr uint64_t kSyscallInstructionBytes = 2;

constexpr bool IsRestartCode(int64_t result) { return result <= -512 && result >= -516; }

}  // namespace

void Task::RunUntilExit() {
  {
    const absl::MutexLock lock(&resource_mu_);
    host_tid_ = static_cast<int32_t>(syscall(SYS_gettid));
    // The thread may have run other tasks before.
    host_cpu_ns_at_start_ = HostThreadCpuNs(host_tid_);
  }
  PublishIdentity();
  while (RunOnce()) {
  }
  for (size_t path = 0; path < calls_.size(); path++) {
    kernel_.rewrite_stats().calls[path].fetch_add(calls_[path]);
  }
  kernel_.TaskLeft();
}

base::Result<void> Task::Start() {
  kernel_.TaskStarted();
  has_host_thread_.store(true, std::memory_order_release);
  const base::Result<void> running = kernel_.host_threads().Run(shared_from_this());
  if (!running.ok()) {
    has_host_thread_.store(false, std::memory_order_release);
    kernel_.TaskLeft();
  }
  return running;
}

bool Task::HasWork() const {
  return exit_requested_ || restart_result_ != 0 || saved_mask_valid_ ||
         waiting_for_vfork_ != nullptr ||
         (wake_state_.load(std::memory_order_acquire) & (kInterrupt | kKilled)) != 0;
}

bool Task::RunOnce() {
  if (HasWork() && !PrepareReturnToGuest()) {
    Exit();
    return false;
  }
  in_guest_.store(true, std::memory_order_seq_cst);
  if ((wake_state_.load(std::memory_order_seq_cst) & (kInterrupt | kKilled)) != 0) {
    in_guest_.store(false, std::memory_order_release);
    return true;
  }
  const platform::Event event = context_->Switch(memory_->address_space(), registers_);
  in_guest_.store(false, std::memory_order_release);
  HandleEvent(event);
  return true;
}

void Task::HandleEvent(platform::Event event) {
  if (event.kind != platform::EventKind::kSyscall) memory_->HideRewriting(event, registers_);
  switch (event.kind) {
    case platform::EventKind::kSyscall:
      HandleNewSyscall(event.path);
      break;
    case platform::EventKind::kFault:
      HandleFault(event);
      break;
    case platform::EventKind::kSignal: {
      SignalInfo info;
      info.signal = IsValidSignal(event.signal) ? event.signal : SIGSEGV;
      info.code = event.code;
      info.address = event.address;
      fault_trap_ = event.trap_number;
      fault_error_ = event.error_code;
      registers_.orig_rax = kNoSyscall;
      ForceSignal(info);
      break;
    }
    case platform::EventKind::kInterrupted:
      break;
    case platform::EventKind::kDead:
      LOG_WARNING("process %d: its address space has gone", group_->id());
      group_->StartExit(SIGKILL);
      break;
  }
}

void Task::HandleFault(const platform::Event& event) {
  faults_.fetch_add(1, std::memory_order_relaxed);
  const std::optional<FaultSignal> unresolved = memory_->HandleFault(event.address, event.access);
  if (!unresolved) return;
  registers_.orig_rax = kNoSyscall;
  fault_trap_ = event.trap_number;
  fault_error_ = event.error_code;
  fault_address_ = event.address;
  SignalInfo info;
  info.signal = unresolved->signal;
  info.code = unresolved->code;
  info.address = event.address;
  ForceSignal(info);
}

// One that has just been made, not one that goes on.
void Task::HandleNewSyscall(platform::SyscallPath path) {
  calls_[static_cast<size_t>(path)]++;
  if (path == platform::SyscallPath::kTrap) {
    memory_->NoteTrappedCall(registers_.rip - kSyscallInstructionBytes, registers_.orig_rax,
                             kernel_.rewrite_stats());
  }
  HandleSyscall();
}

void Task::HandleSyscall() {
  const uint64_t number = static_cast<uint32_t>(registers_.orig_rax);  // As Linux: eax counts.
  const uint64_t arguments[6] = {registers_.rdi, registers_.rsi, registers_.rdx,
                                 registers_.r10, registers_.r8,  registers_.r9};
  keep_registers_ = false;
  current_syscall_.store(static_cast<int64_t>(number), std::memory_order_relaxed);
  if (seccomp_.mode.load(std::memory_order_relaxed) != 0) [[unlikely]] {
    if (const std::optional<int64_t> instead = Seccomp::Check(*this, number, arguments)) {
      current_syscall_.store(-1, std::memory_order_relaxed);
      registers_.rax = static_cast<uint64_t>(*instead);
      return;
    }
  }
  const int64_t result = kernel_.dispatcher().Dispatch(*this, number, arguments);
  current_syscall_.store(-1, std::memory_order_relaxed);
  FinishSyscall(result);
}

void Task::FinishSyscall(int64_t result) {
  if (keep_registers_) {
    keep_registers_ = false;
    return;
  }
  registers_.rax = static_cast<uint64_t>(result);
  if (IsRestartCode(result)) {
    restart_result_ = result;
  } else if (saved_mask_valid_ && result != -EINTR) {
    RestoreSavedMask();
  }
}

void Task::RestoreSavedMask() {
  saved_mask_valid_ = false;
  set_signal_mask(saved_mask_);
}

// Without a handler the call is made again, from here: the guest's registers hold its arguments
// still.
void Task::RestartSyscall() {
  const int64_t code = std::exchange(restart_result_, 0);
  if (code == -base::kRestartBlock.value()) {
    const base::Result<uint64_t> result = RunRestart();
    FinishSyscall(result.ok() ? static_cast<int64_t>(result.value())
                              : -int64_t{result.error().value()});
  } else {
    HandleSyscall();
  }
}

void Task::DeliverSignal(const SignalToHandle& signal) {
  if (restart_result_ != 0) {
    const int64_t code = std::exchange(restart_result_, 0);
    const bool again =
        code == -base::kRestartNoIntr.value() ||
        (code == -base::kRestartSys.value() && (signal.action.flags & SA_RESTART) != 0);
    if (again) {
      registers_.rax = registers_.orig_rax;
      registers_.rip -= kSyscallInstructionBytes;
    } else {
      registers_.rax = static_cast<uint64_t>(-int64_t{EINTR});
    }
    restart_ = nullptr;
  }
  const SignalSet old_mask = saved_mask_valid_ ? saved_mask_ : signal_mask();
  if (!SignalFrame::Push(*this, signal, old_mask).ok()) {
    // No room for the frame. If it was SIGSEGV's own, there is no way to tell the program.
    if (signal.info.signal == SIGSEGV) SignalDelivery::SetAction(*this, SIGSEGV, SignalAction{});
    ForceSignal(SignalInfo::FromKernel(SIGSEGV));
    return;
  }
  saved_mask_valid_ = false;
  SignalSet mask = signal_mask() | signal.action.mask;
  if ((signal.action.flags & SA_NODEFER) == 0) mask |= SignalBit(signal.info.signal);
  set_signal_mask(mask);
}

bool Task::PrepareReturnToGuest() {
  while (true) {
    if (waiting_for_vfork_ != nullptr) WaitForVfork();
    if (exit_requested_ || IsKilled()) return false;
    if (kernel_.IsPaused()) kernel_.WaitWhilePaused(*this);
    const std::optional<SignalToHandle> signal = SignalDelivery::Next(*this);
    if (IsKilled() || group_->IsExiting()) return false;
    if (signal) {
      DeliverSignal(*signal);
    } else {
      if (saved_mask_valid_) RestoreSavedMask();
      if (restart_result_ != 0) RestartSyscall();
    }
    if (!HasWork()) return true;
  }
}

}  // namespace sentry
