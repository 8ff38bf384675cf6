#include "platform/systrap/systrap_context.h"

#include <sys/syscall.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <ctime>
#include <utility>

#include "platform/base/log.h"
#include "platform/fpu.h"
#include "platform/stub/address_space.h"
#include "platform/stub/futex.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"
#include "platform/systrap/fast_entry.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr uint64_t kUcFpXstate = 1;
constexpr uint32_t kMagic1 = 0x46505853;  // FP_XSTATE_MAGIC1
// A guest thread that does not answer an interrupt for one to two of these has broken its stub (by
// writing to its context); the process is killed then. Long, since an overloaded host looks the
// same.
constexpr time_t kPatienceSeconds = 10;

constexpr uint64_t kTrapFlag = 0x100;
constexpr uint64_t kTrapGeneralProtection = 13;
// Room for the extended state on the fast path. Where it does not suffice, the signal frame has to
// do.
constexpr size_t kFastFpuBytes = CONTEXT_STACK - CONTEXT_XSAVE;
bool FpuFitsFast() { return FpuSize() <= kFastFpuBytes; }

// The words of SignalRegisters up to the segment selectors.
constexpr size_t kWrittenWords = offsetof(SignalRegisters, error_code) / sizeof(uint64_t);

// WRFSBASE faults on anything else, and the stub cannot take a fault.
bool IsCanonical(uint64_t address) {
  const auto bits = static_cast<int64_t>(address) >> 47;
  return bits == 0 || bits == -1;
}

uint64_t CanonicalOrNull(uint64_t address) { return IsCanonical(address) ? address : 0; }

}  // namespace

SystrapContext::SystrapContext(CpuSet& cpus, uint32_t spins)
    : handover_(cpus, spins), fpu_(InitialFpu()), spins_(spins) {}

SystrapContext::~SystrapContext() { Unbind(); }

Result<void> SystrapContext::Prepare(AddressSpace& address_space) {
  return Bind(static_cast<StubAddressSpace&>(address_space).process());
}

Result<void> SystrapContext::Bind(const std::shared_ptr<StubProcess>& process) {
  if (process == process_) return {};
  StubThread* thread = TRY(process->AcquireThread());
  if (thread->frame_offset == 0) {
    Result<void> learnt = LearnFrame(*thread);
    if (!learnt.ok()) {
      process->ReleaseThread(thread);
      return learnt.error();
    }
  }
  if (fpu_place_ != FpuPlace::kHere) {
    GetFpu(fpu_);
    fpu_place_ = FpuPlace::kHere;
  }
  Unbind();
  process_ = process;
  thread_ = thread;
  target_ = static_cast<uint64_t>(process->pid()) << 32 | static_cast<uint32_t>(thread->tid);
  bases_known_ = false;
  bases_set_ = false;
  thread->context.set_bases.store(0, std::memory_order_relaxed);
  fast_known_ = false;
  patience_ = {};
  thread->context.spins.store(0, std::memory_order_relaxed);
  thread->context.yields.store(0, std::memory_order_relaxed);
  {
    absl::MutexLock lock(&identity_mu_);
    answers_ = &thread->answers;
    PublishIdentityLocked();
  }
  frame_registers_ = CopyShared<SignalFrame>(thread->region + thread->frame_offset).registers;
  return {};
}

void SystrapContext::Unbind() {
  handover_.Reset();
  {
    absl::MutexLock lock(&identity_mu_);
    if (answers_ != nullptr) answers_->valid.store(0, std::memory_order_relaxed);
    answers_ = nullptr;
  }
  if (thread_ != nullptr) process_->ReleaseThread(thread_);
  thread_ = nullptr;
  process_.reset();
}

Result<void> SystrapContext::LearnFrame(StubThread& thread) {
  // A sibling may have written to it already. Whatever we accept lies inside the region.
  const uint64_t frame = thread.context.frame.load() - thread.stub_address;
  if (frame < CONTEXT_STACK || frame > CONTEXT_BYTES - sizeof(SignalFrame) || frame % 8 != 0) {
    return Errno(ESRCH);
  }
  const auto copy = CopyShared<SignalFrame>(thread.region + frame);
  const uint64_t fpu = copy.registers.fpstate - thread.stub_address;
  if ((copy.flags & kUcFpXstate) == 0 || fpu < CONTEXT_STACK || fpu % 64 != 0 ||
      fpu > CONTEXT_BYTES || FpuSize() + sizeof(uint32_t) > CONTEXT_BYTES - fpu) {
    return Errno(ESRCH);
  }
  memcpy(thread.fpu_software.data(), thread.region + fpu + kFpuSoftware, kFpuSoftwareBytes);
  uint32_t magic = 0;
  memcpy(&magic, thread.fpu_software.data(), sizeof(magic));
  if (magic != kMagic1) return Errno(ESRCH);
  thread.fpu_offset = fpu;
  thread.frame_offset = frame;
  return {};
}

void SystrapContext::LoadFpu(StubThread& thread) {
  std::byte* image = thread.region + thread.fpu_offset;
  memcpy(image, fpu_.bytes.data(), kFpuSoftware);
  memcpy(image + kFpuSoftware, thread.fpu_software.data(), kFpuSoftwareBytes);
  memcpy(image + kFpuHeader, &fpu_.bytes[kFpuHeader], FpuSize() - kFpuHeader);
}

void SystrapContext::GetFpu(FpuState& state) {
  if (fpu_place_ == FpuPlace::kCpu) {
    const bool alive = FpuFitsFast() ? Command(COMMAND_XSAVE) : LeaveFastPath();
    if (!alive) ResetFpu();
  }
  if (fpu_place_ == FpuPlace::kHere) {
    if (&state != &fpu_) state = fpu_;
    return;
  }
  const uint64_t offset = fpu_place_ == FpuPlace::kCpu ? CONTEXT_XSAVE : thread_->fpu_offset;
  memcpy(state.bytes.data(), thread_->region + offset, FpuSize());
  asm volatile("" : : : "memory");
  NormalizeFpu(state);
}

Result<void> SystrapContext::SetFpu(const FpuState& state) {
  FpuState copy = state;
  TRY(CheckFpu(copy));
  NormalizeFpu(copy);
  fpu_ = copy;
  fpu_place_ = FpuPlace::kHere;
  return {};
}

void SystrapContext::ResetFpu() {
  handover_.Restart();  // Hardly anybody but execve does this.
  fpu_ = InitialFpu();
  fpu_place_ = FpuPlace::kHere;
}

void SystrapContext::Blocks() {
  if (!handover_.Blocks() || thread_ == nullptr) return;
  // The turn is ours. What the stub handed over with has been read.
  thread_->context.state.store(STATE_BLOCKED, std::memory_order_relaxed);
}

void SystrapContext::Interrupt() {
  interrupted_.store(true);
  SignalGuest();
}

void SystrapContext::SetIdentity(const Identity* identity) {
  absl::MutexLock lock(&identity_mu_);
  identity_.reset();
  if (identity != nullptr) identity_ = *identity;
  PublishIdentityLocked();
}

void SystrapContext::PublishIdentityLocked() {
  if (answers_ == nullptr) return;
  if (identity_) {
    answers_->pid.store(identity_->pid, std::memory_order_relaxed);
    answers_->tid.store(identity_->tid, std::memory_order_relaxed);
    answers_->parent.store(identity_->parent, std::memory_order_relaxed);
    answers_->process_group.store(identity_->process_group, std::memory_order_relaxed);
    answers_->uid.store(identity_->uid, std::memory_order_relaxed);
    answers_->effective_uid.store(identity_->effective_uid, std::memory_order_relaxed);
    answers_->gid.store(identity_->gid, std::memory_order_relaxed);
    answers_->effective_gid.store(identity_->effective_gid, std::memory_order_relaxed);
  }
  answers_->valid.store(identity_ ? 1 : 0);
}

uint64_t SystrapContext::GuestNs() const {
  uint64_t total = waited_ns_.load(std::memory_order_relaxed);
  if (spins_ > 0) {
    total += spun_.load(std::memory_order_relaxed) * Handover::kSpinNs / spins_;
  }
  const uint64_t since = waits_since_ns_.load(std::memory_order_relaxed);
  const uint64_t now = since != 0 ? NowNs() : 0;
  return total + (now > since ? now - since : 0);
}

void SystrapContext::SignalGuest() {
  const uint64_t target = running_.load();
  if (target == 0) return;  // The next Switch looks at the flag after it has set running_.
  syscall(SYS_tgkill, target >> 32, target & 0xffffffff, kInterruptSignal);
}

Event SystrapContext::Switch(AddressSpace& address_space, Registers& registers) {
  Event event;
  if (interrupted_.load(std::memory_order_relaxed) && interrupted_.exchange(false)) {
    event.kind = EventKind::kInterrupted;
    return event;
  }
  event.kind = EventKind::kDead;
  const std::shared_ptr<StubProcess>& process =
      static_cast<StubAddressSpace&>(address_space).process();
  if (process != process_) [[unlikely]] {
    Result<void> bound = Bind(process);
    if (!bound.ok()) {
      LOG_DEBUG("systrap: no stub thread, errno %d", bound.error().value());
      return event;
    }
  }
  if (!IsCanonical(registers.rip)) {  // The way back would fault, and in the stub that cannot be.
    event.kind = EventKind::kSignal;
    event.signal = SIGSEGV;
    event.code = SI_KERNEL;
    event.trap_number = kTrapGeneralProtection;
    return event;
  }
  do {
    if (!Load(registers) || !RunGuest()) return event;
  } while (!ReadEvent(registers, event));
  return event;
}

bool SystrapContext::Load(const Registers& registers) {
  if (thread_->waits_fast) {
    const bool leave = CanonicalOrNull(registers.gs_base) != 0 ||
                       (registers.eflags & kTrapFlag) != 0 ||
                       (fpu_place_ == FpuPlace::kHere && !FpuFitsFast());
    if (!leave) {
      WriteFast(registers);
      return true;
    }
    if (!LeaveFastPath()) return false;
  }
  if (fpu_place_ == FpuPlace::kHere) {
    LoadFpu(*thread_);
    fpu_place_ = FpuPlace::kFrame;
  }
  WriteFrame(registers);
  return true;
}

void SystrapContext::WriteFast(const Registers& registers) {
  auto* target = reinterpret_cast<FastRegisters*>(thread_->region);
  // Only what changed, since each line of the cache has to travel to the other CPU and back.
  const auto write = [this, &registers](uint64_t Registers::* from, uint64_t& to) {
    if (!fast_known_ || registers.*from != fast_registers_.*from) to = registers.*from;
  };
  uint32_t command = 0;
  write(&Registers::rdi, target->rdi);
  write(&Registers::rsi, target->rsi);
  write(&Registers::rdx, target->rdx);
  write(&Registers::r10, target->r10);
  write(&Registers::r8, target->r8);
  write(&Registers::r9, target->r9);
  write(&Registers::rip, target->rip);
  write(&Registers::rsp, target->rsp);
  write(&Registers::rbx, target->rbx);
  write(&Registers::rbp, target->rbp);
  write(&Registers::r12, target->r12);
  write(&Registers::r13, target->r13);
  write(&Registers::r14, target->r14);
  write(&Registers::r15, target->r15);
  const uint64_t eflags = UserFlags(registers.eflags);
  if (!fast_known_ || eflags != fast_registers_.eflags) target->eflags = eflags;
  target->rax = registers.rax;
  if (registers.rcx != registers.rip || registers.r11 != eflags) {
    target->rcx = registers.rcx;
    target->r11 = registers.r11;
    command |= COMMAND_ALL;
  }
  if (fpu_place_ == FpuPlace::kHere) {
    memcpy(thread_->region + CONTEXT_XSAVE, fpu_.bytes.data(), FpuSize());
    fpu_place_ = FpuPlace::kCpu;
    command |= COMMAND_XRSTOR;
  }
  thread_->context.command.store(command, std::memory_order_relaxed);
  WriteBases(CanonicalOrNull(registers.fs_base), 0);
}

void SystrapContext::WriteFrame(const Registers& registers) {
  // Directly into the frame: a guest thread that reads or writes it meanwhile fools only itself.
  SignalRegisters next = frame_registers_;
  FromRegisters(registers, next);
  auto* frame = reinterpret_cast<SignalFrame*>(thread_->region + thread_->frame_offset);
  auto* target = reinterpret_cast<uint64_t*>(&frame->registers);
  const auto* from = reinterpret_cast<const uint64_t*>(&next);
  const auto* before = reinterpret_cast<const uint64_t*>(&frame_registers_);
  for (size_t i = 0; i < kWrittenWords; i++) {
    if (from[i] != before[i]) target[i] = from[i];
  }
  WriteBases(CanonicalOrNull(registers.fs_base), CanonicalOrNull(registers.gs_base));
}

void SystrapContext::WriteBases(uint64_t fs_base, uint64_t gs_base) {
  const bool set = !bases_known_ || fs_base != fs_base_ || gs_base != gs_base_;
  ThreadContext& context = thread_->context;
  if (set) {
    context.fs_base.store(fs_base, std::memory_order_relaxed);
    // The fast entry finds the thread's context there.
    context.gs_base.store(gs_base != 0 ? gs_base : thread_->stub_address,
                          std::memory_order_relaxed);
  }
  if (set != bases_set_) context.set_bases.store(set ? 1 : 0, std::memory_order_relaxed);
  bases_set_ = set;
}

bool SystrapContext::RunGuest() {
  // Either whoever interrupts sees running_, or we see the interrupt after the turn was passed on:
  // PassTurn's exchange is a full barrier between the two.
  running_.store(target_, std::memory_order_relaxed);
  const bool alive = PassTurn(/*answers=*/false);
  running_.store(0, std::memory_order_release);
  return alive;
}

bool SystrapContext::Command(uint32_t command) {
  thread_->context.command.store(command, std::memory_order_relaxed);
  return PassTurn(/*answers=*/true);
}

bool SystrapContext::LeaveFastPath() {
  if (!Command(COMMAND_TRAP)) return false;
  frame_registers_ = CopyShared<SignalFrame>(thread_->region + thread_->frame_offset).registers;
  thread_->waits_fast = false;
  bases_known_ = false;
  if (fpu_place_ == FpuPlace::kCpu) fpu_place_ = FpuPlace::kFrame;
  return true;
}

void SystrapContext::SetPatience(Handover::Patience patience) {
  if (patience.spins == patience_.spins && patience.yields == patience_.yields) return;
  thread_->context.spins.store(patience.spins, std::memory_order_relaxed);
  thread_->context.yields.store(patience.yields, std::memory_order_relaxed);
  patience_ = patience;
}

bool SystrapContext::PassTurn(bool answers) {
  ThreadContext& context = thread_->context;
  const bool sleeps = context.stub_sleeps.load(std::memory_order_relaxed) != 0;
  const uint32_t taken = context.taken.load(std::memory_order_relaxed);
  const int cpu = static_cast<int>(context.cpu.load(std::memory_order_relaxed));
  const Handover::Patience patience = handover_.Enter(thread_->tid, sleeps, cpu);
  SetPatience(patience);
  context.state.exchange(STATE_GUEST);
  // The stub drops an interrupt that comes before the turn is its.
  if (!answers && interrupted_.load()) SignalGuest();
  if (context.stub_sleeps.load() != 0) FutexWake(context.state);
  // After the store to the state, as in StubProcess::RunLocked.
  return !process_->dead() && AwaitGuest(patience, taken, answers);
}

bool SystrapContext::AwaitGuest(Handover::Patience patience, uint32_t taken, bool answers) {
  ThreadContext& context = thread_->context;
  const uint32_t looks = patience.spins * patience.rounds;
  for (uint32_t look = 0; look < looks; look++) {
    if (context.state.load(std::memory_order_acquire) != STATE_GUEST) {
      spun_.store(spun_.load(std::memory_order_relaxed) + look + 1, std::memory_order_relaxed);
      handover_.Spun();
      return !process_->dead();
    }
    Pause();
  }
  spun_.store(spun_.load(std::memory_order_relaxed) + looks, std::memory_order_relaxed);
  const uint64_t start = NowNs();
  waits_since_ns_.store(start, std::memory_order_relaxed);
  if (looks > 0) {
    const bool noticed = context.taken.load(std::memory_order_relaxed) != taken;
    patience = handover_.Missed(thread_->tid, noticed);
    SetPatience(patience);
  }
  const bool alive = YieldOrSleep(patience, start, answers);
  waited_ns_.store(waited_ns_.load(std::memory_order_relaxed) + NowNs() - start,
                   std::memory_order_relaxed);
  waits_since_ns_.store(0, std::memory_order_relaxed);
  return alive;
}

bool SystrapContext::YieldOrSleep(Handover::Patience patience, uint64_t start, bool answers) {
  for (uint32_t yield = 0; yield < patience.yields; yield++) {
    if (thread_->context.state.load() != STATE_GUEST) {
      if (yield > 0) handover_.Yielded(NowNs() - start);
      return !process_->dead();
    }
    syscall(SYS_sched_yield);
  }
  return SleepUntilEvent(start, answers);
}

bool SystrapContext::SleepUntilEvent(uint64_t start, bool answers) {
  std::atomic<uint32_t>& state = thread_->context.state;
  thread_->context.sentry_sleeps.store(1);
  uint64_t interrupt_seen = 0;  // In ns since `start`, 0: no interrupt is due.
  timespec timeout{0, Handover::kLongNs};
  while (state.load() == STATE_GUEST) {
    FutexWait(state, STATE_GUEST, &timeout);
    if (state.load() != STATE_GUEST) break;
    const uint64_t slept = NowNs() - start;
    if (slept < Handover::kLongNs) continue;
    SetPatience(handover_.Long());
    timeout = {kPatienceSeconds, 0};
    if (!answers && !interrupted_.load()) {
      interrupt_seen = 0;
      continue;
    }
    if (interrupt_seen == 0) interrupt_seen = slept;
    if (slept - interrupt_seen < kPatienceSeconds * uint64_t{1'000'000'000}) continue;
    LOG_WARNING("systrap: a guest thread does not answer; killing stub process %d",
                process_->pid());
    process_->Kill();
  }
  thread_->context.sentry_sleeps.store(0, std::memory_order_relaxed);
  handover_.Slept(NowNs() - start);
  return !process_->dead();
}

bool SystrapContext::ReadEvent(Registers& registers, Event& event) {
  const uint32_t state = thread_->context.state.load(std::memory_order_acquire);
  const bool fast = state == STATE_FAST_CALL || state == STATE_FAST_INTERRUPTED;
  thread_->waits_fast = fast;
  fpu_place_ = fast ? FpuPlace::kCpu : FpuPlace::kFrame;
  return fast ? ReadFast(state, registers, event) : ReadFrame(registers, event);
}

bool SystrapContext::ReadFast(uint32_t state, Registers& registers, Event& event) {
  const auto copy = CopyShared<FastRegisters>(thread_->region);
  const bool call = state == STATE_FAST_CALL;
  ToRegisters(copy, call ? 0 : copy.command, registers);
  registers.fs_base = fs_base_ = CanonicalOrNull(copy.fs_base);
  registers.gs_base = gs_base_ = 0;
  bases_known_ = true;
  fast_registers_ = registers;
  fast_known_ = true;
  if (call) {
    registers.orig_rax = registers.rax;
    registers.rax = static_cast<uint64_t>(-ENOSYS);
    event = Event{};
    event.kind = EventKind::kSyscall;
    event.path = SyscallPath::kEntry;
    return true;
  }
  if (!interrupted_.exchange(false)) return false;
  event = Event{};
  event.kind = EventKind::kInterrupted;
  return true;
}

bool SystrapContext::ReadFrame(Registers& registers, Event& event) {
  const auto frame = CopyShared<SignalFrame>(thread_->region + thread_->frame_offset);
  // First, since a guest that goes on goes on from here.
  frame_registers_ = frame.registers;
  ToRegisters(frame.registers, registers);
  registers.fs_base = fs_base_ = CanonicalOrNull(thread_->context.fs_base.load());
  const uint64_t gs_base = CanonicalOrNull(thread_->context.gs_base.load());
  // 0 is not what we left there, but means the same to the guest.
  bases_known_ = gs_base != 0;
  registers.gs_base = gs_base_ = gs_base == thread_->stub_address ? 0 : gs_base;
  // There is no call in the fast entry that a filter would refuse.
  if (frame.info.signal != SIGSYS &&
      UndoFastEntry(frame.registers, CopyShared<FastRegisters>(thread_->region), registers)) {
    // Whatever signal it was: the call has been made. An interrupt is reported after it.
    event = Event{};
    event.kind = EventKind::kSyscall;
    event.path = SyscallPath::kEntryTrap;
  } else if (frame.info.signal == kInterruptSignal) {
    if (!interrupted_.exchange(false)) return false;
    event = Event{};
    event.kind = EventKind::kInterrupted;
  } else if (frame.info.signal == SIGSYS) {
    event = SyscallEvent(frame.info.arch, registers);
  } else {
    event = FaultEvent(frame);
  }
  return true;
}

}  // namespace platform
