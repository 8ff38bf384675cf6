#include "sentry/vfs/path_walk.h"

#include <linux/openat2.h>
#include <sys/mount.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "sentry/vfs/quick_walk.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint64_t kNoSymlinkFollow = 256;  // MS_NOSYMFOLLOW

std::string_view SkipSlashes(std::string_view text) {
  const size_t start = text.find_first_not_of('/');
  return start == std::string_view::npos ? std::string_view() : text.substr(start);
}

}  // namespace

PathWalker::PathWalker(Vfs::Impl& vfs, const Caller& caller, uint64_t resolve)
    : vfs_(vfs), caller_(caller), resolve_(resolve) {}

bool PathWalker::scoped() const { return (resolve_ & (RESOLVE_BENEATH | RESOLVE_IN_ROOT)) != 0; }

Result<void> PathWalker::Start(const Path& base, std::string_view path, bool empty_path) {
  if (path.empty() && !empty_path) return Errno(ENOENT);
  if (path.size() >= kPathBytesMax) return Errno(ENAMETOOLONG);
  changes_at_start_ = vfs_.tree_changes.load(std::memory_order_acquire);
  const Path& origin = base.dentry == nullptr ? caller_.working_directory() : base;
  root_ = scoped() ? &origin : &caller_.root();
  rest_ = path;
  if (!path.empty() && path.front() == '/') {
    if ((resolve_ & RESOLVE_BENEATH) != 0) return Errno(EXDEV);
    current_ = *root_;
  } else {
    current_ = origin;
  }
  return {};
}

void PathWalker::TakeQuickWay() {
  if (resolve_ != 0) return;
  const size_t end = rest_.find_last_not_of('/');
  const size_t slash = end == std::string_view::npos ? end : rest_.rfind('/', end);
  // A single component, or only the root above it.
  if (slash == std::string_view::npos || rest_.find_first_not_of('/') > slash) return;
  const ReadSections::Section section(vfs_.cache.sections());
  QuickWalk walk(vfs_, caller_, current_);
  WalkOptions options;
  options.directory_only = true;
  if (walk.Run(rest_.substr(0, slash), options) != QuickWalk::Outcome::kFound) return;
  Path there = walk.Referenced();
  if (there.dentry == nullptr) return;
  current_ = std::move(there);
  links_ = walk.links();
  rest_.remove_prefix(slash + 1);
}

void PathWalker::HintBefore(std::string_view component, std::string_view remaining) {
  if (hinted_ || DentryCache::Find(*current_.dentry, component) != nullptr) return;
  hinted_ = true;
  current_.dentry->inode()->WillWalk(remaining, will_open_ && pending_.empty());
}

Result<void> PathWalker::AdvanceToLast() {
  if (!std::exchange(began_, true)) TakeQuickWay();
  while (true) {
    rest_ = SkipSlashes(rest_);
    if (rest_.empty()) {
      if (pending_.empty()) {
        last_kind_ = LastKind::kNone;
        last_ = {};
        return {};
      }
      rest_ = pending_.back();
      pending_.pop_back();
      continue;
    }
    if (!current_.dentry->is_directory()) return Errno(ENOTDIR);
    TRY(current_.dentry->inode()->CheckPermission(caller_.credentials(), X_OK));
    const size_t length = std::min(rest_.find('/'), rest_.size());
    const std::string_view component = rest_.substr(0, length);
    const std::string_view after = SkipSlashes(rest_.substr(length));
    if (after.empty() && pending_.empty()) {
      if (rest_.size() > length) must_be_directory_ = true;
      last_ = component;
      last_kind_ = component == "."    ? LastKind::kDot
                   : component == ".." ? LastKind::kDotDot
                                       : LastKind::kNormal;
      rest_ = {};
      return {};
    }
    HintBefore(component, rest_);
    rest_ = after;
    if (after.empty()) {
      rest_ = pending_.back();
      pending_.pop_back();
    }
    TRY(StepInto(component));
  }
}

Result<void> PathWalker::StepInto(std::string_view component) {
  if (component == ".") return {};
  if (component == "..") return DotDot();
  Path child = TRY(Child(component));
  if (child.dentry == nullptr) return Errno(ENOENT);
  if (!child.dentry->is_symlink()) {
    current_ = std::move(child);
    return {};
  }
  TRY(FollowLink(child));
  return {};
}

Result<Path> PathWalker::Child(std::string_view name) {
  if ((resolve_ & RESOLVE_CACHED) != 0 && DentryCache::Find(*current_.dentry, name) == nullptr)
    return Errno(EAGAIN);
  return ChildOf(TRY(vfs_.Lookup(current_.dentry, name, false)));
}

Result<Path> PathWalker::ChildOf(const DentryRef& entry) {
  if (entry == nullptr) return Path{};
  Path child{current_.mount, entry};
  if (entry->has_mounts()) {
    child = vfs_.mounts->Topmost(child);
    if (child.mount != current_.mount && (resolve_ & RESOLVE_NO_XDEV) != 0) return Errno(EXDEV);
  }
  return child;
}

Result<void> PathWalker::DotDot() {
  Path at = current_;
  bool in_root = at == *root_;
  while (!in_root && at.dentry == at.mount->root) {
    at = vfs_.mounts->MountpointOf(*at.mount);
    in_root = at.dentry == nullptr || at == *root_;
  }
  if (in_root) {
    if ((resolve_ & RESOLVE_BENEATH) != 0) return Errno(EXDEV);
    return {};
  }
  DentryRef parent = at.dentry->parent();
  if (parent != nullptr) at.dentry = std::move(parent);
  if (at.dentry->has_mounts()) at = vfs_.mounts->Topmost(at);
  if (at.mount != current_.mount && (resolve_ & RESOLVE_NO_XDEV) != 0) return Errno(EXDEV);
  // A directory that moved under our feet may have led out of the scope.
  if (scoped() && vfs_.tree_changes.load(std::memory_order_acquire) != changes_at_start_)
    return Errno(EAGAIN);
  current_ = std::move(at);
  return {};
}

Result<void> PathWalker::JumpToRoot() {
  if ((resolve_ & RESOLVE_BENEATH) != 0) return Errno(EXDEV);
  if ((resolve_ & RESOLVE_NO_XDEV) != 0 && current_.mount != root_->mount) return Errno(EXDEV);
  current_ = *root_;
  return {};
}

Result<bool> PathWalker::FollowLink(const Path& link) {
  if (++links_ > kSymlinksMax) return Errno(ELOOP);
  if ((resolve_ & RESOLVE_NO_SYMLINKS) != 0) return Errno(ELOOP);
  if ((link.mount->flags.load(std::memory_order_relaxed) & kNoSymlinkFollow) != 0)
    return Errno(ELOOP);
  Inode& inode = *link.dentry->inode();
  std::string body;
  if (caller_.task() != nullptr) {
    Path target = TRY(inode.FollowMagic(*caller_.task()));
    if (target.dentry != nullptr) {
      if ((resolve_ & RESOLVE_NO_MAGICLINKS) != 0) return Errno(ELOOP);
      if ((resolve_ & RESOLVE_NO_XDEV) != 0 && target.mount != current_.mount) return Errno(EXDEV);
      if (scoped()) return Errno(EXDEV);
      current_ = std::move(target);
      return true;
    }
    body = TRY(inode.ReadLinkFor(*caller_.task()));
  } else {
    body = TRY(inode.ReadLink());
  }
  if (body.empty()) return Errno(ENOENT);
  if (body.front() == '/') TRY(JumpToRoot());
  if (!rest_.empty()) pending_.push_back(rest_);
  bodies_.push_back(std::move(body));
  rest_ = bodies_.back();
  return false;
}

Result<void> PathWalker::TakeSpecialLast() {
  if (last_kind_ == LastKind::kDotDot) return DotDot();
  return {};
}

Result<Path> PathWalker::Finish(bool follow_last, bool directory_only) {
  TRY(AdvanceToLast());
  while (true) {
    if (last_kind_ != LastKind::kNormal) {
      TRY(TakeSpecialLast());
      break;
    }
    if (will_open_ && current_.dentry->is_directory()) HintBefore(last_, last_);
    Path child = TRY(Child(last_));
    if (child.dentry == nullptr) return Errno(ENOENT);
    if (child.dentry->is_symlink() && (follow_last || must_be_directory_)) {
      if (TRY(FollowLink(child))) break;
      TRY(AdvanceToLast());
      continue;
    }
    current_ = std::move(child);
    break;
  }
  if ((directory_only || must_be_directory_) && !current_.dentry->is_directory())
    return Errno(ENOTDIR);
  return current_;
}

}  // namespace sentry
