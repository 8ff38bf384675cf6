#pragma once

// Who a task is. Immutable once published: a change makes a new object (credentials(7),
// capabilities(7)).

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

namespace sentry {

class Key;

// Bits are CAP_* of <linux/capability.h>.
using CapabilitySet = uint64_t;
inline constexpr CapabilitySet kAllCapabilities =
    (uint64_t{1} << 41) - 1;  // Up to CAP_CHECKPOINT_RESTORE.

struct Credentials {
  uint32_t uid = 0, euid = 0, suid = 0, fsuid = 0;
  uint32_t gid = 0, egid = 0, sgid = 0, fsgid = 0;
  std::vector<uint32_t> groups;  // Sorted.
  CapabilitySet permitted = 0, effective = 0, inheritable = 0, bounding = kAllCapabilities,
                ambient = 0;
  uint32_t securebits = 0;
  bool no_new_privileges = false;
  bool keep_capabilities = false;
  // keyrings(7). The first two are null until somebody wants them; fork drops both, a new thread
  // the first.
  std::shared_ptr<Key> thread_keyring, process_keyring, session_keyring;
  int32_t request_key_keyring = 0;  // KEY_REQKEY_DEFL_*

  bool HasCapability(int capability) const { return ((effective >> capability) & 1) != 0; }
  // True if `gid` is the file-system group or a supplementary one.
  bool InGroup(uint32_t group) const;
};

using CredentialsRef = std::shared_ptr<const Credentials>;

// uid 0 with all capabilities.
CredentialsRef RootCredentials();

}  // namespace sentry
