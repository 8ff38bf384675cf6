#pragma once

// What execve(2) does to credentials: set-user-ID and set-group-ID bits, file capabilities, the
// root user's privileges, ambient capabilities, no_new_privs (capabilities(7); Linux
// security/commoncap.c, 6.12).

#include <memory>
#include <optional>

#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"

namespace sentry {

class File;

// "security.capability" of a file.
struct FileCapabilities {
  CapabilitySet permitted = 0;
  CapabilitySet inheritable = 0;
  bool effective = false;
};

struct ExecutableOwner {
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::optional<FileCapabilities> capabilities;
};

struct ExecCredentials {
  CredentialsRef credentials;
  bool secure = false;       // AT_SECURE
  bool ids_changed = false;  // The process becomes undumpable, PR_SET_PDEATHSIG is forgotten.
};

// What of `file` counts: nothing privileged on a nosuid mount. EINVAL for malformed capabilities.
base::Result<ExecutableOwner> OwnerOf(File& file);
// EPERM: the file needs capabilities that the bounding set withholds.
base::Result<ExecCredentials> CredentialsAfterExec(const Credentials& old,
                                                   const ExecutableOwner& file);

}  // namespace sentry
