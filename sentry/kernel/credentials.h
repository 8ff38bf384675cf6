#pragma once

// Who a task is. Immutable once published: a change makes a new object (credentials(7),
// capabilities(7)).

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "sentry/kernel/namespace.h"

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

  // Where the capabilities count, and whose ids a guest with them sees; null: the initial one. The
  // ids above are those of the initial namespace, always.
  UserNamespaceRef user_namespace;

  // Over what belongs to the sandbox as a whole: capable() of Linux. False in any user namespace
  // but the initial one.
  bool HasCapability(int capability) const {
    return HasOwnCapability(capability) && user_namespace == nullptr;
  }
  // In its own user namespace.
  bool HasOwnCapability(int capability) const { return ((effective >> capability) & 1) != 0; }
  // Over what belongs to `target`: ns_capable().
  bool HasCapabilityIn(const UserNamespaceRef& target, int capability) const;
  // Over a file of `owner` and `group`: capable_wrt_inode_uidgid().
  bool HasCapabilityOver(uint32_t owner, uint32_t group, int capability) const {
    return HasOwnCapability(capability) && (user_namespace == nullptr || MapsOwner(owner, group));
  }
  // True if `gid` is the file-system group or a supplementary one.
  bool InGroup(uint32_t group) const;

 private:
  bool MapsOwner(uint32_t owner, uint32_t group) const;
};

using CredentialsRef = std::shared_ptr<const Credentials>;

// uid 0 with all capabilities.
CredentialsRef RootCredentials();

}  // namespace sentry
