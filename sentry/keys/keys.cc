// Making and changing keys. What a call needs which right for is Linux's (security/keys/keyctl.c,
// key.c, 6.12).

#include "sentry/keys/keys.h"

#include <linux/capability.h>
#include <linux/keyctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kPossessorShift = 24, kUserShift = 16;
constexpr uint64_t kLinkBytes = 4;  // KEYQUOTA_LINK_BYTES
constexpr int64_t kNsPerSecond = 1'000'000'000;
constexpr int64_t kNegativeSeconds = 60;  // key_negative_timeout
constexpr size_t kUserBytesMax = 32767;
constexpr size_t kBigBytesMax = (1 << 20) - 1;
constexpr std::array<std::string_view, 4> kTypeNames = {"keyring", "user", "logon", "big_key"};

Result<void> CheckPayload(KeyType type, std::string_view description, size_t bytes) {
  switch (type) {
    case KeyType::kKeyring:
      return bytes == 0 ? Result<void>() : Errno(EINVAL);
    case KeyType::kLogon: {
      // "service:name"
      const size_t colon = description.find(':');
      if (colon == std::string_view::npos || colon == 0) return Errno(EINVAL);
      [[fallthrough]];
    }
    case KeyType::kUser:
      return bytes >= 1 && bytes <= kUserBytesMax ? Result<void>() : Errno(EINVAL);
    case KeyType::kBigKey:
      return bytes >= 1 && bytes <= kBigBytesMax ? Result<void>() : Errno(EINVAL);
  }
  return Errno(EINVAL);
}

uint32_t DefaultMode(KeyType type) {
  uint32_t possessor = kKeyView | kKeySearch | kKeyLink | kKeySetAttribute | kKeyWrite;
  if (type != KeyType::kLogon) possessor |= kKeyRead;  // Its content never comes back.
  return (possessor << kPossessorShift) | (kKeyView << kUserShift);
}

}  // namespace

// --- Quotas and life.

Result<void> KeyQuotas::Take(uint32_t uid, uint64_t keys, uint64_t bytes) {
  const absl::MutexLock lock(&mu);
  const uint64_t keys_max = uid == 0 ? limits.root_keys_max : limits.keys_max;
  const uint64_t bytes_max = uid == 0 ? limits.root_bytes_max : limits.bytes_max;
  const auto it = users.find(uid);
  const Use use = it == users.end() ? Use() : it->second;
  if (use.keys + keys > keys_max || use.bytes + bytes > bytes_max) return Errno(EDQUOT);
  users[uid] = {use.keys + keys, use.bytes + bytes};
  return {};
}

void KeyQuotas::Give(uint32_t uid, uint64_t keys, uint64_t bytes) {
  const absl::MutexLock lock(&mu);
  const auto it = users.find(uid);
  if (it == users.end()) return;
  it->second.keys -= std::min(keys, it->second.keys);
  it->second.bytes -= std::min(bytes, it->second.bytes);
  if (it->second.keys == 0 && it->second.bytes == 0) users.erase(it);
}

// Keyrings may hang below each other in a long chain: not by recursion.
Key::~Key() {
  quotas_->Give(uid, 1, charged_bytes);
  std::vector<std::shared_ptr<Key>> left = std::move(links);
  while (!left.empty()) {
    const std::shared_ptr<Key> key = std::move(left.back());
    left.pop_back();
    if (key.use_count() != 1) continue;
    for (std::shared_ptr<Key>& link : key->links) left.push_back(std::move(link));
    key->links.clear();
  }
}

KeyRegistry::KeyRegistry(const Clock& clock, Random& random)
    : clock_(clock), random_(random), quotas_(std::make_shared<KeyQuotas>()) {}

std::optional<KeyType> KeyRegistry::TypeByName(std::string_view name) {
  for (size_t i = 0; i < kTypeNames.size(); ++i) {
    if (kTypeNames[i] == name) return static_cast<KeyType>(i);
  }
  return std::nullopt;
}

std::string_view KeyRegistry::NameOf(KeyType type) { return kTypeNames[static_cast<size_t>(type)]; }

void KeyRegistry::SweepLocked() {
  if (keys_.size() < sweep_at_) return;
  std::erase_if(keys_, [](const auto& entry) { return entry.second.expired(); });
  sweep_at_ = std::max<size_t>(64, keys_.size() * 2);
}

Result<KeyHandle> KeyRegistry::NewKey(KeyType type, std::string description,
                                      const Credentials& owner, uint32_t mode, uint64_t bytes) {
  SweepLocked();
  const uint64_t charge = description.size() + 1 + bytes;
  TRY(quotas_->Take(owner.fsuid, 1, charge));
  int32_t serial = 0;
  while (serial < 3 || keys_.contains(serial))
    serial = static_cast<int32_t>(random_.Next() & 0x7fffffff);
  auto key = std::make_shared<Key>(quotas_, serial, type, std::move(description));
  key->uid = owner.fsuid;
  key->gid = owner.fsgid;
  key->mode = mode;
  key->charged_bytes = charge;
  keys_.emplace(serial, key);
  return key;
}

Result<KeyHandle> KeyRegistry::NewKeyring(std::string description, const Credentials& owner,
                                          uint32_t mode) {
  return NewKey(KeyType::kKeyring, std::move(description), owner, mode, 0);
}

Result<void> KeyRegistry::Recharge(Key& key, uint64_t bytes) {
  if (bytes > key.charged_bytes) {
    TRY(quotas_->Take(key.uid, 0, bytes - key.charged_bytes));
  } else {
    quotas_->Give(key.uid, 0, key.charged_bytes - bytes);
  }
  key.charged_bytes = bytes;
  return {};
}

// A link to a key of the same type and description is replaced.
Result<void> KeyRegistry::LinkLocked(Key& keyring, const KeyHandle& key) {
  if (keyring.type != KeyType::kKeyring) return Errno(ENOTDIR);
  if (keyring.restricted) return Errno(EPERM);
  StartWalk();
  TRY(CheckNoCircle(keyring, *key, 0));
  std::erase_if(keyring.links, [](const KeyHandle& link) { return link->invalidated; });
  for (KeyHandle& link : keyring.links) {
    if (link->type == key->type && link->description == key->description) {
      link = key;
      return {};
    }
  }
  TRY(Recharge(keyring, keyring.charged_bytes + kLinkBytes));
  keyring.links.push_back(key);
  return {};
}

// --- add_key(2), request_key(2).

Result<int32_t> KeyRegistry::Add(Task& task, KeyType type, const std::string& description,
                                 std::vector<std::byte> payload, int32_t keyring) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle ring = TRY(LookupLocked(task, keyring, {.rights = kKeyWrite, .create = true}));
  if (description.empty()) return Errno(EINVAL);
  if (ring->type != KeyType::kKeyring) return Errno(ENOTDIR);
  TRY(CheckPayload(type, description, payload.size()));
  if (type != KeyType::kKeyring) {
    for (const KeyHandle& link : ring->links) {
      if (link->type != type || link->description != description || CheckAlive(*link) != 0)
        continue;
      if (!HasRights(*link, task.own_credentials(), PossessesLocked(task, *link), kKeyWrite))
        return Errno(EACCES);
      TRY(Recharge(*link, description.size() + 1 + payload.size()));
      link->payload = std::move(payload);
      link->expires_ns = 0;
      return link->serial;
    }
  }
  const KeyHandle key =
      TRY(NewKey(type, description, task.own_credentials(), DefaultMode(type), payload.size()));
  key->payload = std::move(payload);
  TRY(LinkLocked(*ring, key));
  return key->serial;
}

// Where request_key(2) puts what it makes if nobody says: the first of the task's keyrings, or the
// one that KEYCTL_SET_REQKEY_KEYRING has chosen.
Result<KeyHandle> KeyRegistry::DefaultDestination(Task& task) {
  const Credentials& who = task.own_credentials();
  const KeyNeed need{.rights = kKeyWrite, .create = true};
  switch (who.request_key_keyring) {
    case KEY_REQKEY_DEFL_THREAD_KEYRING:
      return LookupLocked(task, KEY_SPEC_THREAD_KEYRING, need);
    case KEY_REQKEY_DEFL_PROCESS_KEYRING:
      return LookupLocked(task, KEY_SPEC_PROCESS_KEYRING, need);
    case KEY_REQKEY_DEFL_SESSION_KEYRING:
      break;
    case KEY_REQKEY_DEFL_USER_KEYRING:
      return LookupLocked(task, KEY_SPEC_USER_KEYRING, need);
    case KEY_REQKEY_DEFL_USER_SESSION_KEYRING:
      return LookupLocked(task, KEY_SPEC_USER_SESSION_KEYRING, need);
    default:
      if (who.thread_keyring != nullptr) return who.thread_keyring;
      if (who.process_keyring != nullptr) return who.process_keyring;
  }
  return LookupLocked(task, KEY_SPEC_SESSION_KEYRING, {.rights = kKeyWrite});
}

Result<int32_t> KeyRegistry::Request(Task& task, KeyType type, std::string_view description,
                                     int32_t destination, bool construct) {
  const absl::MutexLock lock(&mu_);
  KeyHandle ring;
  if (destination != 0)
    ring = TRY(LookupLocked(task, destination, {.rights = kKeyWrite, .create = true}));
  const Found found = SearchTask(task, type, description);
  if (found.key != nullptr) {
    if (ring != nullptr) TRY(LinkLocked(*ring, found.key));
    return found.key->serial;
  }
  if (!construct || found.error != ENOKEY) return Errno(found.error);
  if (ring == nullptr) ring = TRY(DefaultDestination(task));
  const KeyHandle key =
      TRY(NewKey(type, std::string(description), task.own_credentials(), DefaultMode(type), 0));
  key->negative = true;
  key->expires_ns = Now() + kNegativeSeconds * kNsPerSecond;
  TRY(LinkLocked(*ring, key));
  return Errno(ENOKEY);
}

// --- keyctl(2).

Result<int32_t> KeyRegistry::KeyringId(Task& task, int32_t id, bool create) {
  const absl::MutexLock lock(&mu_);
  return TRY(LookupLocked(task, id, {.rights = kKeySearch, .create = create}))->serial;
}

Result<int32_t> KeyRegistry::JoinSession(Task& task, const std::optional<std::string>& name) {
  const absl::MutexLock lock(&mu_);
  const Credentials& who = task.own_credentials();
  constexpr uint32_t kMode = (kKeyAllRights << kPossessorShift) |
                             ((kKeyView | kKeyRead | kKeySearch | kKeyLink) << kUserShift);
  KeyHandle ring;
  if (name) {
    for (const auto& [serial, weak] : keys_) {
      const KeyHandle key = weak.lock();
      if (key == nullptr || key->type != KeyType::kKeyring || key->description != *name) continue;
      if (CheckAlive(*key) != 0 || !HasRights(*key, who, false, kKeySearch)) continue;
      ring = key;
      break;
    }
    if (ring == nullptr) ring = TRY(NewKeyring(*name, who, kMode));
  } else {
    constexpr uint32_t kOwnMode =
        (kKeyAllRights << kPossessorShift) | ((kKeyView | kKeyRead) << kUserShift);
    ring = TRY(NewKeyring("_ses", who, kOwnMode));
  }
  auto changed = std::make_shared<Credentials>(who);
  changed->session_keyring = ring;
  task.set_credentials(std::move(changed));
  return ring->serial;
}

Result<void> KeyRegistry::Update(Task& task, int32_t id, std::vector<std::byte> payload) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeyWrite}));
  if (key->type == KeyType::kKeyring) return Errno(EOPNOTSUPP);
  TRY(CheckPayload(key->type, key->description, payload.size()));
  TRY(Recharge(*key, key->description.size() + 1 + payload.size()));
  key->payload = std::move(payload);
  key->expires_ns = 0;
  return {};
}

Result<void> KeyRegistry::Revoke(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  Result<KeyHandle> key = LookupLocked(task, id, {.rights = kKeyWrite});
  if (!key.ok() && key.error() == EACCES)
    key = LookupLocked(task, id, {.rights = kKeySetAttribute});
  const KeyHandle found = TRY(std::move(key));
  found->revoked = true;
  found->links.clear();
  found->payload.clear();
  return Recharge(*found, found->description.size() + 1);
}

Result<void> KeyRegistry::Invalidate(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  Result<KeyHandle> key = LookupLocked(task, id, {.rights = kKeySearch});
  if (!key.ok() && task.own_credentials().HasCapability(CAP_SYS_ADMIN))
    key = LookupLocked(task, id, {});
  const KeyHandle found = TRY(std::move(key));
  found->invalidated = true;
  // It leaves the keyrings when somebody next looks at them.
  for (auto& [serial, weak] : keys_) {
    const KeyHandle ring = weak.lock();
    if (ring != nullptr) std::erase(ring->links, found);
  }
  return {};
}

Result<void> KeyRegistry::Chown(Task& task, int32_t id, uint32_t uid, uint32_t gid) {
  constexpr uint32_t kKeep = ~uint32_t{0};
  if (uid == kKeep && gid == kKeep) return {};
  const absl::MutexLock lock(&mu_);
  const KeyHandle key =
      TRY(LookupLocked(task, id, {.rights = kKeySetAttribute, .create = true, .partial = true}));
  const Credentials& who = task.own_credentials();
  const bool privileged = who.HasCapability(CAP_SYS_ADMIN);
  if (!privileged && uid != kKeep && key->uid != uid) return Errno(EACCES);
  if (!privileged && gid != kKeep && gid != key->gid && !who.InGroup(gid)) return Errno(EACCES);
  if (uid != kKeep && uid != key->uid) {
    TRY(quotas_->Take(uid, 1, key->charged_bytes));
    quotas_->Give(key->uid, 1, key->charged_bytes);
    key->uid = uid;
  }
  if (gid != kKeep) key->gid = gid;
  return {};
}

Result<void> KeyRegistry::SetMode(Task& task, int32_t id, uint32_t mode) {
  constexpr uint32_t kAll = kKeyAllRights * 0x01010101U;
  if ((mode & ~kAll) != 0) return Errno(EINVAL);
  const absl::MutexLock lock(&mu_);
  const KeyHandle key =
      TRY(LookupLocked(task, id, {.rights = kKeySetAttribute, .create = true, .partial = true}));
  const Credentials& who = task.own_credentials();
  if (key->uid != who.fsuid && !who.HasCapability(CAP_SYS_ADMIN)) return Errno(EACCES);
  key->mode = mode;
  return {};
}

Result<std::string> KeyRegistry::Describe(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeyView, .partial = true}));
  char head[64];
  std::snprintf(head, sizeof(head), ";%d;%d;%08x;", static_cast<int32_t>(key->uid),
                static_cast<int32_t>(key->gid), key->mode);
  return std::string(NameOf(key->type)) + head + key->description;
}

Result<void> KeyRegistry::Clear(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeyWrite, .create = true}));
  if (key->type != KeyType::kKeyring) return Errno(ENOTDIR);
  const std::vector<KeyHandle> gone = std::exchange(key->links, {});
  return Recharge(*key, key->description.size() + 1);
}

Result<void> KeyRegistry::Link(Task& task, int32_t id, int32_t keyring) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle ring = TRY(LookupLocked(task, keyring, {.rights = kKeyWrite, .create = true}));
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeyLink, .create = true}));
  return LinkLocked(*ring, key);
}

Result<void> KeyRegistry::Unlink(Task& task, int32_t id, int32_t keyring) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle ring = TRY(LookupLocked(task, keyring, {.rights = kKeyWrite}));
  const KeyHandle key = TRY(LookupLocked(task, id, {.partial = true}));
  if (ring->type != KeyType::kKeyring) return Errno(ENOTDIR);
  if (std::erase(ring->links, key) == 0) return Errno(ENOENT);
  return Recharge(*ring, ring->charged_bytes - kLinkBytes);
}

Result<void> KeyRegistry::Move(Task& task, int32_t id, int32_t from, int32_t to, bool exclusive) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeyLink, .create = true}));
  const KeyHandle source = TRY(LookupLocked(task, from, {.rights = kKeyWrite}));
  const KeyHandle target = TRY(LookupLocked(task, to, {.rights = kKeyWrite, .create = true}));
  if (source == target) return {};
  if (source->type != KeyType::kKeyring || target->type != KeyType::kKeyring) return Errno(ENOTDIR);
  const auto same = [&key](const KeyHandle& link) {
    return link->type == key->type && link->description == key->description;
  };
  if (exclusive && std::any_of(target->links.begin(), target->links.end(), same))
    return Errno(EEXIST);
  if (std::find(source->links.begin(), source->links.end(), key) == source->links.end())
    return Errno(ENOENT);
  TRY(LinkLocked(*target, key));
  std::erase(source->links, key);
  return Recharge(*source, source->charged_bytes - kLinkBytes);
}

Result<int32_t> KeyRegistry::Search(Task& task, int32_t keyring, KeyType type,
                                    std::string_view description, int32_t destination) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle ring = TRY(LookupLocked(task, keyring, {.rights = kKeySearch}));
  KeyHandle target;
  if (destination != 0)
    target = TRY(LookupLocked(task, destination, {.rights = kKeyWrite, .create = true}));
  const bool possessed = PossessesLocked(task, *ring);
  Found found;
  StartWalk();
  if (ring->type != KeyType::kKeyring) return Errno(ENOTDIR);
  SearchTree(ring, type, description, task.own_credentials(), possessed, 0, found);
  if (found.key == nullptr) return Errno(found.error);
  if (target != nullptr) {
    if (!HasRights(*found.key, task.own_credentials(), possessed, kKeyLink)) return Errno(EACCES);
    TRY(LinkLocked(*target, found.key));
  }
  return found.key->serial;
}

Result<std::vector<std::byte>> KeyRegistry::Read(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {}));
  // Whoever may search for it and possesses it may read it, too.
  if (!HasRights(*key, task.own_credentials(), PossessesLocked(task, *key), kKeyRead) &&
      !PossessesLocked(task, *key)) {
    return Errno(EACCES);
  }
  if (key->type == KeyType::kLogon) return Errno(EOPNOTSUPP);
  if (key->type != KeyType::kKeyring) return key->payload;
  std::vector<std::byte> serials;
  for (const KeyHandle& link : key->links) {
    const auto bytes = std::as_bytes(std::span<const int32_t, 1>(&link->serial, 1));
    serials.insert(serials.end(), bytes.begin(), bytes.end());
  }
  return serials;
}

Result<int32_t> KeyRegistry::SetRequestKeyring(Task& task, int32_t which) {
  const Credentials& who = task.own_credentials();
  const int32_t old = who.request_key_keyring;
  if (which == KEY_REQKEY_DEFL_NO_CHANGE) return old;
  if (which < KEY_REQKEY_DEFL_DEFAULT || which > KEY_REQKEY_DEFL_USER_SESSION_KEYRING)
    return Errno(EINVAL);
  const absl::MutexLock lock(&mu_);
  if (which == KEY_REQKEY_DEFL_THREAD_KEYRING)
    TRY(SpecialLocked(task, KEY_SPEC_THREAD_KEYRING, true));
  if (which == KEY_REQKEY_DEFL_PROCESS_KEYRING)
    TRY(SpecialLocked(task, KEY_SPEC_PROCESS_KEYRING, true));
  auto changed = std::make_shared<Credentials>(task.own_credentials());
  changed->request_key_keyring = which;
  task.set_credentials(std::move(changed));
  return old;
}

Result<void> KeyRegistry::SetTimeout(Task& task, int32_t id, uint32_t seconds) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key =
      TRY(LookupLocked(task, id, {.rights = kKeySetAttribute, .create = true, .partial = true}));
  key->expires_ns = seconds == 0 ? 0 : Now() + int64_t{seconds} * kNsPerSecond;
  return {};
}

Result<void> KeyRegistry::Restrict(Task& task, int32_t id) {
  const absl::MutexLock lock(&mu_);
  const KeyHandle key = TRY(LookupLocked(task, id, {.rights = kKeySetAttribute}));
  if (key->type != KeyType::kKeyring) return Errno(ENOTDIR);
  if (key->restricted) return Errno(EEXIST);
  key->restricted = true;
  return {};
}

Result<int32_t> KeyRegistry::Persistent(Task& task, uint32_t uid, int32_t destination) {
  const Credentials& who = task.own_credentials();
  if (uid == ~uint32_t{0}) uid = who.uid;
  if (uid != who.uid && uid != who.euid && !who.HasCapability(CAP_SETUID)) return Errno(EPERM);
  const absl::MutexLock lock(&mu_);
  const KeyHandle ring =
      TRY(LookupLocked(task, destination, {.rights = kKeyWrite, .create = true}));
  if (ring->type != KeyType::kKeyring) return Errno(ENOTDIR);
  // Here it is the user's keyring: what lasts as long as the sandbox.
  const KeyHandle user = TRY(KeyringsOf(uid))->user;
  TRY(LinkLocked(*ring, user));
  return user->serial;
}

// --- Texts.

std::string KeyRegistry::KeysText(Task& task) {
  const absl::MutexLock lock(&mu_);
  std::string text;
  for (const auto& [serial, weak] : keys_) {
    const KeyHandle key = weak.lock();
    if (key == nullptr) continue;
    if (!HasRights(*key, task.own_credentials(), PossessesLocked(task, *key), kKeyView)) continue;
    char line[160];
    std::string expiry = "perm";
    if (key->expires_ns != 0) {
      const int64_t left = (key->expires_ns - Now()) / kNsPerSecond;
      expiry = left <= 0 ? "expd" : std::to_string(left) + "s";
    }
    std::snprintf(line, sizeof(line), "%08x %c%c%c%c%c%c%c %5ld %4s %08x %5d %5d %-9s ", serial,
                  'I', key->revoked ? 'R' : '-', '-', 'Q', '-', '-', key->invalidated ? 'i' : '-',
                  key.use_count() - 1, expiry.c_str(), key->mode, static_cast<int32_t>(key->uid),
                  static_cast<int32_t>(key->gid), NameOf(key->type).data());
    text += line + key->description;
    if (key->type == KeyType::kKeyring) {
      text += key->links.empty() ? ": empty" : ": " + std::to_string(key->links.size());
    } else {
      text += ": " + std::to_string(key->payload.size());
    }
    text += '\n';
  }
  return text;
}

std::string KeyRegistry::UsersText() {
  const KeyLimits now = limits();
  const absl::MutexLock lock(&quotas_->mu);
  std::string text;
  for (const auto& [uid, use] : quotas_->users) {
    char line[128];
    const auto keys = static_cast<unsigned long long>(use.keys);
    std::snprintf(line, sizeof(line), "%5u: %5llu %llu/%llu %llu/%u %llu/%u\n", uid, keys, keys,
                  keys, keys, uid == 0 ? now.root_keys_max : now.keys_max,
                  static_cast<unsigned long long>(use.bytes),
                  uid == 0 ? now.root_bytes_max : now.bytes_max);
    text += line;
  }
  return text;
}

KeyLimits KeyRegistry::limits() {
  const absl::MutexLock lock(&quotas_->mu);
  return quotas_->limits;
}

void KeyRegistry::set_limits(const KeyLimits& limits) {
  const absl::MutexLock lock(&quotas_->mu);
  quotas_->limits = limits;
}

}  // namespace sentry
