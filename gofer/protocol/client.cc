#include "gofer/protocol/client.h"

#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <utility>

#include "platform/base/check.h"
#include "platform/base/log.h"

namespace gofer {
namespace {

using base::Errno;
using base::Result;

// So many forgotten fids make a message of their own.
constexpr size_t kForgottenBatch = 128;
static_assert(kForgottenBatch <= kClunkFidsMax);
static_assert(kSlots == 32, "slots_free_ has one bit per slot");

Result<void> CheckName(std::string_view name) {
  if (name.size() > kNameBytesMax) return Errno(ENAMETOOLONG);
  if (!IsComponent(name)) return Errno(EINVAL);
  return {};
}

}  // namespace

// Owns one slot; waits for one to be free.
class Client::SlotHold {
 public:
  explicit SlotHold(Client& client) : client_(client) {
    absl::MutexLock lock(&client_.slot_mu_);
    client_.slot_mu_.Await(
        absl::Condition(+[](uint32_t* free) { return *free != 0; }, &client_.slots_free_));
    index_ = static_cast<size_t>(std::countr_zero(client_.slots_free_));
    client_.slots_free_ &= ~(uint32_t{1} << index_);
  }
  ~SlotHold() {
    absl::MutexLock lock(&client_.slot_mu_);
    client_.slots_free_ |= uint32_t{1} << index_;
  }
  SlotHold(const SlotHold&) = delete;
  SlotHold& operator=(const SlotHold&) = delete;
  size_t index() const { return index_; }

 private:
  Client& client_;
  size_t index_;
};

absl::StatusOr<std::unique_ptr<Client>> Client::Create(base::Fd memory, base::Fd socket) {
  absl::StatusOr<Channel> channel = Channel::Map(std::move(memory), std::move(socket));
  if (!channel.ok()) return channel.status();
  return std::unique_ptr<Client>(new Client(*std::move(channel)));
}

Client::~Client() = default;

Errno Client::Die(const char* reason) {
  if (!dead_.exchange(true)) LOG_ERROR("gofer connection lost: %s", reason);
  return Errno(EIO);
}

Result<Client::Answer> Client::Call(RequestBody body) {
  if (dead()) return Errno(EIO);
  Request request{next_id_.fetch_add(1, std::memory_order_relaxed), std::move(body)};
  messages_sent_.fetch_add(1, std::memory_order_relaxed);
  const SlotHold slot(*this);
  return CallOnSlot(slot.index(), request);
}

Result<Client::Answer> Client::CallOnSlot(size_t slot, const Request& request) {
  if (buffers_[slot] == nullptr) buffers_[slot] = std::make_unique<SlotBuffers>();
  SlotBuffers& buffers = *buffers_[slot];
  const size_t sent = TRY(EncodeRequest(request, buffers.scratch, channel_.RequestArea(slot)));
  // A slot may have been abandoned by a caller that saw the connection die.
  if (dead()) return Errno(EIO);
  const int cpu = stay_on_cpu_ == nullptr ? Channel::kAnyCpu : stay_on_cpu_();
  channel_.Submit(slot, sent, cpu);
  const Result<size_t> got = channel_.Await(slot, buffers.arrived.bytes(), cpu);
  if (!got.ok()) {
    return Die(got.error() == EPIPE ? "the gofer has gone" : "an impossible response length");
  }
  Result<Response> decoded = DecodeResponse(buffers.arrived.bytes().first(got.value()));
  if (!decoded.ok()) return Die("a malformed response");
  Answer answer{std::move(decoded).value(), {}, false};
  if (answer.response.id != request.id) return Die("a response to another request");
  if (answer.response.donated) {
    Result<base::Fd> fd = Collect(request.id);
    answer.fd_lost = !fd.ok() && fd.error() == EMFILE;
    if (!answer.fd_lost) answer.fd = TRY(std::move(fd));
  }
  if (answer.response.error != 0) return Errno(answer.response.error);
  return answer;
}

Result<base::Fd> Client::Collect(uint32_t request_id) {
  absl::MutexLock lock(&donation_mu_);
  while (true) {
    const auto mine =
        std::find_if(donations_.begin(), donations_.end(),
                     [&](const Donation& donation) { return donation.request_id == request_id; });
    if (mine != donations_.end()) {
      base::Fd fd = std::move(mine->fd);
      donations_.erase(mine);
      if (!fd) return Errno(EMFILE);
      return fd;
    }
    Result<Donation> next = ReceiveDonation(channel_.socket());
    // It is sent before the response, so there is nothing to wait for.
    if (!next.ok()) return Die("a promised descriptor did not arrive");
    // One uncollected descriptor per request under way is the most an honest gofer sends.
    if (donations_.size() >= kSlots) return Die("descriptors that nobody asked for");
    donations_.push_back(std::move(next).value());
  }
}

template <typename Body>
Result<Body> Client::CallFor(RequestBody body) {
  Answer answer = TRY(Call(std::move(body)));
  Body* found = std::get_if<Body>(&answer.response.body);
  if (found == nullptr || answer.fd.valid()) return Die("a response of the wrong kind");
  return std::move(*found);
}

Result<void> Client::CallForNothing(RequestBody body) {
  TRY(CallFor<std::monostate>(std::move(body)));
  return {};
}

Fid Client::NewFid() {
  absl::MutexLock lock(&fid_mu_);
  if (!fids_free_.empty()) {
    const Fid fid = fids_free_.back();
    fids_free_.pop_back();
    return fid;
  }
  return ++fid_last_;
}

void Client::Unused(Fid fid) {
  if (fid == kNoFid) return;
  absl::MutexLock lock(&fid_mu_);
  fids_free_.push_back(fid);
}

void Client::Forget(Fid fid) {
  if (fid == kNoFid) return;
  std::vector<Fid> batch;
  {
    absl::MutexLock lock(&fid_mu_);
    forgotten_.push_back(fid);
    if (forgotten_.size() < kForgottenBatch) return;
    batch.swap(forgotten_);
  }
  // Only a dead connection refuses a clunk, and then the fids are gone anyway.
  if (!SendClunk(std::move(batch)).ok()) CHECK(dead());
}

Result<void> Client::FlushForgotten() {
  std::vector<Fid> batch;
  {
    absl::MutexLock lock(&fid_mu_);
    batch.swap(forgotten_);
  }
  if (batch.empty()) return {};
  return SendClunk(std::move(batch));
}

Result<void> Client::SendClunk(std::vector<Fid> fids) {
  TRY(CallForNothing(ClunkRequest{fids}));
  absl::MutexLock lock(&fid_mu_);
  fids_free_.insert(fids_free_.end(), fids.begin(), fids.end());
  return {};
}

Result<Attributes> Client::Attach(std::string_view name, Fid new_fid) {
  if (name.size() > kAttachNameBytesMax) return Errno(ENAMETOOLONG);
  return CallFor<Attributes>(AttachRequest{name, new_fid});
}

Result<Client::Walked> Client::Walk(const WalkRequest& request) {
  if (request.steps.size() > kWalkStepsMax) return Errno(E2BIG);
  for (const WalkStep& step : request.steps) TRY(CheckName(step.name));
  Answer answer = TRY(Call(request));
  WalkReply* reply = std::get_if<WalkReply>(&answer.response.body);
  if (reply == nullptr) return Die("a response of the wrong kind");
  const bool whole = reply->steps.size() == request.steps.size();
  const bool possible = reply->steps.size() <= request.steps.size() &&
                        whole == (reply->stop_error == 0) &&
                        (!answer.fd.valid() || (whole && request.open_last));
  if (!possible) return Die("a walk that contradicts itself");
  if (answer.fd_lost) reply->open_error = EMFILE;
  return Walked{std::move(*reply), std::move(answer.fd)};
}

Result<Attributes> Client::GetAttr(Fid fid) { return CallFor<Attributes>(GetAttrRequest{fid}); }

Result<Attributes> Client::SetAttr(const SetAttrRequest& request) {
  return CallFor<Attributes>(request);
}

Result<base::Fd> Client::Open(Fid fid, uint32_t flags) {
  Answer answer = TRY(Call(OpenRequest{fid, flags}));
  if (answer.fd_lost) return Errno(EMFILE);
  if (!answer.fd.valid()) return Die("an open without a descriptor");
  return std::move(answer.fd);
}

Result<Client::Change> Client::Make(MakeRequest request) {
  TRY(CheckName(request.name));
  const bool open = request.open;
  Answer answer = TRY(Call(std::move(request)));
  const ChangeReply* reply = std::get_if<ChangeReply>(&answer.response.body);
  if (reply == nullptr || reply->object.mode == 0 || (answer.fd.valid() && !open)) {
    return Die("a response of the wrong kind");
  }
  return Change{{*reply}, std::move(answer.fd)};
}

Result<Client::Change> Client::Alter(RequestBody body) {
  return Change{{TRY(CallFor<ChangeReply>(std::move(body)))}, {}};
}

Result<Client::Change> Client::Create(Fid dir, std::string_view name, Fid new_fid,
                                      uint32_t open_flags, const Ownership& ownership) {
  return Make({.dir = dir,
               .name = name,
               .fid = new_fid,
               .mode = S_IFREG | (ownership.mode & 07777),
               .uid = ownership.uid,
               .gid = ownership.gid,
               .target = {},
               .open = true,
               .open_flags = open_flags});
}

Result<Client::Change> Client::Mkdir(Fid dir, std::string_view name, Fid new_fid,
                                     const Ownership& ownership) {
  return Mknod(dir, name, new_fid,
               {S_IFDIR | (ownership.mode & 07777), ownership.uid, ownership.gid});
}

Result<Client::Change> Client::Mknod(Fid dir, std::string_view name, Fid new_fid,
                                     const Ownership& ownership) {
  return Make({.dir = dir,
               .name = name,
               .fid = new_fid,
               .mode = ownership.mode,
               .uid = ownership.uid,
               .gid = ownership.gid,
               .target = {}});
}

Result<Client::Change> Client::Symlink(Fid dir, std::string_view name, Fid new_fid,
                                       std::string_view target, const Ownership& ownership) {
  if (target.size() > kLinkBytesMax) return Errno(ENAMETOOLONG);
  return Make({.dir = dir,
               .name = name,
               .fid = new_fid,
               .mode = S_IFLNK | 0777,
               .uid = ownership.uid,
               .gid = ownership.gid,
               .target = target});
}

Result<Client::Change> Client::Link(Fid fid, Fid dir, std::string_view name) {
  TRY(CheckName(name));
  return Alter(LinkRequest{fid, dir, name});
}

Result<Client::Change> Client::Unlink(Fid dir, std::string_view name, uint32_t flags) {
  TRY(CheckName(name));
  return Alter(UnlinkRequest{dir, name, flags});
}

Result<Client::Change> Client::Rename(Fid old_dir, std::string_view old_name, Fid new_dir,
                                      std::string_view new_name, uint32_t flags) {
  TRY(CheckName(old_name));
  TRY(CheckName(new_name));
  return Alter(RenameRequest{old_dir, old_name, new_dir, new_name, flags});
}

Result<std::string> Client::ReadLink(Fid fid) { return CallFor<std::string>(ReadLinkRequest{fid}); }

Result<DirReply> Client::ReadDir(const ReadDirRequest& request) {
  if (request.path.size() > kWalkStepsMax) return Errno(E2BIG);
  for (const std::string_view name : request.path) TRY(CheckName(name));
  DirReply reply = TRY(CallFor<DirReply>(request));
  if (!request.path.empty() && !S_ISDIR(reply.attributes.mode)) {
    return Die("a listing of something that is no directory");
  }
  // An empty answer that is not the end would have the caller ask for ever.
  if (reply.entries.empty() && !reply.end) return Die("a directory that does not end");
  for (const DirEntry& entry : reply.entries) {
    if (!IsComponent(entry.name)) return Die("a directory entry that is no name");
  }
  return reply;
}

Result<StatFsReply> Client::StatFs(Fid fid) { return CallFor<StatFsReply>(StatFsRequest{fid}); }

Result<std::string> Client::GetXattr(Fid fid, std::string_view name) {
  if (name.size() > kXattrNameBytesMax) return Errno(ERANGE);
  return CallFor<std::string>(XattrRequest{fid, XattrAction::kGet, name, {}, 0});
}

Result<void> Client::SetXattr(Fid fid, std::string_view name, std::string_view value,
                              uint32_t flags) {
  if (name.size() > kXattrNameBytesMax) return Errno(ERANGE);
  if (value.size() > kXattrValueBytesMax) return Errno(E2BIG);
  return CallForNothing(XattrRequest{fid, XattrAction::kSet, name, value, flags});
}

Result<std::string> Client::ListXattr(Fid fid) {
  return CallFor<std::string>(XattrRequest{fid, XattrAction::kList, {}, {}, 0});
}

Result<void> Client::RemoveXattr(Fid fid, std::string_view name) {
  if (name.size() > kXattrNameBytesMax) return Errno(ERANGE);
  return CallForNothing(XattrRequest{fid, XattrAction::kRemove, name, {}, 0});
}

Result<void> Client::Fsync(Fid fid, SyncScope scope) {
  return CallForNothing(FsyncRequest{fid, scope});
}

Result<base::Fd> Client::Connect(Fid fid, uint32_t type) {
  Answer answer = TRY(Call(ConnectRequest{fid, type}));
  if (answer.fd_lost) return Errno(EMFILE);
  if (!answer.fd.valid()) return Die("a connection without a descriptor");
  return std::move(answer.fd);
}

}  // namespace gofer
