#include "sentry/fs/overlay/overlay.h"

#include <utility>
#include <vector>

#include "sentry/fs/overlay/overlay_inode.h"

namespace sentry {

using base::Result;

namespace {

constexpr uint64_t kOverlayMagic = 0x794c7630;

std::shared_ptr<OverlayInode> MakeInode(Overlay& overlay, const InodeRef& lower, uint64_t number) {
  switch (lower->type()) {
    case S_IFDIR:
      return std::make_shared<OverlayDirectory>(overlay, number, lower, nullptr);
    case S_IFREG:
      return std::make_shared<OverlayRegular>(overlay, number, lower, nullptr);
    default:
      return std::make_shared<OverlayInode>(overlay, lower->type(), number, lower, nullptr);
  }
}

}  // namespace

Overlay::Overlay(FileSystemRef lower, std::shared_ptr<Tmpfs> upper)
    : lower_(std::move(lower)), upper_(std::move(upper)), device_(AllocateDevice()) {}

Result<std::shared_ptr<Overlay>> Overlay::Create(FileSystemRef lower,
                                                 std::shared_ptr<Tmpfs> upper) {
  const InodeRef lower_root = lower->root();
  auto overlay = std::make_shared<Overlay>(std::move(lower), std::move(upper));
  overlay->root_ = TRY(overlay->Wrap(lower_root));
  return overlay;
}

Overlay::~Overlay() {
  // Trees may be deeper than a stack: level by level.
  std::vector<std::shared_ptr<OverlayInode>> pending;
  pending.push_back(std::move(root_));
  {
    const absl::MutexLock lock(&mu_);
    for (auto& [lower, inode] : pinned_) pending.push_back(std::move(inode));
    pinned_.clear();
  }
  while (!pending.empty()) {
    const std::shared_ptr<OverlayInode> inode = std::move(pending.back());
    pending.pop_back();
    if (inode != nullptr && inode->type() == S_IFDIR)
      static_cast<OverlayDirectory&>(*inode).TakeDirectories(&pending);
  }
}

InodeRef Overlay::root() { return root_; }

Result<FileSystemStatus> Overlay::Status() {
  FileSystemStatus status = TRY(upper_->Status());
  status.type = kOverlayMagic;
  status.id = device_;
  return status;
}

Result<std::shared_ptr<OverlayInode>> Overlay::Wrap(const InodeRef& lower) {
  {
    const absl::MutexLock lock(&mu_);
    const auto found = by_lower_.find(lower.get());
    if (found != by_lower_.end()) {
      if (std::shared_ptr<OverlayInode> inode = found->second.lock()) return inode;
    }
  }
  const Attributes attributes = TRY(lower->GetAttributes());
  std::shared_ptr<OverlayInode> made = MakeInode(*this, lower, attributes.inode);
  const absl::MutexLock lock(&mu_);
  std::weak_ptr<OverlayInode>& place = by_lower_[lower.get()];
  // `made` outlives the lock, which its destructor takes, if somebody was faster.
  if (std::shared_ptr<OverlayInode> inode = place.lock()) return inode;
  place = made;
  return made;
}

void Overlay::Pin(const std::shared_ptr<OverlayInode>& inode) {
  const absl::MutexLock lock(&mu_);
  pinned_.try_emplace(inode->lower().get(), inode);
}

void Overlay::Unpin(const OverlayInode& inode) {
  std::shared_ptr<OverlayInode> unpinned;  // Destroyed after the lock.
  const absl::MutexLock lock(&mu_);
  const auto found = pinned_.find(inode.lower().get());
  if (found == pinned_.end()) return;
  unpinned = std::move(found->second);
  pinned_.erase(found);
}

void Overlay::Forget(const Inode* lower) {
  const absl::MutexLock lock(&mu_);
  const auto found = by_lower_.find(lower);
  if (found != by_lower_.end() && found->second.expired()) by_lower_.erase(found);
}

}  // namespace sentry
