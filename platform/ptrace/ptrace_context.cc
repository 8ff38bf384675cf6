#include "platform/ptrace/ptrace_context.h"

#include <elf.h>
#include <linux/audit.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "platform/fpu.h"
#include "platform/stub/address_space.h"
#include "platform/stub/frame.h"
#include "platform/stub/futex.h"
#include "platform/stub/image.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr int kSyscallStop = SIGTRAP | 0x80;
constexpr int kPtraceSysemu = 31;
// With AMX the host's image is larger than ours, and ptrace takes only whole ones.
constexpr size_t kHostFpuBytesMax = 16384;
constexpr int32_t kSysSeccomp = 1;
// On one CPU a trip costs 10 us instead of 60. Now and then the scheduler gets its chance to
// balance.
constexpr uint32_t kTripsPaired = 2000;
constexpr uint32_t kTripsApart = 4;

long Trace(int request, pid_t tid, uint64_t address, uint64_t data) {
  return syscall(SYS_ptrace, request, tid, address, data);
}

template <typename T>
uint64_t Pointer(T* pointer) {
  return reinterpret_cast<uint64_t>(pointer);
}

}  // namespace

PtraceContext::PtraceContext(CpuSet& cpus) : cpus_(cpus), pair_(cpus), fpu_(InitialFpu()) {}

PtraceContext::~PtraceContext() { Unbind(); }

Result<void> PtraceContext::Prepare(AddressSpace& address_space) {
  return Bind(static_cast<StubAddressSpace&>(address_space).process());
}

Result<void> PtraceContext::Attach(AddressSpace& address_space) {
  TRY(Bind(static_cast<StubAddressSpace&>(address_space).process()));
  return Seize();
}

Result<void> PtraceContext::Bind(const std::shared_ptr<StubProcess>& process) {
  if (process == process_) return {};
  StubThread* thread = TRY(process->AcquireThread());
  if (fpu_in_thread_ && !StoreFpu().ok()) fpu_ = InitialFpu();  // It died with its process.
  fpu_in_thread_ = false;
  Unbind();
  process_ = process;
  thread_ = thread;
  return {};
}

Result<void> PtraceContext::Seize() {
  if (seized_) return {};
  // If our thread ends before this object does, nobody may let the guest run on.
  if (Trace(PTRACE_SEIZE, thread_->tid, 0, PTRACE_O_TRACESYSGOOD | PTRACE_O_EXITKILL) != 0) {
    return base::LastErrno();
  }
  seized_ = true;
  pair_.Adopt();
  pair_.Part();
  if (Trace(PTRACE_INTERRUPT, thread_->tid, 0, 0) != 0) return base::LastErrno();
  int status = 0;
  if (!Wait(status)) return Errno(ESRCH);
  return {};
}

void PtraceContext::Unbind() {
  pair_.Part();
  if (thread_ != nullptr && !seized_) {
    process_->ReleaseThread(thread_);
  } else if (thread_ != nullptr && !process_->dead()) {
    // Back to where it waited before we came, for the next context.
    Registers registers;
    registers.rip = GetStubEntries().park;
    registers.rbx = thread_->stub_address;
    if (WriteRegisters(registers) && Trace(PTRACE_DETACH, thread_->tid, 0, 0) == 0) {
      process_->ReleaseThread(thread_);
    } else {
      // It is dying, or we are not its tracer; either way it must not go on.
      process_->Kill();
    }
  }
  thread_ = nullptr;
  seized_ = false;
  process_.reset();
}

void PtraceContext::Interrupt() {
  interrupted_.store(true);
  const uint64_t target = running_.load();
  if (target == 0) return;  // The next Switch looks at the flag after it has set running_.
  syscall(SYS_tgkill, target >> 32, target & 0xffffffff, kInterruptSignal);
}

Event PtraceContext::Switch(AddressSpace& address_space, Registers& registers) {
  Event event;
  if (interrupted_.exchange(false)) return event;  // kInterrupted
  event.kind = EventKind::kDead;
  Result<void> ready = Attach(address_space);
  if (ready.ok() && !fpu_in_thread_) ready = LoadFpu();
  if (!ready.ok()) {
    LOG_DEBUG("ptrace: no stub thread, errno %d", ready.error().value());
    return event;
  }
  if (!WriteRegisters(registers)) return event;
  Pair();
  for (;;) {
    running_.store(static_cast<uint64_t>(process_->pid()) << 32 |
                   static_cast<uint32_t>(thread_->tid));
    if (interrupted_.exchange(false)) {
      running_.store(0);
      // Nothing, unless we went around the loop.
      event.kind = ReadRegisters(registers) ? EventKind::kInterrupted : EventKind::kDead;
      return event;
    }
    int status = 0;
    const uint64_t start = NowNs();
    entered_ns_.store(start, std::memory_order_relaxed);
    const bool alive = Resume(kPtraceSysemu, 0, status);
    guest_ns_.store(guest_ns_.load(std::memory_order_relaxed) + NowNs() - start,
                    std::memory_order_relaxed);
    entered_ns_.store(0, std::memory_order_relaxed);
    running_.store(0);
    if (!alive) return event;
    switch (ReadStop(status, registers, event)) {
      case Verdict::kEvent:
        return event;
      case Verdict::kIgnore:
        continue;
      case Verdict::kDead:
        event.kind = EventKind::kDead;
        return event;
    }
  }
}

uint64_t PtraceContext::GuestNs() const {
  const uint64_t total = guest_ns_.load(std::memory_order_relaxed);
  const uint64_t entered = entered_ns_.load(std::memory_order_relaxed);
  const uint64_t now = entered != 0 ? NowNs() : 0;
  return total + (now > entered ? now - entered : 0);
}

void PtraceContext::Pair() {
  LeaveCpu(cpus_);
  trips_++;
  const bool joined = pair_.place() != CpuPair::Place::kFree;
  if (!joined && trips_ > kTripsApart) {
    pair_.Join(thread_->tid, /*wanted=*/-1);
    trips_ = 0;
  } else if (joined && trips_ > kTripsPaired) {
    pair_.Part();
    trips_ = 0;
  }
}

bool PtraceContext::Resume(int request, int signal, int& status) {
  if (Trace(request, thread_->tid, 0, static_cast<uint64_t>(signal)) != 0) {
    Wait(status);  // It died while it was stopped: let it go.
    return false;
  }
  return Wait(status);
}

bool PtraceContext::Wait(int& status) {
  pid_t result = 0;
  do {
    result = waitpid(thread_->tid, &status, __WALL);
  } while (result < 0 && errno == EINTR);
  return result == thread_->tid && WIFSTOPPED(status);
}

PtraceContext::Verdict PtraceContext::ReadStop(int status, Registers& registers, Event& event) {
  const int signal = WSTOPSIG(status);
  const bool is_event_stop = (status >> 16) != 0;
  if (is_event_stop) return Verdict::kIgnore;
  if (signal == kSyscallStop) {
    __ptrace_syscall_info info{};
    if (!ReadRegisters(registers) ||
        Trace(PTRACE_GET_SYSCALL_INFO, thread_->tid, sizeof(info), Pointer(&info)) <= 0) {
      return Verdict::kDead;
    }
    registers.rax = registers.orig_rax;
    registers.orig_rax = kNoSyscall;
    event = SyscallEvent(info.arch, registers);
    return Verdict::kEvent;
  }
  return ReadSignal(signal, registers, event);
}

PtraceContext::Verdict PtraceContext::ReadSignal(int signal, Registers& registers, Event& event) {
  if (!ReadRegisters(registers)) return Verdict::kDead;
  registers.orig_rax = kNoSyscall;
  switch (signal) {
    case kInterruptSignal:
      if (!interrupted_.exchange(false)) return Verdict::kIgnore;
      event = Event{};
      event.kind = EventKind::kInterrupted;
      return Verdict::kEvent;
    case SIGSYS: {
      // The vsyscall page: its calls meet only the seccomp filter.
      siginfo_t info{};
      if (Trace(PTRACE_GETSIGINFO, thread_->tid, 0, Pointer(&info)) != 0) return Verdict::kDead;
      if (info.si_code != kSysSeccomp) return Verdict::kIgnore;
      event = SyscallEvent(info.si_arch, registers);
      return Verdict::kEvent;
    }
    case SIGSEGV:
    case SIGBUS:
    case SIGFPE:
    case SIGILL:
    case SIGTRAP:
      return ReadFrame(signal, event) ? Verdict::kEvent : Verdict::kDead;
    default:
      return Verdict::kIgnore;
  }
}

bool PtraceContext::ReadFrame(int signal, Event& event) {
  // A handler starts with initial extended state: what the thread has is kept here, for the next
  // Switch.
  if (fpu_in_thread_) {
    if (!StoreFpu().ok()) return false;
    fpu_in_thread_ = false;
  }
  int status = 0;
  Registers handler;
  // The kernel gives the handler a fresh extended state.
  if (!StoreFpu().ok()) return false;
  fpu_in_thread_ = false;
  if (!Resume(PTRACE_SINGLESTEP, signal, status)) return false;
  if (WSTOPSIG(status) != SIGTRAP || !ReadRegisters(handler) ||
      handler.rip != GetStubEntries().handler) {
    // A stack pointer inside the signal stack: the frame did not fit. Linux would kill as well.
    process_->Kill();
    return false;
  }
  const uint64_t offset = handler.rsp - thread_->stub_address;
  if (offset < CONTEXT_STACK || offset > CONTEXT_BYTES - sizeof(SignalFrame) || offset % 8 != 0) {
    process_->Kill();
    return false;
  }
  event = FaultEvent(CopyShared<SignalFrame>(thread_->region + offset));
  event.signal = signal;  // The frame is guest-writable.
  // The handler blocks nothing, so nothing is left to undo but registers, which the next Switch
  // sets.
  return true;
}

bool PtraceContext::WriteRegisters(const Registers& registers) {
  user_regs_struct user{};
  static_assert(sizeof(user) >= sizeof(Registers));
  Registers copy = registers;
  copy.orig_rax = kNoSyscall;  // Or the kernel might restart a call.
  copy.eflags = UserFlags(registers.eflags);
  copy.cs = kUserCs;
  copy.ss = kUserSs;
  memcpy(&user, &copy, sizeof(copy));
  if (Trace(PTRACE_SETREGS, thread_->tid, 0, Pointer(&user)) == 0) return true;
  if (errno != EIO) return false;
  // Bases in the kernel's half: a guest can load them (WRFSBASE), ptrace cannot.
  user.fs_base = 0;
  user.gs_base = 0;
  return Trace(PTRACE_SETREGS, thread_->tid, 0, Pointer(&user)) == 0;
}

bool PtraceContext::ReadRegisters(Registers& registers) const {
  user_regs_struct user{};
  if (Trace(PTRACE_GETREGS, thread_->tid, 0, Pointer(&user)) != 0) return false;
  memcpy(static_cast<void*>(&registers), &user, sizeof(registers));
  registers.cs = kUserCs;
  registers.ss = kUserSs;
  registers.eflags = UserFlags(registers.eflags);
  return true;
}

Result<void> PtraceContext::LoadFpu() {
  std::vector<std::byte> image(kHostFpuBytesMax);
  iovec vector{image.data(), image.size()};
  if (Trace(PTRACE_GETREGSET, thread_->tid, NT_X86_XSTATE, Pointer(&vector)) != 0) {
    return base::LastErrno();
  }
  memcpy(image.data(), fpu_.bytes.data(), FpuSize());
  if (Trace(PTRACE_SETREGSET, thread_->tid, NT_X86_XSTATE, Pointer(&vector)) != 0) {
    return base::LastErrno();
  }
  fpu_in_thread_ = true;
  return {};
}

Result<void> PtraceContext::StoreFpu() {
  std::vector<std::byte> image(kHostFpuBytesMax);
  iovec vector{image.data(), image.size()};
  if (Trace(PTRACE_GETREGSET, thread_->tid, NT_X86_XSTATE, Pointer(&vector)) != 0) {
    return base::LastErrno();
  }
  memcpy(fpu_.bytes.data(), image.data(), FpuSize());
  NormalizeFpu(fpu_);
  return {};
}

void PtraceContext::GetFpu(FpuState& state) {
  if (fpu_in_thread_ && !StoreFpu().ok()) fpu_ = InitialFpu();  // It died with its process.
  state = fpu_;
}

Result<void> PtraceContext::SetFpu(const FpuState& state) {
  FpuState copy = state;
  TRY(CheckFpu(copy));
  NormalizeFpu(copy);
  fpu_ = copy;
  fpu_in_thread_ = false;
  return {};
}

void PtraceContext::ResetFpu() {
  fpu_ = InitialFpu();
  fpu_in_thread_ = false;
}

}  // namespace platform
