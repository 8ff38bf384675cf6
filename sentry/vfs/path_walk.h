#pragma once

// One walk along a path (fs/namei.c's nameidata): component by component, through mounts and
// symbolic links, up to but not including the last component, which each operation treats in its
// own way.

#include <cstdint>
#include <list>
#include <string>
#include <string_view>
#include <vector>

#include "sentry/vfs/caller.h"
#include "sentry/vfs/vfs_impl.h"

namespace sentry {

class PathWalker {
 public:
  enum class LastKind : uint8_t {
    kNormal,
    kDot,
    kDotDot,
    kNone
  };  // kNone: the path was only slashes, or empty.

  // The references outlive the walker.
  PathWalker(Vfs::Impl& vfs, const Caller& caller, uint64_t resolve);

  // `path` outlives the walk. `empty_path`: an empty path means the base itself, instead of ENOENT.
  base::Result<void> Start(const Path& base, std::string_view path, bool empty_path);
  // What Finish finds will be opened for reading.
  void set_will_open(bool will_open) { will_open_ = will_open; }
  // Walks until the last component is next.
  base::Result<void> AdvanceToLast();
  // Walks on to the end: the last component must exist.
  base::Result<Path> Finish(bool follow_last, bool directory_only);

  // After AdvanceToLast:
  const Path& directory() const { return current_; }
  LastKind last_kind() const { return last_kind_; }
  std::string_view last() const { return last_; }
  // The path ended in a slash.
  bool must_be_directory() const { return must_be_directory_; }
  // Looks `name` up in directory(), with what is mounted there. Null path if there is none.
  base::Result<Path> Child(std::string_view name);
  base::Result<Path> ChildOf(const DentryRef& entry);
  // Moves to "." or ".." or the root when last_kind() says so.
  base::Result<void> TakeSpecialLast();
  // Goes where `link` points. True if that was a jump to a place (magic link): the walk is there;
  // false: walk on with AdvanceToLast.
  base::Result<bool> FollowLink(const Path& link);
  void set_current(Path path) { current_ = std::move(path); }

 private:
  // Takes what is cached of the way to the last component, if all of it is.
  void TakeQuickWay();
  // Once, when the first name is not known.
  void HintBefore(std::string_view component, std::string_view remaining);
  base::Result<void> StepInto(std::string_view component);
  base::Result<void> DotDot();
  base::Result<void> JumpToRoot();
  bool scoped() const;

  Vfs::Impl& vfs_;
  const Caller& caller_;
  const uint64_t resolve_;
  uint64_t changes_at_start_ = 0;
  const Path* root_ = nullptr;
  Path current_;
  std::string_view rest_;
  std::list<std::string>
      bodies_;  // Texts of the links on the way; rest_ and pending_ point into them.
  std::vector<std::string_view>
      pending_;  // What follows each link that is being walked, innermost last.
  int links_ = 0;
  bool hinted_ = false;
  bool began_ = false;
  bool will_open_ = false;
  LastKind last_kind_ = LastKind::kNone;
  std::string_view last_;
  bool must_be_directory_ = false;
};

}  // namespace sentry
