#include "gofer/server/session.h"

#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gofer/server/host.h"

namespace gofer {

using base::Errno;
using base::Result;

Session::Session(Options options) : options_(std::move(options)) { umask(0); }

namespace {

// What /proc/sys/kernel/overflowuid and its like for groups say everywhere.
constexpr uint32_t kOverflowId = 65534;

void ShowForeignOwnerAsRoot(Attributes& attributes) {
  if (attributes.uid == kOverflowId) attributes.uid = 0;
  if (attributes.gid == kOverflowId) attributes.gid = 0;
}

void ShowForeignOwnersAsRoot(ResponseBody& body) {
  if (auto* one = std::get_if<Attributes>(&body)) {
    ShowForeignOwnerAsRoot(*one);
  } else if (auto* walk = std::get_if<WalkReply>(&body)) {
    for (Attributes& attributes : walk->steps) ShowForeignOwnerAsRoot(attributes);
  } else if (auto* list = std::get_if<DirReply>(&body)) {
    ShowForeignOwnerAsRoot(list->attributes);
    for (DirEntry& entry : list->entries) ShowForeignOwnerAsRoot(entry.attributes);
  }
}

}  // namespace

absl::StatusOr<Session::Outcome> Session::Handle(const Request& request) {
  Outcome outcome;
  outcome.response.id = request.id;
  Body body = std::visit([&](const auto& typed) { return Do(typed, outcome); }, request.body);
  if (breach_ != nullptr) return absl::InvalidArgumentError(breach_);
  if (body.ok()) {
    outcome.response.body = std::move(body).value();
    if (options_.foreign_owners_are_root) ShowForeignOwnersAsRoot(outcome.response.body);
  } else {
    outcome.donated.Reset();
    outcome.response.error = body.error().value();
  }
  outcome.response.donated = outcome.donated.valid();
  return outcome;
}

Errno Session::Breach(const char* what) {
  breach_ = what;
  return Errno(EPROTO);
}

Result<Session::Node*> Session::Find(Fid fid) {
  const auto found = nodes_.find(fid);
  if (found == nodes_.end()) return Breach("a request about an unknown fid");
  return &found->second;
}

Result<Session::Node*> Session::FindDirectory(Fid fid) {
  Node* node = TRY(Find(fid));
  if (node->type != S_IFDIR) return Errno(ENOTDIR);
  return node;
}

Result<void> Session::CheckWritable(const Node& node) {
  if (node.point->read_only || node.is_closed) return Errno(EROFS);
  return {};
}

Result<void> Session::CheckName(std::string_view name) {
  if (!IsComponent(name)) return Breach("a name that is no single path component");
  return {};
}

Result<void> Session::CheckNewFid(Fid fid) {
  if (fid == kNoFid) return {};
  if (nodes_.contains(fid)) return Breach("a fid that is in use already");
  if (descriptors_used() >= options_.descriptors_max) return Errno(ENFILE);
  return {};
}

Session::Node& Session::Bind(Fid fid, base::Fd path_fd, const Attributes& attributes,
                             const AttachPoint* point, bool is_closed) {
  Node& node = nodes_[fid];
  node.path_fd = std::move(path_fd);
  node.type = attributes.mode & S_IFMT;
  node.device = attributes.dev;
  node.is_closed = is_closed;
  node.point = point;
  return node;
}

bool Session::IsClosed(int path_fd, const Attributes& attributes, uint64_t device_above) {
  return attributes.dev != device_above && S_ISDIR(attributes.mode) &&
         host::IsOfHostKernel(path_fd);
}

Session::Body Session::Do(const AttachRequest& request, Outcome&) {
  const auto& points = options_.attach_points;
  const auto found = std::find_if(points.begin(), points.end(), [&](const AttachPoint& point) {
    return point.name == request.name;
  });
  if (found == points.end()) return Errno(ENOENT);
  TRY(CheckNewFid(request.fid));
  base::Fd copy = TRY(host::Reopen(options_.proc_self_fd.get(), found->root_path_fd.get(), O_PATH));
  const Attributes attributes = TRY(host::Stat(copy.get()));
  if (request.fid != kNoFid) Bind(request.fid, std::move(copy), attributes, &*found, false);
  return ResponseBody(attributes);
}

// Each step is one openat2 of one component, so what is bound is what was looked at. The walk keeps
// only what the client asked to keep.
Session::Body Session::Do(const WalkRequest& request, Outcome& outcome) {
  const Node* from = TRY(Find(request.from));
  const AttachPoint* point = from->point;
  WalkReply reply;
  base::Fd last;
  int dir = from->path_fd.get();
  uint32_t type = from->type;
  uint64_t device = from->device;
  bool is_closed = from->is_closed;
  for (size_t i = 0; i < request.steps.size(); ++i) {
    const WalkStep& step = request.steps[i];
    TRY(CheckName(step.name));
    if (type == S_IFLNK) {
      reply.stop_error = ELOOP;
      break;
    }
    if (is_closed) {
      reply.stop_error = ENOENT;
      break;
    }
    const Result<void> room = CheckNewFid(step.fid);
    Result<base::Fd> next =
        room.ok() ? host::OpenPath(dir, step.name) : Result<base::Fd>(room.error());
    if (breach_ != nullptr) return Errno(EPROTO);
    const Result<Attributes> attributes =
        next.ok() ? host::Stat(next.value().get()) : Result<Attributes>(next.error());
    if (!attributes.ok()) {
      reply.stop_error = attributes.error().value();
      break;
    }
    reply.steps.push_back(attributes.value());
    type = attributes.value().mode & S_IFMT;
    dir = next.value().get();
    is_closed = IsClosed(dir, attributes.value(), device);
    device = attributes.value().dev;
    // The descriptor moves without changing its number.
    if (step.fid != kNoFid) {
      Bind(step.fid, std::move(next).value(), attributes.value(), point, is_closed);
      last.Reset();
    } else {
      last = std::move(next).value();
    }
  }
  if (type == S_IFLNK && !reply.steps.empty()) {
    reply.link_target = host::ReadLink(dir).value_or(std::string());
  }
  if (request.open_last && reply.stop_error == 0) {
    Node end;
    end.path_fd = base::Fd(dir);
    end.type = type;
    end.point = point;
    Result<base::Fd> opened = OpenNode(end, request.open_flags);
    // Borrowed for the call only.
    (void)end.path_fd.Release();
    if (opened.ok()) {
      outcome.donated = std::move(opened).value();
    } else {
      reply.open_error = opened.error().value();
    }
  }
  return ResponseBody(std::move(reply));
}

Session::Body Session::Do(const ClunkRequest& request, Outcome&) {
  for (const Fid fid : request.fids) {
    CloseDirectory(*TRY(Find(fid)));
    nodes_.erase(fid);
  }
  return ResponseBody();
}

}  // namespace gofer
