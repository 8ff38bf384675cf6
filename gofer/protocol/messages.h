#pragma once

// What a sentry and its gofer say to each other, as plain structures. wire.h turns them into bytes
// and back; README.md one directory up says what each operation does.
//
// Views in a Request or Response that came from the wire point into the buffer they were decoded
// from. Decoding bounds every list and string by the constants here; whether an id or a name makes
// sense is for the receiver to decide.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace gofer {

// A handle on a file in the gofer, numbered by the client.
using Fid = uint32_t;
// In a request: "do not keep a handle on this one".
inline constexpr Fid kNoFid = 0;

inline constexpr size_t kNameBytesMax = 255;   // NAME_MAX
inline constexpr size_t kLinkBytesMax = 4095;  // PATH_MAX - 1
inline constexpr size_t kAttachNameBytesMax = 4095;
inline constexpr size_t kWalkStepsMax = 32;
inline constexpr size_t kClunkFidsMax = 512;
inline constexpr size_t kDirEntriesMax = 1024;
inline constexpr size_t kXattrNameBytesMax = 255;     // XATTR_NAME_MAX
inline constexpr size_t kXattrValueBytesMax = 65536;  // XATTR_SIZE_MAX, XATTR_LIST_MAX

struct Timestamp {
  int64_t seconds = 0;
  uint32_t nanoseconds = 0;
  friend bool operator==(const Timestamp&, const Timestamp&) = default;
};

// stat(2) and the birth time (zero where the host's file system has none).
struct Attributes {
  uint64_t dev = 0;
  uint64_t ino = 0;
  uint64_t rdev = 0;
  uint64_t size = 0;
  uint64_t blocks = 0;
  uint32_t mode = 0;
  uint32_t nlink = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint32_t blksize = 0;
  Timestamp atime{}, mtime{}, ctime{}, btime{};
  friend bool operator==(const Attributes&, const Attributes&) = default;
};

// Bits of SetAttrRequest::mask.
inline constexpr uint32_t kSetMode = 1 << 0;
inline constexpr uint32_t kSetUid = 1 << 1;
inline constexpr uint32_t kSetGid = 1 << 2;
inline constexpr uint32_t kSetSize = 1 << 3;
inline constexpr uint32_t kSetAtime = 1 << 4;
inline constexpr uint32_t kSetMtime = 1 << 5;
inline constexpr uint32_t kSetAtimeNow = 1 << 6;
inline constexpr uint32_t kSetMtimeNow = 1 << 7;
inline constexpr uint32_t kSetAll = (1 << 8) - 1;

struct AttachRequest {
  std::string_view name;
  Fid fid = kNoFid;
};
struct WalkStep {
  std::string_view name;
  Fid fid = kNoFid;
};
// Follows `steps` from `from` until one is missing, is an error, or is a symbolic link with more to
// come. With `open_last`, a regular file at the end is also opened and donated.
struct WalkRequest {
  Fid from = kNoFid;
  std::vector<WalkStep> steps;
  bool open_last = false;
  uint32_t open_flags = 0;
};
struct GetAttrRequest {
  Fid fid = kNoFid;
};
struct SetAttrRequest {
  Fid fid = kNoFid;
  uint32_t mask = 0;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  uint64_t size = 0;
  Timestamp atime{}, mtime{};
};
struct OpenRequest {
  Fid fid = kNoFid;
  uint32_t flags = 0;
};
// mkdir, mknod, symlink or an exclusive create, by the type bits of `mode`. `open` (regular files
// only) opens the new file with `open_flags` and donates it.
struct MakeRequest {
  Fid dir = kNoFid;
  std::string_view name;
  Fid fid = kNoFid;
  uint32_t mode = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  std::string_view target;
  bool open = false;
  uint32_t open_flags = 0;
};
struct LinkRequest {
  Fid fid = kNoFid;
  Fid dir = kNoFid;
  std::string_view name;
};
struct UnlinkRequest {
  Fid dir = kNoFid;
  std::string_view name;
  uint32_t flags = 0;  // AT_REMOVEDIR
};
struct RenameRequest {
  Fid old_dir = kNoFid;
  std::string_view old_name;
  Fid new_dir = kNoFid;
  std::string_view new_name;
  uint32_t flags = 0;  // RENAME_NOREPLACE or RENAME_EXCHANGE
};
struct ReadLinkRequest {
  Fid fid = kNoFid;
};
// With a `path`, the directory is at these names below `fid`, and is read from its start. Then
// `new_fid` gets bound to it, unless the answer holds all of it: most directories are read in one
// message and not heard of again.
struct ReadDirRequest {
  Fid fid = kNoFid;
  uint64_t cookie = 0;  // 0, or that of the last entry seen.
  uint32_t entries_max = 0;
  bool with_attributes = false;
  std::vector<std::string_view> path{};
  Fid new_fid = kNoFid;
};
struct StatFsRequest {
  Fid fid = kNoFid;
};
enum class XattrAction : uint8_t { kGet, kSet, kList, kRemove };
struct XattrRequest {
  Fid fid = kNoFid;
  XattrAction action = XattrAction::kGet;
  std::string_view name;
  std::string_view value;
  uint32_t flags = 0;  // XATTR_CREATE, XATTR_REPLACE
};
// What an fsync is to bring to the disk: fsync(2), fdatasync(2), syncfs(2).
enum class SyncScope : uint8_t { kFile, kData, kFileSystem };
struct FsyncRequest {
  Fid fid = kNoFid;
  SyncScope scope = SyncScope::kFile;
};
struct ConnectRequest {
  Fid fid = kNoFid;
  uint32_t type = 0;  // SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET
};
struct ClunkRequest {
  std::vector<Fid> fids;
};

using RequestBody = std::variant<AttachRequest, WalkRequest, GetAttrRequest, SetAttrRequest,
                                 OpenRequest, MakeRequest, LinkRequest, UnlinkRequest,
                                 RenameRequest, ReadLinkRequest, ReadDirRequest, StatFsRequest,
                                 XattrRequest, FsyncRequest, ConnectRequest, ClunkRequest>;

struct Request {
  uint32_t id = 0;
  RequestBody body;
};

// The fids of the first steps.size() steps of the request are now bound; the others are not.
struct WalkReply {
  std::vector<Attributes> steps;
  // Why there are fewer steps than asked for: ELOOP if the last is a symbolic link, else the error
  // of the first that is not there. 0 if all are there.
  int32_t stop_error = 0;
  // With open_last, all steps there, and nothing donated: why.
  int32_t open_error = 0;
  // Where the last of `steps` points if it is a symbolic link.
  std::string link_target;
};

// What make, link, unlink and rename leave behind, so that the client need not ask: the object that
// was made or linked, the directory that was changed, and a rename's other directory. Mode 0 is
// "none".
struct ChangeReply {
  Attributes object;
  Attributes dir;
  Attributes new_dir;
};

struct DirEntry {
  uint64_t ino = 0;
  uint64_t cookie = 0;
  uint8_t type = 0;  // DT_*
  std::string name;
  // With attributes only, and then absent (mode 0) for an entry that has gone meanwhile.
  Attributes attributes;
};
struct DirReply {
  std::vector<DirEntry> entries;  // Without "." and "..".
  bool end = false;
  // Of the directory, if it was given by a path. If this is not the end, it is bound now.
  Attributes attributes{};
};

struct StatFsReply {
  uint64_t type = 0;
  uint64_t block_size = 0;
  uint64_t blocks = 0;
  uint64_t blocks_free = 0;
  uint64_t blocks_available = 0;
  uint64_t files = 0;
  uint64_t files_free = 0;
  uint64_t name_bytes_max = 0;
  uint64_t fragment_size = 0;
  uint64_t flags = 0;
  uint64_t fsid = 0;
};

using ResponseBody = std::variant<std::monostate, Attributes, WalkReply, DirReply, StatFsReply,
                                  std::string, ChangeReply>;

struct Response {
  uint32_t id = 0;
  int32_t error = 0;     // An errno; then body is empty.
  bool donated = false;  // A descriptor tagged with the id is in the socket.
  ResponseBody body;
};

// True for what may stand for one step below a directory: not empty, at most kNameBytesMax, no
// slash, no NUL, neither "." nor "..".
inline bool IsComponent(std::string_view name) {
  if (name.empty() || name.size() > kNameBytesMax || name == "." || name == "..") return false;
  return name.find('/') == std::string_view::npos && name.find('\0') == std::string_view::npos;
}

}  // namespace gofer
