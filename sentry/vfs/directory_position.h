#pragma once

// What open directories have in common whose positions are cookies: 0 and 1 for "." and "..", then
// whatever the file system gives its entries.

#include <dirent.h>
#include <unistd.h>

#include <cstdint>

#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

inline constexpr uint64_t kFirstEntryPosition = 2;

// lseek(2): there is no end to seek from.
inline base::Result<uint64_t> SeekDirectory(uint64_t position, int64_t offset, int whence) {
  int64_t target = offset;
  if (whence == SEEK_CUR) {
    if (__builtin_add_overflow(static_cast<int64_t>(position), offset, &target))
      return base::Errno(EINVAL);
  } else if (whence != SEEK_SET) {
    return base::Errno(EINVAL);
  }
  if (target < 0) return base::Errno(EINVAL);
  return static_cast<uint64_t>(target);
}

// "." and "..", where *offset is before them. False if the sink has no room for more.
inline bool ListDots(uint64_t* offset, uint64_t number, uint64_t parent_number,
                     const DirectorySink& sink) {
  if (*offset == 0) {
    if (!sink({".", number, DT_DIR, 1})) return false;
    *offset = 1;
  }
  if (*offset == 1) {
    if (!sink({"..", parent_number, DT_DIR, kFirstEntryPosition})) return false;
    *offset = kFirstEntryPosition;
  }
  return true;
}

}  // namespace sentry
