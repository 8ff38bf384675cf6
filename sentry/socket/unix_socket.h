#pragma once

// AF_UNIX (unix(7)): stream, sequenced-packet and datagram sockets, with names in the file system,
// abstract ones, or none.

#include <cstdint>
#include <map>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/rights.h"
#include "sentry/socket/socket.h"
#include "sentry/socket/stream_core.h"

namespace sentry {

class UnixSocket;

// A socket's address, also held by its peers: getpeername(2) works after the name came or its owner
// went.
class UnixName {
 public:
  SocketAddress Get() const ABSL_LOCKS_EXCLUDED(mu_);
  void Set(const SocketAddress& address) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  SocketAddress address_ ABSL_GUARDED_BY(mu_);  // Length 0: none.
};

// Abstract names; those of stream, datagram and sequenced-packet sockets are apart.
class UnixNames {
 public:
  // EADDRINUSE.
  base::Result<void> Bind(const std::string& name, const std::shared_ptr<UnixSocket>& socket)
      ABSL_LOCKS_EXCLUDED(mu_);
  // Picks a free name of five hexadecimal digits. ENOSPC.
  base::Result<std::string> BindAny(const std::shared_ptr<UnixSocket>& socket)
      ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<UnixSocket> Find(int type, const std::string& name) ABSL_LOCKS_EXCLUDED(mu_);
  void Remove(const std::string& name, const UnixSocket* socket) ABSL_LOCKS_EXCLUDED(mu_);

  // All unix sockets, for /proc/net/unix.
  void Register(UnixSocket* socket) ABSL_LOCKS_EXCLUDED(mu_);
  void Unregister(UnixSocket* socket) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::shared_ptr<UnixSocket>> All() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  absl::Mutex mu_;
  using Key = std::pair<int, std::string>;
  std::map<Key, std::pair<const UnixSocket*, std::weak_ptr<UnixSocket>>> names_
      ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, UnixSocket*> sockets_ ABSL_GUARDED_BY(mu_);  // By number.
  uint32_t next_ ABSL_GUARDED_BY(mu_) = 0;
};

// What the three types have in common: names and identity.
class UnixSocket : public Socket, public RightsHolder {
 public:
  UnixSocket(Kernel& kernel, int type, bool nonblocking, CredentialsRef credentials);
  ~UnixSocket() override;

  base::Result<void> Bind(Task& task, const SocketAddress& address) override;
  base::Result<SocketAddress> LocalAddress() override;
  base::Result<void> OnClose(Task& task) override;
  const std::shared_ptr<UnixName>& name() const { return name_; }
  // As ss(8) and /proc/net/unix show it: the state by Linux's number.
  virtual int state_number() = 0;

 protected:
  // The socket bound to `address`, of this type: ECONNREFUSED, EPROTOTYPE, and the path walk's
  // errors.
  base::Result<std::shared_ptr<UnixSocket>> FindPeer(Task& task, const SocketAddress& address);
  base::Result<void> BindAny();
  bool bound() const { return name_->Get().length != 0; }
  RightsInFlight& rights() const;
  // Who sends: what was given, else the task.
  static void FillCredentials(Task& task, Ancillary& ancillary);
  // Takes out what the receiver has not asked for.
  void FilterCredentials(ReceiveResult& result);

 private:
  base::Result<void> BindPath(Task& task, const SocketAddress& address);
  const std::shared_ptr<UnixName> name_;
  absl::Mutex bind_mu_;                        // Held over a bind: one at a time.
  Path bound_path_ ABSL_GUARDED_BY(bind_mu_);  // Keeps the inode that leads here.
};

class UnixStreamSocket final : public UnixSocket {
 public:
  UnixStreamSocket(Kernel& kernel, int type, bool nonblocking, CredentialsRef credentials);
  static void Pair(Task& task, UnixStreamSocket& a, UnixStreamSocket& b);

  base::Result<void> Listen(Task& task, int backlog) override;
  base::Result<SocketRef> Accept(Task& task, bool nonblocking_result) override;
  base::Result<void> Connect(Task& task, const SocketAddress& address) override;
  base::Result<SocketAddress> PeerAddress() override;
  base::Result<size_t> Send(Task& task, SendRequest& request) override;
  base::Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  base::Result<void> Shutdown(ShutdownHow how) override { return core_.Shutdown(how); }
  PollMask Poll(PollMask interest) override { return core_.Poll(interest); }
  bool listening() override { return core_.state() == StreamCore::State::kListening; }
  int state_number() override;
  void AppendInboxes(std::vector<std::shared_ptr<Channel>>& inboxes) override {
    core_.AppendInboxes(inboxes);
  }

 protected:
  base::Result<uint64_t> InputQueued() override;
  uint64_t OutputQueued() override;
  int TakeError() override { return core_.TakeError(); }
  PeerCredentials peer_credentials() override;
  void OnBufferSizes() override;

 private:
  void SetPeer(std::shared_ptr<UnixName> name, const PeerCredentials& credentials)
      ABSL_LOCKS_EXCLUDED(peer_mu_);

  StreamCore core_;
  absl::Mutex peer_mu_;
  std::shared_ptr<UnixName> peer_name_ ABSL_GUARDED_BY(peer_mu_);
  PeerCredentials peer_credentials_ ABSL_GUARDED_BY(peer_mu_) = {0, ~0u, ~0u};
  PeerCredentials listen_credentials_ ABSL_GUARDED_BY(peer_mu_);
};

class UnixDatagramSocket final : public UnixSocket {
 public:
  static constexpr size_t kPacketsMax = 512;  // net.unix.max_dgram_qlen
  UnixDatagramSocket(Kernel& kernel, bool nonblocking, CredentialsRef credentials);
  ~UnixDatagramSocket() override;
  static void Pair(Task& task, const std::shared_ptr<UnixDatagramSocket>& a,
                   const std::shared_ptr<UnixDatagramSocket>& b);

  base::Result<void> Connect(Task& task, const SocketAddress& address) override;
  base::Result<SocketAddress> PeerAddress() override;
  base::Result<size_t> Send(Task& task, SendRequest& request) override;
  base::Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  base::Result<void> Shutdown(ShutdownHow how) override;
  PollMask Poll(PollMask interest) override;
  int state_number() override;
  void AppendInboxes(std::vector<std::shared_ptr<Channel>>& inboxes) override {
    inboxes.push_back(inbox_);
  }

 protected:
  base::Result<uint64_t> InputQueued() override { return uint64_t{inbox_->NextBytes()}; }
  PeerCredentials peer_credentials() override;

 private:
  // May `sender` send here? A connected socket hears its peer only.
  bool Hears(const UnixDatagramSocket& sender) ABSL_LOCKS_EXCLUDED(mu_);
  std::shared_ptr<UnixDatagramSocket> peer() ABSL_LOCKS_EXCLUDED(mu_);

  const std::shared_ptr<Channel> inbox_;
  absl::Mutex mu_;
  std::weak_ptr<UnixDatagramSocket> peer_ ABSL_GUARDED_BY(mu_);
  const UnixDatagramSocket* peer_identity_ ABSL_GUARDED_BY(mu_) = nullptr;  // Compared only.
  std::shared_ptr<UnixName> peer_name_ ABSL_GUARDED_BY(mu_);
  PeerCredentials peer_credentials_ ABSL_GUARDED_BY(mu_) = {0, ~0u, ~0u};
  bool write_ended_ ABSL_GUARDED_BY(mu_) = false;
};

}  // namespace sentry
