#include "runsc-cli/oci/spec.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "platform/base/fd.h"
#include "runsc-cli/oci/fields.h"

namespace oci {
namespace {

constexpr size_t kFileBytesMax = 8 << 20;

uint64_t ReadCapabilitySet(Fields& fields, const char* name, std::vector<std::string>& unknown) {
  std::vector<std::string> names;
  fields.Read(name, names);
  uint64_t set = 0;
  for (const std::string& capability : names) {
    const int number = CapabilityNumber(capability);
    if (number < 0) {
      unknown.push_back(capability);
    } else {
      set |= uint64_t{1} << number;
    }
  }
  return set;
}

void ReadUser(Fields& fields, User& user) {
  fields.Read("uid", user.uid);
  fields.Read("gid", user.gid);
  fields.Read("umask", user.umask);
  fields.Read("additionalGids", user.additional_gids);
}

void ReadRlimits(Fields& fields, std::vector<Rlimit>& rlimits) {
  fields.Each("rlimits", [&](Fields& item) {
    std::string type;
    Rlimit limit;
    item.Read("type", type);
    item.Read("soft", limit.soft);
    item.Read("hard", limit.hard);
    limit.resource = RlimitNumber(type);
    if (limit.resource < 0) return item.Fail("type", absl::StrCat("invalid rlimit type: ", type));
    if (limit.soft > limit.hard) return item.Fail("soft", "is higher than the hard limit");
    for (const Rlimit& other : rlimits) {
      if (other.resource == limit.resource) {
        return item.Fail("type", absl::StrCat("a second limit of type ", type));
      }
    }
    rlimits.push_back(limit);
  });
}

void ReadProcess(Fields& fields, Process& process) {
  fields.Read("terminal", process.terminal);
  fields.In("consoleSize", [&](Fields& size) {
    size.Read("height", process.console_rows);
    size.Read("width", process.console_columns);
  });
  fields.In("user", [&](Fields& user) { ReadUser(user, process.user); });
  fields.Read("args", process.args);
  fields.Read("env", process.env);
  fields.Read("cwd", process.cwd);
  fields.In("capabilities", [&](Fields& sets) {
    Capabilities capabilities;
    std::vector<std::string>& unknown = capabilities.unknown;
    capabilities.bounding = ReadCapabilitySet(sets, "bounding", unknown);
    capabilities.effective = ReadCapabilitySet(sets, "effective", unknown);
    capabilities.inheritable = ReadCapabilitySet(sets, "inheritable", unknown);
    capabilities.permitted = ReadCapabilitySet(sets, "permitted", unknown);
    capabilities.ambient = ReadCapabilitySet(sets, "ambient", unknown);
    std::sort(unknown.begin(), unknown.end());
    unknown.erase(std::unique(unknown.begin(), unknown.end()), unknown.end());
    process.capabilities = std::move(capabilities);
  });
  ReadRlimits(fields, process.rlimits);
  fields.Read("noNewPrivileges", process.no_new_privileges);
  fields.Read("oomScoreAdj", process.oom_score_adj);
  fields.Read("apparmorProfile", process.apparmor_profile);
  fields.Read("selinuxLabel", process.selinux_label);
  if (!fields.ok()) return;
  if (process.args.empty()) return fields.Fail("args", "must not be empty");
  if (process.cwd.empty()) return fields.Fail("cwd", "must not be empty");
  if (process.cwd.front() != '/') {
    return fields.Fail("cwd", absl::StrCat("must be an absolute path, not \"", process.cwd, "\""));
  }
}

void ReadHooks(Fields& fields, const char* name, std::vector<Hook>& hooks) {
  fields.Each(name, [&](Fields& item) {
    Hook hook;
    item.Read("path", hook.path);
    item.Read("args", hook.args);
    item.Read("env", hook.env);
    item.Read("timeout", hook.timeout_s);
    if (hook.path.empty() || hook.path.front() != '/') {
      return item.Fail("path", "must be an absolute path");
    }
    if (hook.timeout_s && *hook.timeout_s <= 0) return item.Fail("timeout", "must be above zero");
    hooks.push_back(std::move(hook));
  });
}

void ReadMounts(Fields& fields, std::vector<Mount>& mounts) {
  fields.Each("mounts", [&](Fields& item) {
    Mount mount;
    item.Read("destination", mount.destination);
    item.Read("type", mount.type);
    item.Read("source", mount.source);
    item.Read("options", mount.options);
    if (item.ok() && mount.destination.empty()) {
      return item.Fail("destination", "must not be empty");
    }
    // Relative ones are below the root (runtime-spec 1.2).
    if (item.ok() && mount.destination.front() != '/') mount.destination.insert(0, 1, '/');
    if (item.Has("uidMappings") || item.Has("gidMappings")) {
      return item.Fail("uidMappings", "id-mapped mounts are not supported");
    }
    for (const std::string& option : mount.options) {
      if (option == "idmap" || option == "ridmap") {
        return item.Fail("options", "id-mapped mounts are not supported");
      }
    }
    mounts.push_back(std::move(mount));
  });
}

void ReadNamespaces(Fields& fields, std::vector<Namespace>& namespaces) {
  static const std::set<std::string> kTypes = {"pid", "network", "mount",  "ipc",
                                               "uts", "user",    "cgroup", "time"};
  fields.Each("namespaces", [&](Fields& item) {
    Namespace space;
    item.Read("type", space.type);
    item.Read("path", space.path);
    if (!item.ok()) return;
    if (!kTypes.contains(space.type)) {
      return item.Fail("type", absl::StrCat("unknown namespace \"", space.type, "\""));
    }
    for (const Namespace& other : namespaces) {
      if (other.type == space.type) {
        return item.Fail("type", absl::StrCat("a second namespace of type ", space.type));
      }
    }
    namespaces.push_back(std::move(space));
  });
}

void ReadMappings(Fields& fields, const char* name, std::vector<IdMapping>& mappings) {
  fields.Each(name, [&](Fields& item) {
    IdMapping mapping;
    item.Read("containerID", mapping.container_id);
    item.Read("hostID", mapping.host_id);
    item.Read("size", mapping.size);
    mappings.push_back(mapping);
  });
}

void ReadDevices(Fields& fields, std::vector<Device>& devices) {
  fields.Each("devices", [&](Fields& item) {
    Device device;
    std::string type;
    item.Read("path", device.path);
    item.Read("type", type);
    item.Read("major", device.major);
    item.Read("minor", device.minor);
    item.Read("fileMode", device.mode);
    item.Read("uid", device.uid);
    item.Read("gid", device.gid);
    if (!item.ok()) return;
    if (type.size() != 1 || std::string_view("bcup").find(type[0]) == std::string_view::npos) {
      return item.Fail("type", absl::StrCat("must be b, c, u or p, not \"", type, "\""));
    }
    device.type = type[0];
    devices.push_back(std::move(device));
  });
}

void ReadSeccomp(Fields& fields, SeccompProfile& profile) {
  fields.Read("defaultAction", profile.default_action);
  fields.Read("defaultErrnoRet", profile.default_error);
  fields.Read("architectures", profile.architectures);
  fields.Read("flags", profile.flags);
  fields.Read("listenerPath", profile.listener_path);
  fields.Each("syscalls", [&](Fields& item) {
    SeccompRule rule;
    item.Read("names", rule.names);
    item.Read("action", rule.action);
    item.Read("errnoRet", rule.error);
    item.Each("args", [&](Fields& argument) {
      SeccompArgument test;
      argument.Read("index", test.index);
      argument.Read("value", test.value);
      argument.Read("valueTwo", test.value_two);
      argument.Read("op", test.operation);
      if (argument.ok() && test.index > 5) return argument.Fail("index", "must be from 0 to 5");
      rule.arguments.push_back(std::move(test));
    });
    if (item.ok() && rule.names.empty()) return item.Fail("names", "must not be empty");
    profile.rules.push_back(std::move(rule));
  });
}

void ReadLinux(Fields& fields, Spec& spec, const Json& json) {
  ReadNamespaces(fields, spec.namespaces);
  ReadMappings(fields, "uidMappings", spec.uid_mappings);
  ReadMappings(fields, "gidMappings", spec.gid_mappings);
  ReadDevices(fields, spec.devices);
  fields.Read("cgroupsPath", spec.cgroups_path);
  fields.Read("sysctl", spec.sysctl);
  fields.Read("maskedPaths", spec.masked_paths);
  fields.Read("readonlyPaths", spec.read_only_paths);
  fields.Read("rootfsPropagation", spec.rootfs_propagation);
  fields.In("seccomp", [&](Fields& item) {
    SeccompProfile profile;
    ReadSeccomp(item, profile);
    spec.seccomp = std::move(profile);
  });
  const Json* const resources = json.Find("linux")->Find("resources");
  if (!fields.ok() || resources == nullptr || resources->is_null()) return;
  auto parsed = ParseResources(*resources, "linux.resources");
  if (parsed.ok()) {
    spec.resources = *std::move(parsed);
  } else {
    // Its message names the field already.
    fields.FailWith(parsed.status());
  }
}

}  // namespace

const Namespace* Spec::FindNamespace(std::string_view type) const {
  for (const Namespace& space : namespaces) {
    if (space.type == type) return &space;
  }
  return nullptr;
}

absl::StatusOr<Process> ParseProcess(const Json& json, const std::string& where) {
  absl::Status error;
  Process process;
  Fields fields(json, where, error);
  ReadProcess(fields, process);
  if (!error.ok()) return error;
  return process;
}

absl::StatusOr<Spec> ParseSpec(const Json& json) {
  absl::Status error;
  Spec spec;
  Fields fields(json, "", error);
  fields.Read("ociVersion", spec.version);
  if (error.ok() && spec.version.empty()) fields.Fail("ociVersion", "must not be empty");
  if (error.ok() && !spec.version.starts_with("1.")) {
    fields.Fail("ociVersion", absl::StrCat("is \"", spec.version, "\"; 1.x is supported"));
  }
  fields.In("process", [&](Fields& item) {
    spec.process.emplace();
    ReadProcess(item, *spec.process);
  });
  fields.In("root", [&](Fields& item) {
    item.Read("path", spec.root_path);
    item.Read("readonly", spec.root_read_only);
  });
  if (error.ok() && spec.root_path.empty()) fields.Fail("root.path", "must not be empty");
  fields.Read("hostname", spec.host_name);
  fields.Read("domainname", spec.domain_name);
  ReadMounts(fields, spec.mounts);
  fields.In("hooks", [&](Fields& item) {
    ReadHooks(item, "prestart", spec.hooks.prestart);
    ReadHooks(item, "createRuntime", spec.hooks.create_runtime);
    ReadHooks(item, "createContainer", spec.hooks.create_container);
    ReadHooks(item, "startContainer", spec.hooks.start_container);
    ReadHooks(item, "poststart", spec.hooks.poststart);
    ReadHooks(item, "poststop", spec.hooks.poststop);
  });
  fields.Read("annotations", spec.annotations);
  fields.In("linux", [&](Fields& item) { ReadLinux(item, spec, json); });
  if (!error.ok()) return error;
  return spec;
}

absl::StatusOr<std::string> ReadTextFile(const std::string& path) {
  base::Fd opened;
  int fd = STDIN_FILENO;
  if (path != "-") {
    opened = base::Fd(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!opened) {
      return absl::NotFoundError(absl::StrCat("open ", path, ": ", strerror(errno)));
    }
    fd = opened.get();
  }
  std::string text;
  char buffer[16384];
  while (true) {
    const ssize_t got = read(fd, buffer, sizeof(buffer));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return absl::InternalError(absl::StrCat("read ", path, ": ", strerror(errno)));
    if (got == 0) return text;
    text.append(buffer, static_cast<size_t>(got));
    if (text.size() > kFileBytesMax) {
      return absl::InvalidArgumentError(absl::StrCat(path, " is larger than 8 MiB"));
    }
  }
}

absl::StatusOr<Spec> LoadSpec(const std::string& bundle) {
  const std::string path = absl::StrCat(bundle, "/config.json");
  const auto text = ReadTextFile(path);
  if (!text.ok()) {
    if (absl::IsNotFound(text.status()) && errno == ENOENT) {
      return absl::NotFoundError(absl::StrCat("JSON specification file ", path, " not found"));
    }
    return text.status();
  }
  const auto json = Json::Parse(*text);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", json.status().message()));
  }
  auto spec = ParseSpec(*json);
  if (!spec.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", spec.status().message()));
  }
  return spec;
}

}  // namespace oci
