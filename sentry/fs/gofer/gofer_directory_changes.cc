// Names that come and go. The vfs lets one change of a directory run at a time; look-ups and
// listings may run beside it, which is what `Changing` is for.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>

#include <cerrno>
#include <utility>

#include "sentry/fs/gofer/gofer_inode.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

gofer::Client::Ownership OwnerOf(const CreateContext& context, uint32_t type) {
  return {type | context.mode, context.uid, context.gid};
}

}  // namespace

class GoferDirectory::Changing {
 public:
  explicit Changing(GoferDirectory& directory) : directory_(directory) { Count(); }
  ~Changing() { Count(); }
  Changing(const Changing&) = delete;
  Changing& operator=(const Changing&) = delete;

 private:
  void Count() { directory_.generation_.fetch_add(1, std::memory_order_acq_rel); }
  GoferDirectory& directory_;
};

void GoferDirectory::UpdateOrMark(const gofer::Attributes& attributes) {
  if (attributes.mode != 0) {
    Update(attributes);
  } else {
    MarkStale();
  }
}

template <typename Make>
Result<std::shared_ptr<GoferInode>> GoferDirectory::MakeEntry(std::string_view name, bool bind,
                                                              Make make, base::Fd* opened) {
  gofer::Client& client = gofer().client();
  const Changing changing(*this);
  const FidPin pin = TRY(Pin());
  gofer::Fid fid = gofer::kNoFid;
  const auto try_once = [&]() -> Result<gofer::Client::Change> {
    fid = bind ? client.NewFid() : gofer::kNoFid;
    Result<gofer::Client::Change> made = make(pin.fid(), fid);
    if (!made.ok()) client.Unused(fid);
    return made;
  };
  Result<gofer::Client::Change> made = try_once();
  if (!made.ok() && made.error() == ENFILE && gofer().MakeRoom()) made = try_once();
  if (!made.ok()) return made.error();
  gofer::Client::Change& change = made.value();
  std::shared_ptr<GoferInode> inode = gofer().GetOrMake(change.object, here(), name, {}).inode;
  inode->Adopt(fid);
  UpdateOrMark(change.dir);
  NameAdded(name, *inode);
  if (opened != nullptr) *opened = std::move(change.fd);
  return inode;
}

Result<InodeRef> GoferDirectory::Create(std::string_view name, const CreateContext& context) {
  base::Fd fd;
  const auto make = [&](gofer::Fid dir, gofer::Fid fid) {
    return gofer().client().Create(dir, name, fid, O_RDWR, OwnerOf(context, 0));
  };
  std::shared_ptr<GoferInode> made = TRY(MakeEntry(name, true, make, &fd));
  // It is going to be opened; without a descriptor (there were none left) that will take a message.
  if (fd) static_cast<GoferRegular&>(*made).AdoptHostFile(std::move(fd));
  return InodeRef(std::move(made));
}

Result<InodeRef> GoferDirectory::MakeDirectory(std::string_view name,
                                               const CreateContext& context) {
  const auto make = [&](gofer::Fid dir, gofer::Fid fid) {
    return gofer().client().Mkdir(dir, name, fid, OwnerOf(context, 0));
  };
  std::shared_ptr<GoferInode> made = TRY(MakeEntry(name, true, make));
  // Known to be empty.
  auto& directory = static_cast<GoferDirectory&>(*made);
  directory.KeepListing(std::make_shared<DirectoryListing>(),
                        directory.generation_.load(std::memory_order_acquire), 0);
  return InodeRef(std::move(made));
}

Result<InodeRef> GoferDirectory::MakeNode(std::string_view name, const CreateContext& context,
                                          uint32_t type, uint64_t) {
  // The gofer refuses devices: EPERM.
  const auto make = [&](gofer::Fid dir, gofer::Fid fid) {
    return gofer().client().Mknod(dir, name, fid, OwnerOf(context, type));
  };
  return InodeRef(TRY(MakeEntry(name, false, make)));
}

Result<InodeRef> GoferDirectory::MakeSymlink(std::string_view name, std::string_view target,
                                             const CreateContext& context) {
  const auto make = [&](gofer::Fid dir, gofer::Fid fid) {
    return gofer().client().Symlink(dir, name, fid, target, OwnerOf(context, 0));
  };
  return InodeRef(TRY(MakeEntry(name, false, make)));
}

Result<void> GoferDirectory::Link(std::string_view name, Inode& target) {
  auto& linked = static_cast<GoferInode&>(target);
  const Changing changing(*this);
  const FidPin pin = TRY(Pin());
  const FidPin target_pin = TRY(linked.Pin());
  const gofer::Client::Change change =
      TRY(gofer().client().Link(target_pin.fid(), pin.fid(), name));
  if (change.object.mode != 0) {
    linked.Update(change.object);
  } else {
    linked.CountLink(1);
  }
  UpdateOrMark(change.dir);
  NameAdded(name, linked);
  return {};
}

Result<void> GoferDirectory::Remove(std::string_view name, GoferInode& child, uint32_t flags) {
  const Changing changing(*this);
  TRY(child.PrepareUnlink());
  const FidPin pin = TRY(Pin());
  const gofer::Client::Change change = TRY(gofer().client().Unlink(pin.fid(), name, flags));
  UpdateOrMark(change.dir);
  NameRemoved(name);
  const absl::MutexLock lock(&gofer().tree_mutex());
  child.Unlinked(*this, name);
  return {};
}

Result<void> GoferDirectory::Unlink(std::string_view name, Inode& child) {
  return Remove(name, static_cast<GoferInode&>(child), 0);
}

Result<void> GoferDirectory::RemoveDirectory(std::string_view name, Inode& child) {
  return Remove(name, static_cast<GoferInode&>(child), AT_REMOVEDIR);
}

Result<void> GoferDirectory::Rename(std::string_view old_name, Inode& child, Inode& new_directory,
                                    std::string_view new_name, Inode* replaced, uint32_t flags) {
  if ((flags & RENAME_WHITEOUT) != 0) return Errno(EINVAL);
  auto& to = static_cast<GoferDirectory&>(new_directory);
  auto& moved = static_cast<GoferInode&>(child);
  auto* other = static_cast<GoferInode*>(replaced);
  const bool exchange = (flags & RENAME_EXCHANGE) != 0;
  const Changing changing(*this);
  const Changing changing_to(to);
  if (other != nullptr && !exchange) TRY(other->PrepareUnlink());
  const FidPin pin = TRY(Pin());
  const FidPin to_pin = TRY(to.Pin());
  const gofer::Client::Change change =
      TRY(gofer().client().Rename(pin.fid(), old_name, to_pin.fid(), new_name, flags));
  UpdateOrMark(change.dir);
  to.UpdateOrMark(change.new_dir);
  moved.MarkStale();  // ctime
  NameRemoved(old_name);
  to.NameRemoved(new_name);
  to.NameAdded(new_name, moved);
  if (exchange && other != nullptr) {
    other->MarkStale();
    NameAdded(old_name, *other);
  }
  const absl::MutexLock lock(&gofer().tree_mutex());
  if (other != nullptr) {
    if (exchange) {
      other->set_place(here(), old_name);
    } else {
      other->Unlinked(to, new_name);
    }
  }
  moved.set_place(to.here(), new_name);
  return {};
}

}  // namespace sentry
