#pragma once

// The signal frame that the kernel builds on a guest thread's signal stack (struct rt_sigframe of
// arch/x86/include/asm/sigframe.h, Linux 6.12). It lies in guest-writable memory.

#include <array>
#include <cstddef>
#include <cstdint>

#include "platform/platform.h"
#include "platform/stub/layout.h"

namespace platform {

struct SignalRegisters {  // struct sigcontext_64
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15;
  uint64_t rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, eflags;
  uint16_t cs, gs, fs, ss;
  uint64_t error_code, trap_number, old_mask, cr2;
  uint64_t fpstate;
  std::array<uint64_t, 8> reserved;
};
static_assert(sizeof(SignalRegisters) == 256);

struct SignalFrame {
  uint64_t return_address;
  uint64_t flags;
  uint64_t link;
  struct {
    uint64_t sp;
    uint32_t flags;
    uint32_t pad;
    uint64_t size;
  } stack;
  SignalRegisters registers;
  uint64_t mask;
  struct {  // siginfo_t, the parts that a fault or SIGSYS fills in.
    int32_t signal, error, code, pad;
    uint64_t address;  // si_addr, si_call_addr
    int32_t number;    // si_syscall
    uint32_t arch;     // si_arch
    std::array<uint64_t, 12> rest;
  } info;
};
static_assert(sizeof(SignalFrame) == 440);
static_assert(offsetof(SignalFrame, registers.r8) == FRAME_R8);
static_assert(offsetof(SignalFrame, registers.r15) == FRAME_R15);
static_assert(offsetof(SignalFrame, registers.rdi) == FRAME_RDI);
static_assert(offsetof(SignalFrame, registers.rsi) == FRAME_RSI);
static_assert(offsetof(SignalFrame, registers.rbp) == FRAME_RBP);
static_assert(offsetof(SignalFrame, registers.rbx) == FRAME_RBX);
static_assert(offsetof(SignalFrame, registers.rdx) == FRAME_RDX);
static_assert(offsetof(SignalFrame, registers.rax) == FRAME_RAX);
static_assert(offsetof(SignalFrame, registers.rcx) == FRAME_RCX);
static_assert(offsetof(SignalFrame, registers.rsp) == FRAME_RSP);
static_assert(offsetof(SignalFrame, registers.rip) == FRAME_RIP);
static_assert(offsetof(SignalFrame, registers.eflags) == FRAME_EFLAGS);
static_assert(offsetof(SignalFrame, registers.fpstate) == FRAME_FPSTATE);
static_assert(offsetof(SignalFrame, info.signal) == FRAME_SIGNAL);

// The bits of eflags that guest code may set; the rest is what user mode always runs with.
constexpr uint64_t UserFlags(uint64_t eflags) {
  constexpr uint64_t kSettable = 0x250dd5;  // CF PF AF ZF SF TF DF OF RF AC ID
  constexpr uint64_t kAlways = 0x202;       // IF, and the bit that is always one.
  return (eflags & kSettable) | kAlways;
}

inline constexpr uint16_t kUserCs = 0x33;
inline constexpr uint16_t kUserSs = 0x2b;
inline constexpr uint64_t kNoSyscall = ~uint64_t{0};

// Copies out of memory that the guest may be writing: the result is one snapshot of each byte.
template <typename T>
T CopyShared(const std::byte* source) {
  T copy;
  __builtin_memcpy(&copy, source, sizeof(copy));
  asm volatile("" : "+m"(copy));  // Later reads are of the copy.
  return copy;
}

// Translates what the kernel reported for a signal other than SIGSYS and the interrupt.
Event FaultEvent(const SignalFrame& frame);
// For SIGSYS: the system call, or a SIGSEGV if it was made by another calling convention than
// x86-64's (int 0x80), as on a host without 32-bit support. Updates rip, rax and orig_rax.
Event SyscallEvent(uint32_t arch, Registers& registers);

// All of a general register set but rcx, r11 and the bases: those that a system call leaves alone,
// and rax.
template <typename Saved>
void CopyUnclobbered(const Saved& from, Registers& to) {
  to.r15 = from.r15;
  to.r14 = from.r14;
  to.r13 = from.r13;
  to.r12 = from.r12;
  to.rbp = from.rbp;
  to.rbx = from.rbx;
  to.r10 = from.r10;
  to.r9 = from.r9;
  to.r8 = from.r8;
  to.rax = from.rax;
  to.rdx = from.rdx;
  to.rsi = from.rsi;
  to.rdi = from.rdi;
  to.orig_rax = kNoSyscall;
  to.rip = from.rip;
  to.cs = kUserCs;
  to.eflags = UserFlags(from.eflags);
  to.rsp = from.rsp;
  to.ss = kUserSs;
}

void ToRegisters(const SignalRegisters& from, Registers& to);
void FromRegisters(const Registers& from, SignalRegisters& to);

}  // namespace platform
