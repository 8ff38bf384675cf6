#pragma once

#include <sys/stat.h>

#include <cstdint>
#include <optional>

namespace sentry {

struct Timestamp {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  friend auto operator<=>(const Timestamp&, const Timestamp&) = default;
};

// What stat(2) and statx(2) tell of an inode.
struct Attributes {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint32_t mode = 0;  // Type and permission bits.
  uint32_t nlink = 1;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint32_t block_size = 4096;
  uint64_t blocks = 0;  // Of 512 bytes.
  Timestamp atime, mtime, ctime, btime;

  bool IsDirectory() const { return S_ISDIR(mode); }
  bool IsRegular() const { return S_ISREG(mode); }
  bool IsSymlink() const { return S_ISLNK(mode); }
};

// Changes to make, each only if set. The caller has checked permission.
struct AttributeChanges {
  std::optional<uint32_t> mode;  // Permission bits only.
  std::optional<uint32_t> uid;
  std::optional<uint32_t> gid;
  std::optional<uint64_t> size;
  std::optional<Timestamp> atime;
  std::optional<Timestamp> mtime;
  bool times_are_now = false;  // utimensat(2) without times of its own: write permission is enough.
};

struct FileSystemStatus {
  uint64_t type = 0;  // Magic number.
  uint64_t block_size = 4096;
  uint64_t blocks = 0, blocks_free = 0, blocks_available = 0;
  uint64_t files = 0, files_free = 0;
  uint64_t id = 0;
  uint64_t name_bytes_max = 255;
  uint64_t flags = 0;
};

}  // namespace sentry
