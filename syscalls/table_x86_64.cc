// The system calls of Linux on x86-64, one line each, ascending by number (checked when compiled): a diff here is the
// whole story of a change in coverage.

#include <cerrno>

#include "syscalls/handlers/cred.h"
#include "syscalls/handlers/info.h"
#include "syscalls/handlers/rlimit.h"
#include "syscalls/handlers/sched.h"
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
    Full<&SchedYield>(24, "sched_yield"),
    Full<&Uname>(63, "uname"),
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
    Full<&SetReUid>(113, "setreuid"),
    Full<&SetReGid>(114, "setregid"),
    Full<&GetGroups>(115, "getgroups"),
    Full<&SetGroups>(116, "setgroups"),
    Full<&SetResUid>(117, "setresuid"),
    Full<&GetResUid>(118, "getresuid"),
    Full<&SetResGid>(119, "setresgid"),
    Full<&GetResGid>(120, "getresgid"),
    Full<&SetFsUid>(122, "setfsuid"),
    Full<&SetFsGid>(123, "setfsgid"),
    Full<&CapGet>(125, "capget"),
    Full<&CapSet>(126, "capset"),
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
    Full<&SetRlimit>(160, "setrlimit"),
    Full<&SetHostName>(170, "sethostname"),
    Full<&SetDomainName>(171, "setdomainname"),
    Full<&SchedSetAffinity>(203, "sched_setaffinity"),
    Full<&SchedGetAffinity>(204, "sched_getaffinity"),
    Full<&IoPrioSet>(251, "ioprio_set"),
    Full<&IoPrioGet>(252, "ioprio_get"),
    Full<&Prlimit64>(302, "prlimit64"),
    Full<&GetCpu>(309, "getcpu"),
    Full<&SchedSetAttr>(314, "sched_setattr"),
    Full<&SchedGetAttr>(315, "sched_getattr"),
    Full<&GetRandom>(318, "getrandom"),
});

}  // namespace

const Table& X8664() { return kTable; }

}  // namespace syscalls
