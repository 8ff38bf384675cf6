#include "platform/stub/frame.h"

#include <linux/audit.h>

#include <cerrno>
#include <csignal>

namespace platform {
namespace {

constexpr uint64_t kTrapPageFault = 14;
constexpr uint64_t kTrapGeneralProtection = 13;
constexpr uint64_t kErrorWrite = 2;
constexpr uint64_t kErrorFetch = 16;
constexpr int32_t kSiKernel = 0x80;
constexpr uint64_t kInt80Bytes = 2;

}  // namespace

Event FaultEvent(const SignalFrame& frame) {
  Event event;
  event.signal = frame.info.signal;
  event.code = frame.info.code;
  event.address = frame.info.address;
  event.trap_number = frame.registers.trap_number;
  event.error_code = frame.registers.error_code;
  const bool by_access =
      (event.signal == SIGSEGV || event.signal == SIGBUS) && event.trap_number == kTrapPageFault;
  if (!by_access) {
    event.kind = EventKind::kSignal;
    return event;
  }
  event.kind = EventKind::kFault;
  if ((event.error_code & kErrorWrite) != 0) {
    event.access = kAccessWrite;
  } else if ((event.error_code & kErrorFetch) != 0) {
    event.access = kAccessExec;
  } else {
    event.access = kAccessRead;
  }
  return event;
}

Event SyscallEvent(uint32_t arch, Registers& registers) {
  Event event;
  if (arch == AUDIT_ARCH_X86_64) {
    event.kind = EventKind::kSyscall;
    registers.orig_rax = registers.rax;
    registers.rax = static_cast<uint64_t>(-ENOSYS);
    return event;
  }
  event.kind = EventKind::kSignal;
  event.signal = SIGSEGV;
  event.code = kSiKernel;
  event.trap_number = kTrapGeneralProtection;
  event.error_code = (0x80 << 3) | 2;  // Selector error code: entry 0x80 of the IDT.
  registers.rip -= kInt80Bytes;
  return event;
}

void ToRegisters(const SignalRegisters& from, Registers& to) {
  CopyUnclobbered(from, to);
  to.r11 = from.r11;
  to.rcx = from.rcx;
}

void FromRegisters(const Registers& from, SignalRegisters& to) {
  to.r15 = from.r15;
  to.r14 = from.r14;
  to.r13 = from.r13;
  to.r12 = from.r12;
  to.rbp = from.rbp;
  to.rbx = from.rbx;
  to.r11 = from.r11;
  to.r10 = from.r10;
  to.r9 = from.r9;
  to.r8 = from.r8;
  to.rax = from.rax;
  to.rcx = from.rcx;
  to.rdx = from.rdx;
  to.rsi = from.rsi;
  to.rdi = from.rdi;
  to.rip = from.rip;
  to.cs = kUserCs;
  to.eflags = UserFlags(from.eflags);
  to.rsp = from.rsp;
  to.ss = kUserSs;
  to.fs = 0;
  to.gs = 0;
}

}  // namespace platform
