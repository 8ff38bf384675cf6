#pragma once

// siginfo_t of the guest: 128 bytes whose meaning depends on si_signo and si_code
// (<asm-generic/siginfo.h>).

#include <array>
#include <cstddef>

#include "sentry/signal/signal_types.h"

namespace sentry {

inline constexpr size_t kSignalInfoBytes = 128;
using SignalInfoBytes = std::array<std::byte, kSignalInfoBytes>;

SignalInfoBytes EncodeSignalInfo(const SignalInfo& info);
// What rt_sigqueueinfo(2) got: the bytes are passed on, and the fields that signalfd shows are read
// as those of SI_QUEUE.
SignalInfo DecodeSignalInfo(const SignalInfoBytes& bytes);

}  // namespace sentry
