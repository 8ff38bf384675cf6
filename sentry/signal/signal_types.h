#pragma once

// Signal numbers, sets and the details that travel with a signal (signal(7), sigaction(2)).

#include <signal.h>

#include <array>
#include <cstddef>
#include <cstdint>

namespace sentry {

// Bit n-1 is signal n, as in the guest ABI.
using SignalSet = uint64_t;
inline constexpr int kSignalMax = 64;
inline constexpr int kFirstRealTime = 32;
constexpr SignalSet SignalBit(int signal) { return SignalSet{1} << (signal - 1); }
inline constexpr SignalSet kUnblockable = SignalBit(SIGKILL) | SignalBit(SIGSTOP);
constexpr bool IsValidSignal(int signal) { return signal >= 1 && signal <= kSignalMax; }

// By default action (signal(7)).
inline constexpr SignalSet kStopSignals =
    SignalBit(SIGSTOP) | SignalBit(SIGTSTP) | SignalBit(SIGTTIN) | SignalBit(SIGTTOU);
inline constexpr SignalSet kIgnoredByDefault =
    SignalBit(SIGCONT) | SignalBit(SIGCHLD) | SignalBit(SIGWINCH) | SignalBit(SIGURG);
inline constexpr SignalSet kCoreSignals =
    SignalBit(SIGQUIT) | SignalBit(SIGILL) | SignalBit(SIGTRAP) | SignalBit(SIGABRT) |
    SignalBit(SIGFPE) | SignalBit(SIGSEGV) | SignalBit(SIGBUS) | SignalBit(SIGSYS) |
    SignalBit(SIGXCPU) | SignalBit(SIGXFSZ);
// Caused by the instruction at hand, hence delivered before all others.
inline constexpr SignalSet kSynchronousSignals = SignalBit(SIGSEGV) | SignalBit(SIGBUS) |
                                                 SignalBit(SIGILL) | SignalBit(SIGTRAP) |
                                                 SignalBit(SIGFPE) | SignalBit(SIGSYS);

// The parts of siginfo_t that the kernel fills, by kind; written to the guest's 128 bytes in one
// place (signal/signal_info.h).
struct SignalInfo {
  int32_t signal = 0;
  int32_t error = 0;
  int32_t code = 0;
  // SI_USER, SI_QUEUE, SIGCHLD
  int32_t pid = 0;
  uint32_t uid = 0;
  int32_t status = 0;       // SIGCHLD
  int64_t user_time = 0;    // SIGCHLD, clock ticks
  int64_t system_time = 0;  // SIGCHLD
  uint64_t value = 0;       // SI_QUEUE, SI_TIMER, SI_MESGQ
  int32_t timer_id = 0;     // SI_TIMER
  int32_t overrun = 0;      // SI_TIMER
  uint64_t address = 0;     // Faults
  int16_t address_lsb = 0;
  int64_t band = 0;           // SIGIO
  int32_t fd = 0;             // SIGIO
  uint64_t call_address = 0;  // SIGSYS
  int32_t syscall = 0;        // SIGSYS
  uint32_t architecture = 0;  // SIGSYS
  // Sent by the process's timers, which want to hear when it leaves the queue.
  bool from_timer = false;
  // rt_sigqueueinfo: the sender's bytes after si_code, passed on as they are (`raw` set).
  bool raw = false;
  std::array<std::byte, 112> raw_bytes{};

  // As kill(2) sends it.
  static SignalInfo FromUser(int signal, int32_t pid, uint32_t uid) {
    SignalInfo info;
    info.signal = signal;
    info.code = SI_USER;
    info.pid = pid;
    info.uid = uid;
    return info;
  }
  static SignalInfo FromKernel(int signal) {
    SignalInfo info;
    info.signal = signal;
    info.code = SI_KERNEL;
    return info;
  }
};

// struct sigaction of the guest (kernel layout, x86-64).
struct SignalAction {
  uint64_t handler = 0;  // SIG_DFL 0, SIG_IGN 1
  uint64_t flags = 0;
  uint64_t restorer = 0;
  SignalSet mask = 0;
};
inline constexpr uint64_t kHandlerDefault = 0;
inline constexpr uint64_t kHandlerIgnore = 1;
// <asm/signal.h>; libc's header keeps it to itself.
inline constexpr uint64_t kActionRestorer = 0x04000000;

struct AlternateStack {
  uint64_t address = 0;
  uint64_t size = 0;
  uint32_t flags = SS_DISABLE;  // SS_DISABLE, or 0, or SS_AUTODISARM.
};

}  // namespace sentry
