#include "runsc-cli/oci/cgroup.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "platform/base/fd.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/cgroup_files.h"
#include "runsc-cli/oci/state.h"

namespace oci {

std::string ControlText(const std::string& path) {
  const base::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text;
  char buffer[4096];
  ssize_t got = 0;
  while (fd && (got = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  return text;
}

namespace {

using base::Absl;

// Those that are used, in the order in which they are entered.
constexpr const char* kControllers[] = {"cpuset", "cpu",     "cpuacct", "memory",  "pids",
                                        "blkio",  "freezer", "devices", "hugetlb", "net_cls"};
constexpr int kRemoveTries = 200;
constexpr useconds_t kRemoveWaitUs = 5'000;

struct Hierarchy {
  std::string mount_point;
  std::string mount_root;                // What of the hierarchy is mounted there.
  std::vector<std::string> controllers;  // Empty: v2.
};

std::string Line(const std::string& path) {
  return std::string(absl::StripAsciiWhitespace(ControlText(path)));
}

absl::Status Put(const std::string& path, const std::string& value) {
  const base::Fd fd(open(path.c_str(), O_WRONLY | O_CLOEXEC));
  if (fd && write(fd.get(), value.data(), value.size()) == static_cast<ssize_t>(value.size())) {
    return absl::OkStatus();
  }
  return absl::InternalError(
      absl::StrCat("failed to write \"", value, "\" to ", path, ": ", strerror(errno)));
}

std::vector<Hierarchy> FindHierarchies() {
  std::vector<Hierarchy> found;
  const std::string mountinfo = ControlText("/proc/self/mountinfo");
  for (const absl::string_view line : absl::StrSplit(mountinfo, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> halves = absl::StrSplit(line, absl::MaxSplits(" - ", 1));
    if (halves.size() != 2) continue;
    const std::vector<absl::string_view> first = absl::StrSplit(halves[0], ' ');
    const std::vector<absl::string_view> second = absl::StrSplit(halves[1], ' ');
    if (first.size() < 6 || second.size() < 3) continue;
    Hierarchy hierarchy{std::string(first[4]), std::string(first[3]), {}};
    if (second[0] == "cgroup2") {
      found.push_back(std::move(hierarchy));
    } else if (second[0] == "cgroup") {
      for (const absl::string_view option : absl::StrSplit(second[2], ',')) {
        if (std::any_of(std::begin(kControllers), std::end(kControllers),
                        [&](const char* name) { return option == name; })) {
          hierarchy.controllers.emplace_back(option);
        }
      }
      if (!hierarchy.controllers.empty()) found.push_back(std::move(hierarchy));
    }
  }
  return found;
}

// Where the calling process is in the hierarchy of `controller` (empty: v2).
std::string OwnPath(const std::string& controller) {
  const std::string own = ControlText("/proc/self/cgroup");
  for (const absl::string_view line : absl::StrSplit(own, '\n', absl::SkipEmpty())) {
    const std::vector<absl::string_view> parts = absl::StrSplit(line, absl::MaxSplits(':', 2));
    if (parts.size() != 3) continue;
    const std::vector<absl::string_view> names = absl::StrSplit(parts[1], ',');
    if (controller.empty() ? parts[0] == "0" && parts[1].empty()
                           : std::find(names.begin(), names.end(), controller) != names.end()) {
      return std::string(parts[2]);
    }
  }
  return "/";
}

// A new cpuset has no CPUs and no memory, and cannot be entered: it starts with its parent's.
void InheritCpuset(const std::string& directory) {
  const std::string parent = directory.substr(0, directory.rfind('/'));
  for (const char* name : {"/cpuset.cpus", "/cpuset.mems"}) {
    if (Line(directory + name).empty()) (void)Put(directory + name, Line(parent + name));
  }
}

class Planner {
 public:
  Planner(const std::string& cgroups_path, const std::string& id) : id_(id), wanted_(cgroups_path) {
    // systemd's form, slice:prefix:name, as the scope that it stands for.
    const std::vector<std::string> parts = absl::StrSplit(cgroups_path, ':');
    if (parts.size() == 3) {
      wanted_ = absl::StrCat("/", parts[0].empty() ? "system.slice" : parts[0], "/", parts[1],
                             parts[1].empty() ? "" : "-", parts[2], ".scope");
    }
  }

  absl::Status Add(const Hierarchy& hierarchy, Cgroups& out) const {
    const bool unified = hierarchy.controllers.empty();
    const std::string controller = unified ? "" : hierarchy.controllers.front();
    std::string below = wanted_;
    if (wanted_.empty() || wanted_.front() != '/') {
      std::string own = OwnPath(controller);
      if (hierarchy.mount_root != "/" && own.starts_with(hierarchy.mount_root)) {
        own.erase(0, hierarchy.mount_root.size());
      }
      below = absl::StrCat(own == "/" ? "" : own, "/", wanted_.empty() ? id_ : wanted_);
    }
    if (below.find("/../") != std::string::npos || below.ends_with("/..")) {
      return absl::InvalidArgumentError("linux.cgroupsPath: must not contain \"..\"");
    }
    const std::string path = hierarchy.mount_point + below;
    out.made.push_back(path);
    out.mount_sizes.push_back(hierarchy.mount_point.size());
    if (unified) out.paths.emplace_back("", path);
    for (const std::string& name : hierarchy.controllers) out.paths.emplace_back(name, path);
    return absl::OkStatus();
  }

 private:
  const std::string id_;
  std::string wanted_;
};

// For those below. Each on its own: one that cannot be enabled must not keep the others out.
void EnableControllers(const std::string& directory) {
  const std::string available = Line(directory + "/cgroup.controllers");
  for (const absl::string_view name : absl::StrSplit(available, ' ', absl::SkipEmpty())) {
    (void)Put(directory + "/cgroup.subtree_control", absl::StrCat("+", name));
  }
}

absl::Status MakeOne(const std::string& path, size_t mount_size, bool unified, bool cpuset) {
  for (size_t end = path.find('/', mount_size + 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    const bool last = end == std::string::npos;
    if (mkdir(prefix.c_str(), 0755) != 0 && errno != EEXIST) {
      return absl::InternalError(absl::StrCat("mkdir ", prefix, ": ", strerror(errno)));
    }
    if (cpuset) InheritCpuset(prefix);
    if (unified && !last) EnableControllers(prefix);
    if (last) return absl::OkStatus();
  }
}

// CPU weight of v2 for shares of v1 (2..262144 to 1..10000).
uint64_t WeightOfShares(uint64_t shares) {
  if (shares == 0) return 0;
  shares = std::clamp<uint64_t>(shares, 2, 262144);
  return 1 + (shares - 2) * 9999 / 262142;
}

std::string NumberOrMax(int64_t value) { return value < 0 ? "max" : absl::StrCat(value); }

class Applier {
 public:
  Applier(const Cgroups& cgroups, const Resources& resources)
      : cgroups_(cgroups), resources_(resources) {}

  absl::Status Apply() {
    const Resources& r = resources_;
    Memory();
    Cpu();
    if (!r.cpus.empty()) Write("cpuset", "cpuset.cpus", "cpuset.cpus", r.cpus);
    if (!r.mems.empty()) Write("cpuset", "cpuset.mems", "cpuset.mems", r.mems);
    // Not pids: the guest's processes are counted by the sentry (BootConfig::tasks_max); the
    // threads of the sandbox's own are no business of theirs.
    if (r.blkio_weight && *r.blkio_weight != 0) {
      Write("blkio", "blkio.weight", "io.weight", absl::StrCat(*r.blkio_weight));
    }
    Throttle(r.throttle_read_bps, "blkio.throttle.read_bps_device", "rbps");
    Throttle(r.throttle_write_bps, "blkio.throttle.write_bps_device", "wbps");
    Throttle(r.throttle_read_iops, "blkio.throttle.read_iops_device", "riops");
    Throttle(r.throttle_write_iops, "blkio.throttle.write_iops_device", "wiops");
    for (const HugepageLimit& limit : r.hugepages) {
      const std::string v1 = absl::StrCat("hugetlb.", limit.page_size, ".limit_in_bytes");
      const std::string v2 = absl::StrCat("hugetlb.", limit.page_size, ".max");
      Write("hugetlb", v1.c_str(), v2.c_str(), absl::StrCat(limit.limit));
    }
    if (r.network_class && *r.network_class != 0) {
      Write("net_cls", "net_cls.classid", nullptr, absl::StrCat(*r.network_class));
    }
    const std::string* const unified = cgroups_.Find("");
    for (const auto& [name, value] : r.unified) {
      if (unified == nullptr || name.find('/') != std::string::npos) continue;
      Note(Put(absl::StrCat(*unified, "/", name), value));
    }
    return status_;
  }

 private:
  void Note(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }

  // `v1` below the controller's hierarchy, else `v2`. A controller that the host does not have is
  // not missed (as runc does it, limits that mean "none" are common).
  bool Write(const char* controller, const char* v1, const char* v2, const std::string& value) {
    const std::string* directory = cgroups_.Find(controller);
    const char* name = v1;
    if (directory == nullptr) {
      directory = cgroups_.Find("");
      name = v2;
    }
    if (directory == nullptr || name == nullptr) return false;
    const std::string path = absl::StrCat(*directory, "/", name);
    if (access(path.c_str(), F_OK) != 0) return false;
    Note(Put(path, value));
    return true;
  }

  void Memory() {
    const Resources& r = resources_;
    const std::string* const v1 = cgroups_.Find("memory");
    if (v1 == nullptr) {
      if (r.memory_limit && *r.memory_limit != 0) {
        Write("memory", "", "memory.max", NumberOrMax(*r.memory_limit));
      }
      if (r.memory_swap && *r.memory_swap != 0) {
        const int64_t swap =
            *r.memory_swap < 0 ? -1
                               : *r.memory_swap - std::max<int64_t>(r.memory_limit.value_or(0), 0);
        Write("memory", "", "memory.swap.max", NumberOrMax(swap));
      }
      if (r.memory_reservation && *r.memory_reservation != 0) {
        Write("memory", "", "memory.low", NumberOrMax(*r.memory_reservation));
      }
      return;
    }
    MemoryV1(*v1);
  }

  void MemoryV1(const std::string& directory) {
    const Resources& r = resources_;
    const bool has_swap = access((directory + "/memory.memsw.limit_in_bytes").c_str(), F_OK) == 0;
    const bool limit = r.memory_limit && *r.memory_limit != 0;
    const bool swap = has_swap && r.memory_swap && *r.memory_swap != 0;
    // Swap counts both and may not be below memory: which comes first depends on the direction.
    bool swap_first = false;
    if (limit && swap) {
      const uint64_t now =
          strtoull(Line(directory + "/memory.memsw.limit_in_bytes").c_str(), nullptr, 10);
      swap_first = *r.memory_swap < 0 || static_cast<uint64_t>(*r.memory_swap) > now;
    }
    const auto put_swap = [&] {
      if (swap) Note(Put(directory + "/memory.memsw.limit_in_bytes", absl::StrCat(*r.memory_swap)));
    };
    if (swap_first) put_swap();
    if (limit) {
      Write("memory", "memory.limit_in_bytes", nullptr, absl::StrCat(*r.memory_limit));
    }
    if (!swap_first) put_swap();
    if (r.memory_reservation && *r.memory_reservation != 0) {
      Write("memory", "memory.soft_limit_in_bytes", nullptr, absl::StrCat(*r.memory_reservation));
    }
    if (r.kernel_memory_tcp && *r.kernel_memory_tcp != 0) {
      Write("memory", "memory.kmem.tcp.limit_in_bytes", nullptr,
            absl::StrCat(*r.kernel_memory_tcp));
    }
    if (r.memory_swappiness && *r.memory_swappiness <= 100) {
      Write("memory", "memory.swappiness", nullptr, absl::StrCat(*r.memory_swappiness));
    }
    if (r.disable_oom_killer && *r.disable_oom_killer) {
      Write("memory", "memory.oom_control", nullptr, "1");
    }
  }

  void Cpu() {
    const Resources& r = resources_;
    const bool quota = r.cpu_quota && *r.cpu_quota != 0;
    const bool period = r.cpu_period && *r.cpu_period != 0;
    if (cgroups_.Find("cpu") != nullptr) {
      if (r.cpu_shares && *r.cpu_shares != 0) {
        Write("cpu", "cpu.shares", nullptr, absl::StrCat(*r.cpu_shares));
      }
      if (period) Write("cpu", "cpu.cfs_period_us", nullptr, absl::StrCat(*r.cpu_period));
      if (quota) Write("cpu", "cpu.cfs_quota_us", nullptr, absl::StrCat(*r.cpu_quota));
      if (r.cpu_burst) Write("cpu", "cpu.cfs_burst_us", nullptr, absl::StrCat(*r.cpu_burst));
      if (r.cpu_idle) Write("cpu", "cpu.idle", nullptr, absl::StrCat(*r.cpu_idle));
      return;
    }
    if (r.cpu_shares && *r.cpu_shares != 0) {
      Write("cpu", "", "cpu.weight", absl::StrCat(WeightOfShares(*r.cpu_shares)));
    }
    if (quota || period) {
      Write("cpu", "", "cpu.max",
            absl::StrCat(NumberOrMax(quota ? *r.cpu_quota : -1), " ",
                         period ? *r.cpu_period : 100'000));
    }
    if (r.cpu_burst) Write("cpu", "", "cpu.max.burst", absl::StrCat(*r.cpu_burst));
    if (r.cpu_idle) Write("cpu", "", "cpu.idle", absl::StrCat(*r.cpu_idle));
  }

  void Throttle(const std::vector<ThrottleDevice>& devices, const char* v1, const char* v2_key) {
    for (const ThrottleDevice& device : devices) {
      const std::string number = absl::StrCat(device.major, ":", device.minor, " ");
      const bool old = cgroups_.Find("blkio") != nullptr;
      Write(
          "blkio", v1, "io.max",
          old ? absl::StrCat(number, device.rate) : absl::StrCat(number, v2_key, "=", device.rate));
    }
  }

  const Cgroups& cgroups_;
  const Resources& resources_;
  absl::Status status_;
};

std::vector<int32_t> PidsOf(const std::string& directory) {
  std::vector<int32_t> pids;
  const std::string text = ControlText(directory + "/cgroup.procs");
  for (const absl::string_view line : absl::StrSplit(text, '\n', absl::SkipEmpty())) {
    pids.push_back(static_cast<int32_t>(strtol(std::string(line).c_str(), nullptr, 10)));
  }
  std::sort(pids.begin(), pids.end());
  pids.erase(std::unique(pids.begin(), pids.end()), pids.end());
  return pids;
}

}  // namespace

const std::string* Cgroups::Find(const std::string& controller) const {
  for (const auto& [name, path] : paths) {
    if (name == controller) return &path;
  }
  return nullptr;
}

absl::StatusOr<Cgroups> PlanCgroups(const std::string& cgroups_path, const std::string& id) {
  Cgroups cgroups;
  const std::vector<Hierarchy> hierarchies = FindHierarchies();
  const bool has_v1 = std::any_of(hierarchies.begin(), hierarchies.end(),
                                  [](const Hierarchy& h) { return !h.controllers.empty(); });
  const Planner planner(cgroups_path, id);
  for (const Hierarchy& hierarchy : hierarchies) {
    // Beside v1 the other hierarchy has what nobody asks for.
    if (hierarchy.controllers.empty() && has_v1) continue;
    if (absl::Status status = planner.Add(hierarchy, cgroups); !status.ok()) return status;
  }
  return cgroups;
}

absl::Status MakeCgroups(Cgroups& cgroups, bool required) {
  absl::Status failed;
  const std::string* const cpuset = cgroups.Find("cpuset");
  const bool unified = cgroups.Find("") != nullptr;
  for (size_t i = 0; i < cgroups.made.size() && failed.ok(); ++i) {
    const std::string& path = cgroups.made[i];
    failed = MakeOne(path, cgroups.mount_sizes[i], unified, cpuset != nullptr && *cpuset == path);
  }
  if (failed.ok()) return failed;
  RemoveCgroups(cgroups.made);
  if (required && geteuid() == 0) {
    return absl::InternalError(
        absl::StrCat("unable to apply cgroup configuration: ", failed.message()));
  }
  cgroups = {};
  cgroups.warning = absl::StrCat("resource limits are not enforced: ", failed.message());
  return absl::OkStatus();
}

absl::Status EnterCgroups(const Cgroups& cgroups) {
  for (const std::string& path : cgroups.made) {
    const absl::Status entered = Put(path + "/cgroup.procs", "0");
    if (!entered.ok()) return entered;
  }
  return absl::OkStatus();
}

absl::Status ApplyResources(const Cgroups& cgroups, const Resources& resources) {
  return Applier(cgroups, resources).Apply();
}

void RemoveCgroups(const std::vector<std::string>& made) {
  for (const std::string& path : made) {
    for (int i = 0; i < kRemoveTries; ++i) {
      if (rmdir(path.c_str()) == 0 || errno == ENOENT) break;
      for (const int32_t pid : PidsOf(path)) kill(pid, SIGKILL);
      usleep(kRemoveWaitUs);
    }
  }
}

std::vector<int32_t> CgroupPids(const Cgroups& cgroups) {
  for (const char* controller : {"pids", "memory", "cpu", "freezer", ""}) {
    const std::string* const path = cgroups.Find(controller);
    if (path != nullptr) return PidsOf(*path);
  }
  return {};
}

}  // namespace oci
