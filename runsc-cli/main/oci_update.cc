#include "runsc-cli/main/oci_update.h"

#include <charconv>
#include <cstdint>
#include <optional>

#include "absl/strings/str_cat.h"
#include "runsc-cli/main/container.h"
#include "runsc-cli/oci/cgroup.h"

namespace runsc {
namespace {

// "64m", "1g", "1048576", "-1".
absl::Status ParseBytes(const std::string& text, const char* flag, std::optional<int64_t>& out) {
  if (text.empty()) return absl::OkStatus();
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  std::string suffix(end, text.data() + text.size());
  for (char& c : suffix) c = static_cast<char>(tolower(static_cast<unsigned char>(c)));
  if (suffix.size() > 1 && suffix.back() == 'b') suffix.pop_back();
  const int shift = suffix.empty() || suffix == "b" ? 0
                    : suffix == "k"                 ? 10
                    : suffix == "m"                 ? 20
                    : suffix == "g"                 ? 30
                    : suffix == "t"                 ? 40
                                                    : -1;
  if (error != std::errc() || shift < 0 || value > (INT64_MAX >> (shift < 0 ? 0 : shift))) {
    return absl::InvalidArgumentError(absl::StrCat("invalid value for ", flag, ": ", text));
  }
  out = value * (int64_t{1} << shift);
  return absl::OkStatus();
}

template <typename T>
absl::Status ParseNumber(const std::string& text, const char* flag, std::optional<T>& out) {
  if (text.empty()) return absl::OkStatus();
  T value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) {
    return absl::InvalidArgumentError(absl::StrCat("invalid value for ", flag, ": ", text));
  }
  out = value;
  return absl::OkStatus();
}

absl::StatusOr<oci::Resources> FromFlags(const cmd::OciOptions& o) {
  oci::Resources r;
  for (const absl::Status& status :
       {ParseBytes(o.memory, "memory", r.memory_limit),
        ParseBytes(o.memory_reservation, "memory-reservation", r.memory_reservation),
        ParseBytes(o.memory_swap, "memory-swap", r.memory_swap),
        ParseNumber(o.cpu_shares, "cpu-share", r.cpu_shares),
        ParseNumber(o.cpu_quota, "cpu-quota", r.cpu_quota),
        ParseNumber(o.cpu_period, "cpu-period", r.cpu_period),
        ParseNumber(o.cpu_burst, "cpu-burst", r.cpu_burst),
        ParseNumber(o.cpu_idle, "cpu-idle", r.cpu_idle),
        ParseNumber(o.pids_limit, "pids-limit", r.pids_limit),
        ParseNumber(o.blkio_weight, "blkio-weight", r.blkio_weight)}) {
    if (!status.ok()) return status;
  }
  r.cpus = o.cpuset_cpus;
  r.mems = o.cpuset_mems;
  return r;
}

}  // namespace

absl::Status UpdateContainer(const cmd::OciOptions& options) {
  auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  if (absl::Status status = container->Lock(); !status.ok()) return status;
  auto resources = FromFlags(options);
  if (!options.resources.empty()) {
    const auto text = oci::ReadTextFile(options.resources);
    if (!text.ok()) return text.status();
    const auto json = oci::Json::Parse(*text);
    if (!json.ok()) return json.status();
    resources = oci::ParseResources(*json, "resources");
  }
  if (!resources.ok()) return resources.status();
  if (container->Status() == ContainerStatus::kStopped) {
    return absl::FailedPreconditionError("container not running");
  }
  return oci::ApplyResources(container->Cgroups(), *resources);
}

}  // namespace runsc
