// What the control groups have counted, as runc's events print it.

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/cgroup.h"
#include "runsc-cli/oci/cgroup_files.h"

namespace oci {
namespace {

// "max" and what is not there count as 0.
uint64_t Number(const std::string& path) {
  return strtoull(ControlText(path).c_str(), nullptr, 10);
}

// The value of `key` in lines of "key value".
uint64_t Keyed(const std::string& path, std::string_view key) {
  const std::string text = ControlText(path);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    if (parts.size() == 2 && parts[0] == key) return strtoull(parts[1].c_str(), nullptr, 10);
  }
  return 0;
}

// v1 writes "no limit" as a huge number.
uint64_t Limit(uint64_t value) { return value >= uint64_t{1} << 62 ? 0 : value; }

Json MemoryEntry(uint64_t limit, uint64_t usage, uint64_t max, uint64_t failures) {
  Json entry;
  entry.Set("limit", limit);
  if (usage != 0) entry.Set("usage", usage);
  if (max != 0) entry.Set("max", max);
  entry.Set("failcnt", failures);
  return entry;
}

Json RawMemory(const std::string& path) {
  Json raw = Json::NewObject();
  const std::string text = ControlText(path);
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    const std::vector<std::string> parts = absl::StrSplit(line, ' ');
    if (parts.size() == 2) raw.Set(parts[0], uint64_t{strtoull(parts[1].c_str(), nullptr, 10)});
  }
  return raw;
}

Json MemoryV1(const std::string& directory) {
  const auto entry = [&](const std::string& prefix) {
    return MemoryEntry(Number(directory + prefix + "limit_in_bytes"),
                       Number(directory + prefix + "usage_in_bytes"),
                       Number(directory + prefix + "max_usage_in_bytes"),
                       Number(directory + prefix + "failcnt"));
  };
  Json memory;
  memory.Set("cache", Keyed(directory + "/memory.stat", "cache"));
  memory.Set("usage", entry("/memory."));
  memory.Set("swap", entry("/memory.memsw."));
  memory.Set("kernel", entry("/memory.kmem."));
  memory.Set("kernelTCP", entry("/memory.kmem.tcp."));
  memory.Set("raw", RawMemory(directory + "/memory.stat"));
  return memory;
}

Json MemoryV2(const std::string& directory) {
  Json memory;
  memory.Set("cache", Keyed(directory + "/memory.stat", "file"));
  memory.Set("usage",
             MemoryEntry(Number(directory + "/memory.max"), Number(directory + "/memory.current"),
                         Number(directory + "/memory.peak"), 0));
  memory.Set("swap", MemoryEntry(Number(directory + "/memory.swap.max"),
                                 Number(directory + "/memory.swap.current"), 0, 0));
  memory.Set("kernel", MemoryEntry(0, 0, 0, 0));
  memory.Set("kernelTCP", MemoryEntry(0, 0, 0, 0));
  memory.Set("raw", RawMemory(directory + "/memory.stat"));
  return memory;
}

Json CpuStats(const Cgroups& cgroups) {
  Json cpu;
  Json& usage = cpu.Set("usage", Json::NewObject());
  const std::string* const unified = cgroups.Find("");
  if (const std::string* const accounting = cgroups.Find("cpuacct")) {
    usage.Set("total", Number(*accounting + "/cpuacct.usage"));
    Json& per_cpu = usage.Set("percpu", Json::NewArray());
    const std::string text = ControlText(*accounting + "/cpuacct.usage_percpu");
    for (const absl::string_view part :
         absl::StrSplit(text, absl::ByAnyChar(" \n"), absl::SkipEmpty())) {
      per_cpu.Append(uint64_t{strtoull(std::string(part).c_str(), nullptr, 10)});
    }
    // cpuacct.stat counts in hundredths of a second; these do not.
    usage.Set("kernel", Number(*accounting + "/cpuacct.usage_sys"));
    usage.Set("user", Number(*accounting + "/cpuacct.usage_user"));
  } else if (unified != nullptr) {
    const std::string stat = *unified + "/cpu.stat";
    usage.Set("total", Keyed(stat, "usage_usec") * 1000);
    usage.Set("kernel", Keyed(stat, "system_usec") * 1000);
    usage.Set("user", Keyed(stat, "user_usec") * 1000);
  }
  Json& throttling = cpu.Set("throttling", Json::NewObject());
  if (const std::string* const scheduling = cgroups.Find("cpu")) {
    throttling.Set("periods", Keyed(*scheduling + "/cpu.stat", "nr_periods"));
    throttling.Set("throttledPeriods", Keyed(*scheduling + "/cpu.stat", "nr_throttled"));
    throttling.Set("throttledTime", Keyed(*scheduling + "/cpu.stat", "throttled_time"));
  } else if (unified != nullptr) {
    throttling.Set("periods", Keyed(*unified + "/cpu.stat", "nr_periods"));
    throttling.Set("throttledPeriods", Keyed(*unified + "/cpu.stat", "nr_throttled"));
    throttling.Set("throttledTime", Keyed(*unified + "/cpu.stat", "throttled_usec") * 1000);
  }
  return cpu;
}

}  // namespace

Json CgroupStats(const Cgroups& cgroups) {
  Json data;
  data.Set("cpu", CpuStats(cgroups));
  const std::string* const unified = cgroups.Find("");
  if (const std::string* const memory = cgroups.Find("memory")) {
    data.Set("memory", MemoryV1(*memory));
  } else if (unified != nullptr) {
    data.Set("memory", MemoryV2(*unified));
  }
  const std::string* const pids = cgroups.Find("pids") != nullptr ? cgroups.Find("pids") : unified;
  if (pids != nullptr) {
    Json& counts = data.Set("pids", Json::NewObject());
    counts.Set("current", Number(*pids + "/pids.current"));
    const uint64_t limit = Number(*pids + "/pids.max");
    if (limit != 0) counts.Set("limit", limit);
  }
  data.Set("blkio", Json::NewObject());
  data.Set("hugetlb", Json::NewObject());
  data.Set("intel_rdt", Json::NewObject());
  data.Set("network_interfaces", Json());
  return data;
}

uint64_t OomKills(const Cgroups& cgroups) {
  if (const std::string* const memory = cgroups.Find("memory")) {
    return Keyed(*memory + "/memory.oom_control", "oom_kill");
  }
  const std::string* const unified = cgroups.Find("");
  return unified == nullptr ? 0 : Keyed(*unified + "/memory.events", "oom_kill");
}

uint64_t MemoryLimit(const Cgroups& cgroups) {
  if (const std::string* const memory = cgroups.Find("memory")) {
    return Limit(Number(*memory + "/memory.limit_in_bytes"));
  }
  const std::string* const unified = cgroups.Find("");
  return unified == nullptr ? 0 : Number(*unified + "/memory.max");
}

}  // namespace oci
