#pragma once

// File handles (name_to_handle_at(2)): names of files that outlive descriptors and renames. Linux
// lets the file system find a file by its number; here the sandbox remembers those that somebody
// asked a handle for, the most recent ones.

#include <array>
#include <cstdint>
#include <list>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/time/clock.h"
#include "sentry/vfs/path.h"

namespace sentry {

struct FileHandle {
  uint64_t number = 0;
  uint64_t check = 0;  // Not to be guessed: a handle opens without looking at directories.
  friend bool operator==(const FileHandle&, const FileHandle&) = default;
};

// One per kernel. Thread-safe.
class FileHandles {
 public:
  static constexpr size_t kRememberedMax = 4096;

  explicit FileHandles(Random& random) : random_(random) {}
  // Errors are those of reading its attributes.
  base::Result<FileHandle> HandleOf(const Path& path) ABSL_LOCKS_EXCLUDED(mu_);
  // ESTALE: never heard of, forgotten, or gone.
  base::Result<Path> Find(const FileHandle& handle) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Identity = std::pair<uint64_t, uint64_t>;  // Device and inode.
  struct Entry {
    Identity identity;
    FileHandle handle;
    Path path;
  };
  Random& random_;
  absl::Mutex mu_;
  uint64_t next_ ABSL_GUARDED_BY(mu_) = 1;
  std::list<Entry> entries_ ABSL_GUARDED_BY(mu_);  // The latest first.
  absl::flat_hash_map<Identity, std::list<Entry>::iterator> by_identity_ ABSL_GUARDED_BY(mu_);
  absl::flat_hash_map<uint64_t, std::list<Entry>::iterator> by_number_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
