#include "runsc-cli/main/sanitizer.h"

#ifdef RAVELIN_SANITIZE

#include <fcntl.h>
#include <sys/syscall.h>

#include <cerrno>
#include <utility>

namespace runsc {

platform::seccomp::Filter WithSanitizerRows(platform::seccomp::Filter filter) {
  using platform::seccomp::Fail;
  const platform::seccomp::Row rows[] = {
      {SYS_openat, "openat", {}, "a report reads /proc/self/maps: it does without", Fail(ENOENT)},
      {SYS_readlink,
       "readlink",
       {},
       "a report names the executable: it does without",
       Fail(ENOENT)},
      {SYS_readlinkat, "readlinkat", {}, "the same", Fail(ENOENT)},
      {SYS_pipe2,
       "pipe2",
       {},
       "is an object readable? write(2) into a pipe tells (-fsanitize=vptr)"},
      {SYS_read, "read", {}, "the same"},
      {SYS_close, "close", {}, "the same"},
      {SYS_prlimit64, "prlimit64", {}, "bounds of the main thread's stack"},
      {SYS_sigaltstack,
       "sigaltstack",
       {platform::seccomp::Equals(0, 0)},
       "which stack an ending thread leaves"},
      {SYS_madvise, "madvise", {}, "shadow memory: MADV_* of all kinds"},
      {SYS_getpid, "getpid", {}, "a report's head line"},
      {SYS_gettid, "gettid", {}, "a report's head line"},
      {SYS_exit_group, "exit_group", {}, "the end of a report"},
      {SYS_write, "write", {}, "a report"},
      {SYS_mmap, "mmap", {platform::seccomp::Only(2, 3)}, "shadow memory, the allocator"},
      {SYS_munmap, "munmap", {}, "shadow memory, the allocator"},
      {SYS_futex, "futex", {}, "locks of the run-time"},
      {SYS_sched_yield, "sched_yield", {}, "locks of the run-time"},
  };
  for (const platform::seccomp::Row& row : rows) filter.rows.push_back(row);
  return filter;
}

}  // namespace runsc

#endif  // RAVELIN_SANITIZE
