// Directories of the overlay: the lower directory's names, except for those that have changed.

#include <linux/fs.h>
#include <unistd.h>

#include <utility>

#include "platform/base/strings.h"
#include "sentry/fs/overlay/overlay_inode.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/directory_position.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Positions from here on are the lower directory's.
constexpr uint64_t kLowerPositions = uint64_t{1} << 62;

OverlayInode& AsOverlay(Inode& inode) { return static_cast<OverlayInode&>(inode); }

class OverlayDirectoryFile final : public File {
 public:
  OverlayDirectoryFile(Path path, uint32_t flags, CredentialsRef credentials,
                       std::shared_ptr<OverlayDirectory> directory)
      : File(std::move(path), flags, std::move(credentials)), directory_(std::move(directory)) {}
  bool seekable() const override { return true; }
  Result<uint64_t> Seek(Task&, uint64_t position, int64_t offset, int whence) override {
    return SeekDirectory(position, offset, whence);
  }
  Result<void> ReadDirectory(Task&, uint64_t* offset, const DirectorySink& sink) override {
    if (!ListDots(offset, directory_->number(), directory_->parent_number(), sink)) return {};
    return directory_->ReadEntries(offset, sink);
  }
  Result<void> Sync(bool) override { return {}; }

 private:
  const std::shared_ptr<OverlayDirectory> directory_;
};

}  // namespace

OverlayDirectory::OverlayDirectory(Overlay& file_system, uint64_t number, InodeRef lower,
                                   std::shared_ptr<TmpfsInode> upper)
    : OverlayInode(file_system, S_IFDIR, number, std::move(lower), std::move(upper)),
      parent_number_(number) {}

Result<InodeRef> OverlayDirectory::Lookup(std::string_view name) {
  {
    const absl::ReaderMutexLock lock(&mu_);
    const auto found = changed_.find(base::Absl(name));
    if (found != changed_.end()) {
      if (found->second->inode == nullptr) return Errno(ENOENT);
      return InodeRef(found->second->inode);
    }
  }
  if (lower() == nullptr) return Errno(ENOENT);
  const std::shared_ptr<OverlayInode> child = TRY(overlay().Wrap(TRY(lower()->Lookup(name))));
  if (child->type() == S_IFDIR) static_cast<OverlayDirectory&>(*child).set_parent_number(number());
  return InodeRef(child);
}

void OverlayDirectory::WillWalk(std::string_view remaining, bool will_open) {
  if (lower() == nullptr || IsChanged(remaining.substr(0, remaining.find('/')))) return;
  lower()->WillWalk(remaining, will_open);
}

bool OverlayDirectory::IsChanged(std::string_view name) const {
  const absl::ReaderMutexLock lock(&mu_);
  return changed_.contains(base::Absl(name));
}

void OverlayDirectory::Put(std::string_view name, std::shared_ptr<OverlayInode> inode,
                           bool lower_has_it) {
  {
    const absl::MutexLock lock(&mu_);
    std::unique_ptr<Entry>& entry = changed_[base::Absl(name)];
    if (entry == nullptr) {
      entry = std::make_unique<Entry>();
      entry->name = std::string(name);
      entry->hides_lower = lower_has_it;
    } else if (entry->inode != nullptr) {
      by_cookie_.erase(entry->cookie);
    }
    entry->inode.swap(inode);  // The old one is released after the lock.
    entry->cookie = next_cookie_++;
    by_cookie_.emplace(entry->cookie, entry.get());
  }
  upper().Touch();
}

void OverlayDirectory::Take(std::string_view name) {
  std::unique_ptr<Entry> removed;
  std::shared_ptr<OverlayInode> inode;
  {
    const absl::MutexLock lock(&mu_);
    const auto found = changed_.find(base::Absl(name));
    if (found == changed_.end()) {
      auto whiteout = std::make_unique<Entry>();
      whiteout->name = std::string(name);
      whiteout->hides_lower = true;
      changed_.emplace(whiteout->name, std::move(whiteout));
    } else {
      by_cookie_.erase(found->second->cookie);
      inode = std::move(found->second->inode);
      found->second->inode = nullptr;
      if (!found->second->hides_lower) {
        removed = std::move(found->second);
        changed_.erase(found);
      }
    }
  }
  upper().Touch();
}

void OverlayDirectory::CountSubdirectory(int change) {
  // Some file systems do not count: then nlink is 1 and stays so.
  if (lower() != nullptr) {
    const Result<Attributes> attributes = lower()->GetAttributes();
    if (!attributes.ok() || attributes.value().nlink < 2) return;
  }
  upper().CountSubdirectory(change);
}

Result<bool> OverlayDirectory::IsEmpty() {
  {
    const absl::ReaderMutexLock lock(&mu_);
    if (!by_cookie_.empty()) return false;
  }
  if (lower() == nullptr) return true;
  bool empty = true;
  uint64_t offset = 0;
  TRY(lower()->ReadEntries(&offset, [&](const DirectoryEntry& entry) {
    empty = IsChanged(entry.name);
    return empty;
  }));
  return empty;
}

Result<InodeRef> OverlayDirectory::Insert(std::string_view name,
                                          std::shared_ptr<OverlayInode> inode) {
  Put(name, inode, false);
  if (inode->type() == S_IFDIR) {
    CountSubdirectory(1);
    static_cast<OverlayDirectory&>(*inode).set_parent_number(number());
  }
  return InodeRef(std::move(inode));
}

Result<InodeRef> OverlayDirectory::Create(std::string_view name, const CreateContext& context) {
  TRY(CopyUp());
  Tmpfs& store = overlay().upper();
  if (!store.inodes().Take(1)) return Errno(ENOSPC);
  auto upper = std::make_shared<TmpfsRegular>(store, context);
  const uint64_t made = Overlay::NumberOfUpper(upper->number());
  return Insert(name, std::make_shared<OverlayRegular>(overlay(), made, nullptr, std::move(upper)));
}

Result<InodeRef> OverlayDirectory::CreateUnnamed(const CreateContext& context) {
  Tmpfs& store = overlay().upper();
  if (!store.inodes().Take(1)) return Errno(ENOSPC);
  auto upper = std::make_shared<TmpfsRegular>(store, context);
  upper->MakeUnnamed();
  const uint64_t made = Overlay::NumberOfUpper(upper->number());
  return InodeRef(std::make_shared<OverlayRegular>(overlay(), made, nullptr, std::move(upper)));
}

Result<InodeRef> OverlayDirectory::MakeDirectory(std::string_view name,
                                                 const CreateContext& context) {
  TRY(CopyUp());
  Tmpfs& store = overlay().upper();
  if (!store.inodes().Take(1)) return Errno(ENOSPC);
  auto upper = std::make_shared<TmpfsNode>(store, S_IFDIR, context, 0);
  upper->CountSubdirectory(1);  // Its own ".".
  const uint64_t made = Overlay::NumberOfUpper(upper->number());
  return Insert(name,
                std::make_shared<OverlayDirectory>(overlay(), made, nullptr, std::move(upper)));
}

Result<InodeRef> OverlayDirectory::MakeNode(std::string_view name, const CreateContext& context,
                                            uint32_t type, uint64_t rdev) {
  TRY(CopyUp());
  Tmpfs& store = overlay().upper();
  if (!store.inodes().Take(1)) return Errno(ENOSPC);
  auto upper = std::make_shared<TmpfsNode>(store, type, context, rdev);
  const uint64_t made = Overlay::NumberOfUpper(upper->number());
  return Insert(name,
                std::make_shared<OverlayInode>(overlay(), type, made, nullptr, std::move(upper)));
}

Result<InodeRef> OverlayDirectory::MakeSymlink(std::string_view name, std::string_view target,
                                               const CreateContext& context) {
  TRY(CopyUp());
  Tmpfs& store = overlay().upper();
  if (!store.inodes().Take(1)) return Errno(ENOSPC);
  auto upper = std::make_shared<TmpfsSymlink>(store, context, target);
  const uint64_t made = Overlay::NumberOfUpper(upper->number());
  return Insert(
      name, std::make_shared<OverlayInode>(overlay(), S_IFLNK, made, nullptr, std::move(upper)));
}

Result<void> OverlayDirectory::Link(std::string_view name, Inode& target) {
  TRY(CopyUp());
  OverlayInode& inode = AsOverlay(target);
  TRY(inode.CopyUp());
  TRY(inode.upper().AddLink());
  Put(name, inode.self(), false);
  return {};
}

Result<void> OverlayDirectory::Unlink(std::string_view name, Inode& child) {
  OverlayInode& inode = AsOverlay(child);
  TRY(CopyUp());
  TRY(inode.CopyUp());
  Take(name);
  inode.DropName();
  return {};
}

Result<void> OverlayDirectory::RemoveDirectory(std::string_view name, Inode& child) {
  auto& directory = static_cast<OverlayDirectory&>(child);
  if (!TRY(directory.IsEmpty())) return Errno(ENOTEMPTY);
  TRY(Unlink(name, child));
  CountSubdirectory(-1);
  return {};
}

Result<void> OverlayDirectory::Exchange(std::string_view old_name, OverlayInode& mine,
                                        OverlayDirectory& other, std::string_view new_name,
                                        OverlayInode& theirs) {
  Put(old_name, theirs.self(), true);
  other.Put(new_name, mine.self(), true);
  if (this != &other) {
    if (mine.type() == S_IFDIR) {
      CountSubdirectory(-1);
      other.CountSubdirectory(1);
      static_cast<OverlayDirectory&>(mine).set_parent_number(other.number());
    }
    if (theirs.type() == S_IFDIR) {
      other.CountSubdirectory(-1);
      CountSubdirectory(1);
      static_cast<OverlayDirectory&>(theirs).set_parent_number(number());
    }
  }
  TRY(mine.SetAttributes({}));  // ctime
  return theirs.SetAttributes({});
}

Result<void> OverlayDirectory::Rename(std::string_view old_name, Inode& child, Inode& new_directory,
                                      std::string_view new_name, Inode* replaced, uint32_t flags) {
  auto& target = static_cast<OverlayDirectory&>(new_directory);
  OverlayInode& moved = AsOverlay(child);
  const bool is_directory = moved.type() == S_IFDIR;
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  if (replaced != nullptr && is_directory && !exchange &&
      !TRY(static_cast<OverlayDirectory&>(*replaced).IsEmpty())) {
    return Errno(ENOTEMPTY);
  }
  // Everything that can fail comes before the first name changes.
  TRY(CopyUp());
  TRY(target.CopyUp());
  TRY(moved.CopyUp());
  if (replaced != nullptr) TRY(AsOverlay(*replaced).CopyUp());
  if (exchange) return Exchange(old_name, moved, target, new_name, AsOverlay(*replaced));
  Tmpfs& store = overlay().upper();
  if ((flags & RENAME_WHITEOUT) != 0 && !store.inodes().Take(1)) return Errno(ENOSPC);

  const std::shared_ptr<Inode> keep = replaced == nullptr ? nullptr : replaced->shared_from_this();
  target.Put(new_name, moved.self(), replaced != nullptr);
  Take(old_name);
  if (is_directory) {
    if (this != &target) {
      CountSubdirectory(-1);
      target.CountSubdirectory(1);
    }
    static_cast<OverlayDirectory&>(moved).set_parent_number(target.number());
  }
  if (replaced != nullptr) {
    AsOverlay(*replaced).DropName();
    if (is_directory) target.CountSubdirectory(-1);
  }
  if ((flags & RENAME_WHITEOUT) != 0) {
    auto upper = std::make_shared<TmpfsNode>(store, S_IFCHR, CreateContext{}, 0);
    const uint64_t made = Overlay::NumberOfUpper(upper->number());
    Put(old_name,
        std::make_shared<OverlayInode>(overlay(), S_IFCHR, made, nullptr, std::move(upper)), false);
  }
  return moved.SetAttributes({});  // ctime
}

Result<void> OverlayDirectory::ReadEntries(uint64_t* offset, const DirectorySink& sink) {
  if (*offset < kLowerPositions) {
    const absl::ReaderMutexLock lock(&mu_);
    for (auto it = by_cookie_.lower_bound(*offset); it != by_cookie_.end(); ++it) {
      const Entry& entry = *it->second;
      const auto type = static_cast<uint8_t>(entry.inode->type() >> 12);
      if (!sink({entry.name, entry.inode->number(), type, it->first + 1})) return {};
      *offset = it->first + 1;
    }
    *offset = kLowerPositions;
  }
  if (lower() == nullptr) return {};
  uint64_t lower_offset = *offset - kLowerPositions;
  return lower()->ReadEntries(&lower_offset, [&](const DirectoryEntry& entry) {
    if (IsChanged(entry.name)) return true;
    DirectoryEntry shown = entry;
    shown.next_offset += kLowerPositions;
    if (!sink(shown)) return false;
    *offset = shown.next_offset;
    return true;
  });
}

Result<FileRef> OverlayDirectory::Open(Task& task, const Path& path, uint32_t flags) {
  return FileRef(std::make_shared<OverlayDirectoryFile>(
      path, flags, task.own_credentials_ref(), std::static_pointer_cast<OverlayDirectory>(self())));
}

void OverlayDirectory::TakeDirectories(std::vector<std::shared_ptr<OverlayInode>>* directories) {
  const absl::MutexLock lock(&mu_);
  for (auto& [cookie, entry] : by_cookie_) {
    if (entry->inode->type() == S_IFDIR) directories->push_back(std::move(entry->inode));
  }
  by_cookie_.clear();
}

}  // namespace sentry
