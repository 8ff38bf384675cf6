#pragma once

// A connection-oriented socket without its names: the states, the two channels and the backlog.
// Unix streams, unix sequenced packets and loopback TCP are made of it; they differ in what the
// other side notices (Rules).

#include <cstdint>
#include <deque>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/socket.h"

namespace sentry {

class StreamCore {
 public:
  // Unix: a peer that closes or stops reading is noticed at once. Tcp: it is noticed by the reset
  // that answers the next bytes.
  enum class Rules { kUnix, kTcp };
  enum class State { kNew, kListening, kConnecting, kConnected, kEnded };

  StreamCore(RightsInFlight& rights, Rules rules, Channel::Mode mode,
             std::shared_ptr<WaitQueue> queue);
  // Closes: tells the peer, drops the backlog.
  ~StreamCore();

  // --- EINVAL if connected.
  base::Result<void> Listen(int backlog) ABSL_LOCKS_EXCLUDED(mu_);
  // EINVAL if not listening, EAGAIN.
  base::Result<SocketRef> Accept() ABSL_LOCKS_EXCLUDED(mu_);
  // Claims the right to connect: EISCONN, EALREADY, EINVAL (listening). The claim ends by
  // ConnectTo, or by Unclaim.
  base::Result<void> ClaimConnect() ABSL_LOCKS_EXCLUDED(mu_);
  void Unclaim() ABSL_LOCKS_EXCLUDED(mu_);
  // Connects to `listener`, in whose backlog `accepted` (whose core is `accepted_core`, new) then
  // waits. ECONNREFUSED; EAGAIN when the backlog is full: this socket's queue is notified when it
  // may try again. `beyond_backlog`: up to the system's limit.
  base::Result<void> ConnectTo(StreamCore& listener, SocketRef accepted, StreamCore& accepted_core,
                               size_t bytes_there, size_t bytes_back, bool beyond_backlog)
      ABSL_LOCKS_EXCLUDED(mu_);
  // socketpair(2); both are new.
  static void Join(StreamCore& a, StreamCore& b, size_t bytes);

  base::Result<size_t> Send(Task& task, SendRequest& request, const SocketAddress& source)
      ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<ReceiveResult> Receive(const ReceiveRequest& request, bool split_credentials)
      ABSL_LOCKS_EXCLUDED(mu_);
  // TCP's urgent byte, outside of the stream. EINVAL if there is none.
  base::Result<ReceiveResult> ReceiveUrgent(const ReceiveRequest& request) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<void> Shutdown(ShutdownHow how) ABSL_LOCKS_EXCLUDED(mu_);
  PollMask Poll(PollMask interest) ABSL_LOCKS_EXCLUDED(mu_);
  int TakeError() ABSL_LOCKS_EXCLUDED(mu_);
  // Before the destructor: it ends with a reset even if everything was read (SO_LINGER with time
  // 0).
  void ResetOnClose() ABSL_LOCKS_EXCLUDED(mu_);

  State state() const ABSL_LOCKS_EXCLUDED(mu_);
  // Null unless connected.
  std::shared_ptr<Channel> inbox() const ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<Channel> outbox() const ABSL_LOCKS_EXCLUDED(mu_);
  void AppendInboxes(std::vector<std::shared_ptr<Channel>>& inboxes) ABSL_LOCKS_EXCLUDED(mu_);
  size_t backlog_length() const ABSL_LOCKS_EXCLUDED(mu_);
  int backlog_max() const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Waiting {
    SocketRef socket;
    StreamCore* core = nullptr;  // The socket's.
    std::shared_ptr<Channel> inbox;
  };
  void SetConnected(std::shared_ptr<Channel> in, std::shared_ptr<Channel> out)
      ABSL_LOCKS_EXCLUDED(mu_);
  static void DropBacklog(std::deque<Waiting> backlog);
  // Wakes those whom the backlog had no room for.
  void NotifyRefused(std::vector<std::weak_ptr<WaitQueue>> refused);
  base::Result<size_t> SendUrgent(Task& task, SendRequest& request, Channel& out);
  base::Result<size_t> SendAfterReset(SendRequest& request) ABSL_LOCKS_EXCLUDED(mu_);
  PollMask PollConnected(Channel& in, Channel& out, bool read_ended, bool was_reset);

  RightsInFlight& rights_;
  const Rules rules_;
  const Channel::Mode mode_;
  const std::shared_ptr<WaitQueue> queue_;

  mutable absl::Mutex mu_;
  State state_ ABSL_GUARDED_BY(mu_) = State::kNew;
  std::shared_ptr<Channel> in_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<Channel> out_ ABSL_GUARDED_BY(mu_);
  std::deque<Waiting> backlog_ ABSL_GUARDED_BY(mu_);
  int backlog_max_ ABSL_GUARDED_BY(mu_) = 0;
  std::vector<std::weak_ptr<WaitQueue>> refused_ ABSL_GUARDED_BY(mu_);
  bool read_ended_ ABSL_GUARDED_BY(mu_) = false;  // shutdown(SHUT_RD) of TCP.
  bool was_reset_ ABSL_GUARDED_BY(mu_) = false;   // TCP: bytes met a closed peer.
  int reset_error_ ABSL_GUARDED_BY(mu_) = 0;
  bool reset_on_close_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sentry
