// Finding keys: rights, possession, the walk through keyrings (security/keys/keyring.c,
// process_keys.c, permission.c of Linux 6.12).

#include <linux/keyctl.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sentry/kernel/task.h"
#include "sentry/keys/keys.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// KEYRING_SEARCH_MAX_DEPTH
constexpr int kDepthMax = 6;
constexpr uint32_t kPossessorShift = 24, kUserShift = 16, kGroupShift = 8;
constexpr size_t kUsersMax = 4096;
constexpr uint32_t kPossessorAll = kKeyAllRights << kPossessorShift;
constexpr uint32_t kUserViewRead = (kKeyView | kKeyRead) << kUserShift;
constexpr uint32_t kUserAllButSet = (kKeyAllRights & ~kKeySetAttribute) << kUserShift;

// A key is better than why there is none; an end of its life is better than no trace.
int Rank(int error) { return error == ENOKEY || error == EAGAIN ? 0 : error == EACCES ? 1 : 2; }

}  // namespace

int KeyRegistry::CheckAlive(const Key& key) const {
  if (key.invalidated) return ENOKEY;
  if (key.revoked) return EKEYREVOKED;
  if (key.expires_ns != 0 && Now() >= key.expires_ns) return key.negative ? ENOKEY : EKEYEXPIRED;
  if (key.negative) return ENOKEY;
  return 0;
}

bool KeyRegistry::HasRights(const Key& key, const Credentials& who, bool possessed,
                            uint32_t rights) {
  uint32_t granted = key.mode;
  const uint32_t group_rights = (key.mode >> kGroupShift) & kKeyAllRights;
  constexpr uint32_t kNoGroup = ~uint32_t{0};
  if (key.uid == who.fsuid) {
    granted >>= kUserShift;
  } else if (key.gid != kNoGroup && group_rights != 0 && who.InGroup(key.gid)) {
    granted >>= kGroupShift;
  }
  if (possessed) granted |= key.mode >> kPossessorShift;
  return (granted & rights & kKeyAllRights) == rights;
}

std::vector<KeyHandle> KeyRegistry::RingsOf(Task& task) {
  const Credentials& who = task.own_credentials();
  std::vector<KeyHandle> rings;
  for (const KeyHandle& ring : {who.thread_keyring, who.process_keyring, who.session_keyring}) {
    if (ring != nullptr) rings.push_back(ring);
  }
  if (who.session_keyring == nullptr) {
    const auto user = users_.find(who.uid);
    if (user != users_.end()) rings.push_back(user->second.session);
  }
  return rings;
}

bool KeyRegistry::Reaches(const Key& keyring, const Key& key, const Credentials& who,
                          int depth) const {
  if (&keyring == &key) return true;
  if (!Enter(keyring) || depth > kDepthMax || keyring.type != KeyType::kKeyring ||
      CheckAlive(keyring) != 0 || !HasRights(keyring, who, true, kKeySearch)) {
    return false;
  }
  return std::any_of(keyring.links.begin(), keyring.links.end(), [&](const KeyHandle& link) {
    return link.get() == &key || (link->type == KeyType::kKeyring && !link->links.empty() &&
                                  Reaches(*link, key, who, depth + 1));
  });
}

bool KeyRegistry::PossessesLocked(Task& task, const Key& key) {
  const std::vector<KeyHandle> rings = RingsOf(task);
  StartWalk();
  return std::any_of(rings.begin(), rings.end(), [&](const KeyHandle& ring) {
    return Reaches(*ring, key, task.own_credentials(), 0);
  });
}

// The keys of a keyring first, then its keyrings, as deep as Linux goes.
void KeyRegistry::SearchTree(const KeyHandle& keyring, KeyType type, std::string_view description,
                             const Credentials& who, bool possessed, int depth,
                             Found& found) const {
  const auto worse = [&found](int error) {
    if (Rank(error) > Rank(found.error)) found.error = error;
  };
  if (!Enter(*keyring)) return;
  if (keyring->type != KeyType::kKeyring || CheckAlive(*keyring) != 0) return;
  if (!HasRights(*keyring, who, possessed, kKeySearch)) return worse(depth == 0 ? EACCES : ENOKEY);
  for (const KeyHandle& key : keyring->links) {
    if (key->type != type || key->description != description) continue;
    const int state = CheckAlive(*key);
    if (state != 0) {
      worse(state);
    } else if (!HasRights(*key, who, possessed, kKeySearch)) {
      worse(EACCES);
    } else {
      found.key = key;
      return;
    }
  }
  if (depth >= kDepthMax) return;
  for (const KeyHandle& key : keyring->links) {
    if (key->type != KeyType::kKeyring || key->links.empty()) continue;
    SearchTree(key, type, description, who, possessed, depth + 1, found);
    if (found.key != nullptr) return;
  }
}

KeyRegistry::Found KeyRegistry::SearchTask(Task& task, KeyType type, std::string_view description) {
  Found found;
  StartWalk();
  for (const KeyHandle& ring : RingsOf(task)) {
    SearchTree(ring, type, description, task.own_credentials(), true, 0, found);
    if (found.key != nullptr) return found;
  }
  return found;
}

// The user's keyring and his default session, which is linked to it.
Result<KeyRegistry::UserKeyrings*> KeyRegistry::KeyringsOf(uint32_t uid) {
  const auto it = users_.find(uid);
  if (it != users_.end()) return &it->second;
  if (users_.size() >= kUsersMax) return Errno(EDQUOT);
  Credentials owner;
  owner.fsuid = uid;
  owner.fsgid = ~uint32_t{0};
  constexpr uint32_t kMode = kPossessorAll | kUserAllButSet;
  const std::string number = std::to_string(uid);
  UserKeyrings rings;
  rings.user = TRY(NewKeyring("_uid." + number, owner, kMode));
  rings.session = TRY(NewKeyring("_uid_ses." + number, owner, kMode));
  TRY(LinkLocked(*rings.session, rings.user));
  return &users_.emplace(uid, std::move(rings)).first->second;
}

Result<KeyHandle> KeyRegistry::SpecialLocked(Task& task, int32_t id, bool create) {
  const Credentials& who = task.own_credentials();
  const auto replace = [&](std::shared_ptr<Key> Credentials::* field,
                           KeyHandle ring) -> Result<KeyHandle> {
    auto changed = std::make_shared<Credentials>(who);
    (*changed).*field = ring;
    task.set_credentials(std::move(changed));
    return ring;
  };
  constexpr uint32_t kThreadMode = kPossessorAll | (kKeyView << kUserShift);
  switch (id) {
    case KEY_SPEC_THREAD_KEYRING:
      if (who.thread_keyring != nullptr) return who.thread_keyring;
      if (!create) return Errno(ENOKEY);
      return replace(&Credentials::thread_keyring, TRY(NewKeyring("_tid", who, kThreadMode)));
    case KEY_SPEC_PROCESS_KEYRING:
      if (who.process_keyring != nullptr) return who.process_keyring;
      if (!create) return Errno(ENOKEY);
      return replace(&Credentials::process_keyring, TRY(NewKeyring("_pid", who, kThreadMode)));
    case KEY_SPEC_SESSION_KEYRING: {
      UserKeyrings* const user = TRY(KeyringsOf(who.uid));
      if (who.session_keyring != nullptr && (who.session_keyring != user->session || !create))
        return who.session_keyring;
      if (!create) return replace(&Credentials::session_keyring, user->session);
      return replace(&Credentials::session_keyring,
                     TRY(NewKeyring("_ses", who, kPossessorAll | kUserViewRead)));
    }
    case KEY_SPEC_USER_KEYRING:
      return TRY(KeyringsOf(who.uid))->user;
    case KEY_SPEC_USER_SESSION_KEYRING:
      return TRY(KeyringsOf(who.uid))->session;
    case KEY_SPEC_REQKEY_AUTH_KEY:
    case KEY_SPEC_REQUESTOR_KEYRING:
      return Errno(ENOKEY);  // Only a helper has one.
    default:
      return Errno(EINVAL);  // Group keyrings do not exist on Linux either.
  }
}

Result<KeyHandle> KeyRegistry::LookupLocked(Task& task, int32_t id, const KeyNeed& need) {
  KeyHandle key;
  bool possessed = true;
  if (id < 0) {
    key = TRY(SpecialLocked(task, id, need.create));
    if (id == KEY_SPEC_USER_KEYRING || id == KEY_SPEC_USER_SESSION_KEYRING)
      possessed = PossessesLocked(task, *key);
  } else {
    if (id == 0) return Errno(EINVAL);
    const auto it = keys_.find(id);
    key = it != keys_.end() ? it->second.lock() : nullptr;
    if (key == nullptr || key->invalidated) return Errno(ENOKEY);
    possessed = PossessesLocked(task, *key);
  }
  if (!need.partial) {
    const int state = CheckAlive(*key);
    if (state != 0) return Errno(state);
  }
  if (!HasRights(*key, task.own_credentials(), possessed, need.rights)) return Errno(EACCES);
  return key;
}

Result<KeyHandle> KeyRegistry::Lookup(Task& task, int32_t id, const KeyNeed& need) {
  const absl::MutexLock lock(&mu_);
  return LookupLocked(task, id, need);
}

// Would `keyring` hold itself? ELOOP if that is too deep to tell.
Result<void> KeyRegistry::CheckNoCircle(const Key& keyring, const Key& key, int depth) const {
  if (&keyring == &key) return Errno(EDEADLK);
  if (key.type != KeyType::kKeyring) return {};
  for (const KeyHandle& link : key.links) {
    if (link->type != KeyType::kKeyring || !Enter(*link)) continue;
    if (depth >= kDepthMax) return Errno(ELOOP);
    TRY(CheckNoCircle(keyring, *link, depth + 1));
  }
  return {};
}

}  // namespace sentry
