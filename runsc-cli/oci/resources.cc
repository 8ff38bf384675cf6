// linux.resources, of config.json and of `runsc update`.

#include "runsc-cli/oci/fields.h"
#include "runsc-cli/oci/spec.h"

namespace oci {
namespace {

void ReadDeviceRules(Fields& fields, std::vector<DeviceRule>& rules) {
  fields.Each("devices", [&](Fields& item) {
    DeviceRule rule;
    std::string type = "a";
    item.Read("allow", rule.allow);
    item.Read("type", type);
    item.Read("major", rule.major);
    item.Read("minor", rule.minor);
    item.Read("access", rule.access);
    if (item.ok() && type.size() != 1) return item.Fail("type", "must be a, b or c");
    rule.type = type.empty() ? 'a' : type[0];
    if (rule.major == -1) rule.major.reset();
    if (rule.minor == -1) rule.minor.reset();
    rules.push_back(std::move(rule));
  });
}

void ReadThrottle(Fields& fields, const char* name, std::vector<ThrottleDevice>& devices) {
  fields.Each(name, [&](Fields& item) {
    ThrottleDevice device;
    item.Read("major", device.major);
    item.Read("minor", device.minor);
    item.Read("rate", device.rate);
    devices.push_back(device);
  });
}

void ReadCpu(Fields& cpu, Resources& out) {
  cpu.Read("shares", out.cpu_shares);
  cpu.Read("quota", out.cpu_quota);
  cpu.Read("period", out.cpu_period);
  cpu.Read("burst", out.cpu_burst);
  cpu.Read("realtimeRuntime", out.realtime_runtime);
  cpu.Read("realtimePeriod", out.realtime_period);
  cpu.Read("cpus", out.cpus);
  cpu.Read("mems", out.mems);
  cpu.Read("idle", out.cpu_idle);
}

}  // namespace

absl::StatusOr<Resources> ParseResources(const Json& json, const std::string& where) {
  absl::Status error;
  Resources out;
  Fields fields(json, where, error);
  ReadDeviceRules(fields, out.devices);
  fields.In("memory", [&](Fields& memory) {
    memory.Read("limit", out.memory_limit);
    memory.Read("reservation", out.memory_reservation);
    memory.Read("swap", out.memory_swap);
    memory.Read("kernelTCP", out.kernel_memory_tcp);
    memory.Read("swappiness", out.memory_swappiness);
    memory.Read("disableOOMKiller", out.disable_oom_killer);
    memory.Read("checkBeforeUpdate", out.memory_check_before_update);
  });
  fields.In("cpu", [&](Fields& cpu) { ReadCpu(cpu, out); });
  fields.In("pids", [&](Fields& pids) { pids.Read("limit", out.pids_limit); });
  fields.In("blockIO", [&](Fields& io) {
    io.Read("weight", out.blkio_weight);
    ReadThrottle(io, "throttleReadBpsDevice", out.throttle_read_bps);
    ReadThrottle(io, "throttleWriteBpsDevice", out.throttle_write_bps);
    ReadThrottle(io, "throttleReadIOPSDevice", out.throttle_read_iops);
    ReadThrottle(io, "throttleWriteIOPSDevice", out.throttle_write_iops);
  });
  fields.Each("hugepageLimits", [&](Fields& item) {
    HugepageLimit limit;
    item.Read("pageSize", limit.page_size);
    item.Read("limit", limit.limit);
    out.hugepages.push_back(std::move(limit));
  });
  fields.In("network", [&](Fields& network) { network.Read("classID", out.network_class); });
  fields.Read("unified", out.unified);
  if (!error.ok()) return error;
  return out;
}

}  // namespace oci
