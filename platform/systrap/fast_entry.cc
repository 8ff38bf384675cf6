#include "platform/systrap/fast_entry.h"

#include <sys/syscall.h>

#include <cerrno>

#include "platform/stub/image.h"

namespace platform {
namespace {

constexpr uint64_t kCarry = 0x1, kParity = 0x4, kAdjust = 0x10, kZero = 0x40, kSign = 0x80,
                   kOverflow = 0x800, kResume = 0x10000;
constexpr uint64_t kLowFlags = kCarry | kParity | kAdjust | kZero | kSign;

// The stub keeps the flags as LAHF and SETO leave them in ax.
uint64_t Compose(uint64_t eflags, uint64_t ax) {
  return (eflags & ~(kLowFlags | kOverflow)) | ((ax >> 8) & kLowFlags) |
         ((ax & 1) != 0 ? kOverflow : 0);
}

uint64_t LowerAddress(uint64_t packed) {
  return static_cast<uint64_t>(static_cast<int64_t>(packed << 16) >> 16);
}

const FastStages& Stages() {
  static const FastStages stages = GetStubEntries().fast;
  return stages;
}

}  // namespace

bool UndoFastEntry(const SignalRegisters& frame, const FastRegisters& context,
                   Registers& registers) {
  const FastStages& stages = Stages();
  const uint64_t rip = frame.rip;
  const bool at_trap = rip == stages.trap;
  if (!at_trap && (rip < STUB_FAST_ENTRY || rip >= stages.published)) return false;

  uint64_t number = frame.r11;
  uint64_t next = frame.rcx;
  uint64_t eflags = frame.eflags;
  if (!at_trap && rip <= stages.flags) {
    number = frame.rax;
  } else if (!at_trap && rip < stages.pack) {
    // The flags are untouched.
  } else if (rip == stages.pack) {
    eflags = Compose(eflags, frame.rax >> 48);
  } else if (rip == stages.answered) {
    // All but the result is in place; the call changed nothing, so it may as well be made again.
  } else if (rip >= stages.yield && rip < stages.yielded) {
    number = SYS_sched_yield;
    next = LowerAddress(frame.rdx);
    eflags = Compose(eflags, frame.rdx >> 48);
    registers.rdx = context.rdx;
  } else if (at_trap || rip < stages.stored) {
    next = LowerAddress(frame.rcx);
    eflags = Compose(eflags, frame.rcx >> 48);
    if (!at_trap && rip >= stages.rdx) registers.rdx = context.rdx;
  } else {
    const uint64_t fs_base = registers.fs_base;
    ToRegisters(context, 0, registers);
    registers.fs_base = fs_base;
    number = context.rax;
    next = context.rip;
    eflags = rip < stages.whole ? Compose(eflags, frame.rcx >> 48) : context.eflags;
  }
  registers.orig_rax = number;
  registers.rax = static_cast<uint64_t>(-ENOSYS);
  registers.rip = registers.rcx = next;
  registers.eflags = UserFlags(eflags & ~kResume);
  registers.r11 = registers.eflags;
  return true;
}

void ToRegisters(const FastRegisters& from, uint32_t command, Registers& to) {
  CopyUnclobbered(from, to);
  const bool all = (command & COMMAND_ALL) != 0;
  to.rcx = all ? from.rcx : from.rip;
  to.r11 = all ? from.r11 : to.eflags;
  to.fs_base = from.fs_base;
}

}  // namespace platform
