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
#include "platform/stub/image.h"
#include "platform/stub/layout.h"
#include "platform/stub/stub_calls.h"

namespace platform {
namespace {

using base::Errno;
using base::Result;

constexpr uint64_t kUcFpXstate = 1;
constexpr uint64_t kTrapGeneralProtection = 13;
constexpr uint32_t kMagic1 = 0x46505853;  // FP_XSTATE_MAGIC1
// A guest thread that does not answer an interrupt for one to two of these has broken its stub (by
// writing to its context); the process is killed then. Long, since an overloaded host looks the
// same.
constexpr time_t kPatienceSeconds = 10;

const uint64_t kFastTrap = GetStubEntries().fast_trap;

// The words of SignalRegisters up to the segment selectors.
constexpr size_t kWrittenWords = offsetof(SignalRegisters, error_code) / sizeof(uint64_t);

// WRFSBASE faults on anything else, and the stub cannot take a fault.
bool IsCanonical(uint64_t address) {
  const auto bits = static_cast<int64_t>(address) >> 47;
  return bits == 0 || bits == -1;
}

uint64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(now.tv_nsec);
}

uint64_t CanonicalOrNull(uint64_t address) { return IsCanonical(address) ? address : 0; }

}  // namespace

SystrapContext::SystrapContext(CpuSet& cpus, uint32_t spins)
    : handover_(cpus, spins), fpu_(InitialFpu()) {}

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
  if (fpu_in_frame_) {
    GetFpu(fpu_);
    fpu_in_frame_ = false;
  }
  Unbind();
  process_ = process;
  thread_ = thread;
  bases_known_ = false;
  frame_registers_ = CopyShared<SignalFrame>(thread->region + thread->frame_offset).registers;
  return {};
}

void SystrapContext::Unbind() {
  handover_.Reset();
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
  fpu_in_frame_ = true;
}

void SystrapContext::GetFpu(FpuState& state) {
  if (!fpu_in_frame_) {
    if (&state != &fpu_) state = fpu_;
    return;
  }
  memcpy(state.bytes.data(), thread_->region + thread_->fpu_offset, FpuSize());
  asm volatile("" : : : "memory");
  NormalizeFpu(state);
}

Result<void> SystrapContext::SetFpu(const FpuState& state) {
  FpuState copy = state;
  TRY(CheckFpu(copy));
  NormalizeFpu(copy);
  fpu_ = copy;
  fpu_in_frame_ = false;
  return {};
}

void SystrapContext::ResetFpu() {
  fpu_ = InitialFpu();
  fpu_in_frame_ = false;
}

void SystrapContext::Interrupt() {
  interrupted_.store(true);
  SignalGuest();
}

void SystrapContext::SignalGuest() {
  const uint64_t target = running_.load();
  if (target == 0) return;  // The next Switch looks at the flag after it has set running_.
  syscall(SYS_tgkill, target >> 32, target & 0xffffffff, kInterruptSignal);
}

Event SystrapContext::Switch(AddressSpace& address_space, Registers& registers) {
  Event event;
  if (interrupted_.exchange(false)) {
    event.kind = EventKind::kInterrupted;
    return event;
  }
  event.kind = EventKind::kDead;
  Result<void> bound = Bind(static_cast<StubAddressSpace&>(address_space).process());
  if (!bound.ok()) {
    LOG_DEBUG("systrap: no stub thread, errno %d", bound.error().value());
    return event;
  }
  if (!IsCanonical(registers.rip)) {  // IRETQ would fault, and in the stub that cannot be.
    event.kind = EventKind::kSignal;
    event.signal = SIGSEGV;
    event.code = SI_KERNEL;
    event.trap_number = kTrapGeneralProtection;
    return event;
  }
  if (!fpu_in_frame_) LoadFpu(*thread_);
  WriteRegisters(registers);
  do {
    running_.store(static_cast<uint64_t>(process_->pid()) << 32 |
                   static_cast<uint32_t>(thread_->tid));
    if (interrupted_.exchange(false)) {
      running_.store(0);
      event.kind = EventKind::kInterrupted;
      return event;
    }
    const bool alive = RunGuest();
    running_.store(0);
    if (!alive) return event;
  } while (!ReadEvent(registers, event));
  return event;
}

void SystrapContext::WriteRegisters(const Registers& registers) {
  // Directly into the frame: a guest thread that reads or writes it meanwhile fools only itself.
  // Only what changed, since each line of the cache has to travel to the other CPU and back.
  SignalRegisters next = frame_registers_;
  FromRegisters(registers, next);
  auto* frame = reinterpret_cast<SignalFrame*>(thread_->region + thread_->frame_offset);
  auto* target = reinterpret_cast<uint64_t*>(&frame->registers);
  const auto* from = reinterpret_cast<const uint64_t*>(&next);
  const auto* before = reinterpret_cast<const uint64_t*>(&frame_registers_);
  for (size_t i = 0; i < kWrittenWords; i++) {
    if (from[i] != before[i]) target[i] = from[i];
  }
  const uint64_t fs_base = CanonicalOrNull(registers.fs_base);
  const uint64_t gs_base = CanonicalOrNull(registers.gs_base);
  const bool set = !bases_known_ || fs_base != fs_base_ || gs_base != gs_base_;
  ThreadContext& context = thread_->context;
  if (set) {
    context.fs_base.store(fs_base, std::memory_order_relaxed);
    context.gs_base.store(gs_base, std::memory_order_relaxed);
  }
  context.set_bases.store(set ? 1 : 0, std::memory_order_relaxed);
}

bool SystrapContext::RunGuest() {
  ThreadContext& context = thread_->context;
  const Handover::Patience patience = handover_.Enter(thread_->tid);
  context.spins.store(patience.spins, std::memory_order_relaxed);
  context.yields.store(patience.yields, std::memory_order_relaxed);
  context.sentry_sleeps.store(0, std::memory_order_relaxed);
  context.state.store(STATE_GUEST);
  // The stub drops an interrupt that comes before the turn is its.
  if (interrupted_.load()) SignalGuest();
  if (context.stub_sleeps.load() != 0) FutexWake(context.state);
  // After the store to the state, as in StubProcess::RunLocked.
  const bool alive = !process_->dead() && AwaitGuest(patience);
  context.set_bases.store(0, std::memory_order_relaxed);
  return alive;
}

bool SystrapContext::AwaitGuest(Handover::Patience patience) {
  std::atomic<uint32_t>& state = thread_->context.state;
  for (uint32_t spin = 0; spin < patience.spins; spin++) {
    if (state.load() != STATE_GUEST) {
      handover_.Spun();
      return !process_->dead();
    }
    Pause();
  }
  for (uint32_t yield = 0; yield < patience.yields; yield++) {
    if (state.load() != STATE_GUEST) {
      handover_.Slept(0);  // The guest got its turn only when we stopped spinning.
      return !process_->dead();
    }
    syscall(SYS_sched_yield);
  }
  return SleepUntilEvent();
}

bool SystrapContext::SleepUntilEvent() {
  std::atomic<uint32_t>& state = thread_->context.state;
  thread_->context.sentry_sleeps.store(1);
  const uint64_t start = NowNs();
  uint64_t interrupt_seen = 0;  // In ns since `start`, 0: no interrupt is due.
  timespec timeout{0, Handover::kLongNs};
  while (state.load() == STATE_GUEST) {
    FutexWait(state, STATE_GUEST, &timeout);
    if (state.load() != STATE_GUEST) break;
    const uint64_t slept = NowNs() - start;
    if (slept < Handover::kLongNs) continue;
    handover_.Long();
    timeout = {kPatienceSeconds, 0};
    if (!interrupted_.load()) {
      interrupt_seen = 0;
      continue;
    }
    if (interrupt_seen == 0) interrupt_seen = slept;
    if (slept - interrupt_seen < kPatienceSeconds * uint64_t{1'000'000'000}) continue;
    LOG_WARNING("systrap: a guest thread does not answer; killing stub process %d",
                process_->pid());
    process_->Kill();
  }
  handover_.Slept(NowNs() - start);
  return !process_->dead();
}

bool SystrapContext::ReadEvent(Registers& registers, Event& event) {
  const auto frame = CopyShared<SignalFrame>(thread_->region + thread_->frame_offset);
  // First, since a guest that goes on goes on from here.
  frame_registers_ = frame.registers;
  ToRegisters(frame.registers, registers);
  registers.fs_base = fs_base_ = CanonicalOrNull(thread_->context.fs_base.load());
  registers.gs_base = gs_base_ = CanonicalOrNull(thread_->context.gs_base.load());
  bases_known_ = true;
  if (frame.registers.rip == kFastTrap) {
    // Whatever signal it was: the call has been made. An interrupt is reported after it.
    event = EntryEvent(registers);
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
