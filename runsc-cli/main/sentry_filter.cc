#include "runsc-cli/main/sentry_filter.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>

#include <cerrno>
#include <vector>

#include "platform/stub/stub_calls.h"

namespace runsc {
namespace {

using platform::seccomp::AtMost;
using platform::seccomp::Equals;
using platform::seccomp::Fail;
using platform::seccomp::Filter;
using platform::seccomp::kTrap;
using platform::seccomp::NotEquals32;
using platform::seccomp::OneOf;
using platform::seccomp::Only;
using platform::seccomp::Row;
using platform::seccomp::Without;

using Rows = std::vector<Row>;

// glibc's pthread_create.
constexpr uint64_t kThreadFlags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                                  CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                                  CLONE_CHILD_CLEARTID;

void AddFiles(Rows& rows) {
  rows.insert(
      rows.end(),
      {
          {SYS_read, "read", {}, "donated files, stdio, eventfds"},
          {SYS_write, "write", {}, "donated files, stdio, eventfds, the log"},
          {SYS_readv, "readv", {}, "stdio"},
          {SYS_writev, "writev", {}, "stdio"},
          {SYS_pread64, "pread64", {}, "donated files"},
          {SYS_pwrite64, "pwrite64", {}, "donated files, stub acknowledgements"},
          {SYS_preadv, "preadv", {}, "preadv2 without flags, as glibc spells it"},
          {SYS_pwritev, "pwritev", {}, "pwritev2 without flags, as glibc spells it"},
          {SYS_preadv2, "preadv2", {}, "reads that must not wait (RWF_NOWAIT)"},
          {SYS_pwritev2, "pwritev2", {}, "appending and synchronous writes (RWF_*)"},
          {SYS_close, "close", {}, "descriptors that the guest has closed"},
          {SYS_newfstatat,
           "newfstatat",
           {AtMost(0, 0x7fffffff), Equals(3, AT_EMPTY_PATH)},
           "fstat as glibc spells it: files of the pool and the gofer"},
          {SYS_lseek, "lseek", {}, "SEEK_DATA and SEEK_HOLE of donated files"},
          {SYS_fallocate, "fallocate", {}, "memory pool: populate, give back; donated files"},
          {SYS_ftruncate, "ftruncate", {}, "donated files, file-backed overlay"},
          {SYS_fsync, "fsync", {}, "donated files"},
          {SYS_fdatasync, "fdatasync", {}, "donated files"},
          {SYS_fcntl,
           "fcntl",
           {OneOf(1, {F_GETFL, F_SETFL, F_GETFD, F_SETFD, F_DUPFD_CLOEXEC, F_GET_SEALS})},
           "access mode and O_NONBLOCK of stdio; own copies of descriptors"},
          {SYS_ioctl,
           "ioctl",
           {OneOf(1, {TCGETS, TCSETS, TCSETSW, TCSETSF, TIOCGWINSZ, FIONREAD})},
           "modes and size of the host's terminal; no TIOCSTI, no TIOCSCTTY"},
      });
}

void AddMemory(Rows& rows) {
  rows.insert(rows.end(),
              {
                  {SYS_mmap,
                   "mmap",
                   {Only(2, PROT_READ | PROT_WRITE)},
                   "heap, stacks, windows; never executable"},
                  {SYS_munmap, "munmap", {}, "heap, stacks, windows"},
                  {SYS_mprotect,
                   "mprotect",
                   {Only(2, PROT_READ | PROT_WRITE)},
                   "stacks, heap; never executable"},
                  {SYS_mremap, "mremap", {}, "realloc of large blocks"},
                  {SYS_mincore, "mincore", {}, "which pages of the pool are present"},
                  {SYS_brk, "brk", {}, "heap"},
                  {SYS_madvise,
                   "madvise",
                   {OneOf(2, {MADV_NORMAL, MADV_WILLNEED, MADV_DONTNEED, MADV_FREE, MADV_REMOVE,
                              MADV_HUGEPAGE, MADV_NOHUGEPAGE, MADV_DONTDUMP, MADV_COLD,
                              MADV_PAGEOUT, MADV_POPULATE_READ, MADV_POPULATE_WRITE})},
                   "populate, give back"},
              });
}

void AddThreads(Rows& rows, pid_t own_pid) {
  const auto pid = static_cast<uint64_t>(own_pid);
  constexpr uint32_t kPrivate = FUTEX_PRIVATE_FLAG;
  constexpr uint32_t kRealtime = FUTEX_CLOCK_REALTIME;
  rows.insert(
      rows.end(),
      {
          {SYS_futex,
           "futex",
           {OneOf(1, {FUTEX_WAIT, FUTEX_WAKE, FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET, FUTEX_REQUEUE,
                      FUTEX_WAIT | kPrivate, FUTEX_WAKE | kPrivate, FUTEX_WAIT_BITSET | kPrivate,
                      FUTEX_WAKE_BITSET | kPrivate, FUTEX_REQUEUE | kPrivate,
                      FUTEX_CMP_REQUEUE | kPrivate, FUTEX_WAKE_OP | kPrivate,
                      FUTEX_WAIT_BITSET | kRealtime, FUTEX_WAIT_BITSET | kPrivate | kRealtime})},
           "locks; hand-over to stubs and gofer"},
          {SYS_clone, "clone", {Equals(0, kThreadFlags)}, "threads of the sentry; no processes"},
          {SYS_clone3,
           "clone3",
           {},
           "flags are in memory: glibc falls back to clone",
           Fail(ENOSYS)},
          {SYS_set_robust_list, "set_robust_list", {}, "glibc, in each new thread"},
          {SYS_rseq, "rseq", {}, "glibc, in each new thread"},
          {SYS_exit, "exit", {}, "end of a thread"},
          {SYS_exit_group, "exit_group", {}, "end of the sandbox"},
          {SYS_gettid, "gettid", {}, "glibc; owner of a host lock"},
          {SYS_getpid, "getpid", {}, "glibc: raise, abort"},
          {SYS_tgkill, "tgkill", {Equals(0, pid)}, "interrupt own threads; abort"},
          {SYS_tgkill,
           "tgkill",
           {Equals(2, platform::kInterruptSignal)},
           "interrupt guest threads"},
          {SYS_sched_setaffinity, "sched_setaffinity", {}, "a thread and its stub's on one CPU"},
          {SYS_rt_sigaction,
           "rt_sigaction",
           {NotEquals32(0, SIGSYS)},
           "handlers; not the one that reports us"},
          {SYS_rt_sigprocmask, "rt_sigprocmask", {}, "glibc, around thread creation"},
          {SYS_rt_sigreturn, "rt_sigreturn", {}, "end of a handler"},
          {SYS_sched_yield, "sched_yield", {}, "hand over when no CPU is free"},
          {SYS_getcpu, "getcpu", {}, "a guest thread and its sentry thread on one CPU"},
          {SYS_sched_getaffinity, "sched_getaffinity", {}, "how many CPUs there are"},
          {SYS_sched_getparam, "sched_getparam", {}, "Abseil orders waiters by priority"},
          {SYS_sched_getscheduler, "sched_getscheduler", {}, "Abseil orders waiters by priority"},
          {SYS_prctl,
           "prctl",
           {OneOf(0, {PR_SET_NAME, PR_SET_TIMERSLACK})},
           "names of threads; exact sleeps"},
      });
}

void AddEventsAndTime(Rows& rows) {
  rows.insert(
      rows.end(),
      {
          {SYS_epoll_create1, "epoll_create1", {}, "readiness of host descriptors"},
          {SYS_epoll_ctl, "epoll_ctl", {}, "readiness of host descriptors"},
          {SYS_epoll_wait, "epoll_wait", {}, "readiness of host descriptors"},
          {SYS_eventfd2, "eventfd2", {}, "wake-ups between own threads"},
          {SYS_poll, "poll", {}, "readiness of one host descriptor"},
          {SYS_sendmsg, "sendmsg", {Without(2, MSG_OOB)}, "gofer's doorbell, control socket"},
          {SYS_recvmsg, "recvmsg", {}, "donated descriptors, control socket"},
          {SYS_clock_gettime, "clock_gettime", {}, "clocks that the vDSO does not have (CPU time)"},
          {SYS_clock_nanosleep, "clock_nanosleep", {}, "timers' thread"},
          {SYS_openat,
           "openat",
           {},
           "Abseil and glibc look for CPU facts below /sys and /proc: there is no such file",
           Fail(ENOENT)},
          {SYS_getrandom, "getrandom", {}, "the guest's random numbers, ASLR"},
          {SYS_restart_syscall, "restart_syscall", {}, "the kernel's, after SIGSTOP and SIGCONT"},
      });
}

// Stubs are made by a process that was started before the filter; what is left is to end, reap and
// trace them.
void AddStubs(Rows& rows, bool ptrace_platform) {
  rows.insert(rows.end(), {
                              {SYS_pidfd_send_signal,
                               "pidfd_send_signal",
                               {Equals(2, 0), Equals(3, 0)},
                               "end a stub process"},
                              {SYS_waitid, "waitid", {}, "a stub process has ended"},
                          });
  if (!ptrace_platform) return;
  rows.insert(rows.end(),
              {
                  {SYS_ptrace,
                   "ptrace",
                   {OneOf(0, {PTRACE_SEIZE, PTRACE_DETACH, PTRACE_CONT, PTRACE_SYSEMU,
                              PTRACE_SYSEMU_SINGLESTEP, PTRACE_SINGLESTEP, PTRACE_GETREGS,
                              PTRACE_SETREGS, PTRACE_GETREGSET, PTRACE_SETREGSET, PTRACE_GETSIGINFO,
                              PTRACE_SETOPTIONS, PTRACE_INTERRUPT, PTRACE_LISTEN,
                              PTRACE_GET_SYSCALL_INFO, PTRACE_GETEVENTMSG})},
                   "platform ptrace: run guest code"},
                  {SYS_wait4, "wait4", {}, "platform ptrace: a guest thread has stopped"},
              });
}

}  // namespace

Filter SentryFilter(const SentryFilterParameters& parameters) {
  Filter filter{.process = "sentry", .rows = {}, .otherwise = kTrap};
  AddFiles(filter.rows);
  AddMemory(filter.rows);
  AddThreads(filter.rows, parameters.own_pid);
  AddEventsAndTime(filter.rows);
  AddStubs(filter.rows, parameters.ptrace_platform);
  return filter;
}

}  // namespace runsc
