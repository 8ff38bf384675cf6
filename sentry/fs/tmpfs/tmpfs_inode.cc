// What all inodes of tmpfs share: attributes and extended attributes.

#include "sentry/fs/tmpfs/tmpfs_inode.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr size_t kXattrBytesMax = size_t{1} << 20;  // Of one inode: it is the sentry's memory.
constexpr uint32_t kLinksMax = 0x7fffffff;

}  // namespace

TmpfsInode::TmpfsInode(Tmpfs& file_system, uint32_t type, const CreateContext& context)
    : Inode(file_system),
      mode_(context.mode & 07777U),
      uid_(context.uid),
      gid_(context.gid),
      atime_(file_system.Now()),
      mtime_(atime_),
      ctime_(atime_),
      btime_(atime_),
      tmpfs_(file_system),
      type_(type),
      number_(file_system.NextInodeNumber()) {}

TmpfsInode::~TmpfsInode() { tmpfs_.inodes().Give(1); }

Result<Attributes> TmpfsInode::GetAttributes() {
  Attributes attributes;
  attributes.device = tmpfs_.device();
  attributes.inode = number_;
  const absl::ReaderMutexLock lock(&mu_);
  attributes.mode = type_ | mode_;
  attributes.nlink = nlink_;
  attributes.uid = uid_;
  attributes.gid = gid_;
  attributes.atime = atime_;
  attributes.mtime = mtime_;
  attributes.ctime = ctime_;
  attributes.btime = btime_;
  FillSize(&attributes);
  return attributes;
}

Result<void> TmpfsInode::SetAttributes(const AttributeChanges& changes) {
  if (changes.size) TRY(Resize(*changes.size));
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  if (changes.mode) mode_ = *changes.mode & 07777U;
  if (changes.uid) uid_ = *changes.uid;
  if (changes.gid) gid_ = *changes.gid;
  if (changes.atime) atime_ = *changes.atime;
  if (changes.mtime) mtime_ = *changes.mtime;
  ctime_ = now;
  return {};
}

Result<void> TmpfsInode::Resize(uint64_t) { return Errno(type_ == S_IFDIR ? EISDIR : EINVAL); }

Result<void> TmpfsInode::CheckPermission(const Credentials& credentials, int mask) {
  if (type_ == S_IFDIR && credentials.HasCapability(CAP_DAC_OVERRIDE)) return {};
  Attributes attributes;
  {
    const absl::ReaderMutexLock lock(&mu_);
    attributes.mode = type_ | mode_;
    attributes.uid = uid_;
    attributes.gid = gid_;
  }
  return GenericPermission(attributes, credentials, mask);
}

void TmpfsInode::TouchAccess(const File& file) {
  Attributes attributes;
  {
    const absl::ReaderMutexLock lock(&mu_);
    attributes.mode = type_ | mode_;
    attributes.atime = atime_;
    attributes.mtime = mtime_;
    attributes.ctime = ctime_;
  }
  const Timestamp now = tmpfs_.Now();
  if (!AccessTimeIsStale(file.path(), file.flags(), attributes, now)) return;
  const absl::MutexLock lock(&mu_);
  atime_ = now;
}

void TmpfsInode::CopyAttributes(const Attributes& attributes) {
  const absl::MutexLock lock(&mu_);
  mode_ = attributes.mode & 07777U;
  uid_ = attributes.uid;
  gid_ = attributes.gid;
  nlink_ = attributes.nlink;
  atime_ = attributes.atime;
  mtime_ = attributes.mtime;
  ctime_ = attributes.ctime;
}

void TmpfsInode::CountSubdirectory(int change) {
  const absl::MutexLock lock(&mu_);
  nlink_ = static_cast<uint32_t>(static_cast<int64_t>(nlink_) + change);
}

void TmpfsInode::Touch() {
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  mtime_ = ctime_ = now;
}

Result<void> TmpfsInode::AddLink() {
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  if (nlink_ == 0 && !was_never_named_) return Errno(ENOENT);
  if (nlink_ >= kLinksMax) return Errno(EMLINK);
  was_never_named_ = false;
  ++nlink_;
  ctime_ = now;
  return {};
}

void TmpfsInode::DropLink() {
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  // A directory has its own "." besides its name. What a lower file system says of links may be
  // less.
  nlink_ -= std::min(nlink_, type_ == S_IFDIR ? 2U : 1U);
  ctime_ = now;
}

void TmpfsInode::MakeUnnamed() {
  const absl::MutexLock lock(&mu_);
  nlink_ = 0;
  was_never_named_ = true;
}

Result<std::string> TmpfsInode::GetXattr(std::string_view name) {
  const absl::ReaderMutexLock lock(&mu_);
  const auto found = xattrs_.find(name);
  if (found == xattrs_.end()) return Errno(ENODATA);
  return found->second;
}

Result<void> TmpfsInode::SetXattr(std::string_view name, std::span<const std::byte> value,
                                  int flags) {
  if (!name.starts_with("user.") && !name.starts_with("trusted.") &&
      !name.starts_with("security.")) {
    return Errno(EOPNOTSUPP);
  }
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  const auto found = xattrs_.find(name);
  if (found != xattrs_.end() && (flags & XATTR_CREATE) != 0) return Errno(EEXIST);
  if (found == xattrs_.end() && (flags & XATTR_REPLACE) != 0) return Errno(ENODATA);
  const size_t old_bytes = found == xattrs_.end() ? 0 : name.size() + found->second.size();
  const size_t bytes = xattr_bytes_ - old_bytes + name.size() + value.size();
  if (bytes > kXattrBytesMax) return Errno(ENOSPC);
  std::string text(reinterpret_cast<const char*>(value.data()), value.size());
  xattrs_.insert_or_assign(std::string(name), std::move(text));
  xattr_bytes_ = bytes;
  ctime_ = now;
  return {};
}

Result<void> TmpfsInode::RemoveXattr(std::string_view name) {
  const Timestamp now = tmpfs_.Now();
  const absl::MutexLock lock(&mu_);
  const auto found = xattrs_.find(name);
  if (found == xattrs_.end()) return Errno(ENODATA);
  xattr_bytes_ -= name.size() + found->second.size();
  xattrs_.erase(found);
  ctime_ = now;
  return {};
}

Result<std::vector<std::string>> TmpfsInode::ListXattr() {
  std::vector<std::string> names;
  const absl::ReaderMutexLock lock(&mu_);
  for (const auto& [name, value] : xattrs_) names.push_back(name);
  return names;
}

}  // namespace sentry
