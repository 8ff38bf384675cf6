#pragma once

// Signal numbers, sets and the details that travel with a signal (signal(7), sigaction(2)).

#include <signal.h>

#include <cstdint>

namespace sentry {

// Bit n-1 is signal n, as in the guest ABI.
using SignalSet = uint64_t;
inline constexpr int kSignalMax = 64;
constexpr SignalSet SignalBit(int signal) { return SignalSet{1} << (signal - 1); }
inline constexpr SignalSet kUnblockable = SignalBit(SIGKILL) | SignalBit(SIGSTOP);

// The parts of siginfo_t that the kernel fills, by kind; written to the guest's 128 bytes in one place (signal/frame).
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
  int64_t band = 0;         // SIGIO
  int32_t fd = 0;           // SIGIO
  uint64_t call_address = 0;  // SIGSYS
  int32_t syscall = 0;        // SIGSYS
  uint32_t architecture = 0;  // SIGSYS

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

struct AlternateStack {
  uint64_t address = 0;
  uint64_t size = 0;
  uint32_t flags = SS_DISABLE;
};

}  // namespace sentry
