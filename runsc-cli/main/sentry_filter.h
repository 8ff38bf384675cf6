#pragma once

// What the sentry may ask of the host while a guest runs. No call here takes a path.

#include <sys/types.h>

#include "platform/seccomp/filter.h"

namespace runsc {

struct SentryFilterParameters {
  pid_t own_pid = 1;            // Signals go to its own threads only.
  bool ptrace_platform = true;  // Rows that only --platform=ptrace needs.
};

platform::seccomp::Filter SentryFilter(const SentryFilterParameters& parameters);

}  // namespace runsc
