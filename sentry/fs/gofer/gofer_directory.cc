// Directories: walks and listings. Changes are in gofer_directory_changes.cc.

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "sentry/fs/gofer/gofer_inode.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/directory_position.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// How far ahead WillWalk looks; the rest of a message is for the way to a directory that is not
// bound.
constexpr size_t kPrefetchStepsMax = 16;
// A listing that is read, whether or not it is kept. More names than that in one directory is not
// for us.
constexpr size_t kListingEntriesMax = size_t{4} << 20;
// How much a kept listing may grow before it is given up.
constexpr size_t kListingGrowthMax = 4096;

}  // namespace

GoferDirectory::~GoferDirectory() { gofer().ReleaseListed(listing_reserved_); }

std::shared_ptr<GoferDirectory> GoferDirectory::here() {
  return std::static_pointer_cast<GoferDirectory>(shared_from_this());
}

// ---- Walks.

Result<GoferDirectory::Prefix> GoferDirectory::PathToHere(size_t names_max) {
  while (true) {
    Prefix prefix;
    std::shared_ptr<GoferInode> too_deep;
    {
      const absl::ReaderMutexLock lock(&gofer().tree_mutex());
      std::shared_ptr<GoferInode> at = self();
      while (true) {
        prefix.ancestor = at->PinIfBound();
        if (prefix.ancestor) break;
        if (at->parent() == nullptr) return Errno(ESTALE);
        if (prefix.names.size() == names_max) {
          too_deep = at;
          break;
        }
        prefix.names.push_back(at->name());
        at = at->parent();
      }
    }
    if (too_deep == nullptr) {
      std::reverse(prefix.names.begin(), prefix.names.end());
      return prefix;
    }
    // Something halfway that is bound makes it short enough.
    TRY(too_deep->Pin());
  }
}

Result<GoferDirectory::Below> GoferDirectory::WalkBelowOnce(std::span<const std::string_view> names,
                                                            Keep keep,
                                                            std::optional<uint32_t> open_flags) {
  gofer::Client& client = gofer().client();
  const Prefix prefix = TRY(PathToHere(gofer::kWalkStepsMax - names.size()));
  const size_t above = prefix.names.size();
  gofer::WalkRequest request;
  request.from = prefix.ancestor.fid();
  request.open_last = open_flags.has_value();
  request.open_flags = open_flags.value_or(0);
  for (const std::string& name : prefix.names) request.steps.push_back({name, gofer::kNoFid});
  // While we are passing through, this directory gets bound too.
  if (above > 0) request.steps.back().fid = client.NewFid();
  for (size_t i = 0; i < names.size(); ++i) {
    const bool is_last = i + 1 == names.size();
    const bool kept =
        keep == Keep::kAll || (keep != Keep::kNone && is_last == (keep == Keep::kLast));
    request.steps.push_back({names[i], kept ? client.NewFid() : gofer::kNoFid});
  }
  Result<gofer::Client::Walked> walked = client.Walk(request);
  const size_t reached = walked.ok() ? walked.value().reply.steps.size() : 0;
  for (size_t i = reached; i < request.steps.size(); ++i) client.Unused(request.steps[i].fid);
  if (!walked.ok()) return walked.error();
  gofer::WalkReply& reply = walked.value().reply;

  const bool arrived = reached >= above && (above == 0 || Is(reply.steps[above - 1]));
  if (!arrived) {
    for (size_t i = 0; i < reached; ++i) client.Forget(request.steps[i].fid);
    const bool out_of_room = reply.stop_error == ENFILE || reply.stop_error == EMFILE;
    return Errno(out_of_room ? reply.stop_error : ESTALE);
  }
  if (above > 0) Adopt(request.steps[above - 1].fid);
  Below below{std::move(reply), {}, std::move(walked).value().fd};
  below.reply.steps.erase(below.reply.steps.begin(),
                          below.reply.steps.begin() + static_cast<std::ptrdiff_t>(above));
  for (size_t i = above; i < reached; ++i) below.fids.push_back(request.steps[i].fid);
  return below;
}

Result<GoferDirectory::Below> GoferDirectory::WalkBelow(std::span<const std::string_view> names,
                                                        Keep keep,
                                                        std::optional<uint32_t> open_flags) {
  constexpr int kTriesMax = 3;
  for (int tries = 1;; ++tries) {
    Result<Below> below = WalkBelowOnce(names, keep, open_flags);
    const int error = below.ok() ? below.value().reply.stop_error : below.error().value();
    if (tries == kTriesMax) return below;
    if (error == ENFILE || error == EMFILE) {
      if (!gofer().MakeRoom()) return below;
      if (below.ok()) {
        for (const gofer::Fid fid : below.value().fids) gofer().client().Forget(fid);
      }
      continue;
    }
    // A rename on the way here; the place is up to date now.
    if (below.ok() || error != ESTALE) return below;
  }
}

Result<InodeRef> GoferDirectory::Lookup(std::string_view name) {
  if (name.size() > kNameBytesMax) return Errno(ENAMETOOLONG);
  const uint64_t generation = generation_.load(std::memory_order_acquire);
  if (auto prefetched = gofer().TakePrefetched(*this, generation, name)) {
    if (*prefetched == nullptr) return Errno(ENOENT);
    return InodeRef(std::move(*prefetched));
  }
  if (const auto listing = CachedListing()) {
    if (!listing->Contains(name)) return Errno(ENOENT);
    if (const auto attributes = listing->TakeAttributes(name)) {
      return InodeRef(gofer().GetOrMake(*attributes, here(), name, {}).inode);
    }
  }
  Below below = TRY(WalkBelow(std::span(&name, 1), Keep::kNone));
  if (below.reply.steps.empty()) return Errno(below.reply.stop_error);
  return InodeRef(
      gofer()
          .GetOrMake(below.reply.steps[0], here(), name, std::move(below.reply.link_target))
          .inode);
}

void GoferDirectory::WillWalk(std::string_view remaining, bool will_open) {
  std::array<std::string_view, kPrefetchStepsMax> names;
  size_t count = 0;
  while (count < names.size()) {
    remaining.remove_prefix(std::min(remaining.find_first_not_of('/'), remaining.size()));
    const std::string_view name = remaining.substr(0, remaining.find('/'));
    if (!gofer::IsComponent(name)) break;
    names[count++] = name;
    remaining.remove_prefix(name.size());
  }
  // In shared mode each look-up asks for itself.
  will_open = will_open && gofer().exclusive() && remaining.empty();
  if (count == 0 || (count < 2 && !will_open)) return;  // The look-up itself costs no more.
  uint64_t generation = generation_.load(std::memory_order_acquire);
  // What is listed needs no message here, if it is the last, or none at all.
  if (const auto listing = CachedListing();
      listing != nullptr && (count == 1 || !listing->Contains(names[0]))) {
    return;
  }
  // An error is for the look-up to meet again and report.
  Result<Below> walked =
      WalkBelow(std::span(names).first(count), will_open ? Keep::kAll : Keep::kAllButLast,
                will_open ? std::optional<uint32_t>(O_RDONLY) : std::nullopt);
  if (!walked.ok()) return;
  gofer::WalkReply& reply = walked.value().reply;
  std::shared_ptr<GoferDirectory> directory = here();
  for (size_t i = 0; i < reply.steps.size(); ++i) {
    const bool is_last = i + 1 == reply.steps.size();
    const GoferFileSystem::Found found =
        gofer().GetOrMake(reply.steps[i], directory, names[i],
                          is_last ? std::move(reply.link_target) : std::string());
    found.inode->Adopt(walked.value().fids[i]);
    if (is_last && walked.value().fd && found.inode->type() == S_IFREG) {
      static_cast<GoferRegular&>(*found.inode).AdoptReadOnlyHostFile(std::move(walked.value().fd));
    }
    if (directory != nullptr) gofer().Prefetched(directory, generation, names[i], found.inode);
    // What happened meanwhile in a directory that others know already, we cannot tell.
    directory = nullptr;
    if (found.inode->type() == S_IFDIR && found.made) {
      directory = std::static_pointer_cast<GoferDirectory>(found.inode);
      generation = directory->generation_.load(std::memory_order_acquire);
    }
    if (directory == nullptr && !is_last) {
      for (size_t rest = i + 1; rest < reply.steps.size(); ++rest) {
        gofer().client().Forget(walked.value().fids[rest]);
      }
      return;
    }
  }
  if (directory != nullptr && reply.stop_error == ENOENT) {
    gofer().Prefetched(directory, generation, names[reply.steps.size()], nullptr);
  }
}

// ---- Listings.

std::shared_ptr<DirectoryListing> GoferDirectory::CachedListing() {
  const absl::MutexLock lock(&listing_mu_);
  return listing_;
}

void GoferDirectory::InodeMade(std::string_view name) {
  inodes_made_.fetch_add(1, std::memory_order_acq_rel);
  if (const auto listing = CachedListing()) (void)listing->TakeAttributes(name);
}

void GoferDirectory::KeepListing(std::shared_ptr<DirectoryListing> listing, uint64_t generation,
                                 uint64_t inodes_made) {
  if (!gofer().exclusive()) return;
  const size_t size = listing->size();
  const absl::MutexLock lock(&listing_mu_);
  if (listing_ != nullptr || generation_.load(std::memory_order_acquire) != generation) return;
  if (!gofer().ReserveListed(size)) return;
  // An inode may have been made, changed and dropped since the attributes were read.
  if (inodes_made_.load(std::memory_order_acquire) != inodes_made) listing->DropAttributes();
  listing_reserved_ = size;
  listing_ = std::move(listing);
}

Result<std::shared_ptr<DirectoryListing>> GoferDirectory::Fetch() {
  auto listing = std::make_shared<DirectoryListing>();
  FidPin pin;
  gofer::DirReply reply = TRY(FetchFirst(&pin));
  gofer::ReadDirRequest request{pin.fid(), 0, gofer::kDirEntriesMax, gofer().exclusive()};
  while (true) {
    for (gofer::DirEntry& entry : reply.entries) {
      request.cookie = entry.cookie;
      const gofer::Attributes& known = entry.attributes;
      const uint64_t device = known.mode != 0 ? known.dev : host_id_.first;
      const uint64_t inode = known.mode != 0 ? known.ino : entry.ino;
      // Kept for the look-up, unless there is an inode that will know better, or may be one by
      // another name.
      const bool useful = known.mode != 0 && (S_ISDIR(known.mode) || known.nlink == 1) &&
                          !gofer().IsAlive({device, inode});
      listing->Insert(entry.name, gofer().InodeNumber(device, inode), entry.type,
                      useful ? std::optional(known) : std::nullopt);
    }
    if (reply.end) return listing;
    if (listing->size() > kListingEntriesMax) return Errno(ENOMEM);
    reply = TRY(gofer().client().ReadDir(request));
  }
}

// One message, whether or not the directory is bound. *pin keeps it bound if there is more to read.
Result<gofer::DirReply> GoferDirectory::FetchFirst(FidPin* pin) {
  constexpr int kTriesMax = 3;
  gofer::Client& client = gofer().client();
  for (int tries = 1;; ++tries) {
    Prefix prefix = TRY(PathToHere(gofer::kWalkStepsMax));
    gofer::ReadDirRequest request{prefix.ancestor.fid(), 0, gofer::kDirEntriesMax,
                                  gofer().exclusive()};
    request.path.assign(prefix.names.begin(), prefix.names.end());
    const bool by_path = !request.path.empty();
    if (by_path) request.new_fid = client.NewFid();
    Result<gofer::DirReply> reply = client.ReadDir(request);
    const bool bound = by_path && reply.ok() && !reply.value().end;
    if (!bound) client.Unused(request.new_fid);
    int error = reply.ok() ? 0 : reply.error().value();
    if (reply.ok() && by_path && !Is(reply.value().attributes)) {
      if (bound) client.Forget(request.new_fid);
      error = ESTALE;
    }
    if (error == 0) {
      *pin = bound ? AdoptAndPin(request.new_fid) : std::move(prefix.ancestor);
      return reply;
    }
    if (tries == kTriesMax) return Errno(error);
    const bool out_of_room = error == ENFILE || error == EMFILE;
    if (out_of_room && gofer().MakeRoom()) continue;
    // Something on the way here may have been renamed meanwhile.
    const bool moved =
        by_path && (error == ESTALE || error == ENOENT || error == ENOTDIR || error == ELOOP);
    if (!moved) return Errno(error);
  }
}

Result<std::shared_ptr<DirectoryListing>> GoferDirectory::List() {
  if (auto cached = CachedListing()) return cached;
  const uint64_t generation = generation_.load(std::memory_order_acquire);
  const uint64_t inodes_made = inodes_made_.load(std::memory_order_acquire);
  std::shared_ptr<DirectoryListing> listing = TRY(Fetch());
  KeepListing(listing, generation, inodes_made);
  return listing;
}

void GoferDirectory::NameAdded(std::string_view name, const GoferInode& inode) {
  std::shared_ptr<DirectoryListing> listing;
  {
    const absl::MutexLock lock(&listing_mu_);
    if (listing_ == nullptr) return;
    if (listing_->size() > 2 * listing_reserved_ + kListingGrowthMax) {
      gofer().ReleaseListed(std::exchange(listing_reserved_, 0));
      listing.swap(listing_);
      return;
    }
    listing = listing_;
  }
  const auto type = static_cast<uint8_t>(IFTODT(inode.type()));
  listing->Insert(name, inode.number(), type, std::nullopt);
}

void GoferDirectory::NameRemoved(std::string_view name) {
  if (const auto listing = CachedListing()) listing->Remove(name);
}

uint64_t GoferDirectory::ParentNumber() {
  const absl::ReaderMutexLock lock(&gofer().tree_mutex());
  return parent() == nullptr ? number() : parent()->number();
}

// ---- Open directories.

Result<FileRef> GoferDirectory::Open(Task& task, const Path& path, uint32_t flags) {
  return FileRef(
      std::make_shared<GoferDirectoryFile>(path, flags, task.own_credentials_ref(), here()));
}

Result<uint64_t> GoferDirectoryFile::Seek(Task&, uint64_t position, int64_t offset, int whence) {
  return SeekDirectory(position, offset, whence);
}

Result<void> GoferDirectory::ReadEntries(uint64_t* offset, const DirectorySink& sink) {
  const std::shared_ptr<DirectoryListing> listing = TRY(List());
  if (*offset < DirectoryListing::kFirstCookie) *offset = DirectoryListing::kFirstCookie;
  listing->Read(offset, sink);
  return {};
}

Result<void> GoferDirectoryFile::ReadDirectory(Task&, uint64_t* offset, const DirectorySink& sink) {
  const absl::MutexLock lock(&mu_);
  if (*offset == 0 || listing_ == nullptr) listing_ = TRY(directory_->List());
  if (!ListDots(offset, directory_->number(), directory_->ParentNumber(), sink)) return {};
  listing_->Read(offset, sink);
  return {};
}

Result<void> GoferDirectoryFile::Sync(bool data_only) {
  const FidPin pin = TRY(directory_->Pin());
  return directory_->gofer().client().Fsync(
      pin.fid(), data_only ? gofer::SyncScope::kData : gofer::SyncScope::kFile);
}

}  // namespace sentry
