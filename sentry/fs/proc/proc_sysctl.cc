// /proc/sys (proc_sys(5)). What a container may only read is read-only here; what it may set and
// somebody reads back is kept.

#include <linux/capability.h>

#include <algorithm>
#include <atomic>
#include <limits>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_counts.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/release.h"
#include "sentry/vfs/lease.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

using Directory = std::shared_ptr<StaticDirectory>;

Directory NewDirectory(ProcFileSystem& file_system, StaticDirectory& parent, std::string name) {
  auto directory = std::make_shared<StaticDirectory>(file_system, 0555);
  parent.Add(std::move(name), directory);
  return directory;
}

struct Fixed {
  const char* name;
  const char* text;
};

void AddFixed(ProcFileSystem& file_system, StaticDirectory& directory,
              std::span<const Fixed> files) {
  for (const Fixed& file : files) {
    AddText(file_system, directory, file.name,
            [text = file.text](Task&) -> Result<std::string> { return std::string(text) + "\n"; });
  }
}

constexpr Fixed kKernelFiles[] = {{"cap_last_cap", "40"},
                                  {"core_pattern", "core"},
                                  {"core_uses_pid", "0"},
                                  {"dmesg_restrict", "1"},
                                  {"hung_task_timeout_secs", "0"},
                                  {"io_uring_disabled", "2"},
                                  {"kptr_restrict", "1"},
                                  {"ngroups_max", "65536"},
                                  {"numa_balancing", "0"},
                                  {"osrelease", nullptr},
                                  {"ostype", "Linux"},
                                  {"overflowgid", "65534"},
                                  {"overflowuid", "65534"},
                                  {"panic", "0"},
                                  {"perf_event_paranoid", "4"},
                                  {"pid_max", "32768"},
                                  {"printk", "4\t4\t1\t7"},
                                  {"randomize_va_space", "2"},
                                  {"sched_autogroup_enabled", "0"},
                                  {"shm_rmid_forced", "0"},
                                  {"sysrq", "0"},
                                  {"tainted", "0"},
                                  {"unprivileged_bpf_disabled", "2"},
                                  {"version", nullptr}};
constexpr Fixed kVmFiles[] = {
    {"dirty_background_ratio", "10"}, {"dirty_ratio", "20"},   {"max_map_count", "65530"},
    {"mmap_min_addr", "65536"},       {"nr_hugepages", "0"},   {"overcommit_memory", "0"},
    {"overcommit_ratio", "50"},       {"swappiness", "60"},    {"vfs_cache_pressure", "100"},
    {"overcommit_kbytes", "0"},       {"min_free_kbytes", "0"}};
constexpr Fixed kFsFiles[] = {{"file-max", "9223372036854775807"},
                              {"file-nr", "0\t0\t9223372036854775807"},
                              {"nr_open", "1048576"},
                              {"overflowgid", "65534"},
                              {"overflowuid", "65534"},
                              {"pipe-max-size", "1048576"},
                              {"pipe-user-pages-hard", "0"},
                              {"pipe-user-pages-soft", "16384"},
                              {"protected_fifos", "0"},
                              {"protected_hardlinks", "0"},
                              {"protected_regular", "0"},
                              {"protected_symlinks", "0"},
                              {"suid_dumpable", "0"}};
constexpr Fixed kInotifyFiles[] = {
    {"max_queued_events", "16384"}, {"max_user_instances", "128"}, {"max_user_watches", "65536"}};
constexpr Fixed kCoreFiles[] = {{"netdev_max_backlog", "1000"}, {"optmem_max", "131072"},
                                {"rmem_default", "212992"},     {"rmem_max", "212992"},
                                {"somaxconn", "4096"},          {"wmem_default", "212992"},
                                {"wmem_max", "212992"}};
constexpr Fixed kIpv4Files[] = {{"ip_forward", "0"},
                                {"ip_local_port_range", "32768\t60999"},
                                {"ip_unprivileged_port_start", "1024"},
                                {"ip_local_reserved_ports", ""},
                                {"ping_group_range", "1\t0"},
                                {"tcp_fin_timeout", "60"},
                                {"tcp_keepalive_intvl", "75"},
                                {"tcp_keepalive_probes", "9"},
                                {"tcp_keepalive_time", "7200"},
                                {"tcp_max_syn_backlog", "1024"},
                                {"tcp_rmem", "4096\t131072\t6291456"},
                                {"tcp_sack", "1"},
                                {"tcp_syncookies", "1"},
                                {"tcp_timestamps", "1"},
                                {"tcp_tw_reuse", "2"},
                                {"tcp_window_scaling", "1"},
                                {"tcp_wmem", "4096\t16384\t4194304"},
                                {"tcp_congestion_control", "cubic"},
                                {"tcp_available_congestion_control", "reno cubic"}};

std::string Uuid(Random& random) {
  std::array<uint8_t, 16> bytes;
  random.Fill(bytes.data(), bytes.size());
  bytes[6] = static_cast<uint8_t>((bytes[6] & 0x0f) | 0x40);  // Version 4, RFC 9562.
  bytes[8] = static_cast<uint8_t>((bytes[8] & 0x3f) | 0x80);
  std::string text;
  for (size_t i = 0; i < bytes.size(); ++i) {
    if (i == 4 || i == 6 || i == 8 || i == 10) text += '-';
    text += Format("%02x", bytes[i]);
  }
  return text;
}

void AddRandom(ProcFileSystem& file_system, StaticDirectory& kernel_directory) {
  const Directory directory = NewDirectory(file_system, kernel_directory, "random");
  Random& random = file_system.kernel().random();
  AddText(file_system, *directory, "boot_id",
          [id = Uuid(random)](Task&) -> Result<std::string> { return id + "\n"; });
  AddText(file_system, *directory, "uuid",
          [&random](Task&) -> Result<std::string> { return Uuid(random) + "\n"; });
  constexpr Fixed kFiles[] = {{"entropy_avail", "256"},
                              {"poolsize", "256"},
                              {"urandom_min_reseed_secs", "60"},
                              {"write_wakeup_threshold", "256"}};
  AddFixed(file_system, *directory, kFiles);
}

std::string FirstLine(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

void AddNames(ProcFileSystem& file_system, StaticDirectory& directory) {
  constexpr size_t kNameBytesMax = 64;
  AddText(
      file_system, directory, "hostname",
      [](Task& task) -> Result<std::string> {
        return task.own_namespaces().uts->host_name() + "\n";
      },
      0644,
      [](Task& task, std::string_view text) -> Result<void> {
        task.own_namespaces().uts->set_host_name(FirstLine(text).substr(0, kNameBytesMax));
        return {};
      });
  AddText(
      file_system, directory, "domainname",
      [](Task& task) -> Result<std::string> {
        return task.own_namespaces().uts->domain_name() + "\n";
      },
      0644,
      [](Task& task, std::string_view text) -> Result<void> {
        task.own_namespaces().uts->set_domain_name(FirstLine(text).substr(0, kNameBytesMax));
        return {};
      });
  AddText(file_system, directory, "threads-max", [](Task& task) -> Result<std::string> {
    return Format("%llu\n", static_cast<unsigned long long>(task.kernel().options().tasks_max));
  });
  AddText(
      file_system, directory, "ns_last_pid",
      [](Task& task) -> Result<std::string> {
        const PidViewRef& view = task.group().pid_view();
        return Format("%d\n", view != nullptr ? view->last_id() : task.kernel().pids().last_id());
      },
      0666,
      [](Task& task, std::string_view text) -> Result<void> {
        const PidViewRef& view = task.group().pid_view();
        const Credentials& own = task.own_credentials();
        // The sandbox's own ids go up undisturbed: whoever started it counts on them.
        if (view == nullptr || (!own.HasCapabilityIn(view->owner(), CAP_SYS_ADMIN) &&
                                !own.HasCapabilityIn(view->owner(), CAP_CHECKPOINT_RESTORE)))
          return Errno(EPERM);
        const int64_t last = TRY(ParseControlNumber(text));
        if (last < 0 || last >= PidView::kIdMax) return Errno(EINVAL);
        view->set_last_id(static_cast<int32_t>(last));
        return {};
      });
}

void AddNamespaceLimits(ProcFileSystem& file_system, StaticDirectory& directory) {
  constexpr std::pair<const char*, NamespaceKind> kFiles[] = {
      {"max_cgroup_namespaces", NamespaceKind::kCgroup},
      {"max_ipc_namespaces", NamespaceKind::kIpc},
      {"max_mnt_namespaces", NamespaceKind::kMount},
      {"max_net_namespaces", NamespaceKind::kNet},
      {"max_pid_namespaces", NamespaceKind::kPid},
      {"max_time_namespaces", NamespaceKind::kTime},
      {"max_user_namespaces", NamespaceKind::kUser},
      {"max_uts_namespaces", NamespaceKind::kUts}};
  for (const auto& [name, kind] : kFiles) {
    std::atomic<int64_t>& max = file_system.kernel().namespace_counts().max(kind);
    AddText(
        file_system, directory, name,
        [&max](Task&) -> Result<std::string> {
          return std::to_string(max.load(std::memory_order_relaxed)) + "\n";
        },
        0644,
        [&max](Task& task, std::string_view text) -> Result<void> {
          if (!task.own_credentials().HasCapability(CAP_SYS_RESOURCE)) return Errno(EPERM);
          const int64_t wanted = TRY(ParseControlNumber(text));
          // More than there are at the start is more than the sentry answers for.
          if (wanted < 0 || wanted > NamespaceCounts::kDefaultMax) return Errno(EINVAL);
          max.store(wanted, std::memory_order_relaxed);
          return {};
        });
  }
}

// Of leases and asynchronous I/O.
void AddFsSettings(ProcFileSystem& file_system, StaticDirectory& directory) {
  AddText(
      file_system, directory, "lease-break-time",
      [](Task& task) -> Result<std::string> {
        return std::to_string(task.kernel().leases().break_seconds.load()) + "\n";
      },
      0644,
      [](Task& task, std::string_view text) -> Result<void> {
        const int64_t seconds = TRY(ParseControlNumber(text));
        if (seconds < 0 || seconds > std::numeric_limits<int32_t>::max()) return Errno(EINVAL);
        task.kernel().leases().break_seconds.store(static_cast<int32_t>(seconds));
        return {};
      });
  AddText(
      file_system, directory, "leases-enable",
      [](Task& task) -> Result<std::string> {
        return std::string(task.kernel().leases().enabled.load() ? "1\n" : "0\n");
      },
      0644,
      [](Task& task, std::string_view text) -> Result<void> {
        task.kernel().leases().enabled.store(TRY(ParseControlNumber(text)) != 0);
        return {};
      });
  AddText(file_system, directory, "aio-max-nr", [](Task&) -> Result<std::string> {
    return std::to_string(AnonymousFiles::kAioRequestsMax) + "\n";
  });
  AddText(file_system, directory, "aio-nr", [](Task& task) -> Result<std::string> {
    return std::to_string(task.kernel().anonymous_files().aio_requests().load()) + "\n";
  });
}

}  // namespace

InodeRef NewSysctlDirectory(ProcFileSystem& file_system) {
  auto root = std::make_shared<StaticDirectory>(file_system, 0555);
  const Directory kernel_directory = NewDirectory(file_system, *root, "kernel");
  for (const Fixed& file : kKernelFiles) {
    const std::string_view name = file.name;
    const std::string text(name == "osrelease" ? kReleaseName
                           : name == "version" ? kReleaseVersion
                                               : file.text);
    AddText(file_system, *kernel_directory, file.name,
            [text](Task&) -> Result<std::string> { return text + "\n"; });
  }
  AddNames(file_system, *kernel_directory);
  AddIpcSysctls(file_system, *kernel_directory);
  AddKeySysctls(file_system, *NewDirectory(file_system, *kernel_directory, "keys"));
  AddRandom(file_system, *kernel_directory);
  AddFixed(file_system, *NewDirectory(file_system, *root, "vm"), kVmFiles);
  const Directory fs = NewDirectory(file_system, *root, "fs");
  AddFixed(file_system, *fs, kFsFiles);
  AddFsSettings(file_system, *fs);
  AddText(
      file_system, *fs, "mount-max",
      [](Task& task) -> Result<std::string> {
        return std::to_string(task.kernel().vfs().mounts().mounts_max().load()) + "\n";
      },
      0644,
      [](Task& task, std::string_view text) -> Result<void> {
        if (!task.own_credentials().HasCapability(CAP_SYS_ADMIN)) return Errno(EPERM);
        const int64_t wanted = TRY(ParseControlNumber(text));
        if (wanted < 1 || wanted > static_cast<int64_t>(Mounts::kMountsMax)) return Errno(EINVAL);
        task.kernel().vfs().mounts().mounts_max() = static_cast<uint64_t>(wanted);
        return {};
      });
  AddFixed(file_system, *NewDirectory(file_system, *fs, "inotify"), kInotifyFiles);
  AddMqueueSysctls(file_system, *NewDirectory(file_system, *fs, "mqueue"));
  const Directory net = NewDirectory(file_system, *root, "net");
  AddFixed(file_system, *NewDirectory(file_system, *net, "core"), kCoreFiles);
  AddFixed(file_system, *NewDirectory(file_system, *net, "ipv4"), kIpv4Files);
  const Directory user = NewDirectory(file_system, *root, "user");
  AddNamespaceLimits(file_system, *user);
  return root;
}

}  // namespace sentry
