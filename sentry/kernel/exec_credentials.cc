#include "sentry/kernel/exec_credentials.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include <cstring>
#include <string>

#include "sentry/kernel/user_namespace.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/file.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/mount.h"

namespace sentry {
namespace {

using base::Errno;

bool SecureBit(const Credentials& credentials, int bit) {
  return (credentials.securebits & (1U << bit)) != 0;
}

base::Result<FileCapabilities> ParseCapabilities(const std::string& value) {
  uint32_t words[6] = {};
  const size_t bytes = value.size();
  if (bytes < sizeof(uint32_t) || bytes > sizeof(words)) return Errno(EINVAL);
  std::memcpy(words, value.data(), bytes);
  const uint32_t revision = words[0] & VFS_CAP_REVISION_MASK;
  FileCapabilities found;
  found.effective = (words[0] & VFS_CAP_FLAGS_EFFECTIVE) != 0;
  const bool one = revision == VFS_CAP_REVISION_1 && bytes == XATTR_CAPS_SZ_1;
  const bool two = revision == VFS_CAP_REVISION_2 && bytes == XATTR_CAPS_SZ_2;
  const bool three = revision == VFS_CAP_REVISION_3 && bytes == XATTR_CAPS_SZ_3;
  if (!one && !two && !three) return Errno(EINVAL);
  if (three && words[5] != 0) return FileCapabilities{};  // Of another user namespace's root.
  found.permitted = words[1];
  found.inheritable = words[2];
  if (!one) {
    found.permitted |= uint64_t{words[3]} << 32;
    found.inheritable |= uint64_t{words[4]} << 32;
  }
  found.permitted &= kAllCapabilities;
  found.inheritable &= kAllCapabilities;
  return found;
}

}  // namespace

base::Result<ExecutableOwner> OwnerOf(File& file) {
  const Attributes attributes = TRY(file.GetAttributes());
  ExecutableOwner owner{
      .mode = attributes.mode, .uid = attributes.uid, .gid = attributes.gid, .capabilities = {}};
  const std::shared_ptr<Mount>& mount = file.path().mount;
  const bool no_suid =
      mount != nullptr && (mount->flags.load(std::memory_order_relaxed) & MS_NOSUID) != 0;
  if (no_suid) {
    owner.mode &= ~static_cast<uint32_t>(S_ISUID | S_ISGID);
    return owner;
  }
  const std::shared_ptr<Inode> inode = file.inode();
  if (inode == nullptr) return owner;
  const base::Result<std::string> value = inode->GetXattr("security.capability");
  // File capabilities count in the namespace that the file system was mounted for.
  const bool counts = mount == nullptr || mount->file_system->owner() == nullptr;
  if (value.ok() && counts) owner.capabilities = TRY(ParseCapabilities(value.value()));
  return owner;  // No such attribute, or a file system without any.
}

base::Result<ExecCredentials> CredentialsAfterExec(const Credentials& old,
                                                   const ExecutableOwner& file) {
  auto next = std::make_shared<Credentials>(old);
  next->keep_capabilities = false;
  next->thread_keyring = next->process_keyring = nullptr;
  if (!old.no_new_privileges) {
    // Of an owner without a name in the namespace the bits mean nothing.
    const bool known =
        UidToGlobal(old.user_namespace, 0) != kInvalidId &&
        (old.user_namespace == nullptr ||
         (old.user_namespace->FromGlobal(UserNamespace::IdKind::kUser, file.uid) != kInvalidId &&
          old.user_namespace->FromGlobal(UserNamespace::IdKind::kGroup, file.gid) != kInvalidId));
    const uint32_t mode = known ? file.mode : file.mode & ~static_cast<uint32_t>(S_ISUID | S_ISGID);
    if ((mode & S_ISUID) != 0) next->euid = file.uid;
    // Without the group's execute bit, set-group-ID means mandatory locking.
    if ((mode & (S_ISGID | S_IXGRP)) == (S_ISGID | S_IXGRP)) next->egid = file.gid;
  }
  // capabilities(7): P'(permitted) = (P(inheritable) & F(inheritable)) | (F(permitted) &
  // P(bounding)) | P'(ambient).
  bool effective = false;
  CapabilitySet permitted = 0;
  const bool has_file_capabilities =
      file.capabilities.has_value() &&
      (file.capabilities->permitted | file.capabilities->inheritable) != 0;
  if (has_file_capabilities) {
    permitted = (file.capabilities->permitted & old.bounding) |
                (file.capabilities->inheritable & old.inheritable);
    effective = file.capabilities->effective;
    if (effective && (file.capabilities->permitted & ~permitted) != 0) return Errno(EPERM);
  }
  const uint32_t root = UidToGlobal(old.user_namespace, 0);
  const bool root_is_special = !SecureBit(old, SECURE_NOROOT) && root != kInvalidId;
  // A set-user-ID-root file with capabilities gives just those to others than root.
  const bool only_file = has_file_capabilities && next->euid == root && next->uid != root;
  if (root_is_special && !only_file && (next->euid == root || next->uid == root)) {
    permitted = old.bounding | old.inheritable;
    if (next->euid == root) effective = true;
  }
  const bool ids_differ = next->euid != old.uid || next->egid != old.gid;
  if (old.no_new_privileges && (ids_differ || (permitted & ~old.permitted) != 0)) {
    next->euid = next->uid;
    next->egid = next->gid;
    permitted &= old.permitted;
  }
  const bool set_id = next->euid != old.uid || next->egid != old.gid;
  next->suid = next->fsuid = next->euid;
  next->sgid = next->fsgid = next->egid;
  if (has_file_capabilities || set_id) next->ambient = 0;
  next->permitted = permitted | next->ambient;
  next->effective = effective ? next->permitted : next->ambient;

  ExecCredentials result;
  result.secure =
      set_id || (next->uid != root && (effective || (next->permitted & ~next->ambient) != 0));
  result.ids_changed =
      next->euid != old.euid || next->egid != old.egid || (next->permitted & ~old.permitted) != 0;
  result.credentials = std::move(next);
  return result;
}

}  // namespace sentry
