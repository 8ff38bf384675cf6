#pragma once

#include <array>
#include <cstdint>

namespace sentry {
struct ResourceUsage;
}

namespace syscalls {
namespace abi {

struct Timeval {
  int64_t seconds, microseconds;
};

// struct rusage, <linux/resource.h>.
struct Rusage {
  Timeval user, system;
  int64_t resident_kib_max, shared_kib, data_kib, stack_kib, minor_faults, major_faults, swaps,
      blocks_in, blocks_out, messages_sent, messages_received, signals, voluntary_switches,
      involuntary_switches;
};
static_assert(sizeof(Rusage) == 144);

}  // namespace abi

// For getrusage, wait4 and waitid (handlers/rlimit.cc).
abi::Rusage ToAbi(const sentry::ResourceUsage& usage);

}  // namespace syscalls
