// add_key(2), request_key(2), keyctl(2).

#include "syscalls/handlers/keys.h"

#include <linux/keyctl.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <optional>
#include <string>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/keys/keys.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using sentry::KeyRegistry;
using sentry::KeyType;
using sentry::Task;

namespace {

constexpr size_t kTypeBytesMax = 32;
constexpr size_t kDescriptionBytesMax = 4096;
constexpr uint64_t kPayloadBytesMax = (1 << 20) - 1;

KeyRegistry& KeysOf(Task& task) { return task.kernel().keys(); }

// EINVAL if it is too long, as strndup_user says it.
Result<std::string> Text(Task& task, UserAddr address, size_t bytes_max) {
  Result<std::string> text = task.memory().CopyInString(address, bytes_max);
  if (!text.ok() && text.error() == ENAMETOOLONG) return Errno(EINVAL);
  return text;
}

// The name; those of the kernel's own types begin with a dot.
Result<std::string> TypeName(Task& task, UserAddr address) {
  std::string name = TRY(Text(task, address, kTypeBytesMax));
  if (name.empty()) return Errno(EINVAL);
  if (name[0] == '.') return Errno(EPERM);
  return name;
}

Result<KeyType> TypeFrom(const std::string& name, int unknown) {
  const std::optional<KeyType> type = KeyRegistry::TypeByName(name);
  if (!type) return Errno(unknown);
  return *type;
}

Result<std::vector<std::byte>> Payload(Task& task, UserAddr address, uint64_t bytes) {
  std::vector<std::byte> payload(static_cast<size_t>(bytes));
  TRY(task.memory().CopyInExactly(address, payload));
  return payload;
}

// As much as fits; the whole size is returned.
Result<int64_t> Give(Task& task, std::span<const std::byte> data, UserAddr buffer, uint64_t bytes) {
  if (!buffer.is_null() && bytes >= data.size()) TRY(task.memory().CopyOutExactly(buffer, data));
  return static_cast<int64_t>(data.size());
}

Result<int64_t> Nothing(Result<void> result) {
  TRY(std::move(result));
  return 0;
}

Result<int64_t> Join(Task& task, UserAddr name) {
  std::optional<std::string> text;
  if (!name.is_null()) {
    text = TRY(Text(task, name, kDescriptionBytesMax));
    if (!text->empty() && (*text)[0] == '.') return Errno(EPERM);
  }
  return int64_t{TRY(KeysOf(task).JoinSession(task, text))};
}

Result<int64_t> Search(Task& task, int32_t keyring, UserAddr type, UserAddr description,
                       int32_t destination) {
  const std::string name = TRY(TypeName(task, type));
  const std::string text = TRY(Text(task, description, kDescriptionBytesMax));
  const KeyType kind = TRY(TypeFrom(name, ENOKEY));
  return int64_t{TRY(KeysOf(task).Search(task, keyring, kind, text, destination))};
}

Result<int64_t> Update(Task& task, int32_t id, UserAddr payload, uint64_t bytes) {
  if (bytes > kPayloadBytesMax) return Errno(EINVAL);
  return Nothing(KeysOf(task).Update(task, id, TRY(Payload(task, payload, bytes))));
}

Result<int64_t> Describe(Task& task, int32_t id, UserAddr buffer, uint64_t bytes) {
  const std::string text = TRY(KeysOf(task).Describe(task, id));
  return Give(task, std::as_bytes(std::span(text.c_str(), text.size() + 1)), buffer, bytes);
}

// What fits of the content; KEYCTL_READ tells the whole size either way.
Result<int64_t> Read(Task& task, int32_t id, UserAddr buffer, uint64_t bytes) {
  const std::vector<std::byte> content = TRY(KeysOf(task).Read(task, id));
  const size_t count = std::min<uint64_t>(content.size(), bytes);
  if (!buffer.is_null() && count == content.size())
    TRY(task.memory().CopyOutExactly(buffer, content));
  return static_cast<int64_t>(content.size());
}

Result<int64_t> Restrict(Task& task, int32_t id, UserAddr type, UserAddr restriction) {
  // Methods belong to asymmetric keys, which there are none of: none means that nothing is taken.
  if (!type.is_null()) {
    TRY(TypeFrom(TRY(TypeName(task, type)), ENOKEY));
    return Errno(EOPNOTSUPP);
  }
  if (!restriction.is_null()) return Errno(EINVAL);
  return Nothing(KeysOf(task).Restrict(task, id));
}

Result<int64_t> Capabilities(Task& task, UserAddr buffer, uint64_t bytes) {
  constexpr uint8_t kPersistentKeyrings = 0x02, kBigKey = 0x10, kInvalidate = 0x20,
                    kRestrict = 0x40, kMove = 0x80;
  constexpr std::array<uint8_t, 2> kCapabilities = {
      0x01 | kPersistentKeyrings | kBigKey | kInvalidate | kRestrict | kMove, 0};
  const size_t count = std::min<uint64_t>(bytes, kCapabilities.size());
  TRY(task.memory().CopyOutExactly(buffer, std::as_bytes(std::span(kCapabilities)).first(count)));
  if (bytes > count) {
    const std::vector<std::byte> zeros(std::min<uint64_t>(bytes - count, kDescriptionBytesMax));
    TRY(task.memory().CopyOutExactly(TRY(buffer.Plus(count)), zeros));
  }
  return int64_t{kCapabilities.size()};
}

Result<int64_t> OfKeyrings(Task& task, int32_t operation, int32_t id, uint64_t arg3, uint64_t arg4,
                           uint64_t arg5) {
  KeyRegistry& keys = KeysOf(task);
  const auto other = static_cast<int32_t>(arg3);
  switch (operation) {
    case KEYCTL_GET_KEYRING_ID:
      return int64_t{TRY(keys.KeyringId(task, id, other != 0))};
    case KEYCTL_CLEAR:
      return Nothing(keys.Clear(task, id));
    case KEYCTL_LINK:
      return Nothing(keys.Link(task, id, other));
    case KEYCTL_UNLINK:
      return Nothing(keys.Unlink(task, id, other));
    case KEYCTL_MOVE:
      if ((arg5 & ~uint64_t{KEYCTL_MOVE_EXCL}) != 0) return Errno(EINVAL);
      return Nothing(keys.Move(task, id, other, static_cast<int32_t>(arg4), arg5 != 0));
    case KEYCTL_SEARCH:
      return Search(task, id, UserAddr(arg3), UserAddr(arg4), static_cast<int32_t>(arg5));
    case KEYCTL_SET_REQKEY_KEYRING:
      return int64_t{TRY(keys.SetRequestKeyring(task, id))};
    case KEYCTL_GET_PERSISTENT:
      return int64_t{TRY(keys.Persistent(task, static_cast<uint32_t>(id), other))};
    case KEYCTL_RESTRICT_KEYRING:
      return Restrict(task, id, UserAddr(arg3), UserAddr(arg4));
    default:
      return Errno(EOPNOTSUPP);
  }
}

// Only a helper that was started for a request has the right to these: there are none.
Result<int64_t> OfHelpers(int32_t operation, int32_t id) {
  if (operation == KEYCTL_ASSUME_AUTHORITY && id == 0) return 0;
  if (operation == KEYCTL_ASSUME_AUTHORITY && id < 0) return Errno(EINVAL);
  return Errno(operation == KEYCTL_ASSUME_AUTHORITY ? ENOKEY : EPERM);
}

}  // namespace

Result<int32_t> AddKey(Task& task, UserAddr type, UserAddr description, UserAddr payload,
                       uint64_t bytes, int32_t keyring) {
  if (bytes > kPayloadBytesMax) return Errno(EINVAL);
  const std::string name = TRY(TypeName(task, type));
  std::string text;
  if (!description.is_null()) text = TRY(Text(task, description, kDescriptionBytesMax));
  if (!text.empty() && text[0] == '.' && name == "keyring") return Errno(EPERM);
  std::vector<std::byte> content;
  if (bytes != 0) content = TRY(Payload(task, payload, bytes));
  const std::optional<KeyType> kind = KeyRegistry::TypeByName(name);
  // The keyring is looked at first.
  if (!kind) {
    TRY(KeysOf(task).Lookup(task, keyring, {.rights = sentry::kKeyWrite, .create = true}));
    return Errno(ENODEV);
  }
  return KeysOf(task).Add(task, *kind, text, std::move(content), keyring);
}

Result<int32_t> RequestKey(Task& task, UserAddr type, UserAddr description, UserAddr callout,
                           int32_t destination) {
  const std::string name = TRY(TypeName(task, type));
  const std::string text = TRY(Text(task, description, kDescriptionBytesMax));
  if (!callout.is_null()) TRY(Text(task, callout, kDescriptionBytesMax));
  const KeyType kind = TRY(TypeFrom(name, ENOKEY));
  return KeysOf(task).Request(task, kind, text, destination, !callout.is_null());
}

Result<int64_t> Keyctl(Task& task, int32_t operation, uint64_t arg2, uint64_t arg3, uint64_t arg4,
                       uint64_t arg5) {
  KeyRegistry& keys = KeysOf(task);
  const auto id = static_cast<int32_t>(arg2);
  switch (operation) {
    case KEYCTL_JOIN_SESSION_KEYRING:
      return Join(task, UserAddr(arg2));
    case KEYCTL_UPDATE:
      return Update(task, id, UserAddr(arg3), arg4);
    case KEYCTL_REVOKE:
      return Nothing(keys.Revoke(task, id));
    case KEYCTL_INVALIDATE:
      return Nothing(keys.Invalidate(task, id));
    case KEYCTL_CHOWN:
      return Nothing(
          keys.Chown(task, id, static_cast<uint32_t>(arg3), static_cast<uint32_t>(arg4)));
    case KEYCTL_SETPERM:
      return Nothing(keys.SetMode(task, id, static_cast<uint32_t>(arg3)));
    case KEYCTL_DESCRIBE:
      return Describe(task, id, UserAddr(arg3), arg4);
    case KEYCTL_READ:
      return Read(task, id, UserAddr(arg3), arg4);
    case KEYCTL_SET_TIMEOUT:
      return Nothing(keys.SetTimeout(task, id, static_cast<uint32_t>(arg3)));
    case KEYCTL_GET_SECURITY: {
      // No security module labels keys: the empty string.
      TRY(keys.Lookup(task, id, {.rights = sentry::kKeyView, .partial = true}));
      constexpr std::byte kEmpty[1] = {};
      return Give(task, kEmpty, UserAddr(arg3), arg4);
    }
    case KEYCTL_INSTANTIATE:
    case KEYCTL_INSTANTIATE_IOV:
    case KEYCTL_NEGATE:
    case KEYCTL_REJECT:
    case KEYCTL_ASSUME_AUTHORITY:
      return OfHelpers(operation, id);
    case KEYCTL_CAPABILITIES:
      return Capabilities(task, UserAddr(arg2), arg3);
    default:
      return OfKeyrings(task, operation, id, arg3, arg4, arg5);
  }
}

}  // namespace syscalls
