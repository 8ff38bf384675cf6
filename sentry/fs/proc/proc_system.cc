// Files about the system as a whole: cpuinfo, meminfo, stat, ...

#include <cpuid.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/release.h"
#include "sentry/vfs/file_system_type.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Result;
using Ull = unsigned long long;

struct CpuLeaf {
  uint32_t eax = 0, ebx = 0, ecx = 0, edx = 0;
};

CpuLeaf Leaf(uint32_t leaf, uint32_t subleaf = 0) {
  CpuLeaf out;
  if (leaf <= __get_cpuid_max(leaf & 0x80000000, nullptr))
    __cpuid_count(leaf, subleaf, out.eax, out.ebx, out.ecx, out.edx);
  return out;
}

// Names by bit; an empty one is reserved or not shown by Linux
// (arch/x86/include/asm/cpufeatures.h, 6.12).
using BitNames = std::array<const char*, 32>;
constexpr BitNames kLeaf1Edx = {"fpu",  "vme",   "de",   "pse",     "tsc",  "msr", "pae",  "mce",
                                "cx8",  "apic",  "",     "sep",     "mtrr", "pge", "mca",  "cmov",
                                "pat",  "pse36", "pn",   "clflush", "",     "dts", "acpi", "mmx",
                                "fxsr", "sse",   "sse2", "ss",      "ht",   "tm",  "",     "pbe"};
constexpr BitNames kLeaf1Ecx = {"pni",    "pclmulqdq", "dtes64", "monitor", "ds_cpl",
                                "vmx",    "smx",       "est",    "tm2",     "ssse3",
                                "cid",    "sdbg",      "fma",    "cx16",    "xtpr",
                                "pdcm",   "",          "pcid",   "dca",     "sse4_1",
                                "sse4_2", "x2apic",    "movbe",  "popcnt",  "tsc_deadline_timer",
                                "aes",    "xsave",     "",       "avx",     "f16c",
                                "rdrand", "hypervisor"};
constexpr BitNames kLeaf7Ebx = {
    "fsgsbase",   "tsc_adjust", "",           "bmi1",     "hle",      "avx2",     "",
    "smep",       "bmi2",       "erms",       "invpcid",  "rtm",      "cqm",      "",
    "mpx",        "rdt_a",      "avx512f",    "avx512dq", "rdseed",   "adx",      "smap",
    "avx512ifma", "",           "clflushopt", "clwb",     "intel_pt", "avx512pf", "avx512er",
    "avx512cd",   "sha_ni",     "avx512bw",   "avx512vl"};
constexpr BitNames kLeaf7Ecx = {"",
                                "avx512vbmi",
                                "umip",
                                "pku",
                                "ospke",
                                "waitpkg",
                                "avx512_vbmi2",
                                "",
                                "gfni",
                                "vaes",
                                "vpclmulqdq",
                                "avx512_vnni",
                                "avx512_bitalg",
                                "tme",
                                "avx512_vpopcntdq",
                                "",
                                "la57",
                                "",
                                "",
                                "",
                                "",
                                "",
                                "rdpid",
                                "",
                                "",
                                "cldemote",
                                "",
                                "movdiri",
                                "movdir64b",
                                "enqcmd",
                                "",
                                ""};
constexpr BitNames kLeaf7Edx = {"",         "",          "",
                                "",         "fsrm",      "",
                                "",         "",          "avx512_vp2intersect",
                                "",         "md_clear",  "",
                                "",         "",          "serialize",
                                "",         "",          "",
                                "pconfig",  "arch_lbr",  "ibt",
                                "",         "amx_bf16",  "avx512_fp16",
                                "amx_tile", "amx_int8",  "",
                                "",         "flush_l1d", "arch_capabilities",
                                "",         ""};
constexpr BitNames kExtendedEdx = {
    "",        "", "", "",         "",        "",       "", "",   "",         "",     "",
    "syscall", "", "", "",         "",        "",       "", "",   "mp",       "nx",   "",
    "mmxext",  "", "", "fxsr_opt", "pdpe1gb", "rdtscp", "", "lm", "3dnowext", "3dnow"};
constexpr BitNames kExtendedEcx = {"lahf_lm",
                                   "cmp_legacy",
                                   "svm",
                                   "extapic",
                                   "cr8_legacy",
                                   "abm",
                                   "sse4a",
                                   "misalignsse",
                                   "3dnowprefetch",
                                   "osvw",
                                   "ibs",
                                   "xop",
                                   "skinit",
                                   "wdt",
                                   "",
                                   "lwp",
                                   "fma4",
                                   "tce",
                                   "",
                                   "nodeid_msr",
                                   "",
                                   "tbm",
                                   "topoext",
                                   "perfctr_core",
                                   "perfctr_nb",
                                   "",
                                   "bpext",
                                   "ptsc",
                                   "perfctr_llc",
                                   "mwaitx",
                                   "",
                                   ""};
constexpr BitNames kSaveEax = {"xsaveopt", "xsavec", "xgetbv1", "xsaves"};

void AddFlags(std::string& text, uint32_t bits, const BitNames& names) {
  for (size_t bit = 0; bit < names.size(); ++bit) {
    if ((bits >> bit & 1) == 0 || names[bit] == nullptr || *names[bit] == '\0') continue;
    if (!text.empty()) text += ' ';
    text += names[bit];
  }
}

std::string CpuFlags() {
  std::string flags;
  const CpuLeaf one = Leaf(1), seven = Leaf(7), extended = Leaf(0x80000001), save = Leaf(13, 1);
  AddFlags(flags, one.edx, kLeaf1Edx);
  AddFlags(flags, extended.edx, kExtendedEdx);
  flags += " constant_tsc rep_good nopl nonstop_tsc cpuid";
  AddFlags(flags, one.ecx, kLeaf1Ecx);
  AddFlags(flags, extended.ecx, kExtendedEcx);
  AddFlags(flags, seven.ebx, kLeaf7Ebx);
  AddFlags(flags, save.eax, kSaveEax);
  AddFlags(flags, seven.ecx, kLeaf7Ecx);
  AddFlags(flags, seven.edx, kLeaf7Edx);
  return flags;
}

std::string CpuText(uint32_t cpu, uint32_t count) {
  const CpuLeaf zero = Leaf(0), one = Leaf(1);
  char vendor[13] = {};
  memcpy(vendor, &zero.ebx, 4);
  memcpy(vendor + 4, &zero.edx, 4);
  memcpy(vendor + 8, &zero.ecx, 4);
  char model_name[49] = {};
  for (uint32_t i = 0; i < 3; ++i) {
    const CpuLeaf part = Leaf(0x80000002 + i);
    memcpy(model_name + 16 * i, &part, sizeof(part));
  }
  uint32_t family = one.eax >> 8 & 0xf;
  uint32_t model = one.eax >> 4 & 0xf;
  if (family == 0xf) family += one.eax >> 20 & 0xff;
  if (family >= 6) model |= (one.eax >> 16 & 0xf) << 4;
  // The frequency is not the guest's to know exactly; programs want a number.
  const CpuLeaf frequency = Leaf(0x16);
  const double mhz = frequency.eax != 0 ? frequency.eax : 2000.0;
  std::string text = Format(
      "processor\t: %u\nvendor_id\t: %s\ncpu family\t: %u\nmodel\t\t: %u\nmodel name\t: "
      "%s\nstepping\t: %u\n",
      cpu, vendor, family, model, model_name, one.eax & 0xf);
  text += Format(
      "microcode\t: 0xffffffff\ncpu MHz\t\t: %.3f\ncache size\t: 512 KB\nphysical id\t: "
      "0\nsiblings\t: %u\ncore id\t\t: %u\n"
      "cpu cores\t: %u\napicid\t\t: %u\ninitial apicid\t: %u\n",
      mhz, count, cpu, count, cpu, cpu);
  const CpuLeaf sizes = Leaf(0x80000008);
  text += Format(
      "fpu\t\t: yes\nfpu_exception\t: yes\ncpuid level\t: %u\nwp\t\t: yes\nflags\t\t: "
      "%s\nbugs\t\t:\nbogomips\t: %.2f\n"
      "clflush size\t: 64\ncache_alignment\t: 64\naddress sizes\t: %u bits physical, %u bits "
      "virtual\npower management:\n\n",
      zero.eax, CpuFlags().c_str(), 2 * mhz, sizes.eax & 0xff, sizes.eax >> 8 & 0xff);
  return text;
}

Result<std::string> CpuInfo(Task& task) {
  std::string text;
  const uint32_t count = task.kernel().options().cpu_count;
  for (uint32_t cpu = 0; cpu < count; ++cpu) text += CpuText(cpu, count);
  return text;
}

Result<std::string> MemInfo(Task& task) {
  Kernel& kernel = task.kernel();
  const Ull total = kernel.options().memory_bytes / 1024;
  const Ull used = std::min<Ull>(total, kernel.pool().resident_bytes() / 1024);
  const Ull free = total - used;
  struct Line {
    const char* name;
    Ull kilobytes;
  };
  const Line lines[] = {{"MemTotal", total},
                        {"MemFree", free},
                        {"MemAvailable", free},
                        {"Buffers", 0},
                        {"Cached", 0},
                        {"SwapCached", 0},
                        {"Active", used},
                        {"Inactive", 0},
                        {"Active(anon)", used},
                        {"Inactive(anon)", 0},
                        {"Active(file)", 0},
                        {"Inactive(file)", 0},
                        {"Unevictable", 0},
                        {"Mlocked", 0},
                        {"SwapTotal", 0},
                        {"SwapFree", 0},
                        {"Dirty", 0},
                        {"Writeback", 0},
                        {"AnonPages", used},
                        {"Mapped", 0},
                        {"Shmem", 0},
                        {"KReclaimable", 0},
                        {"Slab", 0},
                        {"SReclaimable", 0},
                        {"SUnreclaim", 0},
                        {"KernelStack", 0},
                        {"PageTables", 0},
                        {"NFS_Unstable", 0},
                        {"Bounce", 0},
                        {"WritebackTmp", 0},
                        {"CommitLimit", total},
                        {"Committed_AS", used},
                        {"VmallocTotal", 34359738367},
                        {"VmallocUsed", 0},
                        {"VmallocChunk", 0},
                        {"AnonHugePages", 0},
                        {"ShmemHugePages", 0},
                        {"HugePages_Total", 0},
                        {"HugePages_Free", 0},
                        {"HugePages_Rsvd", 0},
                        {"HugePages_Surp", 0},
                        {"Hugepagesize", 2048}};
  std::string text;
  for (const Line& line : lines) {
    const bool counts = std::string_view(line.name).starts_with("HugePages_");
    text += Format("%-15s %8llu%s\n", (std::string(line.name) + ":").c_str(), line.kilobytes,
                   counts ? "" : " kB");
  }
  return text;
}

Result<std::string> StatText(Task& task) {
  Kernel& kernel = task.kernel();
  const uint32_t cpus = kernel.options().cpu_count;
  ResourceUsage usage;
  uint64_t running = 0, blocked = 0;
  for (const auto& group : kernel.pids().Groups()) {
    usage.Add(group->Usage());
    for (const TaskRef& member : group->tasks()) {
      running += member->StateLetter() == 'R' ? 1 : 0;
      blocked += member->StateLetter() == 'D' ? 1 : 0;
    }
  }
  const Ull uptime =
      static_cast<Ull>(kernel.clock().MonotonicNs() - kernel.boot_monotonic_ns()) / 10'000'000;
  const Ull user = static_cast<Ull>(usage.user_ns) / 10'000'000,
            system = static_cast<Ull>(usage.system_ns) / 10'000'000;
  const Ull idle = uptime * cpus - std::min(uptime * cpus, user + system);
  std::string text = Format("cpu  %llu 0 %llu %llu 0 0 0 0 0 0\n", user, system, idle);
  for (uint32_t cpu = 0; cpu < cpus; ++cpu) {
    text += Format("cpu%u %llu 0 %llu %llu 0 0 0 0 0 0\n", cpu, user / cpus, system / cpus,
                   idle / cpus);
  }
  text += Format(
      "intr 0\nctxt %llu\nbtime %lld\nprocesses %llu\nprocs_running %llu\nprocs_blocked %llu\n"
      "softirq 0 0 0 0 0 0 0 0 0 0 0\n",
      Ull{usage.voluntary_switches},
      static_cast<long long>(kernel.boot_realtime_ns() / 1'000'000'000), Ull{kernel.forks()},
      Ull{running}, Ull{blocked});
  return text;
}

Result<std::string> Uptime(Task& task) {
  Kernel& kernel = task.kernel();
  const double seconds =
      static_cast<double>(kernel.clock().MonotonicNs() - kernel.boot_monotonic_ns()) / 1e9;
  return Format("%.2f %.2f\n", seconds, seconds * kernel.options().cpu_count);
}

// Averages would need sampling, which an idle sandbox must not do.
Result<std::string> LoadAverage(Task& task) {
  PidNamespace& pids = task.kernel().pids();
  return Format("0.00 0.00 0.00 1/%llu %d\n", Ull{pids.task_count()}, pids.last_id());
}

Result<std::string> Version(Task&) {
  return std::string("Linux version ") + std::string(kReleaseName) + " (ravelin@ravelin) (c++) " +
         std::string(kReleaseVersion) + "\n";
}

struct FixedFile {
  const char* name;
  const char* text;
};
constexpr FixedFile kFixed[] = {
    {"cgroups", "#subsys_name\thierarchy\tnum_cgroups\tenabled\n"},
    {"cmdline", "quiet\n"},
    {"consoles", ""},
    {"crypto", ""},
    {"devices",
     "Character devices:\n  1 mem\n  5 /dev/tty\n  5 /dev/console\n  5 /dev/ptmx\n136 pts\n\nBlock "
     "devices:\n"},
    {"diskstats", ""},
    {"dma", ""},
    {"execdomains", "0-0\tLinux           \t[kernel]\n"},
    {"interrupts", "           CPU0\n"},
    {"locks", ""},
    {"misc", ""},
    {"modules", ""},
    {"partitions", "major minor  #blocks  name\n\n"},
    {"swaps", "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n"},
    {"vmstat",
     "nr_free_pages 0\nnr_dirty 0\nnr_writeback 0\npgpgin 0\npgpgout 0\npswpin 0\npswpout "
     "0\npgfault 0\npgmajfault 0\n"},
    {"zoneinfo", ""},
};

}  // namespace

void AddSystemFiles(ProcFileSystem& file_system, StaticDirectory& root) {
  AddText(file_system, root, "cpuinfo", CpuInfo);
  AddText(file_system, root, "loadavg", LoadAverage);
  AddText(file_system, root, "meminfo", MemInfo);
  AddText(file_system, root, "stat", StatText);
  AddText(file_system, root, "uptime", Uptime);
  AddText(file_system, root, "version", Version);
  AddText(file_system, root, "filesystems", [](Task& task) -> Result<std::string> {
    std::string text;
    for (const std::string& name : task.kernel().vfs().file_system_types().Names())
      text += "nodev\t" + name + "\n";
    // Those that nobody mounts.
    return text + "nodev\tnsfs\nnodev\tpipefs\nnodev\tsockfs\n";
  });
  for (const FixedFile& file : kFixed) {
    AddText(file_system, root, file.name,
            [text = file.text](Task&) -> Result<std::string> { return std::string(text); });
  }
}

}  // namespace sentry
