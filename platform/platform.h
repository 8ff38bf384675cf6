#pragma once

// The contract between the sentry and whatever runs guest code (systrap, ptrace, KVM).
//
// A Platform makes AddressSpaces (what guest code can reach) and Contexts (a CPU's worth of guest
// state). Context::Switch runs guest code in an address space until something needs the sentry.
// One conformance suite (test/unit/platform) runs over every implementation.
//
// The guest controls everything that a Switch reports except the kind of event: registers, fault
// addresses and signal details are input, to be checked by the sentry.

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "platform/base/result.h"

namespace platform {

// x86-64 general registers, in the order of Linux's struct user_regs_struct.
struct Registers {
  uint64_t r15 = 0, r14 = 0, r13 = 0, r12 = 0, rbp = 0, rbx = 0, r11 = 0, r10 = 0, r9 = 0, r8 = 0;
  uint64_t rax = 0, rcx = 0, rdx = 0, rsi = 0, rdi = 0;
  uint64_t orig_rax = 0;  // The system call's number after kSyscall, else ~0.
  uint64_t rip = 0, cs = 0, eflags = 0, rsp = 0, ss = 0;
  uint64_t fs_base = 0, gs_base = 0;
};

// An XSAVE image in the standard (not compacted) format, 64-byte aligned, as Linux puts it into
// signal frames and PTRACE_GETREGSET(NT_X86_XSTATE). FpuSize() bytes of it are in use.
struct alignas(64) FpuState {
  static constexpr size_t kBytesMax = 4096;
  std::array<std::byte, kBytesMax> bytes{};
};

enum class EventKind : uint8_t {
  kSyscall,  // orig_rax is the number, rax is -ENOSYS, rip is after the instruction.
  kFault,    // SIGSEGV or SIGBUS by an access: address, access, trap_number, error_code are set.
  kSignal,   // SIGILL, SIGFPE, SIGTRAP, and SIGSEGV without an address: signal, code, address.
  kInterrupted,  // Interrupt() was called, now or before this Switch.
  kDead,         // The address space's host process is gone; the guest process cannot go on.
};

// What getpid(2), gettid, getppid, getpgrp, getuid, geteuid, getgid and getegid return.
struct Identity {
  int32_t pid = 0, tid = 0, parent = 0, process_group = 0;
  uint32_t uid = 0, effective_uid = 0, gid = 0, effective_gid = 0;
};

// Bits of Event::access.
inline constexpr uint8_t kAccessRead = 1;
inline constexpr uint8_t kAccessWrite = 2;
inline constexpr uint8_t kAccessExec = 4;

// How a system call reached the sentry.
enum class SyscallPath : uint8_t {
  kTrap,       // The instruction was executed where it stands: rip - 2 is its address.
  kEntryTrap,  // Guest code came to syscall_entry(), which trapped,
  kEntry,      // or handed over without a trap.
};

struct Event {
  EventKind kind = EventKind::kInterrupted;
  SyscallPath path = SyscallPath::kTrap;  // Of a kSyscall.
  uint8_t access = 0;
  int32_t signal = 0;    // Host signal number of a kFault or kSignal.
  int32_t code = 0;      // si_code
  uint64_t address = 0;  // si_addr
  uint64_t trap_number =
      0;  // As Linux reports in sigcontext (13 general protection, 14 page fault..).
  uint64_t error_code = 0;
};

// What a range of guest addresses shows: bytes of a host descriptor.
struct Mapping {
  uint64_t address = 0;     // Page aligned.
  uint64_t length = 0;      // Page aligned, > 0.
  int host_fd = -1;         // Borrowed for the duration of the call.
  uint64_t offset = 0;      // Page aligned offset in host_fd.
  int protection = 0;       // PROT_*; may be PROT_NONE.
  bool is_private = false;  // MAP_PRIVATE instead of MAP_SHARED (file text, read-only in practice).
  bool populate = false;    // Fault the pages in now.
};

struct Protection {
  uint64_t address = 0;  // Page aligned.
  uint64_t length = 0;   // Page aligned, > 0.
  int protection = 0;    // PROT_*
};

// One guest address space. Thread-safe. Destruction ends the host process behind it; no Switch
// into it may be under way.
class AddressSpace {
 public:
  virtual ~AddressSpace() = default;
  AddressSpace() = default;
  AddressSpace(const AddressSpace&) = delete;
  AddressSpace& operator=(const AddressSpace&) = delete;

  // The process that shows up for it in the host's tools; 0 if there is none of its own. For
  // diagnostics.
  virtual int host_pid() const { return 0; }

  // Replaces whatever is mapped in the range. When these return, no guest thread can use an older
  // translation. EINVAL outside [user_address_min, user_address_max), ENOMEM when the host refuses,
  // ESRCH if the host process is gone.
  virtual base::Result<void> Map(const Mapping& mapping) = 0;
  virtual base::Result<void> Unmap(uint64_t address, uint64_t length) = 0;
  // Holes in the range are left alone. Protects what is mapped.
  virtual base::Result<void> Protect(uint64_t address, uint64_t length, int protection) = 0;
  // Batch of maps, in order, one hand-over where the platform can. EINVAL leaves everything as it
  // was; after another error, of this or of Map, nothing is mapped in the ranges.
  virtual base::Result<void> MapAll(const std::vector<Mapping>& mappings) {
    for (const Mapping& mapping : mappings) TRY(Map(mapping));
    return {};
  }
  // Batch of Protects, likewise. After an error it is unknown which were done.
  virtual base::Result<void> ProtectAll(const std::vector<Protection>& ranges) {
    for (const Protection& range : ranges) {
      TRY(Protect(range.address, range.length, range.protection));
    }
    return {};
  }
  // Unmaps everything, if that makes it as good as new: no more than one context has ever run here,
  // and that one is between two Switches. False: nothing has changed.
  virtual bool Reset() { return false; }
  // Ends guest code in here for good. When it returns no guest thread can touch memory any more;
  // what is called later may answer ESRCH. Again and from any thread; no Switch may be under way.
  virtual void End() {}
};

// The state of one guest thread. Used by one host thread at a time, except Interrupt. It belongs to
// the host thread that first Switches it: that one makes all further calls and destroys it
// (ptrace(2) demands it).
class Context {
 public:
  virtual ~Context() = default;
  Context() = default;
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

  // Makes the next Switch into `address_space` independent of the host's limits: a Switch that
  // cannot get a host thread can only report kDead. Optional; any thread, not during a Switch.
  // EAGAIN, ENOMEM, ESRCH.
  virtual base::Result<void> Prepare(AddressSpace& address_space) = 0;

  // Runs guest code from `registers` until an event; `registers` then hold the guest's state. cs,
  // ss and privileged eflags bits that the caller passes are ignored. Setting TF in eflags
  // single-steps: the next event is kSignal SIGTRAP TRAP_TRACE at the latest. The address space may
  // differ from the last call's (execve); extended state moves along if the old address space is
  // still there.
  virtual Event Switch(AddressSpace& address_space, Registers& registers) = 0;

  // Any thread, any time, async-signal-safe: the Switch under way, or else the next one, returns
  // kInterrupted within bounded time (an event that comes first may be reported first).
  virtual void Interrupt() = 0;

  // Any thread. The time that guest code has run, by the clock on the wall: hand-over and what the
  // host gave to others meanwhile included. The Switch under way may count late, by microseconds.
  virtual uint64_t GuestNs() const { return 0; }

  // Any thread, waits for nothing. From now on the platform may make system calls that `identity`
  // answers, and others that matter to nobody but the calling thread (sched_yield, a futex wait
  // whose word has changed), without an event. Whatever changes the answers calls it again before
  // the guest can know of the change. Null: every call is to be an event (again).
  virtual void SetIdentity(const Identity* identity) { (void)identity; }

  // The host thread is about to sleep until something happens that the guest waits for, and is back.
  // Optional: so that the platform knows who uses the CPUs.
  virtual void Blocks() {}
  virtual void Unblocks() {}
  // Any thread, with the context kept alive: the caller is about to wake the host thread, which may
  // be between Blocks and Unblocks. The platform may have it come to the caller's CPU.
  virtual void Waking() {}

  // Extended (x87, SSE, AVX, ...) state. Not during a Switch. SetFpu takes any bytes: a header that
  // the CPU would refuse is EINVAL and nothing changes. A new Context has Linux's initial state.
  virtual void GetFpu(FpuState& state) = 0;
  virtual base::Result<void> SetFpu(const FpuState& state) = 0;
  // Back to the initial state (execve).
  virtual void ResetFpu() = 0;
};

class Platform {
 public:
  virtual ~Platform() = default;
  Platform() = default;
  Platform(const Platform&) = delete;
  Platform& operator=(const Platform&) = delete;

  virtual std::string_view name() const = 0;
  // ENOMEM, EAGAIN: the host's limits.
  virtual base::Result<std::unique_ptr<AddressSpace>> NewAddressSpace() = 0;
  virtual base::Result<std::unique_ptr<Context>> NewContext() = 0;
  // AddressSpace::End without waiting for it: `gone` runs afterwards, once, with no lock held, on
  // any thread or before this returns. `space` stays until then.
  virtual void Retire(AddressSpace& space, std::function<void()> gone) {
    space.End();
    gone();
  }
  // Returns when each `gone` that was given before has run.
  virtual void AwaitRetired() {}
  // Guest mappings may lie in [min, max).
  virtual uint64_t user_address_min() const = 0;
  virtual uint64_t user_address_max() const = 0;

  // Where guest code may jump instead of executing `syscall`, with the number in rax and the
  // address after the instruction in rcx; r11 is lost, as in the instruction. It becomes a kSyscall
  // of a path other than kTrap. 0: there is no such place.
  virtual uint64_t syscall_entry() const { return 0; }
};

// Bytes of FpuState in use on this CPU (CPUID leaf 13 with XCR0). At most FpuState::kBytesMax.
size_t FpuSize();

}  // namespace platform
