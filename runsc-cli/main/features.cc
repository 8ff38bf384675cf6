#include "runsc-cli/main/features.h"

#include <vector>

#include "runsc-cli/oci/spec.h"

namespace runsc {

using oci::Json;
using Strings = std::vector<std::string>;

std::string FeaturesJson() {
  Json json;
  json.Set("ociVersionMin", "1.0.0");
  json.Set("ociVersionMax", "1.2.0");
  json.Set("hooks",
           Strings{"prestart", "createRuntime", "createContainer", "poststart", "poststop"});
  json.Set("mountOptions",
           Strings{"async",    "atime", "bind",        "defaults", "dev",     "diratime", "exec",
                   "noatime",  "nodev", "nodiratime",  "noexec",   "nosuid",  "private",  "rbind",
                   "relatime", "ro",    "rprivate",    "rro",      "rshared", "rslave",   "rw",
                   "shared",   "slave", "strictatime", "suid",     "sync"});
  Json& host = json.Set("linux", Json::NewObject());
  host.Set("namespaces", Strings{"cgroup", "ipc", "mount", "network", "pid", "user", "uts"});
  host.Set("capabilities", oci::CapabilityNames());
  Json& cgroup = host.Set("cgroup", Json::NewObject());
  cgroup.Set("v1", true);
  cgroup.Set("v2", true);
  cgroup.Set("systemd", false);
  cgroup.Set("systemdUser", false);
  cgroup.Set("rdma", false);
  Json& seccomp = host.Set("seccomp", Json::NewObject());
  seccomp.Set("enabled", true);
  seccomp.Set("actions",
              Strings{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS",
                      "SCMP_ACT_KILL_THREAD", "SCMP_ACT_LOG", "SCMP_ACT_TRACE", "SCMP_ACT_TRAP"});
  seccomp.Set("operators", Strings{"SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_LE",
                                   "SCMP_CMP_LT", "SCMP_CMP_MASKED_EQ", "SCMP_CMP_NE"});
  seccomp.Set("archs", Strings{"SCMP_ARCH_X86_64"});
  for (const char* name : {"apparmor", "selinux", "intelRdt"}) {
    host.Set(name, Json::NewObject()).Set("enabled", false);
  }
  host.Set("mountExtensions", Json::NewObject())
      .Set("idmap", Json::NewObject())
      .Set("enabled", false);
  return json.Dump(2);
}

}  // namespace runsc
