#include "sentry/fs/sys/sys.h"

#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/kernel.h"

namespace sentry {
namespace {

using base::Result;

constexpr uint64_t kSysMagic = 0x62656572;

class SysBuilder {
 public:
  explicit SysBuilder(Kernel& kernel)
      : cpus_(kernel.options().cpu_count),
        file_system_(std::make_shared<SyntheticFileSystem>(
            SyntheticFileSystem::Traits{
                .type_name = "sysfs", .magic = kSysMagic, .is_kernel_view = true},
            kernel.clock())) {}

  FileSystemRef Build() {
    auto root = std::make_shared<StaticDirectory>(*file_system_, 0555, 1);
    for (const char* name : {"block", "bus", "dev", "firmware", "module", "power", "hypervisor"})
      Directory(*root, name);
    AddDevices(*Directory(*root, "devices"));
    AddClasses(*Directory(*root, "class"));
    const DirectoryRef fs = Directory(*root, "fs");
    Directory(*fs, "cgroup");
    const DirectoryRef kernel = Directory(*root, "kernel");
    const DirectoryRef huge = Directory(*Directory(*kernel, "mm"), "transparent_hugepage");
    Text(*huge, "enabled", "always [madvise] never");
    Text(*huge, "defrag", "always defer defer+madvise [madvise] never");
    Text(*huge, "hpage_pmd_size", "2097152");
    file_system_->SetRoot(std::move(root));
    return file_system_;
  }

 private:
  using DirectoryRef = std::shared_ptr<StaticDirectory>;

  DirectoryRef Directory(StaticDirectory& parent, std::string name) {
    auto directory = std::make_shared<StaticDirectory>(*file_system_, 0555);
    parent.Add(std::move(name), directory);
    return directory;
  }
  void Text(StaticDirectory& directory, std::string name, std::string text) {
    directory.Add(std::move(name), std::make_shared<TextInode>(
                                       *file_system_, 0444, [text = std::move(text) + "\n"](Task&) {
                                         return Result<std::string>(text);
                                       }));
  }
  std::string Range() const { return cpus_ > 1 ? "0-" + std::to_string(cpus_ - 1) : "0"; }
  // Bit mask in groups of 32 bits, as bitmaps are printed.
  std::string Mask(uint32_t first, uint32_t last) const {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string text;
    for (uint32_t digit = (cpus_ + 3) / 4; digit-- > 0;) {
      uint32_t value = 0;
      for (uint32_t bit = 0; bit < 4; ++bit) {
        const uint32_t cpu = digit * 4 + bit;
        if (cpu >= first && cpu <= last) value |= 1U << bit;
      }
      text += kDigits[value];
      if (digit % 8 == 0 && digit != 0) text += ',';
    }
    return text;
  }

  void AddDevices(StaticDirectory& devices) {
    const DirectoryRef system = Directory(devices, "system");
    Directory(devices, "virtual");
    const DirectoryRef cpu = Directory(*system, "cpu");
    for (const char* name : {"online", "possible", "present"}) Text(*cpu, name, Range());
    Text(*cpu, "offline", "");
    Text(*cpu, "isolated", "");
    Text(*cpu, "kernel_max", "8191");
    for (uint32_t number = 0; number < cpus_; ++number)
      AddCpu(*Directory(*cpu, "cpu" + std::to_string(number)), number);
    const DirectoryRef nodes = Directory(*system, "node");
    for (const char* name : {"online", "possible", "has_cpu", "has_memory", "has_normal_memory"})
      Text(*nodes, name, "0");
    const DirectoryRef node = Directory(*nodes, "node0");
    Text(*node, "cpulist", Range());
    Text(*node, "cpumap", Mask(0, cpus_ - 1));
    Text(*node, "distance", "10");
  }

  void AddCpu(StaticDirectory& directory, uint32_t number) {
    Text(directory, "online", "1");
    const DirectoryRef topology = Directory(directory, "topology");
    const std::string own = std::to_string(number);
    Text(*topology, "physical_package_id", "0");
    Text(*topology, "die_id", "0");
    Text(*topology, "core_id", own);
    for (const char* name : {"thread_siblings", "core_cpus"})
      Text(*topology, name, Mask(number, number));
    for (const char* name : {"thread_siblings_list", "core_cpus_list"}) Text(*topology, name, own);
    for (const char* name : {"core_siblings", "package_cpus"})
      Text(*topology, name, Mask(0, cpus_ - 1));
    for (const char* name : {"core_siblings_list", "package_cpus_list"})
      Text(*topology, name, Range());
  }

  void AddClasses(StaticDirectory& classes) {
    for (const char* name : {"block", "tty", "mem", "powercap", "thermal"})
      Directory(classes, name);
    const DirectoryRef loopback = Directory(*Directory(classes, "net"), "lo");
    struct Entry {
      const char* name;
      const char* text;
    };
    constexpr Entry kEntries[] = {{"address", "00:00:00:00:00:00"},
                                  {"addr_len", "6"},
                                  {"broadcast", "00:00:00:00:00:00"},
                                  {"carrier", "1"},
                                  {"flags", "0x9"},
                                  {"ifindex", "1"},
                                  {"iflink", "1"},
                                  {"mtu", "65536"},
                                  {"operstate", "unknown"},
                                  {"tx_queue_len", "1000"},
                                  {"type", "772"}};
    for (const Entry& entry : kEntries) Text(*loopback, entry.name, entry.text);
  }

  const uint32_t cpus_;
  const std::shared_ptr<SyntheticFileSystem> file_system_;
};

}  // namespace

FileSystemRef NewSys(Kernel& kernel) { return SysBuilder(kernel).Build(); }

}  // namespace sentry
