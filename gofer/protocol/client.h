#pragma once

// The sentry's end of the file channel: one blocking call per operation, from any thread. A call
// takes a few microseconds and is not interruptible.
//
// Errors: an errno of the host for the operation, or EIO once the connection is dead (the gofer has
// gone or broke the protocol; `dead()` says so and the reason is logged once). ENAMETOOLONG or
// EINVAL for a name that is no single component; such a name is never sent.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "gofer/protocol/channel.h"
#include "gofer/protocol/donation.h"
#include "gofer/protocol/messages.h"
#include "gofer/protocol/wire.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer {

class Client {
 public:
  // What a change left behind; see ChangeReply.
  struct Change : ChangeReply {
    base::Fd fd;  // Create's; empty if descriptors have run out, and then the file is there all the
                  // same.
  };
  struct Walked {
    WalkReply reply;
    base::Fd fd;  // With open_last, if the last step could be opened.
  };
  // Who owns a new file, and its permission bits.
  struct Ownership {
    uint32_t mode = 0;
    uint32_t uid = 0;
    uint32_t gid = 0;
  };

  static absl::StatusOr<std::unique_ptr<Client>> Create(base::Fd memory, base::Fd socket);
  ~Client();
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // A number for a file that a request below is to bind. Give it back by Forget once bound, by
  // Unused if the request did not bind it.
  Fid NewFid() ABSL_LOCKS_EXCLUDED(fid_mu_);
  void Unused(Fid fid) ABSL_LOCKS_EXCLUDED(fid_mu_);
  // Lets the gofer close `fid` with the next batch. Nobody may use it any more.
  void Forget(Fid fid) ABSL_LOCKS_EXCLUDED(fid_mu_);
  // Sends what Forget has collected.
  base::Result<void> FlushForgotten() ABSL_LOCKS_EXCLUDED(fid_mu_);

  base::Result<Attributes> Attach(std::string_view name, Fid new_fid);
  // At most kWalkStepsMax steps. Partial walks are successes; see WalkReply.
  base::Result<Walked> Walk(const WalkRequest& request);
  base::Result<Attributes> GetAttr(Fid fid);
  // The attributes afterwards.
  base::Result<Attributes> SetAttr(const SetAttrRequest& request);
  base::Result<base::Fd> Open(Fid fid, uint32_t flags);
  base::Result<Change> Create(Fid dir, std::string_view name, Fid new_fid, uint32_t open_flags,
                              const Ownership& ownership);
  base::Result<Change> Mkdir(Fid dir, std::string_view name, Fid new_fid,
                             const Ownership& ownership);
  // `ownership.mode` includes the type: S_IFREG, S_IFIFO, S_IFSOCK.
  base::Result<Change> Mknod(Fid dir, std::string_view name, Fid new_fid,
                             const Ownership& ownership);
  base::Result<Change> Symlink(Fid dir, std::string_view name, Fid new_fid, std::string_view target,
                               const Ownership& ownership);
  base::Result<Change> Link(Fid fid, Fid dir, std::string_view name);
  base::Result<Change> Unlink(Fid dir, std::string_view name, uint32_t flags);
  base::Result<Change> Rename(Fid old_dir, std::string_view old_name, Fid new_dir,
                              std::string_view new_name, uint32_t flags);
  base::Result<std::string> ReadLink(Fid fid);
  // With a path: new_fid is bound afterwards if the reply is not the end, else unused.
  base::Result<DirReply> ReadDir(const ReadDirRequest& request);
  base::Result<StatFsReply> StatFs(Fid fid);
  base::Result<std::string> GetXattr(Fid fid, std::string_view name);
  base::Result<void> SetXattr(Fid fid, std::string_view name, std::string_view value,
                              uint32_t flags);
  // NUL-terminated names, one after the other, as listxattr(2).
  base::Result<std::string> ListXattr(Fid fid);
  base::Result<void> RemoveXattr(Fid fid, std::string_view name);
  base::Result<void> Fsync(Fid fid, SyncScope scope);
  base::Result<base::Fd> Connect(Fid fid, uint32_t type);

  bool dead() const { return dead_.load(std::memory_order_relaxed); }
  // Readable-with-EOF (POLLHUP) when the gofer has gone. Stays the client's.
  int peer_fd() const { return channel_.socket(); }
  // How many messages went out: what caches are measured by.
  uint64_t messages_sent() const { return messages_sent_.load(std::memory_order_relaxed); }
  void set_spin_ns(uint32_t spin_ns) { channel_.set_spin_ns(spin_ns); }
  // Keeps the calling thread on the CPU it is on, for some milliseconds, and returns that CPU (or
  // Channel::kAnyCpu). Before the first request.
  using StayOnCpu = int (*)();
  void set_stay_on_cpu(StayOnCpu stay_on_cpu) { stay_on_cpu_ = stay_on_cpu; }

 private:
  struct Answer {
    Response response;
    base::Fd fd;
    bool fd_lost = false;  // It came, and this process had no number left for it.
  };
  // Private copies of what goes through a slot, made when it is first used.
  struct SlotBuffers {
    SlotBuffers() : scratch(kMessageBytesMax), arrived(kMessageBytesMax) {}
    WireBuffer scratch;
    WireBuffer arrived;
  };
  class SlotHold;

  explicit Client(Channel channel) : channel_(std::move(channel)) {}

  base::Result<Answer> Call(RequestBody body);
  base::Result<Answer> CallOnSlot(size_t slot, const Request& request);
  // Call, with `Body` the only alternative of an honest answer.
  template <typename Body>
  base::Result<Body> CallFor(RequestBody body);
  base::Result<void> CallForNothing(RequestBody body);
  base::Result<Change> Make(MakeRequest request);
  // Call for a change that makes no object.
  base::Result<Change> Alter(RequestBody body);
  // EMFILE if it came, and this process had no number left for it.
  base::Result<base::Fd> Collect(uint32_t request_id) ABSL_LOCKS_EXCLUDED(donation_mu_);
  // Logs the reason once; the connection is over. Always EIO.
  base::Errno Die(const char* reason);
  base::Result<void> SendClunk(std::vector<Fid> fids);

  Channel channel_;
  StayOnCpu stay_on_cpu_ = nullptr;
  std::atomic<bool> dead_ = false;
  std::atomic<uint32_t> next_id_ = 1;
  std::atomic<uint64_t> messages_sent_ = 0;

  absl::Mutex slot_mu_;
  uint32_t slots_free_ ABSL_GUARDED_BY(slot_mu_) = ~uint32_t{0};
  // Entry i belongs to the holder of slot i.
  std::unique_ptr<SlotBuffers> buffers_[kSlots];

  absl::Mutex donation_mu_;
  // Collected by a thread that was looking for its own.
  std::vector<Donation> donations_ ABSL_GUARDED_BY(donation_mu_);

  absl::Mutex fid_mu_;
  Fid fid_last_ ABSL_GUARDED_BY(fid_mu_) = kNoFid;
  std::vector<Fid> fids_free_ ABSL_GUARDED_BY(fid_mu_);
  std::vector<Fid> forgotten_ ABSL_GUARDED_BY(fid_mu_);
};

}  // namespace gofer
