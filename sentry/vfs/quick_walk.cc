#include "sentry/vfs/quick_walk.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

namespace sentry {

namespace {

constexpr uint64_t kNoSymlinkFollow = 256;  // MS_NOSYMFOLLOW

}  // namespace

void QuickWalk::GoTo(const Path& place) {
  mount_ = place.mount.get();
  dentry_ = place.dentry.get();
}

QuickWalk::Outcome QuickWalk::Run(std::string_view path, const WalkOptions& options) {
  if (path.empty() || path.size() >= kPathBytesMax || options.resolve != 0) return Outcome::kUnsure;
  const uint64_t renames = vfs_.cache.renames_finished();
  rest_ = path;
  GoTo(path.front() == '/' ? root_ : origin_);
  if (dentry_ == nullptr) return Outcome::kUnsure;
  Outcome outcome = Outcome::kFound;
  bool directory_only = options.directory_only;
  while (outcome == Outcome::kFound && !rest_.empty()) {
    rest_.remove_prefix(std::min(rest_.find_first_not_of('/'), rest_.size()));
    if (rest_.empty()) {
      directory_only = true;
      break;
    }
    if (!dentry_->is_directory() || !dentry_->inode()->CheckPermission(credentials_, X_OK).ok()) {
      return Outcome::kUnsure;
    }
    const std::string_view name = rest_.substr(0, rest_.find('/'));
    rest_.remove_prefix(name.size());
    if (name == ".") {
      continue;
    } else if (name == "..") {
      if (!StepUp()) return Outcome::kUnsure;
    } else {
      outcome = Step(name, rest_.empty(), options);
    }
  }
  if (outcome == Outcome::kUnsure || vfs_.cache.renames_begun() != renames) return Outcome::kUnsure;
  if (outcome == Outcome::kMissing) return outcome;
  if (directory_only && !dentry_->is_directory()) return Outcome::kUnsure;
  return outcome;
}

QuickWalk::Outcome QuickWalk::Step(std::string_view name, bool last, const WalkOptions& options) {
  Dentry* child = vfs_.cache.index().Find(*dentry_, name);
  if (child == nullptr) return Outcome::kUnsure;
  child->MarkUsed();
  if (child->is_negative()) return Outcome::kMissing;
  if (child->has_mounts()) {
    Path top = vfs_.mounts->TopmostOf(*mount_, *child);
    if (top.dentry != nullptr) {
      GoTo(top);
      mount_hold_ = std::move(top.mount);
      dentry_hold_ = std::move(top.dentry);
      return Outcome::kFound;
    }
  }
  if (child->is_symlink() && (!last || options.follow_last))
    return FollowLink(*child->inode()) ? Outcome::kFound : Outcome::kUnsure;
  dentry_ = child;
  return Outcome::kFound;
}

bool QuickWalk::StepUp() {
  if (dentry_ == root_.dentry.get() && mount_ == root_.mount.get()) return true;
  Dentry* parent = dentry_->parent_unreferenced();
  if (dentry_ == mount_->root.get() || parent == nullptr || parent->has_mounts()) return false;
  dentry_ = parent;
  return true;
}

bool QuickWalk::FollowLink(const Inode& link) {
  const std::string* target = link.KnownTarget();
  if (target == nullptr || target->empty() || ++links_ > kSymlinksMax) return false;
  if ((mount_->flags.load(std::memory_order_relaxed) & kNoSymlinkFollow) != 0) return false;
  if (target->size() + rest_.size() >= kPathBytesMax) return false;
  if (target->front() == '/') GoTo(root_);
  if (rest_.empty()) {
    rest_ = *target;
    return true;
  }
  // `rest_`, which begins with a slash, may point into the other one.
  std::string& text = texts_[links_ % 2];
  text.assign(*target);
  text.append(rest_);
  rest_ = text;
  return true;
}

Path QuickWalk::Referenced() const {
  DentryRef entry = dentry_->weak_from_this().lock();
  if (entry == nullptr) return {};
  // The root of a tree is in no table.
  if (!entry->is_indexed() && !is_mount_root()) return {};
  return {std::const_pointer_cast<Mount>(mount_->shared_from_this()), std::move(entry)};
}

}  // namespace sentry
