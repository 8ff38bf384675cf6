// Reading directories. The host's position cookies go to the client as they are. While the client
// reads on where it stopped, the directory stays open here, with what the host has delivered and a
// message had no room for; the end of the directory closes it.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

#include "gofer/protocol/channel.h"
#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace gofer {

using base::Errno;
using base::Result;

namespace {

// What an entry takes in a message at most, without its name, see DirEntry in gofer.capnp: three
// words and two pointers, the name's padding, and the attributes' fourteen words.
constexpr size_t kEntryBytes = 5 * 8 + 8;
constexpr size_t kAttributesBytes = 14 * 8;
// The message around the entries, with the directory's own attributes.
constexpr size_t kReplyBytes = 256 + kAttributesBytes;

// One getdents64 fills it; an entry takes at least 24 bytes of it.
constexpr size_t kBatchBytes = 32 * 1024;

}  // namespace

// An open directory and the host's last batch of entries.
class Session::DirectoryReader {
 public:
  explicit DirectoryReader(base::Fd fd) : fd_(std::move(fd)) {}

  int fd() const { return fd_.get(); }
  // Of the last entry taken.
  uint64_t cookie() const { return cookie_; }

  Result<void> Seek(uint64_t cookie) {
    if (lseek(fd_.get(), static_cast<off_t>(cookie), SEEK_SET) < 0) return base::LastErrno();
    cookie_ = cookie;
    at_ = size_ = 0;
    return {};
  }
  // Nothing has been read yet.
  bool is_new() const { return is_new_; }
  // The next entry, or null at the end.
  Result<const dirent64*> Peek() {
    is_new_ = false;
    if (at_ == size_) {
      const ssize_t got = getdents64(fd_.get(), batch_.data(), batch_.size());
      if (got < 0) return base::LastErrno();
      at_ = 0;
      size_ = static_cast<size_t>(got);
      if (size_ == 0) return static_cast<const dirent64*>(nullptr);
    }
    return reinterpret_cast<const dirent64*>(batch_.data() + at_);
  }
  // Precondition: Peek returned an entry.
  void Take() {
    const auto* entry = reinterpret_cast<const dirent64*>(batch_.data() + at_);
    cookie_ = static_cast<uint64_t>(entry->d_off);
    at_ += entry->d_reclen;
  }

 private:
  base::Fd fd_;
  bool is_new_ = true;
  uint64_t cookie_ = 0;
  size_t at_ = 0;
  size_t size_ = 0;
  alignas(dirent64) std::array<char, kBatchBytes> batch_;
};

Session::Node::Node() = default;
Session::Node::~Node() = default;

void Session::CloseDirectory(Node& node) {
  if (node.reader == nullptr) return;
  node.reader.reset();
  --directories_open_;
}

Result<void> Session::OpenDirectory(Node& node, uint64_t cookie) {
  if (node.reader == nullptr) {
    if (descriptors_used() >= options_.descriptors_max) return Errno(ENFILE);
    node.reader = std::make_unique<DirectoryReader>(TRY(host::OpenDirectory(node.path_fd.get())));
    ++directories_open_;
  }
  // To the start even if it is there: that is what makes new entries visible to rewinddir(3).
  if (node.reader->cookie() == cookie && (cookie != 0 || node.reader->is_new())) return {};
  return node.reader->Seek(cookie);
}

// The quick way is one open for the whole path. Where a mount is on it, each step is looked at.
Result<Session::Node*> Session::BindBelow(const ReadDirRequest& request, DirReply& reply) {
  if (request.new_fid == kNoFid || request.cookie != 0) {
    return Breach("a listing by path that contradicts itself");
  }
  const Node* above = TRY(FindDirectory(request.fid));
  TRY(CheckNewFid(request.new_fid));
  std::string path;
  for (const std::string_view name : request.path) {
    TRY(CheckName(name));
    if (!path.empty()) path += '/';
    path += name;
  }
  if (above->is_closed) return Errno(ENOENT);
  Result<base::Fd> quick = host::OpenDirectoryBelow(above->path_fd.get(), path);
  if (quick.ok()) {
    reply.attributes = TRY(host::Stat(quick.value().get()));
    Node& node = Bind(request.new_fid, {}, reply.attributes, above->point, false);
    node.reader = std::make_unique<DirectoryReader>(std::move(quick).value());
    ++directories_open_;
    return &node;
  }
  if (quick.error() != EXDEV) return quick.error();
  base::Fd fd;
  int at = above->path_fd.get();
  uint64_t device = above->device;
  bool is_closed = false;
  for (const std::string_view name : request.path) {
    if (is_closed) return Errno(ENOENT);
    base::Fd next = TRY(host::OpenPath(at, name));
    reply.attributes = TRY(host::Stat(next.get()));
    if (!S_ISDIR(reply.attributes.mode)) return Errno(ENOTDIR);
    is_closed = IsClosed(next.get(), reply.attributes, device);
    device = reply.attributes.dev;
    fd = std::move(next);
    at = fd.get();
  }
  return &Bind(request.new_fid, std::move(fd), reply.attributes, above->point, is_closed);
}

Session::Body Session::Do(const ReadDirRequest& request, Outcome&) {
  DirReply reply;
  if (request.path.empty()) {
    return List(*TRY(FindDirectory(request.fid)), request, std::move(reply));
  }
  Node* node = TRY(BindBelow(request, reply));
  Body body = List(*node, request, std::move(reply));
  const auto forget = [&] {
    CloseDirectory(*node);
    nodes_.erase(request.new_fid);
  };
  if (!body.ok() || std::get<DirReply>(body.value()).end) {
    forget();
  } else if (!node->path_fd.valid()) {
    // It stays: as what every other fid is.
    Result<base::Fd> path_fd =
        host::Reopen(options_.proc_self_fd.get(), node->reader->fd(), O_PATH);
    if (!path_fd.ok()) {
      forget();
      return path_fd.error();
    }
    node->path_fd = std::move(path_fd).value();
  }
  return body;
}

Session::Body Session::List(Node& node, const ReadDirRequest& request, DirReply reply) {
  if (node.is_closed) {
    reply.end = true;
    return ResponseBody(std::move(reply));
  }
  TRY(OpenDirectory(node, request.cookie));
  size_t bytes = kReplyBytes;
  const size_t entry_bytes = kEntryBytes + (request.with_attributes ? kAttributesBytes : 0);
  while (true) {
    const dirent64* entry = TRY(node.reader->Peek());
    if (entry == nullptr) {
      reply.end = true;
      CloseDirectory(node);
      break;
    }
    const std::string_view name = entry->d_name;
    if (!IsComponent(name)) {  // "." and "..".
      node.reader->Take();
      continue;
    }
    if (reply.entries.size() >= request.entries_max ||
        bytes + entry_bytes + name.size() > kMessageBytesMax) {
      break;
    }
    bytes += entry_bytes + name.size();
    DirEntry& out = reply.entries.emplace_back();
    out.ino = entry->d_ino;
    out.cookie = static_cast<uint64_t>(entry->d_off);
    out.type = entry->d_type;
    out.name = name;
    if (request.with_attributes) {
      // An entry that has gone meanwhile keeps no attributes.
      const Result<Attributes> attributes = host::StatAt(node.reader->fd(), entry->d_name);
      if (attributes.ok()) out.attributes = attributes.value();
    }
    node.reader->Take();
  }
  return ResponseBody(std::move(reply));
}

}  // namespace gofer
