#pragma once

#include <memory>

namespace sentry {

class Mount;
class Dentry;

// A place in the tree: a dentry seen through a mount. Null dentry: nowhere.
struct Path {
  std::shared_ptr<Mount> mount;
  std::shared_ptr<Dentry> dentry;
  explicit operator bool() const { return dentry != nullptr; }
  friend bool operator==(const Path&, const Path&) = default;
};

}  // namespace sentry
