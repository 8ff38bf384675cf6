// Attributes, extended attributes and copy-up of an inode.

#include "sentry/fs/overlay/overlay_inode.h"

#include <utility>

namespace sentry {

using base::Errno;
using base::Result;

OverlayInode::OverlayInode(Overlay& file_system, uint32_t type, uint64_t number, InodeRef lower,
                           std::shared_ptr<TmpfsInode> upper)
    : Inode(file_system),
      overlay_(file_system),
      type_(type),
      number_(number),
      lower_(std::move(lower)),
      owned_upper_(std::move(upper)),
      upper_(owned_upper_.get()),
      xattrs_copied_(lower_ == nullptr) {}

OverlayInode::~OverlayInode() {
  if (lower_ != nullptr) overlay_.Forget(lower_.get());
}

Result<Attributes> OverlayInode::GetAttributes() {
  TmpfsInode* upper = upper_.load(std::memory_order_acquire);
  Attributes attributes;
  if (upper == nullptr) {
    attributes = TRY(lower_->GetAttributes());
  } else {
    // Asked before the lower one: content that is copied meanwhile has the same size.
    const bool content_is_lower = ContentIsLower();
    attributes = TRY(upper->GetAttributes());
    if (content_is_lower) {
      const Attributes lower = TRY(lower_->GetAttributes());
      attributes.size = lower.size;
      attributes.blocks = lower.blocks;
      attributes.rdev = lower.rdev;
      attributes.btime = lower.btime;
    }
  }
  attributes.device = overlay_.device();
  attributes.inode = number_;
  return attributes;
}

std::shared_ptr<TmpfsInode> OverlayInode::MakeUpper(const CreateContext& context, uint64_t rdev) {
  return std::make_shared<TmpfsNode>(overlay_.upper(), type_, context, rdev);
}

Result<void> OverlayInode::CopyUpLocked() {
  if (is_copied_up()) return {};
  const Attributes attributes = TRY(lower_->GetAttributes());
  if (!overlay_.upper().inodes().Take(1)) return Errno(ENOSPC);
  std::shared_ptr<TmpfsInode> upper =
      MakeUpper({attributes.mode, attributes.uid, attributes.gid}, attributes.rdev);
  upper->CopyAttributes(attributes);
  owned_upper_ = std::move(upper);
  upper_.store(owned_upper_.get(), std::memory_order_release);
  overlay_.Pin(self());
  return {};
}

Result<void> OverlayInode::CopyUp() {
  if (is_copied_up()) return {};
  const absl::MutexLock lock(&copy_mu_);
  return CopyUpLocked();
}

Result<void> OverlayInode::SetAttributes(const AttributeChanges& changes) {
  TRY(CopyUp());
  return upper().SetAttributes(changes);
}

void OverlayInode::DropName() {
  upper().DropLink();
  if (lower_ == nullptr) return;
  const Result<Attributes> left = upper().GetAttributes();
  if (left.ok() && left.value().nlink == 0) overlay_.Unpin(*this);
}

Result<std::string> OverlayInode::ReadLink() {
  if (lower_ != nullptr) return lower_->ReadLink();
  return upper().ReadLink();
}

const std::string* OverlayInode::KnownTarget() const {
  return lower_ != nullptr ? lower_->KnownTarget() : upper().KnownTarget();
}

Result<std::string> OverlayInode::GetXattr(std::string_view name) {
  return XattrsAreUpper() ? upper().GetXattr(name) : lower_->GetXattr(name);
}

Result<std::vector<std::string>> OverlayInode::ListXattr() {
  return XattrsAreUpper() ? upper().ListXattr() : lower_->ListXattr();
}

Result<void> OverlayInode::CopyUpXattrs() {
  if (XattrsAreUpper()) return {};
  const absl::MutexLock lock(&copy_mu_);
  if (XattrsAreUpper()) return {};
  TRY(CopyUpLocked());
  const Attributes before = TRY(upper().GetAttributes());
  Result<std::vector<std::string>> names = lower_->ListXattr();
  if (!names.ok() && names.error() != EOPNOTSUPP) return names.error();
  if (names.ok()) {
    for (const std::string& name : names.value()) {
      const Result<std::string> value = lower_->GetXattr(name);
      // What only the host can keep (system.*), or keeps from us, stays behind.
      if (!value.ok()) continue;
      const Result<void> set = upper().SetXattr(name, std::as_bytes(std::span(value.value())), 0);
      if (!set.ok() && set.error() != EOPNOTSUPP) return set.error();
    }
  }
  upper().CopyAttributes(before);
  xattrs_copied_.store(true, std::memory_order_release);
  return {};
}

Result<void> OverlayInode::SetXattr(std::string_view name, std::span<const std::byte> value,
                                    int flags) {
  TRY(CopyUpXattrs());
  return upper().SetXattr(name, value, flags);
}

Result<void> OverlayInode::RemoveXattr(std::string_view name) {
  TRY(CopyUpXattrs());
  return upper().RemoveXattr(name);
}

}  // namespace sentry
