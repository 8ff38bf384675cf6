#pragma once

// Which pages of the pool the host really holds, asked by SEEK_DATA and SEEK_HOLE: the sentry's
// filter has lseek anyway, and the cost is per run of pages, not per page. The pool's file offset
// is used by nobody else.

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>

#include "platform/memory/memory_pool.h"

namespace sentry {

// Calls `visit(PoolRange)` for each run of resident pages in `range`, in order, for `runs_max` runs
// at most. If the host cannot tell, all of it counts as resident.
template <typename Visit>
void ForEachResident(const platform::MemoryPool& pool, platform::PoolRange range, uint64_t runs_max,
                     Visit&& visit) {
  uint64_t at = range.start;
  for (uint64_t runs = 0; at < range.end && runs < runs_max; runs++) {
    const off_t data = lseek(pool.fd(), static_cast<off_t>(at), SEEK_DATA);
    if (data < 0 && errno == ENXIO) return;
    if (data >= 0 && static_cast<uint64_t>(data) >= range.end) return;
    const off_t hole = data < 0 ? data : lseek(pool.fd(), data, SEEK_HOLE);
    if (hole < 0 || hole <= data) {
      visit(platform::PoolRange{at, range.end});
      return;
    }
    const uint64_t end = std::min(static_cast<uint64_t>(hole), range.end);
    visit(platform::PoolRange{std::max(at, static_cast<uint64_t>(data)), end});
    at = end;
  }
}

}  // namespace sentry
