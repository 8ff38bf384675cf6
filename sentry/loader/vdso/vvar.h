/* The page of clock parameters, between the sentry that writes it and the guest's vDSO that reads
 * it. Plain C: the vDSO is freestanding code.
 *
 * A reader takes `sequence`, which is odd while the sentry writes, the fields, the counter, and
 * `sequence` again; if it has changed, all over. Then, with delta = counter - tsc_base: monotonic =
 * monotonic_base_ns + delta * multiplier / 2^32      realtime = monotonic + realtime_offset_ns If
 * delta > valid_ticks (unsigned: a counter that went back counts too), or mode is not kVvarCounter,
 * the reader asks the sentry. */

#pragma once

#ifdef __cplusplus
#include <cstdint>
namespace sentry {
#else
#include <stdint.h>
#endif

enum { kVvarSystemCall = 0, kVvarCounter = 1 };

struct VvarPage {
  uint32_t sequence;
  uint32_t mode;
  uint64_t tsc_base;
  uint64_t valid_ticks;
  uint64_t multiplier; /* Nanoseconds per tick, times 2^32. */
  int64_t monotonic_base_ns;
  int64_t realtime_offset_ns;
};

#ifdef __cplusplus
}
#endif
