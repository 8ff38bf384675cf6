// What the text files of /proc/PID say, in the formats of fs/proc/array.c, task_mmu.c and
// namespace.c (6.12): programs parse them by column.

#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <algorithm>
#include <array>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/signal/signal_handlers.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Result;

constexpr int64_t kNsPerTick = 10'000'000;  // USER_HZ is 100.

using Ull = unsigned long long;
Ull Wide(uint64_t value) { return value; }
long long Ticks(int64_t ns) { return ns / kNsPerTick; }

// Name of a VMA as maps shows it.
std::string NameOfArea(Task& reader, const VmaInfo& area) {
  if (area.file == nullptr || !area.file->path()) return area.name;
  return reader.kernel().vfs().NameOf(area.file->path(), reader.fs().root());
}

std::string MapsLine(Task& reader, const VmaInfo& area) {
  std::string line =
      Format("%08llx-%08llx %c%c%c%c %08llx %02x:%02x %llu ", Wide(area.start), Wide(area.end),
             (area.protection & 1) != 0 ? 'r' : '-', (area.protection & 2) != 0 ? 'w' : '-',
             (area.protection & 4) != 0 ? 'x' : '-', area.shared ? 's' : 'p', Wide(area.offset),
             major(area.device), minor(area.device), Wide(area.inode));
  std::string name = NameOfArea(reader, area);
  if (!name.empty()) {
    constexpr size_t kNameColumn = 73;
    if (line.size() < kNameColumn) line.resize(kNameColumn, ' ');
    for (const char byte : name) line += byte == '\n' ? std::string("\\012") : std::string(1, byte);
  }
  return line + "\n";
}

struct Totals {
  uint64_t size = 0, resident = 0, shared = 0, priv = 0, anonymous = 0;
};

void Add(Totals& totals, const VmaInfo& area) {
  totals.size += area.end - area.start;
  totals.resident += area.resident_bytes;
  const uint64_t own = std::min(area.private_bytes, area.resident_bytes);
  totals.priv += own;
  totals.shared += area.resident_bytes - own;
  totals.anonymous += own;
}

std::string TotalsText(const Totals& totals, bool with_size) {
  std::string text;
  if (with_size) {
    text += Format(
        "Size:           %8llu kB\nKernelPageSize:        4 kB\nMMUPageSize:           4 kB\n",
        Wide(totals.size / 1024));
  }
  const Ull rss = totals.resident / 1024, shared = totals.shared / 1024, own = totals.priv / 1024;
  text += Format("Rss:            %8llu kB\nPss:            %8llu kB\nPss_Dirty:      %8llu kB\n",
                 rss, own + shared / 2, own);
  if (!with_size)
    text +=
        Format("Pss_Anon:       %8llu kB\nPss_File:       %8llu kB\nPss_Shmem:             0 kB\n",
               own, shared / 2);
  text +=
      Format("Shared_Clean:   %8llu kB\nShared_Dirty:          0 kB\nPrivate_Clean:         0 kB\n",
             shared);
  text += Format("Private_Dirty:  %8llu kB\nReferenced:     %8llu kB\nAnonymous:      %8llu kB\n",
                 own, rss, Ull{totals.anonymous / 1024});
  text +=
      "KSM:                   0 kB\nLazyFree:              0 kB\nAnonHugePages:         0 "
      "kB\nShmemPmdMapped:        0 kB\n"
      "FilePmdMapped:         0 kB\nShared_Hugetlb:        0 kB\nPrivate_Hugetlb:       0 "
      "kB\nSwap:                  0 kB\n"
      "SwapPss:               0 kB\nLocked:                0 kB\n";
  return text;
}

std::string CpuMask(const Task& task, bool list) {
  const uint32_t cpus = task.kernel().options().cpu_count;
  std::vector<uint64_t> mask = task.scheduling().affinity;
  if (mask.empty()) {
    mask.resize((cpus + 63) / 64);
    for (uint32_t cpu = 0; cpu < cpus; ++cpu) mask[cpu / 64] |= uint64_t{1} << (cpu % 64);
  }
  auto has = [&](uint32_t cpu) { return cpu < cpus && (mask[cpu / 64] >> (cpu % 64) & 1) != 0; };
  std::string text;
  if (!list) {
    for (size_t word = (cpus + 31) / 32; word-- > 0;) {
      const auto part = static_cast<uint32_t>(mask[word / 2] >> (word % 2 * 32));
      text += text.empty() ? Format("%x", part) : Format(",%08x", part);
    }
    return text;
  }
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
    if (!has(cpu)) continue;
    uint32_t last = cpu;
    while (has(last + 1)) ++last;
    if (!text.empty()) text += ',';
    text += last > cpu ? Format("%u-%u", cpu, last) : Format("%u", cpu);
    cpu = last;
  }
  return text;
}

const char* StateName(char letter) {
  switch (letter) {
    case 'R':
      return "R (running)";
    case 'S':
      return "S (sleeping)";
    case 'D':
      return "D (disk sleep)";
    case 'T':
      return "T (stopped)";
    case 't':
      return "t (tracing stop)";
    case 'Z':
      return "Z (zombie)";
    default:
      return "X (dead)";
  }
}

// The ids of `global` from the reader's namespace inwards.
std::string NestedIds(const char* name, const Task& reader, const ThreadGroup& group,
                      int32_t global) {
  std::string ids;
  const PidViewRef& top = reader.group().pid_view();
  for (PidViewRef view = group.pid_view(); view != top && view != nullptr; view = view->parent())
    ids.insert(0, Format("\t%d", SeenBy(view, global)));
  return Format("%s:\t%d", name, SeenBy(top, global)) + ids + "\n";
}

}  // namespace

Result<std::string> TaskStat(Task& reader, Task& subject) {
  ThreadGroup& group = subject.group();
  const bool leader = subject.is_leader();
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  MemoryUsage usage;
  MemoryManager::Image image;
  if (memory != nullptr) {
    usage = memory->Usage();
    if (MayInspect(reader, subject)) image = memory->image();
  }
  const ResourceUsage own = leader ? group.Usage() : subject.Usage();
  const ResourceUsage children = group.ChildrenUsage();
  const SchedulingAttributes scheduling = subject.scheduling();
  const std::shared_ptr<SignalHandlers> handlers = group.handlers();
  const SignalSet ignored = handlers != nullptr ? handlers->Ignored() : 0;
  const SignalSet caught = handlers != nullptr ? handlers->Caught() : 0;
  const long priority =
      scheduling.priority > 0 ? -1 - static_cast<long>(scheduling.priority) : 20 + scheduling.nice;
  std::string text =
      Format("%d (%s) %c %d %d %d %d %d %u ", SeenBy(reader, subject.tid()), subject.name().c_str(),
             subject.StateLetter(), SeenBy(reader, group.parent_id()),
             SeenBy(reader, group.process_group_id()), SeenBy(reader, group.session_id()),
             static_cast<int>(group.terminal_device()), SeenBy(reader, group.terminal_foreground()),
             0x00400000U);
  text += Format("%llu %llu %llu %llu %lld %lld %lld %lld %ld %d %zu 0 %lld ",
                 Wide(own.minor_faults), Wide(children.minor_faults), Wide(own.major_faults),
                 Wide(children.major_faults), Ticks(own.user_ns), Ticks(own.system_ns),
                 Ticks(children.user_ns), Ticks(children.system_ns), priority, scheduling.nice,
                 static_cast<size_t>(std::max(group.live_tasks(), 1)),
                 Ticks(subject.start_ns() - subject.kernel().boot_monotonic_ns()));
  text += Format("%llu %llu %llu %llu %llu %llu 0 0 %llu %llu %llu %llu 0 0 0 17 0 %u %u 0 0 0 ",
                 Wide(usage.virtual_bytes), Wide(usage.resident_bytes / base::kPageSize),
                 Wide(group.Limit(RLIMIT_RSS)), Wide(image.start_code), Wide(image.end_code),
                 Wide(image.start_stack), Wide(subject.pending_signals() & 0x7fffffff),
                 Wide(subject.signal_mask() & 0x7fffffff), Wide(ignored & 0x7fffffff),
                 Wide(caught & 0x7fffffff), scheduling.priority, scheduling.policy);
  text += Format("%llu %llu %llu %llu %llu %llu %llu 0\n", Wide(image.start_data),
                 Wide(image.end_data), Wide(image.start_brk), Wide(image.arg_start),
                 Wide(image.arg_end), Wide(image.env_start), Wide(image.env_end));
  return text;
}

Result<std::string> TaskStatus(Task& reader, Task& subject) {
  ThreadGroup& group = subject.group();
  const CredentialsRef own = subject.credentials();
  const std::shared_ptr<FsContext> context = subject.fs_ref();
  const std::shared_ptr<FdTable> table = subject.fds_ref();
  const UserNamespaceRef& users = reader.own_credentials().user_namespace;
  const auto uid = [&](uint32_t id) { return UidSeenFrom(users, id); };
  const auto gid = [&](uint32_t id) { return GidSeenFrom(users, id); };
  const std::vector<int32_t> numbers = table != nullptr ? table->Numbers() : std::vector<int32_t>();
  const int32_t fd_size = numbers.empty() ? 64 : std::max(64, (numbers.back() / 64 + 1) * 64);
  std::string text = Format("Name:\t%s\n", subject.name().c_str());
  if (context != nullptr) text += Format("Umask:\t%04o\n", context->umask());
  text += Format("State:\t%s\nTgid:\t%d\nNgid:\t0\nPid:\t%d\nPPid:\t%d\nTracerPid:\t0\n",
                 StateName(subject.StateLetter()), SeenBy(reader, group.id()),
                 SeenBy(reader, subject.tid()), SeenBy(reader, group.parent_id()));
  text += Format("Uid:\t%u\t%u\t%u\t%u\nGid:\t%u\t%u\t%u\t%u\nFDSize:\t%d\nGroups:\t",
                 uid(own->uid), uid(own->euid), uid(own->suid), uid(own->fsuid), gid(own->gid),
                 gid(own->egid), gid(own->sgid), gid(own->fsgid), fd_size);
  for (const uint32_t group_id : own->groups) text += Format("%u ", gid(group_id));
  text += "\n" + NestedIds("NStgid", reader, group, group.id()) +
          NestedIds("NSpid", reader, group, subject.tid()) +
          NestedIds("NSpgid", reader, group, group.process_group_id()) +
          NestedIds("NSsid", reader, group, group.session_id()) + "Kthread:\t0\n";
  if (const std::shared_ptr<MemoryManager> memory = subject.memory_ref(); memory != nullptr) {
    const MemoryUsage usage = memory->Usage();
    auto kilobytes = [](uint64_t bytes) { return Wide(bytes / 1024); };
    text += Format("VmPeak:\t%8llu kB\nVmSize:\t%8llu kB\nVmLck:\t%8llu kB\nVmPin:\t       0 kB\n",
                   kilobytes(usage.virtual_bytes_max), kilobytes(usage.virtual_bytes),
                   kilobytes(usage.locked_bytes));
    text += Format(
        "VmHWM:\t%8llu kB\nVmRSS:\t%8llu kB\nRssAnon:\t%8llu kB\nRssFile:\t%8llu kB\nRssShmem:\t   "
        "    0 kB\n",
        kilobytes(usage.resident_bytes_max), kilobytes(usage.resident_bytes),
        kilobytes(usage.resident_bytes - std::min(usage.resident_bytes, usage.shared_bytes)),
        kilobytes(usage.shared_bytes));
    text += Format(
        "VmData:\t%8llu kB\nVmStk:\t%8llu kB\nVmExe:\t%8llu kB\nVmLib:\t       0 kB\nVmPTE:\t      "
        " 0 kB\n",
        kilobytes(usage.data_bytes), kilobytes(usage.stack_bytes), kilobytes(usage.text_bytes));
    text +=
        "VmSwap:\t       0 kB\nHugetlbPages:\t       0 "
        "kB\nCoreDumping:\t0\nTHP_enabled:\t1\nuntag_mask:\t0xffffffffffffffff\n";
  }
  const std::shared_ptr<SignalHandlers> handlers = group.handlers();
  text += Format("Threads:\t%d\nSigQ:\t%llu/%llu\n", std::max(group.live_tasks(), 1),
                 Wide(subject.kernel().UserAccountOf(own->uid)->signals.load()),
                 Wide(group.Limit(RLIMIT_SIGPENDING)));
  text += Format(
      "SigPnd:\t%016llx\nShdPnd:\t%016llx\nSigBlk:\t%016llx\nSigIgn:\t%016llx\nSigCgt:\t%016llx\n",
      Wide(subject.own_pending_signals()), Wide(group.pending()), Wide(subject.signal_mask()),
      Wide(handlers != nullptr ? handlers->Ignored() : 0),
      Wide(handlers != nullptr ? handlers->Caught() : 0));
  text += Format(
      "CapInh:\t%016llx\nCapPrm:\t%016llx\nCapEff:\t%016llx\nCapBnd:\t%016llx\nCapAmb:\t%016llx\n",
      Wide(own->inheritable), Wide(own->permitted), Wide(own->effective), Wide(own->bounding),
      Wide(own->ambient));
  text += Format(
      "NoNewPrivs:\t%d\nSeccomp:\t%d\nSeccomp_filters:\t%d\nSpeculation_Store_Bypass:\tvulnerable\n"
      "SpeculationIndirectBranch:\talways enabled\n",
      own->no_new_privileges ? 1 : 0, Seccomp::Mode(subject), Seccomp::Depth(subject));
  text +=
      Format("Cpus_allowed:\t%s\nCpus_allowed_list:\t%s\nMems_allowed:\t1\nMems_allowed_list:\t0\n",
             CpuMask(subject, false).c_str(), CpuMask(subject, true).c_str());
  const ResourceUsage usage = subject.Usage();
  text += Format("voluntary_ctxt_switches:\t%llu\nnonvoluntary_ctxt_switches:\t%llu\n",
                 Wide(usage.voluntary_switches), Wide(usage.involuntary_switches));
  return text;
}

Result<std::string> TaskStatm(Task&, Task& subject) {
  MemoryUsage usage;
  if (const std::shared_ptr<MemoryManager> memory = subject.memory_ref(); memory != nullptr)
    usage = memory->Usage();
  auto pages = [](uint64_t bytes) { return Wide(bytes / base::kPageSize); };
  return Format("%llu %llu %llu %llu 0 %llu 0\n", pages(usage.virtual_bytes),
                pages(usage.resident_bytes), pages(usage.shared_bytes), pages(usage.text_bytes),
                pages(usage.data_bytes + usage.stack_bytes));
}

Result<std::string> TaskMaps(Task& reader, Task& subject) {
  std::string text;
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return text;
  for (const VmaInfo& area : memory->Vmas()) text += MapsLine(reader, area);
  return text;
}

Result<std::string> TaskSmaps(Task& reader, Task& subject) {
  std::string text;
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return text;
  for (const VmaInfo& area : memory->Vmas()) {
    Totals totals;
    Add(totals, area);
    text +=
        MapsLine(reader, area) + TotalsText(totals, true) + "THPeligible:           0\nVmFlags:";
    if ((area.protection & 1) != 0) text += " rd";
    if ((area.protection & 2) != 0) text += " wr";
    if ((area.protection & 4) != 0) text += " ex";
    if (area.shared) text += " sh";
    text += " mr mw me";
    if (area.grows_down) text += " gd";
    text += " ac sd \n";
  }
  return text;
}

Result<std::string> TaskSmapsRollup(Task&, Task& subject) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return std::string();
  Totals totals;
  uint64_t first = 0, last = 0;
  for (const VmaInfo& area : memory->Vmas()) {
    if (first == 0) first = area.start;
    last = area.end;
    Add(totals, area);
  }
  return Format("%08llx-%08llx ---p 00000000 00:00 0                          [rollup]\n",
                Wide(first), Wide(last)) +
         TotalsText(totals, false);
}

Result<std::string> TaskLimits(Task&, Task& subject) {
  struct Line {
    const char* name;
    const char* unit;
  };
  constexpr std::array<Line, kResourceLimitCount> kLines = {{{"Max cpu time", "seconds"},
                                                             {"Max file size", "bytes"},
                                                             {"Max data size", "bytes"},
                                                             {"Max stack size", "bytes"},
                                                             {"Max core file size", "bytes"},
                                                             {"Max resident set", "bytes"},
                                                             {"Max processes", "processes"},
                                                             {"Max open files", "files"},
                                                             {"Max locked memory", "bytes"},
                                                             {"Max address space", "bytes"},
                                                             {"Max file locks", "locks"},
                                                             {"Max pending signals", "signals"},
                                                             {"Max msgqueue size", "bytes"},
                                                             {"Max nice priority", ""},
                                                             {"Max realtime priority", ""},
                                                             {"Max realtime timeout", "us"}}};
  std::string text =
      Format("%-25s %-20s %-20s %-10s\n", "Limit", "Soft Limit", "Hard Limit", "Units");
  auto value = [](uint64_t limit) {
    return limit == ~uint64_t{0} ? std::string("unlimited") : Format("%llu", Wide(limit));
  };
  for (int resource = 0; resource < kResourceLimitCount; ++resource) {
    const ResourceLimit limit = subject.group().limits().Get(resource);
    const Line& line = kLines[static_cast<size_t>(resource)];
    text += Format("%-25s %-20s %-20s %-10s\n", line.name, value(limit.soft).c_str(),
                   value(limit.hard).c_str(), line.unit);
  }
  return text;
}

}  // namespace sentry
