// The system calls of Linux on x86-64, one line each, ascending by number (checked when compiled): a diff here is the
// whole story of a change in coverage.

#include <cerrno>

#include "syscalls/handlers/attributes.h"
#include "syscalls/handlers/cred.h"
#include "syscalls/handlers/dir.h"
#include "syscalls/handlers/epoll.h"
#include "syscalls/handlers/eventfd.h"
#include "syscalls/handlers/file.h"
#include "syscalls/handlers/futex.h"
#include "syscalls/handlers/info.h"
#include "syscalls/handlers/inotify.h"
#include "syscalls/handlers/io.h"
#include "syscalls/handlers/memfd.h"
#include "syscalls/handlers/mount.h"
#include "syscalls/handlers/open.h"
#include "syscalls/handlers/path.h"
#include "syscalls/handlers/pipe.h"
#include "syscalls/handlers/poll.h"
#include "syscalls/handlers/prctl.h"
#include "syscalls/handlers/process.h"
#include "syscalls/handlers/rlimit.h"
#include "syscalls/handlers/sched.h"
#include "syscalls/handlers/signal.h"
#include "syscalls/handlers/signalfd.h"
#include "syscalls/handlers/splice.h"
#include "syscalls/handlers/stat.h"
#include "syscalls/handlers/time.h"
#include "syscalls/handlers/timerfd.h"
#include "syscalls/handlers/timers.h"
#include "syscalls/handlers/xattr.h"
#include "syscalls/table.h"

namespace syscalls {

void RowsMustAscend();  // Never defined: reaching it stops constant evaluation, hence the build.

namespace {

template <size_t N>
consteval Table MakeTable(const Row (&rows)[N]) {
  Table table{};
  int previous = -1;
  for (const Row& row : rows) {
    if (row.number <= previous) RowsMustAscend();
    previous = row.number;
    table[row.number] = row;
  }
  return table;
}

constexpr Table kTable = MakeTable({
    Full<&Read>(0, "read"),
    Full<&Write>(1, "write"),
    Full<&Open>(2, "open"),
    Full<&Close>(3, "close"),
    Full<&Stat>(4, "stat"),
    Full<&Fstat>(5, "fstat"),
    Full<&Lstat>(6, "lstat"),
    Full<&Poll>(7, "poll"),
    Full<&Lseek>(8, "lseek"),
    Full<&RtSigaction>(13, "rt_sigaction"),
    Full<&RtSigprocmask>(14, "rt_sigprocmask"),
    Full<&RtSigreturn>(15, "rt_sigreturn"),
    Full<&Ioctl>(16, "ioctl"),
    Full<&Pread64>(17, "pread64"),
    Full<&Pwrite64>(18, "pwrite64"),
    Full<&Readv>(19, "readv"),
    Full<&Writev>(20, "writev"),
    Full<&Access>(21, "access"),
    Full<&Pipe>(22, "pipe"),
    Full<&Select>(23, "select"),
    Full<&SchedYield>(24, "sched_yield"),
    Full<&Dup>(32, "dup"),
    Full<&Dup2>(33, "dup2"),
    Full<&Pause>(34, "pause"),
    Full<&Nanosleep>(35, "nanosleep"),
    Full<&Getitimer>(36, "getitimer"),
    Full<&Alarm>(37, "alarm"),
    Full<&Setitimer>(38, "setitimer"),
    Full<&GetPid>(39, "getpid"),
    Full<&Sendfile>(40, "sendfile"),
    Partial<&Clone>(56, "clone", "No namespaces."),
    Full<&Fork>(57, "fork"),
    Full<&Vfork>(58, "vfork"),
    Full<&Execve>(59, "execve"),
    Full<&Exit>(60, "exit"),
    Full<&Wait4>(61, "wait4"),
    Full<&Kill>(62, "kill"),
    Full<&Uname>(63, "uname"),
    Full<&Fcntl>(72, "fcntl"),
    Full<&Flock>(73, "flock"),
    Full<&Fsync>(74, "fsync"),
    Full<&Fdatasync>(75, "fdatasync"),
    Full<&Truncate>(76, "truncate"),
    Full<&Ftruncate>(77, "ftruncate"),
    Full<&Getdents>(78, "getdents"),
    Full<&Getcwd>(79, "getcwd"),
    Full<&Chdir>(80, "chdir"),
    Full<&Fchdir>(81, "fchdir"),
    Full<&Rename>(82, "rename"),
    Full<&Mkdir>(83, "mkdir"),
    Full<&Rmdir>(84, "rmdir"),
    Full<&Creat>(85, "creat"),
    Full<&Link>(86, "link"),
    Full<&Unlink>(87, "unlink"),
    Full<&Symlink>(88, "symlink"),
    Full<&Readlink>(89, "readlink"),
    Full<&Chmod>(90, "chmod"),
    Full<&Fchmod>(91, "fchmod"),
    Full<&Chown>(92, "chown"),
    Full<&Fchown>(93, "fchown"),
    Full<&Lchown>(94, "lchown"),
    Full<&Umask>(95, "umask"),
    Full<&Gettimeofday>(96, "gettimeofday"),
    Full<&GetRlimit>(97, "getrlimit"),
    Full<&GetRusage>(98, "getrusage"),
    Full<&SysInfo>(99, "sysinfo"),
    Full<&Times>(100, "times"),
    Full<&GetUid>(102, "getuid"),
    Partial<&SysLog>(103, "syslog", "The log of a container is empty."),
    Full<&GetGid>(104, "getgid"),
    Full<&SetUid>(105, "setuid"),
    Full<&SetGid>(106, "setgid"),
    Full<&GetEuid>(107, "geteuid"),
    Full<&GetEgid>(108, "getegid"),
    Full<&SetPgid>(109, "setpgid"),
    Full<&GetPpid>(110, "getppid"),
    Full<&GetPgrp>(111, "getpgrp"),
    Full<&SetSid>(112, "setsid"),
    Full<&SetReUid>(113, "setreuid"),
    Full<&SetReGid>(114, "setregid"),
    Full<&GetGroups>(115, "getgroups"),
    Full<&SetGroups>(116, "setgroups"),
    Full<&SetResUid>(117, "setresuid"),
    Full<&GetResUid>(118, "getresuid"),
    Full<&SetResGid>(119, "setresgid"),
    Full<&GetResGid>(120, "getresgid"),
    Full<&GetPgid>(121, "getpgid"),
    Full<&SetFsUid>(122, "setfsuid"),
    Full<&SetFsGid>(123, "setfsgid"),
    Full<&GetSid>(124, "getsid"),
    Full<&CapGet>(125, "capget"),
    Full<&CapSet>(126, "capset"),
    Full<&RtSigpending>(127, "rt_sigpending"),
    Full<&RtSigtimedwait>(128, "rt_sigtimedwait"),
    Full<&RtSigqueueinfo>(129, "rt_sigqueueinfo"),
    Full<&RtSigsuspend>(130, "rt_sigsuspend"),
    Full<&Sigaltstack>(131, "sigaltstack"),
    Full<&Utime>(132, "utime"),
    Full<&Mknod>(133, "mknod"),
    Partial<&Personality>(135, "personality", "Only ADDR_NO_RANDOMIZE has an effect."),
    Full<&Ustat>(136, "ustat"),
    Full<&Statfs>(137, "statfs"),
    Full<&Fstatfs>(138, "fstatfs"),
    Full<&GetPriority>(140, "getpriority"),
    Full<&SetPriority>(141, "setpriority"),
    Full<&SchedSetParam>(142, "sched_setparam"),
    Full<&SchedGetParam>(143, "sched_getparam"),
    Full<&SchedSetScheduler>(144, "sched_setscheduler"),
    Full<&SchedGetScheduler>(145, "sched_getscheduler"),
    Full<&SchedGetPriorityMax>(146, "sched_get_priority_max"),
    Full<&SchedGetPriorityMin>(147, "sched_get_priority_min"),
    Full<&SchedRrGetInterval>(148, "sched_rr_get_interval"),
    Refused(155, "pivot_root", EPERM, "The sandbox's root mount is fixed; as in a container without CAP_SYS_ADMIN."),
    Refused(156, "_sysctl", ENOSYS, "Removed in Linux 5.5."),
    Partial<&Prctl>(157, "prctl", "Options of hardware and tracing that a container does not get are EINVAL."),
    Partial<&ArchPrctl>(158, "arch_prctl", "The segment bases; no CPUID faulting, shadow stacks or AMX."),
    Partial<&Adjtimex>(159, "adjtimex", "Read only, as without CAP_SYS_TIME."),
    Full<&SetRlimit>(160, "setrlimit"),
    Full<&Chroot>(161, "chroot"),
    Full<&Sync>(162, "sync"),
    Partial<&Settimeofday>(164, "settimeofday", "EPERM: the clock belongs to the host."),
    Partial<&Mount>(165, "mount", "Own file systems, bind and remount; no propagation, no MS_MOVE."),
    Partial<&Umount2>(166, "umount2", "MNT_EXPIRE never expires a mount."),
    Full<&SetHostName>(170, "sethostname"),
    Full<&SetDomainName>(171, "setdomainname"),
    Full<&GetTid>(186, "gettid"),
    Full<&Readahead>(187, "readahead"),
    Full<&Setxattr>(188, "setxattr"),
    Full<&Lsetxattr>(189, "lsetxattr"),
    Full<&Fsetxattr>(190, "fsetxattr"),
    Full<&Getxattr>(191, "getxattr"),
    Full<&Lgetxattr>(192, "lgetxattr"),
    Full<&Fgetxattr>(193, "fgetxattr"),
    Full<&Listxattr>(194, "listxattr"),
    Full<&Llistxattr>(195, "llistxattr"),
    Full<&Flistxattr>(196, "flistxattr"),
    Full<&Removexattr>(197, "removexattr"),
    Full<&Lremovexattr>(198, "lremovexattr"),
    Full<&Fremovexattr>(199, "fremovexattr"),
    Full<&Tkill>(200, "tkill"),
    Full<&Time>(201, "time"),
    Partial<&Futex>(202, "futex", "PI locks hand over in order of arrival; no priority is inherited."),
    Full<&SchedSetAffinity>(203, "sched_setaffinity"),
    Full<&SchedGetAffinity>(204, "sched_getaffinity"),
    Full<&EpollCreate>(213, "epoll_create"),
    Full<&Getdents64>(217, "getdents64"),
    Full<&SetTidAddress>(218, "set_tid_address"),
    Full<&RestartSyscall>(219, "restart_syscall"),
    Full<&Fadvise64>(221, "fadvise64"),
    Full<&TimerCreate>(222, "timer_create"),
    Full<&TimerSettime>(223, "timer_settime"),
    Full<&TimerGettime>(224, "timer_gettime"),
    Full<&TimerGetoverrun>(225, "timer_getoverrun"),
    Full<&TimerDelete>(226, "timer_delete"),
    Partial<&ClockSettime>(227, "clock_settime", "EPERM: the clock belongs to the host."),
    Full<&ClockGettime>(228, "clock_gettime"),
    Full<&ClockGetres>(229, "clock_getres"),
    Full<&ClockNanosleep>(230, "clock_nanosleep"),
    Full<&ExitGroup>(231, "exit_group"),
    Full<&EpollWait>(232, "epoll_wait"),
    Full<&EpollCtl>(233, "epoll_ctl"),
    Full<&Tgkill>(234, "tgkill"),
    Full<&Utimes>(235, "utimes"),
    Full<&WaitId>(247, "waitid"),
    Full<&IoPrioSet>(251, "ioprio_set"),
    Full<&IoPrioGet>(252, "ioprio_get"),
    Full<&InotifyInit>(253, "inotify_init"),
    Full<&InotifyAddWatch>(254, "inotify_add_watch"),
    Full<&InotifyRmWatch>(255, "inotify_rm_watch"),
    Full<&Openat>(257, "openat"),
    Full<&Mkdirat>(258, "mkdirat"),
    Full<&Mknodat>(259, "mknodat"),
    Full<&Fchownat>(260, "fchownat"),
    Full<&Futimesat>(261, "futimesat"),
    Full<&Newfstatat>(262, "newfstatat"),
    Full<&Unlinkat>(263, "unlinkat"),
    Full<&Renameat>(264, "renameat"),
    Full<&Linkat>(265, "linkat"),
    Full<&Symlinkat>(266, "symlinkat"),
    Full<&Readlinkat>(267, "readlinkat"),
    Full<&Fchmodat>(268, "fchmodat"),
    Full<&Faccessat>(269, "faccessat"),
    Full<&Pselect6>(270, "pselect6"),
    Full<&Ppoll>(271, "ppoll"),
    Partial<&Unshare>(272, "unshare", "Files and directories; no namespaces."),
    Full<&SetRobustList>(273, "set_robust_list"),
    Full<&GetRobustList>(274, "get_robust_list"),
    Full<&Splice>(275, "splice"),
    Full<&Tee>(276, "tee"),
    Full<&SyncFileRange>(277, "sync_file_range"),
    Partial<&Vmsplice>(278, "vmsplice", "Always copies; SPLICE_F_GIFT changes nothing."),
    Full<&Utimensat>(280, "utimensat"),
    Full<&EpollPwait>(281, "epoll_pwait"),
    Full<&Signalfd>(282, "signalfd"),
    Full<&TimerfdCreate>(283, "timerfd_create"),
    Full<&Eventfd>(284, "eventfd"),
    Full<&Fallocate>(285, "fallocate"),
    Full<&TimerfdSettime>(286, "timerfd_settime"),
    Full<&TimerfdGettime>(287, "timerfd_gettime"),
    Full<&Signalfd4>(289, "signalfd4"),
    Full<&Eventfd2>(290, "eventfd2"),
    Full<&EpollCreate1>(291, "epoll_create1"),
    Full<&Dup3>(292, "dup3"),
    Full<&Pipe2>(293, "pipe2"),
    Full<&InotifyInit1>(294, "inotify_init1"),
    Full<&Preadv>(295, "preadv"),
    Full<&Pwritev>(296, "pwritev"),
    Full<&RtTgsigqueueinfo>(297, "rt_tgsigqueueinfo"),
    Full<&Prlimit64>(302, "prlimit64"),
    Partial<&ClockAdjtime>(305, "clock_adjtime", "Read only, as without CAP_SYS_TIME."),
    Full<&Syncfs>(306, "syncfs"),
    Refused(308, "setns", EPERM, "There are no other namespaces."),
    Full<&GetCpu>(309, "getcpu"),
    Full<&SchedSetAttr>(314, "sched_setattr"),
    Full<&SchedGetAttr>(315, "sched_getattr"),
    Full<&Renameat2>(316, "renameat2"),
    Full<&GetRandom>(318, "getrandom"),
    Partial<&MemfdCreate>(319, "memfd_create", "MFD_HUGETLB is refused: there are no huge pages to set aside."),
    Full<&Execveat>(322, "execveat"),
    Full<&CopyFileRange>(326, "copy_file_range"),
    Full<&Preadv2>(327, "preadv2"),
    Full<&Pwritev2>(328, "pwritev2"),
    Full<&Statx>(332, "statx"),
    Refused(334, "rseq", ENOSYS, "libc does without it."),
    Full<&PidfdSendSignal>(424, "pidfd_send_signal"),
    Full<&PidfdOpen>(434, "pidfd_open"),
    Partial<&Clone3>(435, "clone3", "No namespaces, no cgroups."),
    Full<&CloseRange>(436, "close_range"),
    Full<&Openat2>(437, "openat2"),
    Full<&PidfdGetfd>(438, "pidfd_getfd"),
    Full<&Faccessat2>(439, "faccessat2"),
    Full<&EpollPwait2>(441, "epoll_pwait2"),
    Full<&FutexWaitv>(449, "futex_waitv"),
    Full<&Fchmodat2>(452, "fchmodat2"),
    Full<&FutexWake>(454, "futex_wake"),
    Full<&FutexWait>(455, "futex_wait"),
    Full<&FutexRequeue>(456, "futex_requeue"),
});

}  // namespace

const Table& X8664() { return kTable; }

}  // namespace syscalls
