// chmod, chown, utimensat and truncate of what a path names: who may (setattr_prepare), and which
// privileges a change takes away.

#include <linux/capability.h>
#include <sys/inotify.h>
#include <unistd.h>

#include <utility>

#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

Result<void> MayChangeOwner(const Credentials& who, const Attributes& old,
                            const AttributeChanges& changes) {
  if (who.HasCapabilityOver(old.uid, old.gid, CAP_CHOWN)) return {};
  const bool owner = old.uid == who.fsuid;
  if (changes.uid && !(owner && *changes.uid == old.uid)) return Errno(EPERM);
  if (changes.gid && !(owner && (*changes.gid == old.gid || who.InGroup(*changes.gid))))
    return Errno(EPERM);
  return {};
}

uint32_t NotifyMask(const AttributeChanges& changes) {
  uint32_t mask = 0;
  if (changes.mode || changes.uid || changes.gid) mask |= IN_ATTRIB;
  if (changes.size) mask |= IN_MODIFY;
  if (changes.atime && changes.mtime) {
    mask |= IN_ATTRIB;
  } else if (changes.atime) {
    mask |= IN_ACCESS;
  } else if (changes.mtime && !changes.size) {
    mask |= IN_MODIFY;
  }
  return mask;
}

}  // namespace

uint32_t ModeWithoutPrivileges(const Attributes& attributes, const Credentials& who) {
  uint32_t mode = attributes.mode & ~static_cast<uint32_t>(S_ISUID);
  const bool group_can_execute = (attributes.mode & S_IXGRP) != 0;
  if (group_can_execute || (!who.InGroup(attributes.gid) &&
                            !who.HasCapabilityOver(attributes.uid, attributes.gid, CAP_FSETID))) {
    mode &= ~static_cast<uint32_t>(S_ISGID);
  }
  return mode & 07777U;
}

Result<void> DropPrivilegesBeforeWrite(Inode& inode, const Credentials& who) {
  if (who.HasCapability(CAP_FSETID) || inode.type() != S_IFREG) return {};
  const Attributes attributes = TRY(inode.GetAttributes());
  if (who.HasCapabilityOver(attributes.uid, attributes.gid, CAP_FSETID)) return {};
  if ((attributes.mode & (S_ISUID | S_ISGID)) == 0) return {};
  const uint32_t mode = ModeWithoutPrivileges(attributes, who);
  if (mode == (attributes.mode & 07777U)) return {};
  AttributeChanges changes;
  changes.mode = mode;
  return inode.SetAttributes(changes);
}

Result<void> Vfs::SetAttributes(const Caller& caller, const Path& path,
                                const AttributeChanges& wanted) {
  if (path.mount->read_only()) return Errno(EROFS);
  Inode& inode = *path.dentry->inode();
  const Credentials& who = caller.credentials();
  const Attributes old = TRY(inode.GetAttributes());
  const bool owner = old.uid == who.fsuid || who.HasCapabilityOver(old.uid, old.gid, CAP_FOWNER);
  AttributeChanges changes = wanted;
  if (changes.size) {
    if (old.IsDirectory()) return Errno(EISDIR);
    if (!old.IsRegular()) return Errno(EINVAL);
    TRY(inode.CheckPermission(who, W_OK));
    if (!who.HasCapabilityOver(old.uid, old.gid, CAP_FSETID) &&
        (old.mode & (S_ISUID | S_ISGID)) != 0) {
      changes.mode = ModeWithoutPrivileges(old, who);
    }
  }
  if (changes.uid || changes.gid) {
    TRY(MayChangeOwner(who, old, changes));
    if (!old.IsDirectory() && !old.IsSymlink() && (old.mode & (S_ISUID | S_ISGID)) != 0) {
      changes.mode = ModeWithoutPrivileges(old, who);
    }
  }
  if (wanted.mode) {
    if (old.IsSymlink()) return Errno(EOPNOTSUPP);
    if (!owner) return Errno(EPERM);
    changes.mode = *wanted.mode & 07777U;
    if (!who.InGroup(changes.gid.value_or(old.gid)) &&
        !who.HasCapabilityOver(old.uid, old.gid, CAP_FSETID)) {
      *changes.mode &= ~static_cast<uint32_t>(S_ISGID);
    }
  }
  if ((changes.atime || changes.mtime) && !owner) {
    if (!changes.times_are_now) return Errno(EPERM);
    TRY(inode.CheckPermission(who, W_OK));
  }
  if (changes.size) {
    Inode::Attachments& attachments = inode.attachments();
    TRY(attachments.GetWriteAccess());
    const Result<void> result = inode.SetAttributes(changes);
    attachments.PutWriteAccess();
    TRY(result);
  } else {
    TRY(inode.SetAttributes(changes));
  }
  NotifyPath(path, NotifyMask(changes));
  return {};
}

}  // namespace sentry
