#include "runsc-cli/main/gofer_filter.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <linux/openat2.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <cerrno>
#include <vector>

namespace runsc {
namespace {

using platform::seccomp::AtMost;
using platform::seccomp::Check;
using platform::seccomp::Equals;
using platform::seccomp::Fail;
using platform::seccomp::Filter;
using platform::seccomp::kTrap;
using platform::seccomp::OneOf;
using platform::seccomp::Only;
using platform::seccomp::Row;

using Rows = std::vector<Row>;

// A look-up starts at a descriptor; AT_FDCWD, which is negative, does not pass.
Check FromDescriptor(int argument) { return AtMost(argument, 0x7fffffff); }

void AddPaths(Rows& rows) {
  rows.insert(rows.end(),
              {
                  {SYS_openat2,
                   "openat2",
                   {FromDescriptor(0), Equals(3, sizeof(open_how))},
                   "every look-up and open; RESOLVE_BENEATH, no links"},
                  {SYS_statx, "statx", {FromDescriptor(0)}, "attributes"},
                  {SYS_readlinkat,
                   "readlinkat",
                   {FromDescriptor(0)},
                   "symbolic links, for the sentry to follow"},
                  {SYS_mkdirat, "mkdirat", {FromDescriptor(0)}, "mkdir in a writable volume"},
                  {SYS_mknodat,
                   "mknodat",
                   {FromDescriptor(0), Equals(3, 0)},
                   "FIFOs and sockets; no devices"},
                  {SYS_symlinkat, "symlinkat", {FromDescriptor(1)}, "symlink in a writable volume"},
                  {SYS_linkat,
                   "linkat",
                   {FromDescriptor(0), FromDescriptor(2)},
                   "link in a writable volume"},
                  {SYS_unlinkat,
                   "unlinkat",
                   {FromDescriptor(0), OneOf(2, {0, AT_REMOVEDIR})},
                   "unlink and rmdir in a writable volume"},
                  {SYS_renameat2,
                   "renameat2",
                   {FromDescriptor(0), FromDescriptor(2)},
                   "rename in a writable volume"},
                  {SYS_fchmodat,
                   "fchmodat",
                   {FromDescriptor(0)},
                   "chmod by descriptor, through /proc/self/fd"},
                  {SYS_fchownat,
                   "fchownat",
                   {FromDescriptor(0), OneOf(4, {AT_EMPTY_PATH, AT_SYMLINK_NOFOLLOW,
                                                 AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW})},
                   "chown by descriptor"},
                  {SYS_utimensat, "utimensat", {FromDescriptor(0)}, "time stamps"},
              });
}

void AddFiles(Rows& rows) {
  rows.insert(
      rows.end(),
      {
          {SYS_read, "read", {}, "the doorbell and the end of the sentry"},
          {SYS_write, "write", {}, "the log"},
          {SYS_sendmsg, "sendmsg", {}, "donate a descriptor"},
          {SYS_close, "close", {}, "files that the sentry has forgotten"},
          {SYS_getdents64, "getdents64", {}, "directories"},
          {SYS_lseek, "lseek", {}, "go on reading a directory"},
          {SYS_ftruncate, "ftruncate", {}, "truncate in a writable volume"},
          {SYS_fsync, "fsync", {}, "fsync of directories"},
          {SYS_fdatasync, "fdatasync", {}, "fdatasync of directories"},
          {SYS_syncfs, "syncfs", {}, "sync and syncfs"},
          {SYS_fstatfs, "fstatfs", {}, "statfs"},
          {SYS_fgetxattr, "fgetxattr", {}, "extended attributes"},
          {SYS_fsetxattr, "fsetxattr", {}, "extended attributes in a writable volume"},
          {SYS_flistxattr, "flistxattr", {}, "extended attributes"},
          {SYS_fremovexattr, "fremovexattr", {}, "extended attributes in a writable volume"},
      });
}

void AddProcess(Rows& rows) {
  rows.insert(rows.end(), {
                              {SYS_futex,
                               "futex",
                               {OneOf(1, {FUTEX_WAKE, FUTEX_WAIT, FUTEX_WAIT | FUTEX_PRIVATE_FLAG,
                                          FUTEX_WAKE | FUTEX_PRIVATE_FLAG})},
                               "wake a thread of the sentry; locks"},
                              {SYS_sched_setaffinity,
                               "sched_setaffinity",
                               {Equals(0, 0)},
                               "itself, to the CPU where its client waits"},
                          });
}

}  // namespace

void AddHelperProcess(Rows& rows) {
  rows.insert(
      rows.end(),
      {
          {SYS_brk, "brk", {}, "heap"},
          {SYS_mmap, "mmap", {Only(2, PROT_READ | PROT_WRITE)}, "heap; never executable"},
          {SYS_munmap, "munmap", {}, "heap"},
          {SYS_mremap, "mremap", {}, "realloc of large blocks copies instead", Fail(ENOSYS)},
          {SYS_clock_gettime,
           "clock_gettime",
           {},
           "time stamps in the log where the vDSO has no clock"},
          {SYS_exit_group, "exit_group", {}, "the end"},
          {SYS_restart_syscall, "restart_syscall", {}, "the kernel's, after SIGSTOP and SIGCONT"},
      });
}

Filter GoferFilter() {
  Filter filter{.process = "gofer", .rows = {}, .otherwise = kTrap};
  AddPaths(filter.rows);
  AddFiles(filter.rows);
  AddProcess(filter.rows);
  AddHelperProcess(filter.rows);
  return filter;
}

}  // namespace runsc
