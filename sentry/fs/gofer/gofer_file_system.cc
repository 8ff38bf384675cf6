#include "sentry/fs/gofer/gofer_file_system.h"

#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "platform/base/log.h"
#include "sentry/fs/gofer/gofer_inode.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Of all cached listings together: some 15 MB with their attributes.
constexpr size_t kListedEntriesMax = 65536;
// What WillWalk of several tasks may have found before their look-ups come.
constexpr size_t kPrefetchedMax = 64;
// How many held files are looked at for each new one, once there are too many.
constexpr size_t kLooksPerFile = 4;

// Half of the descriptors are for others: files in use, sockets, memory. The gofer has the same
// limit.
size_t FilesHeldMax() {
  constexpr size_t kMin = 64;
  constexpr size_t kMax = 8192;
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return kMin;
  return std::clamp<size_t>(limit.rlim_cur / 4, kMin, kMax);
}

GoferOptions WithLimits(GoferOptions options) {
  if (options.files_held_max == 0) options.files_held_max = FilesHeldMax();
  return options;
}

}  // namespace

GoferFileSystem::GoferFileSystem(std::shared_ptr<gofer::Client> client, const GoferOptions& options)
    : client_(std::move(client)), options_(WithLimits(options)), device_(AllocateDevice()) {}

GoferFileSystem::~GoferFileSystem() {
  // Inodes call back when they go.
  prefetched_.clear();
  root_.reset();
  const Result<void> flushed = client_->FlushForgotten();
  if (!flushed.ok()) LOG_DEBUG("gofer: fids not given back: %d", flushed.error().value());
}

Result<std::shared_ptr<GoferFileSystem>> GoferFileSystem::Create(
    std::shared_ptr<gofer::Client> client, const GoferOptions& options) {
  std::shared_ptr<GoferFileSystem> made(new GoferFileSystem(std::move(client), options));
  const gofer::Fid fid = made->client().NewFid();
  const Result<gofer::Attributes> attributes = made->client().Attach(options.attach_name, fid);
  if (!attributes.ok()) {
    made->client().Unused(fid);
    return attributes.error();
  }
  made->root_ = made->GetOrMake(attributes.value(), nullptr, {}, {}).inode;
  made->root_->Adopt(fid);
  return made;
}

InodeRef GoferFileSystem::root() { return root_; }

Result<FileSystemStatus> GoferFileSystem::Status() {
  const FidPin pin = TRY(root_->Pin());
  const gofer::StatFsReply host = TRY(client_->StatFs(pin.fid()));
  FileSystemStatus status;
  status.type = host.type;
  status.block_size = host.block_size;
  status.blocks = host.blocks;
  status.blocks_free = host.blocks_free;
  status.blocks_available = host.blocks_available;
  status.files = host.files;
  status.files_free = host.files_free;
  status.id = host.fsid;
  status.name_bytes_max = host.name_bytes_max;
  status.flags = host.flags;
  return status;
}

bool GoferFileSystem::Revalidate(Inode& directory, std::string_view name, Inode& child) {
  auto& known = static_cast<GoferInode&>(child);
  const uint64_t asked = known.Asking();
  const Result<GoferDirectory::Below> below = static_cast<GoferDirectory&>(directory).WalkBelow(
      std::span(&name, 1), GoferDirectory::Keep::kNone);
  if (!below.ok() || below.value().reply.steps.empty()) return false;
  if (!known.Is(below.value().reply.steps[0])) return false;
  known.Update(below.value().reply.steps[0], asked);
  return true;
}

Result<void> GoferFileSystem::Sync() {
  if (options_.read_only) return {};
  const FidPin pin = TRY(root_->Pin());
  return client_->Fsync(pin.fid(), gofer::SyncScope::kFileSystem);
}

std::shared_ptr<GoferInode> GoferFileSystem::Make(const gofer::Attributes& attributes,
                                                  std::string link_target) {
  switch (attributes.mode & S_IFMT) {
    case S_IFDIR:
      return std::make_shared<GoferDirectory>(*this, attributes);
    case S_IFREG:
      return std::make_shared<GoferRegular>(*this, attributes);
    case S_IFLNK:
      return std::make_shared<GoferSymlink>(*this, attributes, std::move(link_target));
    default:
      return std::make_shared<GoferInode>(*this, attributes);
  }
}

GoferFileSystem::Found GoferFileSystem::GetOrMake(const gofer::Attributes& attributes,
                                                  std::shared_ptr<GoferDirectory> parent,
                                                  std::string_view name, std::string link_target) {
  const HostId id = {attributes.dev, attributes.ino};
  const auto find = [&]() ABSL_SHARED_LOCKS_REQUIRED(table_mu_) {
    const auto found = inodes_.find(id);
    std::shared_ptr<GoferInode> inode;
    if (found != inodes_.end()) inode = found->second.lock();
    if (inode != nullptr && inode->type() != (attributes.mode & S_IFMT)) inode = nullptr;
    return inode;
  };
  std::shared_ptr<GoferInode> existing;
  {
    const absl::ReaderMutexLock lock(&table_mu_);
    existing = find();
  }
  if (existing == nullptr) {
    std::shared_ptr<GoferInode> made = Make(attributes, std::move(link_target));
    if (parent != nullptr) {
      const absl::MutexLock lock(&tree_mu_);
      made->set_place(parent, name);
    }
    {
      const absl::MutexLock lock(&table_mu_);
      existing = find();
      if (existing == nullptr) inodes_[id] = made;
    }
    if (existing == nullptr) {
      if (parent != nullptr) parent->InodeMade(name);
      return {std::move(made), true};
    }
  }
  // What it knows itself is newer, unless others change the tree.
  if (!exclusive()) existing->Update(attributes);
  if (parent != nullptr && existing != root_) {
    const absl::MutexLock lock(&tree_mu_);
    if (existing->parent() == nullptr) existing->set_place(std::move(parent), name);
  }
  return {std::move(existing), false};
}

void GoferFileSystem::Drop(HostId id, const GoferInode* inode) {
  const absl::MutexLock lock(&table_mu_);
  const auto found = inodes_.find(id);
  if (found != inodes_.end() && found->second.lock().get() == inode) inodes_.erase(found);
}

void GoferFileSystem::DropExpired(HostId id) {
  const absl::MutexLock lock(&table_mu_);
  const auto found = inodes_.find(id);
  if (found != inodes_.end() && found->second.expired()) inodes_.erase(found);
}

bool GoferFileSystem::IsAlive(HostId id) const {
  const absl::ReaderMutexLock lock(&table_mu_);
  const auto found = inodes_.find(id);
  return found != inodes_.end() && !found->second.expired();
}

uint64_t GoferFileSystem::InodeNumber(uint64_t host_device, uint64_t host_inode) {
  // The guest sees one device; numbers of file systems mounted below the root are moved out of the
  // way.
  constexpr int kDeviceShift = 48;
  const absl::MutexLock lock(&table_mu_);
  const auto found = std::find(host_devices_.begin(), host_devices_.end(), host_device);
  const auto index = static_cast<uint64_t>(found - host_devices_.begin());
  if (found == host_devices_.end()) host_devices_.push_back(host_device);
  return host_inode ^ index << kDeviceShift;
}

void GoferFileSystem::Track(const std::shared_ptr<GoferInode>& inode) {
  bool too_many = false;
  {
    const absl::MutexLock lock(&held_mu_);
    held_.push_back(inode);
    too_many = held_.size() > options_.files_held_max;
  }
  if (too_many) Evict(kLooksPerFile, kLooksPerFile);
}

size_t GoferFileSystem::Evict(size_t count, size_t looks) {
  size_t evicted = 0;
  for (; looks > 0 && evicted < count; --looks) {
    std::shared_ptr<GoferInode> inode;
    {
      const absl::MutexLock lock(&held_mu_);
      if (held_.empty()) break;
      inode = held_.front().lock();
      held_.pop_front();
    }
    if (inode == nullptr) continue;
    if (inode->TryEvict()) {
      ++evicted;
      continue;
    }
    const absl::MutexLock lock(&held_mu_);
    held_.push_back(inode);
  }
  return evicted;
}

bool GoferFileSystem::MakeRoom() {
  const size_t held = files_held();
  // Twice around: the first time takes the mark of recent use away.
  const bool evicted = Evict(held / 2 + 1, 2 * held) > 0;
  const Result<void> flushed = client_->FlushForgotten();
  return evicted && flushed.ok();
}

size_t GoferFileSystem::files_held() const {
  const absl::MutexLock lock(&held_mu_);
  return held_.size();
}

void GoferFileSystem::Prefetched(std::shared_ptr<GoferDirectory> directory, uint64_t generation,
                                 std::string_view name, std::shared_ptr<GoferInode> child) {
  Prefetch oldest;  // Destroyed outside the lock.
  const absl::MutexLock lock(&prefetch_mu_);
  if (prefetched_.size() >= kPrefetchedMax) {
    oldest = std::move(prefetched_.front());
    prefetched_.pop_front();
  }
  prefetched_.push_back({std::move(directory), generation, std::string(name), std::move(child)});
}

std::optional<std::shared_ptr<GoferInode>> GoferFileSystem::TakePrefetched(
    const GoferDirectory& directory, uint64_t generation, std::string_view name) {
  Prefetch taken;  // Destroyed outside the lock.
  const absl::MutexLock lock(&prefetch_mu_);
  const auto found =
      std::find_if(prefetched_.begin(), prefetched_.end(), [&](const Prefetch& each) {
        return each.directory.get() == &directory && each.name == name;
      });
  if (found == prefetched_.end()) return std::nullopt;
  taken = std::move(*found);
  prefetched_.erase(found);
  if (taken.generation != generation) return std::nullopt;
  return taken.child;
}

bool GoferFileSystem::ReserveListed(size_t count) {
  if (listed_.fetch_add(count, std::memory_order_relaxed) + count <= kListedEntriesMax) {
    return true;
  }
  ReleaseListed(count);
  return false;
}

}  // namespace sentry
