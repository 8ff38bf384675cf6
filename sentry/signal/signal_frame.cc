#include "sentry/signal/signal_frame.h"

#include <cpuid.h>
#include <sys/ucontext.h>

#include <array>
#include <cstddef>
#include <cstring>
#include <span>

#include "platform/base/user_addr.h"
#include "platform/platform.h"
#include "sentry/kernel/task.h"
#include "sentry/signal/signal_info.h"

namespace sentry {
namespace {

using base::Errno;
using base::UserAddr;

// struct sigcontext_64.
struct SignalContext {
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t error, trap, old_mask, cr2, fpstate;
  std::array<uint64_t, 8> reserved;
};
static_assert(sizeof(SignalContext) == 256);

struct UserContext {
  uint64_t flags, link;
  uint64_t stack_address;
  int32_t stack_flags;
  uint32_t stack_pad;
  uint64_t stack_size;
  SignalContext context;
  uint64_t mask;
};
static_assert(sizeof(UserContext) == 304);

struct Frame {
  uint64_t return_address;
  UserContext uc;
  SignalInfoBytes info;
};
static_assert(sizeof(Frame) == 440);

// <asm/ucontext.h>
constexpr uint64_t kUcFpXstate = 1;
constexpr uint64_t kUcSigcontextSs = 2;
constexpr uint64_t kUcStrictRestoreSs = 4;

// struct _fpx_sw_bytes at byte 464 of the FXSAVE area (<asm/sigcontext.h>).
struct SoftwareBytes {
  uint32_t magic1, extended_size;
  uint64_t features;
  uint32_t xstate_size;
  std::array<uint32_t, 7> padding;
};
static_assert(sizeof(SoftwareBytes) == 48);
constexpr uint32_t kMagic1 = 0x46505853;
constexpr uint32_t kMagic2 = 0x46505845;
constexpr size_t kSoftwareBytesAt = 464;
constexpr size_t kLegacyBytes = 512;
constexpr size_t kMinimalXsave = 576;  // FXSAVE area and XSAVE header.
constexpr size_t kMxcsrAt = 24;

constexpr int32_t kAutoDisarm = static_cast<int32_t>(uint32_t{1} << 31);  // SS_AUTODISARM
constexpr uint64_t kRedZone = 128;
constexpr uint64_t kFlagDirection = 0x400, kFlagTrap = 0x100, kFlagResume = 0x10000;
// What rt_sigreturn takes from the frame: AC OF DF TF SF ZF AF PF CF RF.
constexpr uint64_t kFlagsOfFrame =
    0x40000 | 0x800 | 0x400 | 0x100 | 0x80 | 0x40 | 0x10 | 0x4 | 0x1 | 0x10000;
constexpr uint16_t kUserCs = 0x33, kUserSs = 0x2b;
constexpr uint64_t kMinimalSignalStack = 2048;  // MINSIGSTKSZ of the ABI.

// XCR0: the state components in an XSAVE image. 3 (x87, SSE) where there is no XSAVE.
uint64_t ReadEnabledFeatures() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  if (__get_cpuid(1, &eax, &ebx, &ecx, &edx) == 0 || (ecx & (1u << 27)) == 0) return 3;
  uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (uint64_t{high} << 32) | low;
}

// CPUID leaves a virtual machine, at 5 us each time.
uint64_t EnabledFeatures() {
  static const uint64_t features = ReadEnabledFeatures();
  return features;
}

bool OnStack(const AlternateStack& stack, uint64_t sp) {
  return stack.size != 0 && sp > stack.address && sp - stack.address <= stack.size;
}

// As Linux's on_sig_stack: an SS_AUTODISARM stack counts as left.
bool RunsOnAlternate(const AlternateStack& stack, uint64_t sp) {
  return (stack.flags & static_cast<uint32_t>(kAutoDisarm)) == 0 && OnStack(stack, sp);
}

struct Layout {
  uint64_t frame = 0;
  uint64_t fpstate = 0;
};

base::Result<Layout> PlaceFrame(Task& task, const SignalAction& action, size_t fpu_bytes) {
  const AlternateStack& alternate = task.alternate_stack();
  uint64_t sp = task.registers().rsp;
  const bool nested = RunsOnAlternate(alternate, sp);
  bool entering = false;
  sp -= kRedZone;
  if ((action.flags & SA_ONSTACK) != 0 && !nested && alternate.size != 0 &&
      (alternate.flags & static_cast<uint32_t>(SS_DISABLE)) == 0) {
    sp = alternate.address + alternate.size;
    entering = true;
  }
  Layout layout;
  layout.fpstate = (sp - fpu_bytes - sizeof(kMagic2)) & ~uint64_t{63};
  layout.frame = ((layout.fpstate - sizeof(Frame)) & ~uint64_t{15}) - 8;
  // A frame that ran off the alternate stack would overwrite what lies below it.
  if ((nested || entering) && !OnStack(alternate, layout.frame)) return Errno(EFAULT);
  return layout;
}

base::Result<void> WriteFpu(Task& task, uint64_t address, size_t fpu_bytes) {
  platform::FpuState state;
  task.context().GetFpu(state);
  SoftwareBytes software{};
  if (fpu_bytes > kLegacyBytes) {
    const uint64_t features = EnabledFeatures();
    software.magic1 = kMagic1;
    software.extended_size = static_cast<uint32_t>(fpu_bytes + sizeof(kMagic2));
    software.features = features;
    software.xstate_size = static_cast<uint32_t>(fpu_bytes);
    // x87 and SSE count as present, so that a handler may edit them.
    uint64_t present = 0;
    std::memcpy(&present, state.bytes.data() + kLegacyBytes, sizeof(present));
    present |= 3;
    std::memcpy(state.bytes.data() + kLegacyBytes, &present, sizeof(present));
  }
  std::memcpy(state.bytes.data() + kSoftwareBytesAt, &software, sizeof(software));
  std::array<std::byte, platform::FpuState::kBytesMax + sizeof(kMagic2)> out;
  std::memcpy(out.data(), state.bytes.data(), fpu_bytes);
  size_t bytes = fpu_bytes;
  if (fpu_bytes > kLegacyBytes) {
    std::memcpy(out.data() + fpu_bytes, &kMagic2, sizeof(kMagic2));
    bytes += sizeof(kMagic2);
  }
  return task.memory().CopyOutExactly(UserAddr(address), std::span(out).first(bytes));
}

SignalContext ContextOf(const platform::Registers& r) {
  SignalContext c{};
  c.r8 = r.r8, c.r9 = r.r9, c.r10 = r.r10, c.r11 = r.r11;
  c.r12 = r.r12, c.r13 = r.r13, c.r14 = r.r14, c.r15 = r.r15;
  c.rdi = r.rdi, c.rsi = r.rsi, c.rbp = r.rbp, c.rbx = r.rbx;
  c.rdx = r.rdx, c.rax = r.rax, c.rcx = r.rcx, c.rsp = r.rsp;
  c.rip = r.rip, c.eflags = r.eflags;
  c.cs = kUserCs, c.ss = kUserSs;
  return c;
}

void ApplyContext(const SignalContext& c, platform::Registers& r) {
  r.r8 = c.r8, r.r9 = c.r9, r.r10 = c.r10, r.r11 = c.r11;
  r.r12 = c.r12, r.r13 = c.r13, r.r14 = c.r14, r.r15 = c.r15;
  r.rdi = c.rdi, r.rsi = c.rsi, r.rbp = c.rbp, r.rbx = c.rbx;
  r.rdx = c.rdx, r.rax = c.rax, r.rcx = c.rcx, r.rsp = c.rsp;
  r.rip = c.rip;
  r.eflags = (r.eflags & ~kFlagsOfFrame) | (c.eflags & kFlagsOfFrame);
  r.orig_rax = ~uint64_t{0};
}

// The image in the frame, or only its legacy part when the marks around the extended part are not
// intact, as Linux does.
base::Result<platform::FpuState> ReadFpu(Task& task, uint64_t address) {
  const size_t fpu_bytes = platform::FpuSize();
  platform::FpuState state;
  TRY(task.memory().CopyInExactly(UserAddr(address), std::span(state.bytes).first(kLegacyBytes)));
  SoftwareBytes software;
  std::memcpy(&software, state.bytes.data() + kSoftwareBytesAt, sizeof(software));
  uint32_t mxcsr = 0;
  std::memcpy(&mxcsr, state.bytes.data() + kMxcsrAt, sizeof(mxcsr));
  if ((mxcsr & 0xffff0000) != 0) return Errno(EFAULT);
  bool extended = fpu_bytes >= kMinimalXsave && software.magic1 == kMagic1 &&
                  software.xstate_size >= kMinimalXsave && software.xstate_size <= fpu_bytes &&
                  software.xstate_size <= software.extended_size;
  if (extended) {
    std::array<std::byte, sizeof(kMagic2)> mark;
    const UserAddr mark_at = TRY(UserAddr(address).Plus(software.xstate_size));
    TRY(task.memory().CopyInExactly(mark_at, mark));
    uint32_t magic2 = 0;
    std::memcpy(&magic2, mark.data(), sizeof(magic2));
    extended = magic2 == kMagic2;
  }
  std::span<std::byte> rest =
      std::span(state.bytes)
          .subspan(kLegacyBytes, fpu_bytes > kLegacyBytes ? fpu_bytes - kLegacyBytes : 0);
  if (extended) {
    if (address % 64 != 0) return Errno(EFAULT);  // XRSTOR would fault.
    TRY(task.memory().CopyInExactly(TRY(UserAddr(address).Plus(kLegacyBytes)),
                                    rest.first(software.xstate_size - kLegacyBytes)));
    uint64_t present = 0;
    std::memcpy(&present, rest.data(), sizeof(present));
    // Components that the frame did not announce become initial. Those that the CPU does not have
    // are refused below.
    present &= software.features | ~EnabledFeatures();
    std::memcpy(rest.data(), &present, sizeof(present));
  } else if (!rest.empty()) {
    const uint64_t present = 3;
    std::memcpy(rest.data(), &present, sizeof(present));
  }
  return state;
}

}  // namespace

base::Result<void> SignalFrame::Push(Task& task, const SignalToHandle& signal, SignalSet mask) {
  const size_t fpu_bytes = platform::FpuSize();
  const Layout layout = TRY(PlaceFrame(task, signal.action, fpu_bytes));
  if ((signal.action.flags & kActionRestorer) == 0) return Errno(EFAULT);
  TRY(WriteFpu(task, layout.fpstate, fpu_bytes));

  platform::Registers& registers = task.registers();
  AlternateStack& alternate = task.alternate_stack();
  Frame frame{};
  frame.return_address = signal.action.restorer;
  frame.uc.flags =
      kUcSigcontextSs | kUcStrictRestoreSs | (fpu_bytes > kLegacyBytes ? kUcFpXstate : 0);
  frame.uc.stack_address = alternate.address;
  frame.uc.stack_flags = AlternateStackFlags(task) & ~SS_ONSTACK;
  frame.uc.stack_size = alternate.size;
  frame.uc.context = ContextOf(registers);
  frame.uc.context.fpstate = layout.fpstate;
  frame.uc.context.old_mask = mask;
  frame.uc.context.error = task.fault_error();
  frame.uc.context.trap = task.fault_trap();
  frame.uc.context.cr2 = task.fault_address();
  frame.uc.mask = mask;
  frame.info = EncodeSignalInfo(signal.info);
  TRY(task.memory().CopyOutExactly(UserAddr(layout.frame), std::as_bytes(std::span(&frame, 1))));

  if ((alternate.flags & static_cast<uint32_t>(kAutoDisarm)) != 0) alternate = AlternateStack{};
  registers.rdi = static_cast<uint64_t>(signal.info.signal);
  registers.rsi = layout.frame + offsetof(Frame, info);
  registers.rdx = layout.frame + offsetof(Frame, uc);
  registers.rax = 0;
  registers.rip = signal.action.handler;
  registers.rsp = layout.frame;
  registers.cs = kUserCs;
  registers.ss = kUserSs;
  registers.eflags &= ~(kFlagDirection | kFlagTrap | kFlagResume);
  registers.orig_rax = ~uint64_t{0};
  return {};
}

base::Result<void> SignalFrame::Return(Task& task) {
  platform::Registers& registers = task.registers();
  // The handler's `ret` has popped the return address.
  const UserAddr at(registers.rsp - sizeof(uint64_t));
  Frame frame;
  TRY(task.memory().CopyInExactly(
      at, std::as_writable_bytes(std::span(&frame, 1)).first(offsetof(Frame, info))));
  task.set_signal_mask(frame.uc.mask);
  if (frame.uc.context.fpstate == 0) {
    task.context().ResetFpu();
  } else {
    const platform::FpuState state = TRY(ReadFpu(task, frame.uc.context.fpstate));
    if (!task.context().SetFpu(state).ok()) return Errno(EFAULT);
  }
  ApplyContext(frame.uc.context, registers);
  // Linux ignores a refusal here too.
  (void)SetAlternateStack(task, frame.uc.stack_address, frame.uc.stack_flags, frame.uc.stack_size);
  return {};
}

int32_t AlternateStackFlags(Task& task) {
  const AlternateStack& stack = task.alternate_stack();
  if (stack.size == 0) return SS_DISABLE;
  const int32_t flags = static_cast<int32_t>(stack.flags & static_cast<uint32_t>(kAutoDisarm));
  return flags | (RunsOnAlternate(stack, task.registers().rsp) ? SS_ONSTACK : 0);
}

base::Result<void> SetAlternateStack(Task& task, uint64_t address, int32_t flags, uint64_t size) {
  AlternateStack& stack = task.alternate_stack();
  if (RunsOnAlternate(stack, task.registers().rsp)) return Errno(EPERM);
  const int32_t mode = flags & ~kAutoDisarm;
  if (mode != SS_DISABLE && mode != SS_ONSTACK && mode != 0) return Errno(EINVAL);
  if (mode == SS_DISABLE) {
    stack = AlternateStack{};
    return {};
  }
  if (size < kMinimalSignalStack) return Errno(ENOMEM);
  stack.address = address;
  stack.size = size;
  stack.flags = static_cast<uint32_t>(flags & kAutoDisarm);
  return {};
}

}  // namespace sentry
