// Reading directories. The host's position cookies go to the client as they are; while it reads on
// where it stopped, the directory stays open here, and an end of it closes it.

#include <dirent.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <string_view>
#include <utility>

#include "gofer/protocol/channel.h"
#include "gofer/server/host.h"
#include "gofer/server/session.h"

namespace gofer {

using base::Errno;
using base::Result;

namespace {

// What an entry takes in a message at most, without its name, see DirEntry in gofer.capnp: three words
// and two pointers, the name's padding, and the attributes' fourteen words.
constexpr size_t kEntryBytes = 5 * 8 + 8;
constexpr size_t kAttributesBytes = 14 * 8;
// The message around the entries.
constexpr size_t kReplyBytes = 256;

// One getdents64 fills it; an entry takes at least 24 bytes of it.
constexpr size_t kBatchBytes = 32 * 1024;

}  // namespace

void Session::CloseDirectory(Node& node) {
  if (!node.directory_fd) return;
  node.directory_fd.Reset();
  --directories_open_;
}

// Leaves the node's directory open at `cookie`.
Result<void> Session::OpenDirectory(Node& node, uint64_t cookie) {
  if (!node.directory_fd) {
    if (descriptors_used() >= options_.descriptors_max) return Errno(ENFILE);
    node.directory_fd =
        TRY(host::Reopen(options_.proc_self_fd.get(), node.path_fd.get(), O_RDONLY | O_DIRECTORY));
    ++directories_open_;
    node.directory_cookie = 0;
  }
  // To the start even if it is there: that is what makes new entries visible to rewinddir(3).
  if (node.directory_cookie != cookie || cookie == 0) {
    if (lseek(node.directory_fd.get(), static_cast<off_t>(cookie), SEEK_SET) < 0) {
      return base::LastErrno();
    }
    node.directory_cookie = cookie;
  }
  return {};
}

Session::Body Session::Do(const ReadDirRequest& request, Outcome&) {
  Node* node = TRY(FindDirectory(request.fid));
  TRY(OpenDirectory(*node, request.cookie));
  DirReply reply;
  size_t bytes = kReplyBytes;
  const size_t entry_bytes = kEntryBytes + (request.with_attributes ? kAttributesBytes : 0);
  alignas(dirent64) std::array<char, kBatchBytes> batch;
  bool full = false;
  while (!full) {
    const ssize_t got = getdents64(node->directory_fd.get(), batch.data(), batch.size());
    if (got < 0) return base::LastErrno();
    if (got == 0) {
      reply.end = true;
      CloseDirectory(*node);
      break;
    }
    for (ssize_t at = 0; at < got;) {
      const auto* entry = reinterpret_cast<const dirent64*>(batch.data() + at);
      at += entry->d_reclen;
      const std::string_view name = entry->d_name;
      const uint64_t cookie = static_cast<uint64_t>(entry->d_off);
      if (!IsComponent(name)) {
        node->directory_cookie = cookie;
        continue;
      }
      if (reply.entries.size() >= request.entries_max ||
          bytes + entry_bytes + name.size() > kMessageBytesMax) {
        full = true;
        break;
      }
      bytes += entry_bytes + name.size();
      DirEntry& out = reply.entries.emplace_back();
      out.ino = entry->d_ino;
      out.cookie = cookie;
      out.type = entry->d_type;
      out.name = name;
      node->directory_cookie = cookie;
      if (!request.with_attributes) continue;
      // An entry that has gone meanwhile keeps no attributes.
      const Result<Attributes> attributes =
          host::StatAt(node->directory_fd.get(), entry->d_name);
      if (attributes.ok()) out.attributes = attributes.value();
    }
  }
  // The host has read ahead of what went out; the next request starts where this answer ends.
  if (full && lseek(node->directory_fd.get(), static_cast<off_t>(node->directory_cookie), SEEK_SET) < 0) {
    return base::LastErrno();
  }
  return ResponseBody(std::move(reply));
}

}  // namespace gofer
