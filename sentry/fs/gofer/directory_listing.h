#pragma once

// The names in a directory, read as a whole, with cookies of our own: they stay good while names
// come and go, which the host's cookies do not promise.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "absl/base/thread_annotations.h"
#include "absl/container/btree_map.h"
#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "gofer/protocol/messages.h"
#include "sentry/vfs/directory_position.h"
#include "sentry/vfs/file.h"

namespace sentry {

// Thread-safe.
class DirectoryListing {
 public:
  static constexpr uint64_t kFirstCookie = kFirstEntryPosition;

  // Replaces an entry of that name. `attributes`: as the host reported them with the name.
  void Insert(std::string_view name, uint64_t inode, uint8_t type,
              std::optional<gofer::Attributes> attributes) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(std::string_view name) ABSL_LOCKS_EXCLUDED(mu_);
  bool Contains(std::string_view name) const ABSL_LOCKS_EXCLUDED(mu_);
  // The attributes that came with the name, once: whoever takes them makes an inode, which knows
  // better from then on.
  std::optional<gofer::Attributes> TakeAttributes(std::string_view name) ABSL_LOCKS_EXCLUDED(mu_);
  void DropAttributes() ABSL_LOCKS_EXCLUDED(mu_);
  // From *offset (>= kFirstCookie) on; sets *offset to continue.
  void Read(uint64_t* offset, const DirectorySink& sink) const ABSL_LOCKS_EXCLUDED(mu_);
  size_t size() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    std::string name;
    uint64_t inode = 0;
    uint8_t type = 0;
    std::unique_ptr<gofer::Attributes> attributes;
  };

  mutable absl::Mutex mu_;
  absl::btree_map<uint64_t, std::unique_ptr<Entry>> by_cookie_ ABSL_GUARDED_BY(mu_);
  // Keys point into the entries.
  absl::flat_hash_map<std::string_view, uint64_t> by_name_ ABSL_GUARDED_BY(mu_);
  uint64_t next_cookie_ ABSL_GUARDED_BY(mu_) = kFirstCookie;
};

}  // namespace sentry
