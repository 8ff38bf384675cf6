#pragma once

// The walk that most calls need: along names that are cached, without a lock or a reference per
// step (read_sections.h). It decides only what it is sure of, which is where a path leads, or that
// a name is not there; everything else, errors of all kinds among it, is for the PathWalker.

#include <string>
#include <string_view>

#include "sentry/vfs/caller.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

class QuickWalk {
 public:
  enum class Outcome {
    kFound,
    kMissing,  // The name itself, or one on the way: ENOENT.
    kUnsure,
  };

  // Within a read section of the cache, which outlives it; so do the references.
  QuickWalk(Vfs::Impl& vfs, const Caller& caller, const Path& origin)
      : vfs_(vfs), credentials_(caller.credentials()), root_(caller.root()), origin_(origin) {}
  QuickWalk(const QuickWalk&) = delete;
  QuickWalk& operator=(const QuickWalk&) = delete;

  // As Vfs::Walk. `resolve` and empty paths are for the PathWalker.
  Outcome Run(std::string_view path, const WalkOptions& options);

  // After kFound. Good as long as this object and the section.
  const Mount& mount() const { return *mount_; }
  Dentry& dentry() const { return *dentry_; }
  int links() const { return links_; }  // Followed on the way.
  bool is_mount_root() const { return dentry_ == mount_->root.get(); }
  // With references. Null if it has been dropped from the cache meanwhile: not sure, then.
  Path Referenced() const;

 private:
  Outcome Step(std::string_view name, bool last, const WalkOptions& options);
  bool StepUp();
  bool FollowLink(const Inode& link);
  void GoTo(const Path& place);

  Vfs::Impl& vfs_;
  const Credentials& credentials_;
  const Path& root_;
  const Path& origin_;
  const Mount* mount_ = nullptr;
  Dentry* dentry_ = nullptr;
  std::string_view rest_;
  int links_ = 0;
  // What holds the mount, and the dentry where it was not found in the index.
  MountRef mount_hold_;
  DentryRef dentry_hold_;
  // The path that a symbolic link has made of the rest, and the one before.
  std::string texts_[2];
};

}  // namespace sentry
