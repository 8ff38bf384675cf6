// Directories of tmpfs. Names are hashed for lookups; for getdents64(2) each entry has a cookie
// that is never reused, so that reading goes on at the right place whatever came or went in
// between.

#include <fcntl.h>
#include <linux/fs.h>
#include <unistd.h>

#include <limits>
#include <utility>

#include "platform/base/check.h"
#include "platform/base/strings.h"
#include "sentry/fs/tmpfs/tmpfs_inode.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/directory_position.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint64_t kEntryBytes = 20;  // What Linux adds to the size of a tmpfs directory per entry.

TmpfsInode& AsTmpfs(Inode& inode) { return static_cast<TmpfsInode&>(inode); }

std::shared_ptr<TmpfsInode> Shared(Inode& inode) {
  return std::static_pointer_cast<TmpfsInode>(inode.shared_from_this());
}

}  // namespace

TmpfsDirectory::TmpfsDirectory(Tmpfs& file_system, const CreateContext& context)
    : TmpfsInode(file_system, S_IFDIR, context), parent_number_(number()) {
  const absl::MutexLock lock(&mu_);
  nlink_ = 2;
}

void TmpfsDirectory::FillSize(Attributes* attributes) const {
  attributes->size = (by_name_.size() + 2) * kEntryBytes;
}

Result<InodeRef> TmpfsDirectory::Lookup(std::string_view name) {
  const absl::ReaderMutexLock lock(&mu_);
  const auto found = by_name_.find(base::Absl(name));
  if (found == by_name_.end()) return Errno(ENOENT);
  return InodeRef(found->second->inode);
}

void TmpfsDirectory::Put(std::string_view name, std::shared_ptr<TmpfsInode> inode) {
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock lock(&mu_);
  const uint64_t cookie = next_cookie_++;
  auto entry = std::make_unique<Entry>(Entry{std::string(name), std::move(inode), cookie});
  by_name_.insert_or_assign(entry->name, entry.get());
  by_cookie_.emplace(cookie, std::move(entry));
  mtime_ = ctime_ = now;
}

std::shared_ptr<TmpfsInode> TmpfsDirectory::Take(std::string_view name) {
  const Timestamp now = tmpfs().Now();
  const absl::MutexLock lock(&mu_);
  const auto found = by_name_.find(base::Absl(name));
  if (found == by_name_.end()) return nullptr;
  std::shared_ptr<TmpfsInode> inode = std::move(found->second->inode);
  const uint64_t cookie = found->second->cookie;
  by_name_.erase(found);
  by_cookie_.erase(cookie);
  mtime_ = ctime_ = now;
  return inode;
}

bool TmpfsDirectory::IsEmpty() const {
  const absl::ReaderMutexLock lock(&mu_);
  return by_name_.empty();
}

Result<InodeRef> TmpfsDirectory::Insert(std::string_view name, std::shared_ptr<TmpfsInode> inode) {
  Put(name, inode);
  if (inode->type() == S_IFDIR) {
    CountSubdirectory(1);
    static_cast<TmpfsDirectory&>(*inode).set_parent_number(number());
  }
  return InodeRef(std::move(inode));
}

Result<InodeRef> TmpfsDirectory::Create(std::string_view name, const CreateContext& context) {
  if (!tmpfs().inodes().Take(1)) return Errno(ENOSPC);
  return Insert(name, std::make_shared<TmpfsRegular>(tmpfs(), context));
}

Result<InodeRef> TmpfsDirectory::MakeDirectory(std::string_view name,
                                               const CreateContext& context) {
  if (!tmpfs().inodes().Take(1)) return Errno(ENOSPC);
  return Insert(name, std::make_shared<TmpfsDirectory>(tmpfs(), context));
}

Result<InodeRef> TmpfsDirectory::MakeNode(std::string_view name, const CreateContext& context,
                                          uint32_t type, uint64_t rdev) {
  if (!tmpfs().inodes().Take(1)) return Errno(ENOSPC);
  return Insert(name, std::make_shared<TmpfsNode>(tmpfs(), type, context, rdev));
}

Result<InodeRef> TmpfsDirectory::MakeSymlink(std::string_view name, std::string_view target,
                                             const CreateContext& context) {
  if (!tmpfs().inodes().Take(1)) return Errno(ENOSPC);
  return Insert(name, std::make_shared<TmpfsSymlink>(tmpfs(), context, target));
}

Result<InodeRef> TmpfsDirectory::CreateUnnamed(const CreateContext& context) {
  if (!tmpfs().inodes().Take(1)) return Errno(ENOSPC);
  auto inode = std::make_shared<TmpfsRegular>(tmpfs(), context);
  inode->MakeUnnamed();
  return InodeRef(std::move(inode));
}

Result<void> TmpfsDirectory::Link(std::string_view name, Inode& target) {
  TRY(AsTmpfs(target).AddLink());
  Put(name, Shared(target));
  return {};
}

Result<void> TmpfsDirectory::Unlink(std::string_view name, Inode& child) {
  const std::shared_ptr<TmpfsInode> taken = Take(name);
  if (taken == nullptr || taken.get() != &child) return Errno(ENOENT);
  taken->DropLink();
  return {};
}

Result<void> TmpfsDirectory::RemoveDirectory(std::string_view name, Inode& child) {
  if (!static_cast<TmpfsDirectory&>(child).IsEmpty()) return Errno(ENOTEMPTY);
  const std::shared_ptr<TmpfsInode> taken = Take(name);
  if (taken == nullptr || taken.get() != &child) return Errno(ENOENT);
  taken->DropLink();
  CountSubdirectory(-1);
  return {};
}

Result<void> TmpfsDirectory::Exchange(std::string_view old_name, TmpfsDirectory& other,
                                      std::string_view new_name) {
  const std::shared_ptr<TmpfsInode> mine = Take(old_name);
  const std::shared_ptr<TmpfsInode> theirs = other.Take(new_name);
  if (mine == nullptr || theirs == nullptr) return Errno(ENOENT);
  Put(old_name, theirs);
  other.Put(new_name, mine);
  if (this == &other) return {};
  if (mine->type() == S_IFDIR) {
    CountSubdirectory(-1);
    other.CountSubdirectory(1);
    static_cast<TmpfsDirectory&>(*mine).set_parent_number(other.number());
  }
  if (theirs->type() == S_IFDIR) {
    other.CountSubdirectory(-1);
    CountSubdirectory(1);
    static_cast<TmpfsDirectory&>(*theirs).set_parent_number(number());
  }
  return {};
}

Result<void> TmpfsDirectory::Rename(std::string_view old_name, Inode& child, Inode& new_directory,
                                    std::string_view new_name, Inode* replaced, uint32_t flags) {
  auto& target = static_cast<TmpfsDirectory&>(new_directory);
  if ((flags & RENAME_EXCHANGE) != 0) return Exchange(old_name, target, new_name);
  const bool is_directory = child.type() == S_IFDIR;
  if (replaced != nullptr && is_directory && !static_cast<TmpfsDirectory&>(*replaced).IsEmpty())
    return Errno(ENOTEMPTY);
  if ((flags & RENAME_WHITEOUT) != 0 && !tmpfs().inodes().Take(1)) return Errno(ENOSPC);

  const std::shared_ptr<TmpfsInode> gone = replaced == nullptr ? nullptr : target.Take(new_name);
  // There for a moment by both names rather than by none, for those who read a directory meanwhile.
  target.Put(new_name, Shared(child));
  Take(old_name);
  if (is_directory && this != &target) {
    CountSubdirectory(-1);
    target.CountSubdirectory(1);
    static_cast<TmpfsDirectory&>(child).set_parent_number(target.number());
  }
  if (gone != nullptr) {
    gone->DropLink();
    if (is_directory) target.CountSubdirectory(-1);
  }
  if ((flags & RENAME_WHITEOUT) != 0) {
    Put(old_name, std::make_shared<TmpfsNode>(tmpfs(), S_IFCHR, CreateContext{}, 0));
  }
  // A change of name is a change of the inode (ctime).
  return child.SetAttributes({});
}

Result<void> TmpfsDirectory::ReadEntries(uint64_t* offset, const DirectorySink& sink) {
  const absl::ReaderMutexLock lock(&mu_);
  for (auto it = by_cookie_.lower_bound(*offset); it != by_cookie_.end(); ++it) {
    const Entry& entry = *it->second;
    const auto type = static_cast<uint8_t>(entry.inode->type() >> 12);
    if (!sink({entry.name, entry.inode->number(), type, it->first + 1})) return {};
    *offset = it->first + 1;
  }
  return {};
}

void TmpfsDirectory::TakeDirectories(std::vector<std::shared_ptr<TmpfsInode>>* directories) {
  const absl::MutexLock lock(&mu_);
  for (auto& [cookie, entry] : by_cookie_) {
    if (entry->inode->type() == S_IFDIR) directories->push_back(std::move(entry->inode));
  }
  by_name_.clear();
  by_cookie_.clear();
}

Result<FileRef> TmpfsDirectory::Open(Task& task, const Path& path, uint32_t flags) {
  return FileRef(std::make_shared<TmpfsDirectoryFile>(path, flags, task.own_credentials_ref()));
}

Result<uint64_t> TmpfsDirectoryFile::Seek(Task&, uint64_t position, int64_t offset, int whence) {
  return SeekDirectory(position, offset, whence);
}

Result<void> TmpfsDirectoryFile::ReadDirectory(Task&, uint64_t* offset, const DirectorySink& sink) {
  auto& directory = static_cast<TmpfsDirectory&>(*inode());
  if (!ListDots(offset, directory.number(), directory.parent_number(), sink)) return {};
  TRY(directory.ReadEntries(offset, sink));
  directory.TouchAccess(*this);
  return {};
}

}  // namespace sentry
