// The system calls of Linux on x86-64, one line each, ascending by number (checked when compiled): a diff here is the
// whole story of a change in coverage.

#include <cerrno>

#include "syscalls/handlers/cred.h"
#include "syscalls/handlers/epoll.h"
#include "syscalls/handlers/eventfd.h"
#include "syscalls/handlers/futex.h"
#include "syscalls/handlers/info.h"
#include "syscalls/handlers/inotify.h"
#include "syscalls/handlers/memfd.h"
#include "syscalls/handlers/pipe.h"
#include "syscalls/handlers/poll.h"
#include "syscalls/handlers/prctl.h"
#include "syscalls/handlers/process.h"
#include "syscalls/handlers/rlimit.h"
#include "syscalls/handlers/sched.h"
#include "syscalls/handlers/signal.h"
#include "syscalls/handlers/signalfd.h"
#include "syscalls/handlers/socket.h"
#include "syscalls/handlers/splice.h"
#include "syscalls/handlers/time.h"
#include "syscalls/handlers/timerfd.h"
#include "syscalls/handlers/timers.h"
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
    Full<&Poll>(7, "poll"),
    Full<&RtSigaction>(13, "rt_sigaction"),
    Full<&RtSigprocmask>(14, "rt_sigprocmask"),
    Full<&RtSigreturn>(15, "rt_sigreturn"),
    Full<&Pipe>(22, "pipe"),
    Full<&Select>(23, "select"),
    Full<&SchedYield>(24, "sched_yield"),
    Full<&Pause>(34, "pause"),
    Full<&Nanosleep>(35, "nanosleep"),
    Full<&Getitimer>(36, "getitimer"),
    Full<&Alarm>(37, "alarm"),
    Full<&Setitimer>(38, "setitimer"),
    Full<&GetPid>(39, "getpid"),
    Full<&SocketCall>(41, "socket"),
    Full<&Connect>(42, "connect"),
    Full<&Accept>(43, "accept"),
    Full<&Sendto>(44, "sendto"),
    Full<&Recvfrom>(45, "recvfrom"),
    Full<&Sendmsg>(46, "sendmsg"),
    Full<&Recvmsg>(47, "recvmsg"),
    Full<&Shutdown>(48, "shutdown"),
    Full<&BindCall>(49, "bind"),
    Full<&Listen>(50, "listen"),
    Full<&Getsockname>(51, "getsockname"),
    Full<&Getpeername>(52, "getpeername"),
    Full<&Socketpair>(53, "socketpair"),
    Full<&Setsockopt>(54, "setsockopt"),
    Full<&Getsockopt>(55, "getsockopt"),
    Partial<&Clone>(56, "clone", "No namespaces."),
    Full<&Fork>(57, "fork"),
    Full<&Vfork>(58, "vfork"),
    Full<&Execve>(59, "execve"),
    Full<&Exit>(60, "exit"),
    Full<&Wait4>(61, "wait4"),
    Full<&Kill>(62, "kill"),
    Full<&Uname>(63, "uname"),
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
    Partial<&Personality>(135, "personality", "Only ADDR_NO_RANDOMIZE has an effect."),
    Full<&GetPriority>(140, "getpriority"),
    Full<&SetPriority>(141, "setpriority"),
    Full<&SchedSetParam>(142, "sched_setparam"),
    Full<&SchedGetParam>(143, "sched_getparam"),
    Full<&SchedSetScheduler>(144, "sched_setscheduler"),
    Full<&SchedGetScheduler>(145, "sched_getscheduler"),
    Full<&SchedGetPriorityMax>(146, "sched_get_priority_max"),
    Full<&SchedGetPriorityMin>(147, "sched_get_priority_min"),
    Full<&SchedRrGetInterval>(148, "sched_rr_get_interval"),
    Refused(156, "_sysctl", ENOSYS, "Removed in Linux 5.5."),
    Partial<&Prctl>(157, "prctl", "Options of hardware and tracing that a container does not get are EINVAL."),
    Partial<&ArchPrctl>(158, "arch_prctl", "The segment bases; no CPUID faulting, shadow stacks or AMX."),
    Partial<&Adjtimex>(159, "adjtimex", "Read only, as without CAP_SYS_TIME."),
    Full<&SetRlimit>(160, "setrlimit"),
    Partial<&Settimeofday>(164, "settimeofday", "EPERM: the clock belongs to the host."),
    Full<&SetHostName>(170, "sethostname"),
    Full<&SetDomainName>(171, "setdomainname"),
    Full<&GetTid>(186, "gettid"),
    Full<&Tkill>(200, "tkill"),
    Full<&Time>(201, "time"),
    Partial<&Futex>(202, "futex", "PI locks hand over in order of arrival; no priority is inherited."),
    Full<&SchedSetAffinity>(203, "sched_setaffinity"),
    Full<&SchedGetAffinity>(204, "sched_getaffinity"),
    Full<&EpollCreate>(213, "epoll_create"),
    Full<&SetTidAddress>(218, "set_tid_address"),
    Full<&RestartSyscall>(219, "restart_syscall"),
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
    Full<&WaitId>(247, "waitid"),
    Full<&IoPrioSet>(251, "ioprio_set"),
    Full<&IoPrioGet>(252, "ioprio_get"),
    Full<&InotifyInit>(253, "inotify_init"),
    Full<&InotifyAddWatch>(254, "inotify_add_watch"),
    Full<&InotifyRmWatch>(255, "inotify_rm_watch"),
    Full<&Pselect6>(270, "pselect6"),
    Full<&Ppoll>(271, "ppoll"),
    Partial<&Unshare>(272, "unshare", "Files and directories; no namespaces."),
    Full<&SetRobustList>(273, "set_robust_list"),
    Full<&GetRobustList>(274, "get_robust_list"),
    Full<&Splice>(275, "splice"),
    Full<&Tee>(276, "tee"),
    Partial<&Vmsplice>(278, "vmsplice", "Always copies; SPLICE_F_GIFT changes nothing."),
    Full<&EpollPwait>(281, "epoll_pwait"),
    Full<&Signalfd>(282, "signalfd"),
    Full<&TimerfdCreate>(283, "timerfd_create"),
    Full<&Eventfd>(284, "eventfd"),
    Full<&TimerfdSettime>(286, "timerfd_settime"),
    Full<&TimerfdGettime>(287, "timerfd_gettime"),
    Full<&Accept4>(288, "accept4"),
    Full<&Signalfd4>(289, "signalfd4"),
    Full<&Eventfd2>(290, "eventfd2"),
    Full<&EpollCreate1>(291, "epoll_create1"),
    Full<&Pipe2>(293, "pipe2"),
    Full<&InotifyInit1>(294, "inotify_init1"),
    Full<&RtTgsigqueueinfo>(297, "rt_tgsigqueueinfo"),
    Full<&Recvmmsg>(299, "recvmmsg"),
    Full<&Prlimit64>(302, "prlimit64"),
    Partial<&ClockAdjtime>(305, "clock_adjtime", "Read only, as without CAP_SYS_TIME."),
    Full<&Sendmmsg>(307, "sendmmsg"),
    Refused(308, "setns", EPERM, "There are no other namespaces."),
    Full<&GetCpu>(309, "getcpu"),
    Full<&SchedSetAttr>(314, "sched_setattr"),
    Full<&SchedGetAttr>(315, "sched_getattr"),
    Full<&GetRandom>(318, "getrandom"),
    Partial<&MemfdCreate>(319, "memfd_create", "MFD_HUGETLB is refused: there are no huge pages to set aside."),
    Full<&Execveat>(322, "execveat"),
    Refused(334, "rseq", ENOSYS, "libc does without it."),
    Full<&PidfdSendSignal>(424, "pidfd_send_signal"),
    Full<&PidfdOpen>(434, "pidfd_open"),
    Partial<&Clone3>(435, "clone3", "No namespaces, no cgroups."),
    Full<&PidfdGetfd>(438, "pidfd_getfd"),
    Full<&EpollPwait2>(441, "epoll_pwait2"),
    Full<&FutexWaitv>(449, "futex_waitv"),
    Full<&FutexWake>(454, "futex_wake"),
    Full<&FutexWait>(455, "futex_wait"),
    Full<&FutexRequeue>(456, "futex_requeue"),
});

}  // namespace

const Table& X8664() { return kTable; }

}  // namespace syscalls
