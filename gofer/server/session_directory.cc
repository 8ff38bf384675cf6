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
#include <string_view>
#include <utility>

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
// The message around the entries.
constexpr size_t kReplyBytes = 256;

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
  // The next entry, or null at the end.
  Result<const dirent64*> Peek() {
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
    node.reader = std::make_unique<DirectoryReader>(
        TRY(host::Reopen(options_.proc_self_fd.get(), node.path_fd.get(), O_RDONLY | O_DIRECTORY)));
    ++directories_open_;
  }
  // To the start even if it is there: that is what makes new entries visible to rewinddir(3).
  if (node.reader->cookie() == cookie && cookie != 0) return {};
  return node.reader->Seek(cookie);
}

Session::Body Session::Do(const ReadDirRequest& request, Outcome&) {
  Node* node = TRY(FindDirectory(request.fid));
  TRY(OpenDirectory(*node, request.cookie));
  DirReply reply;
  size_t bytes = kReplyBytes;
  const size_t entry_bytes = kEntryBytes + (request.with_attributes ? kAttributesBytes : 0);
  while (true) {
    const dirent64* entry = TRY(node->reader->Peek());
    if (entry == nullptr) {
      reply.end = true;
      CloseDirectory(*node);
      break;
    }
    const std::string_view name = entry->d_name;
    if (!IsComponent(name)) {  // "." and "..".
      node->reader->Take();
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
      const Result<Attributes> attributes = host::StatAt(node->reader->fd(), entry->d_name);
      if (attributes.ok()) out.attributes = attributes.value();
    }
    node->reader->Take();
  }
  return ResponseBody(std::move(reply));
}

}  // namespace gofer
