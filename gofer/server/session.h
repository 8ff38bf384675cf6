#pragma once

// The gofer's side of one connection, without the transport: a table of fids and one handler per
// operation. Everything that comes in is hostile.
//
// Two kinds of failure. An operation that the host or a rule refuses ends with an errno. A request
// that an honest client never sends (an unknown or doubly used fid, a name that is no single
// component, an unknown flag) is a breach: Handle returns a status, and the connection must end.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/container/node_hash_map.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "gofer/protocol/messages.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer {

// A tree of the host (or a single file) that a client may attach to by name.
struct AttachPoint {
  std::string name;
  base::Fd root_path_fd;  // O_PATH
  bool read_only = false;
  // May open the FIFOs, and connect to the sockets, that the host has in the tree.
  bool allow_fifos = false;
  bool allow_connect = false;
};

class Session {
 public:
  struct Options {
    std::vector<AttachPoint> attach_points;
    base::Fd proc_self_fd;  // host::OpenProcSelfFd()
    // In a user namespace with one id, all other owners look like the overflow id (65534). Report
    // them as root, which is what they are for nearly all files that a user does not own: programs,
    // sudo's and ssh's checks among them, then see what they would see outside. It changes what is
    // reported, not what is allowed.
    bool foreign_owners_are_root = false;
    // Descriptors that fids and open directories may hold together.
    size_t descriptors_max = 0;
  };
  struct Outcome {
    Response response;
    base::Fd donated;  // To be sent before the response if valid.
  };

  // Clears the process's umask: modes are the client's business.
  explicit Session(Options options);

  absl::StatusOr<Outcome> Handle(const Request& request);

  size_t fids() const { return nodes_.size(); }
  size_t descriptors_used() const { return nodes_.size() + directories_open_; }

 private:
  class DirectoryReader;
  // What a fid stands for.
  struct Node {
    Node();
    ~Node();
    base::Fd path_fd;
    uint32_t type = 0;  // S_IFMT bits; an inode never changes them.
    uint64_t device = 0;
    // What the host's kernel says of itself (/proc, /sys): as an empty directory, which the sandbox
    // mounts its own on. Not so where it is what was attached.
    bool is_closed = false;
    const AttachPoint* point = nullptr;
    std::unique_ptr<DirectoryReader> reader;  // While a directory is being read.
  };
  using Body = base::Result<ResponseBody>;

  // session.cc
  Body Do(const AttachRequest& request, Outcome& outcome);
  Body Do(const WalkRequest& request, Outcome& outcome);
  Body Do(const ClunkRequest& request, Outcome& outcome);
  // session_open.cc
  Body Do(const OpenRequest& request, Outcome& outcome);
  Body Do(const ReadLinkRequest& request, Outcome& outcome);
  Body Do(const FsyncRequest& request, Outcome& outcome);
  Body Do(const ConnectRequest& request, Outcome& outcome);
  base::Result<base::Fd> OpenNode(const Node& node, uint32_t flags);
  // session_attributes.cc
  Body Do(const GetAttrRequest& request, Outcome& outcome);
  Body Do(const SetAttrRequest& request, Outcome& outcome);
  Body Do(const StatFsRequest& request, Outcome& outcome);
  Body Do(const XattrRequest& request, Outcome& outcome);
  // session_directory.cc
  Body Do(const ReadDirRequest& request, Outcome& outcome);
  // Binds a directory below another one to the request's new_fid.
  base::Result<Node*> BindBelow(const ReadDirRequest& request, DirReply& reply);
  Body List(Node& node, const ReadDirRequest& request, DirReply reply);
  // Leaves `node.reader` about to deliver what follows `cookie`.
  base::Result<void> OpenDirectory(Node& node, uint64_t cookie);
  void CloseDirectory(Node& node);
  // session_namespace.cc
  Body Do(const MakeRequest& request, Outcome& outcome);
  Body Do(const LinkRequest& request, Outcome& outcome);
  Body Do(const UnlinkRequest& request, Outcome& outcome);
  Body Do(const RenameRequest& request, Outcome& outcome);
  base::Result<Attributes> Made(const Node& dir, const MakeRequest& request, base::Fd path_fd);

  // Notes the breach and returns an error to unwind with.
  base::Errno Breach(const char* what);
  base::Result<Node*> Find(Fid fid);
  base::Result<Node*> FindDirectory(Fid fid);
  // EROFS unless the node's attach point is writable.
  base::Result<void> CheckWritable(const Node& node);
  base::Result<void> CheckName(std::string_view name);
  // Whether `fid` may be bound now: a breach if it is in use, ENFILE if the table is full.
  base::Result<void> CheckNewFid(Fid fid);
  Node& Bind(Fid fid, base::Fd path_fd, const Attributes& attributes, const AttachPoint* point,
             bool is_closed);
  // Whether what was found in `dir` is closed.
  static bool IsClosed(int path_fd, const Attributes& attributes, uint64_t device_above);

  Options options_;
  absl::node_hash_map<Fid, Node> nodes_;
  size_t directories_open_ = 0;
  const char* breach_ = nullptr;
};

}  // namespace gofer
