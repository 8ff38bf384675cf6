// A sandbox that takes more than the host has is ended by the host's OOM killer, as a whole, and
// the user learns nothing. With a limit below that the guest has its own OOM killer
// (sentry/kernel/memory_limit.h).

#include "runsc-cli/main/host_memory.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "platform/base/fd.h"

namespace runsc {
namespace {

constexpr uint64_t kUnlimited = ~uint64_t{0};
constexpr uint64_t kPageBytes = 4096;

// The beginning of a small file; empty if there is none.
std::string ReadSmall(const std::string& path) {
  const base::Fd fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
  std::string text(8192, '\0');
  const ssize_t got = fd ? read(fd.get(), text.data(), text.size()) : -1;
  text.resize(got > 0 ? static_cast<size_t>(got) : 0);
  return text;
}

// "max", like anything that is no number, is no limit.
uint64_t Number(std::string_view text) {
  while (!text.empty() && text.front() == ' ') text.remove_prefix(1);
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() ? value : kUnlimited;
}

uint64_t AvailableBytes() {
  const std::string text = ReadSmall("/proc/meminfo");
  constexpr std::string_view kKey = "MemAvailable:";
  const size_t at = text.find(kKey);
  if (at == std::string::npos) return kUnlimited;
  const uint64_t kilobytes = Number(std::string_view(text).substr(at + kKey.size()));
  return kilobytes == kUnlimited ? kUnlimited : kilobytes * 1024;
}

// The least limit of `group` and the groups above it.
uint64_t LimitOfGroup(const std::string& root, std::string group, const char* file) {
  uint64_t least = kUnlimited;
  for (;;) {
    least = std::min(least, Number(ReadSmall(root + group + "/" + file)));
    const size_t slash = group.rfind('/');
    if (group.empty() || slash == std::string::npos) return least;
    group.resize(slash);
  }
}

uint64_t CgroupBytes() {
  uint64_t least = kUnlimited;
  const std::string text = ReadSmall("/proc/self/cgroup");
  std::string_view rest = text;
  while (!rest.empty()) {
    const size_t end = std::min(rest.find('\n'), rest.size());
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(std::min(end + 1, rest.size()));
    const size_t path = line.find(":/");
    if (path == std::string_view::npos) continue;
    const std::string group(line.substr(path + 1));
    if (line.starts_with("0::")) {
      least = std::min(least, LimitOfGroup("/sys/fs/cgroup", group, "memory.max"));
    } else if (line.find(":memory:") != std::string_view::npos) {
      least =
          std::min(least, LimitOfGroup("/sys/fs/cgroup/memory", group, "memory.limit_in_bytes"));
    }
  }
  return least;
}

}  // namespace

uint64_t DefaultMemoryBytes() {
  const uint64_t bytes = std::min(AvailableBytes(), CgroupBytes());
  return bytes == kUnlimited ? 0 : bytes / 16 * 15 / kPageBytes * kPageBytes;
}

}  // namespace runsc
