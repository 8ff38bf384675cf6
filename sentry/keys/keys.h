#pragma once

// The key retention service (keyrings(7)): keys by serial number, keyrings that hold links to keys,
// and who may do what with them. Types: keyring, user, logon, big_key. Nothing is asked of a
// user-space helper: a key that nobody has made does not exist.
//
// One lock guards all keys; what may be unbounded is bounded by Linux's quotas per user, which
// count for root, too.

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/credentials.h"
#include "sentry/time/clock.h"

namespace sentry {

class Task;

enum class KeyType : uint8_t { kKeyring, kUser, kLogon, kBigKey };

// Rights, for one kind of accessor; a key's mode has four such bytes: possessor, owner, group,
// others.
inline constexpr uint32_t kKeyView = 1, kKeyRead = 2, kKeyWrite = 4, kKeySearch = 8, kKeyLink = 16,
                          kKeySetAttribute = 32, kKeyAllRights = 63;

// /proc/sys/kernel/keys.
struct KeyLimits {
  uint32_t keys_max = 200, bytes_max = 20000;
  // Linux gives root a million: here they are the sentry's memory, and looked through in lists.
  uint32_t root_keys_max = 20'000, root_bytes_max = 25'000'000;
  uint32_t gc_delay_s = 300;  // Kept; what is dead goes at once.
};

// What the keys of each user take.
struct KeyQuotas {
  struct Use {
    uint64_t keys = 0;
    uint64_t bytes = 0;
  };
  absl::Mutex mu;
  KeyLimits limits ABSL_GUARDED_BY(mu);
  std::map<uint32_t, Use> users ABSL_GUARDED_BY(mu);
  // EDQUOT.
  base::Result<void> Take(uint32_t uid, uint64_t keys, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu);
  void Give(uint32_t uid, uint64_t keys, uint64_t bytes) ABSL_LOCKS_EXCLUDED(mu);
};

// Guarded by the registry's lock, but for what never changes.
class Key {
 public:
  Key(std::shared_ptr<KeyQuotas> quotas, int32_t number, KeyType kind, std::string text)
      : serial(number), type(kind), description(std::move(text)), quotas_(std::move(quotas)) {}
  ~Key();
  Key(const Key&) = delete;
  Key& operator=(const Key&) = delete;

  const int32_t serial;
  const KeyType type;
  const std::string description;
  uint32_t uid = 0, gid = 0;
  uint32_t mode = 0;
  int64_t expires_ns = 0;  // Real time; 0: never.
  bool revoked = false, invalidated = false;
  bool negative = false;    // Stands for what a request has not found.
  bool restricted = false;  // KEYCTL_RESTRICT_KEYRING: takes no more links.
  uint64_t charged_bytes = 0;
  std::vector<std::byte> payload;
  std::vector<std::shared_ptr<Key>> links;  // Of a keyring.
  mutable uint64_t walk = 0;                // The last one that came by.

 private:
  const std::shared_ptr<KeyQuotas> quotas_;
};

using KeyHandle = std::shared_ptr<Key>;

// What a lookup is to make sure of.
struct KeyNeed {
  uint32_t rights = 0;
  bool create = false;   // Make the special keyring if there is none.
  bool partial = false;  // Revoked and expired ones, too.
};

class KeyRegistry {
 public:
  // Both outlive it.
  KeyRegistry(const Clock& clock, Random& random);

  static std::optional<KeyType> TypeByName(std::string_view name);
  static std::string_view NameOf(KeyType type);

  // A key by its number or one of the KEY_SPEC_* ones, for `task`, which may get keyrings by this.
  // EINVAL, ENOKEY, EACCES, EKEYREVOKED, EKEYEXPIRED.
  base::Result<KeyHandle> Lookup(Task& task, int32_t id, const KeyNeed& need);

  // add_key(2). ENOTDIR, EINVAL, EDQUOT, EACCES, ...
  base::Result<int32_t> Add(Task& task, KeyType type, const std::string& description,
                            std::vector<std::byte> payload, int32_t keyring);
  // request_key(2): in the keyrings of the task. `destination` 0: none. `construct`: where nothing
  // is found, a negative key says so for a while, in the destination or the default keyring.
  base::Result<int32_t> Request(Task& task, KeyType type, std::string_view description,
                                int32_t destination, bool construct);

  // keyctl(2), by its operations.
  base::Result<int32_t> KeyringId(Task& task, int32_t id, bool create);
  base::Result<int32_t> JoinSession(Task& task, const std::optional<std::string>& name);
  base::Result<void> Update(Task& task, int32_t id, std::vector<std::byte> payload);
  base::Result<void> Revoke(Task& task, int32_t id);
  base::Result<void> Invalidate(Task& task, int32_t id);
  base::Result<void> Chown(Task& task, int32_t id, uint32_t uid, uint32_t gid);
  base::Result<void> SetMode(Task& task, int32_t id, uint32_t mode);
  base::Result<std::string> Describe(Task& task, int32_t id);
  base::Result<void> Clear(Task& task, int32_t id);
  base::Result<void> Link(Task& task, int32_t id, int32_t keyring);
  base::Result<void> Unlink(Task& task, int32_t id, int32_t keyring);
  base::Result<void> Move(Task& task, int32_t id, int32_t from, int32_t to, bool exclusive);
  base::Result<int32_t> Search(Task& task, int32_t keyring, KeyType type,
                               std::string_view description, int32_t destination);
  base::Result<std::vector<std::byte>> Read(Task& task, int32_t id);
  base::Result<int32_t> SetRequestKeyring(Task& task, int32_t which);
  base::Result<void> SetTimeout(Task& task, int32_t id, uint32_t seconds);
  base::Result<void> Restrict(Task& task, int32_t id);
  base::Result<int32_t> Persistent(Task& task, uint32_t uid, int32_t destination);

  // The text of /proc/keys and /proc/key-users, as `task` sees them.
  std::string KeysText(Task& task);
  std::string UsersText();
  KeyLimits limits();
  void set_limits(const KeyLimits& limits);

 private:
  struct UserKeyrings {
    KeyHandle user, session;
  };
  struct Found {
    KeyHandle key;
    int error = ENOKEY;  // The best reason why there is none.
  };
  int64_t Now() const { return clock_.RealtimeNs(); }
  int CheckAlive(const Key& key) const;  // 0, EKEYREVOKED, EKEYEXPIRED, ENOKEY
  static bool HasRights(const Key& key, const Credentials& who, bool possessed, uint32_t rights);

  base::Result<KeyHandle> LookupLocked(Task& task, int32_t id, const KeyNeed& need)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<KeyHandle> DefaultDestination(Task& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<KeyHandle> SpecialLocked(Task& task, int32_t id, bool create)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<UserKeyrings*> KeyringsOf(uint32_t uid) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<KeyHandle> NewKey(KeyType type, std::string description, const Credentials& owner,
                                 uint32_t mode, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<KeyHandle> NewKeyring(std::string description, const Credentials& owner,
                                     uint32_t mode) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<void> Recharge(Key& key, uint64_t bytes) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<void> LinkLocked(Key& keyring, const KeyHandle& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  base::Result<void> CheckNoCircle(const Key& keyring, const Key& key, int depth) const;
  bool PossessesLocked(Task& task, const Key& key) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  bool Reaches(const Key& keyring, const Key& key, const Credentials& who, int depth) const;
  void SearchTree(const KeyHandle& keyring, KeyType type, std::string_view description,
                  const Credentials& who, bool possessed, int depth, Found& found) const;
  Found SearchTask(Task& task, KeyType type, std::string_view description)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  std::vector<KeyHandle> RingsOf(Task& task) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void SweepLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  // Starts a walk; each keyring is entered once in it: a guest may link one into many.
  void StartWalk() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { ++walk_; }
  bool Enter(const Key& keyring) const { return std::exchange(keyring.walk, walk_) != walk_; }

  const Clock& clock_;
  Random& random_;
  const std::shared_ptr<KeyQuotas> quotas_;
  absl::Mutex mu_;
  std::map<int32_t, std::weak_ptr<Key>> keys_ ABSL_GUARDED_BY(mu_);
  uint64_t walk_ = 0;  // Guarded by mu_.
  size_t sweep_at_ ABSL_GUARDED_BY(mu_) = 64;
  absl::flat_hash_map<uint32_t, UserKeyrings> users_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
