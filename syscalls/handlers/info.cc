#include "syscalls/handlers/info.h"

#include <linux/capability.h>
#include <sys/random.h>

#include <algorithm>
#include <cstring>
#include <string>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/release.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::Task;

struct UtsName {
  std::array<char, 65> system, node, release, version, machine, domain;
};

// struct sysinfo, <linux/sysinfo.h>.
struct SysInfoData {
  int64_t uptime_s;
  std::array<uint64_t, 3> loads;
  uint64_t total_ram, free_ram, shared_ram, buffer_ram, total_swap, free_swap;
  uint16_t processes, pad;
  uint32_t pad2;
  uint64_t total_high, free_high;
  uint32_t memory_unit, pad3;
};
static_assert(sizeof(SysInfoData) == 112);

namespace {

constexpr int32_t kNameBytesMax = 64;  // __NEW_UTS_LEN

std::array<char, 65> Field(std::string_view text) {
  std::array<char, 65> field{};
  std::copy_n(text.begin(), std::min<size_t>(text.size(), 64), field.begin());
  return field;
}

Result<std::string> CopyInName(Task& task, UserAddr name, int32_t length) {
  if (!task.own_credentials().HasCapabilityIn(task.own_namespaces().uts->owner(), CAP_SYS_ADMIN))
    return Errno(EPERM);
  if (length < 0 || length > kNameBytesMax) return Errno(EINVAL);
  std::string text(static_cast<size_t>(length), '\0');
  TRY(task.memory().CopyInExactly(name, std::as_writable_bytes(std::span<char>(text))));
  return text.substr(0, std::min(text.find('\0'), text.size()));
}

}  // namespace

Result<void> Uname(Task& task, UserAddr name) {
  const sentry::UtsNamespace& uts = *task.own_namespaces().uts;
  const UtsName names{Field("Linux"),
                      Field(uts.host_name()),
                      Field(sentry::kReleaseName),
                      Field(sentry::kReleaseVersion),
                      Field("x86_64"),
                      Field(uts.domain_name())};
  return task.CopyOut(UserOut<UtsName>(name), names);
}

Result<void> SysInfo(Task& task, UserAddr info) {
  sentry::Kernel& kernel = task.kernel();
  const uint64_t total = kernel.options().memory_bytes;
  SysInfoData data{};
  data.uptime_s = (kernel.clock().MonotonicNs() - kernel.boot_monotonic_ns()) / 1'000'000'000;
  data.total_ram = total;
  data.free_ram = total - std::min(total, kernel.pool().resident_bytes());
  data.processes =
      static_cast<uint16_t>(std::min<uint64_t>(kernel.pids().task_count(), UINT16_MAX));
  data.memory_unit = 1;
  return task.CopyOut(UserOut<SysInfoData>(info), data);
}

Result<void> SetHostName(Task& task, UserAddr name, int32_t length) {
  task.own_namespaces().uts->set_host_name(TRY(CopyInName(task, name, length)));
  return {};
}

Result<void> SetDomainName(Task& task, UserAddr name, int32_t length) {
  task.own_namespaces().uts->set_domain_name(TRY(CopyInName(task, name, length)));
  return {};
}

Result<uint64_t> GetRandom(Task& task, UserAddr buffer, uint64_t length, uint32_t flags) {
  if ((flags & ~uint32_t{GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE}) != 0) return Errno(EINVAL);
  if ((flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
    return Errno(EINVAL);
  constexpr uint64_t kBytesMax = 0x7fffffff & ~uint64_t{4095};  // MAX_RW_COUNT
  sentry::IoBuffer to(task.memory(), buffer, std::min(length, kBytesMax));
  std::array<std::byte, 4096> chunk;
  while (to.remaining() > 0) {
    const size_t wanted = std::min<uint64_t>(chunk.size(), to.remaining());
    task.kernel().random().Fill(chunk.data(), wanted);
    const Result<size_t> copied = to.CopyOut(std::span(chunk).first(wanted));
    if (!copied.ok() || copied.value() < wanted) {
      if (to.done() > 0) break;
      return Errno(EFAULT);
    }
    if (task.IsInterrupted()) break;
  }
  return to.done();
}

// The log of a container's kernel is empty, and reading it needs CAP_SYSLOG as with dmesg_restrict.
// The log is empty: reading it all gives nothing, waiting for a line lasts until a signal.
Result<int32_t> SysLog(Task& task, int32_t type, UserAddr buffer, int32_t length) {
  constexpr int32_t kRead = 2, kReadClear = 4, kConsoleLevel = 8, kSizeBuffer = 10, kTypeMax = 10,
                    kLevelMax = 8;
  if (type < 0 || type > kTypeMax) return Errno(EINVAL);
  if (!task.own_credentials().HasCapability(CAP_SYSLOG)) return Errno(EPERM);
  if (type >= kRead && type <= kReadClear) {
    if (buffer.is_null() || length < 0) return Errno(EINVAL);
    if (type != kRead || length == 0) return 0;
    task.ClearWake();
    while (true) TRY(task.Block(sentry::Deadline::Never()));
  }
  if (type == kConsoleLevel && (length < 1 || length > kLevelMax)) return Errno(EINVAL);
  return type == kSizeBuffer ? 1 << 17 : 0;
}

}  // namespace syscalls
