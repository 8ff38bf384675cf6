#pragma once

// AF_INET and AF_INET6 without a network: TCP and UDP between processes of one sandbox, over lo
// (127.0.0.0/8, ::1). Everything else is unreachable (ENETUNREACH), which is what --network=none
// means.
//
// Streams are the same StreamCore that unix sockets use: no segments, no timers. A TCP stack can
// take the family over by providing another SocketFamily. Left out: SIOCATMARK and SIGURG, time
// stamps, raw sockets, multicast, the error queue.

#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/socket/channel.h"
#include "sentry/socket/inet_address.h"
#include "sentry/socket/socket.h"
#include "sentry/socket/stream_core.h"

namespace sentry {

class InetPorts;

// Addresses, ports and options of both protocols.
class InetSocket : public Socket {
 public:
  InetSocket(Kernel& kernel, const Kind& kind, bool nonblocking, CredentialsRef credentials);
  ~InetSocket() override;

  base::Result<void> Bind(Task& task, const SocketAddress& address) override;
  base::Result<SocketAddress> LocalAddress() override;
  base::Result<SocketAddress> PeerAddress() override;
  base::Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name) override;
  base::Result<void> SetOption(Task& task, int level, int name,
                               std::span<const uint8_t> value) override;

  int protocol() const { return kind().protocol; }
  bool v6_only() const { return v6_only_.load(std::memory_order_relaxed); }
  bool reuses_address() const { return reuse_address_.load(std::memory_order_relaxed); }
  bool shares_port() const { return reuse_port_.load(std::memory_order_relaxed); }
  uint32_t owner_uid() const { return credentials()->fsuid; }
  InetAddress local() const ABSL_LOCKS_EXCLUDED(name_mu_);
  // Null address and port if there is none.
  std::optional<InetAddress> connected_peer() const ABSL_LOCKS_EXCLUDED(name_mu_);
  // For /proc/net: the state by Linux's number, bytes sent and not read, bytes to read.
  virtual int state_number() = 0;
  uint64_t send_queue() { return OutputQueued(); }
  uint64_t receive_queue();

 protected:
  // --- Which network this is; by default lo alone.
  virtual bool IsOwnAddress(const InetAddress& address) const { return address.is_loopback(); }
  // ENETUNREACH and the like.
  virtual base::Result<void> CheckReachable(const InetAddress& to) const;
  // The address to talk to `peer` from, without a port.
  virtual base::Result<InetAddress> SourceFor(const InetAddress& peer) const;

  // A port if it has none yet, with the address that is right for talking to `peer`.
  base::Result<void> BindFor(const InetAddress& peer);
  base::Result<void> BindTo(const InetAddress& address);
  // Checks and completes a destination: wildcard means loopback. ENETUNREACH, EAFNOSUPPORT,
  // EADDRNOTAVAIL, EACCES.
  base::Result<InetAddress> Destination(const SocketAddress& address);
  InetPorts& ports() const;
  void SetNames(const InetAddress& local, const std::optional<InetAddress>& peer)
      ABSL_LOCKS_EXCLUDED(name_mu_);
  void SetPeer(const std::optional<InetAddress>& peer) ABSL_LOCKS_EXCLUDED(name_mu_);
  std::optional<int32_t> PlainOption(int level, int name) ABSL_LOCKS_EXCLUDED(name_mu_);
  // What accept(2) gives to the new socket.
  void CopyOptionsFrom(InetSocket& listener) ABSL_LOCKS_EXCLUDED(name_mu_);

 private:
  std::atomic<bool> v6_only_{false};
  std::atomic<bool> reuse_address_{false};
  std::atomic<bool> reuse_port_{false};
  absl::Mutex bind_mu_ ABSL_ACQUIRED_BEFORE(name_mu_);  // One bind at a time.
  mutable absl::Mutex name_mu_;
  InetAddress local_ ABSL_GUARDED_BY(name_mu_);
  bool has_port_ ABSL_GUARDED_BY(name_mu_) = false;  // Holds local_.port in the table.
  std::optional<InetAddress> peer_ ABSL_GUARDED_BY(name_mu_);
  // Options that are kept and given back, and change nothing on a loopback without packets.
  std::map<std::pair<int, int>, int32_t> plain_options_ ABSL_GUARDED_BY(name_mu_);
};

class InetStreamSocket final : public InetSocket {
 public:
  InetStreamSocket(Kernel& kernel, int family, bool nonblocking, CredentialsRef credentials);
  ~InetStreamSocket() override;

  base::Result<void> Listen(Task& task, int backlog) override;
  base::Result<SocketRef> Accept(Task& task, bool nonblocking_result) override;
  base::Result<void> Connect(Task& task, const SocketAddress& address) override;
  base::Result<SocketAddress> PeerAddress() override;
  base::Result<size_t> Send(Task& task, SendRequest& request) override;
  base::Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  base::Result<void> Shutdown(ShutdownHow how) override { return core_.Shutdown(how); }
  base::Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name) override;
  base::Result<void> SetOption(Task& task, int level, int name,
                               std::span<const uint8_t> value) override;
  PollMask Poll(PollMask interest) override;
  bool listening() override { return core_.state() == StreamCore::State::kListening; }
  int state_number() override;

 protected:
  base::Result<uint64_t> InputQueued() override;
  uint64_t OutputQueued() override;
  int TakeError() override;
  void OnBufferSizes() override;

 private:
  // What a connect that was told EINPROGRESS has come to, until somebody asks.
  enum class Outcome { kNone, kConnected, kRefused };

  base::Result<void> ConnectNow(const InetAddress& to);
  StreamCore core_;
  std::atomic<uint32_t> peer_receive_bytes_{kSocketBufferDefault};  // When it was connected.
  std::atomic<Outcome> outcome_{Outcome::kNone};
  std::atomic<int> connect_error_{0};  // SO_ERROR of that connect.
};

class InetDatagramSocket final : public InetSocket {
 public:
  static constexpr size_t kDatagramBytesMax = 65507;
  // UDP, or UDP-Lite, whose checksum coverage has nothing to cover here.
  InetDatagramSocket(Kernel& kernel, int family, int protocol, bool nonblocking,
                     CredentialsRef credentials);

  base::Result<void> Connect(Task& task, const SocketAddress& address) override;
  base::Result<size_t> Send(Task& task, SendRequest& request) override;
  base::Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  base::Result<void> Shutdown(ShutdownHow how) override;
  PollMask Poll(PollMask interest) override;
  int state_number() override { return connected_peer() ? 1 : 7; }

 protected:
  base::Result<uint64_t> InputQueued() override { return uint64_t{inbox_->NextBytes()}; }
  int TakeError() override { return refused_.exchange(0); }
  void OnBufferSizes() override { inbox_->set_byte_limit(options().receive_bytes); }

 private:
  // Fields of the packet's header that a receiver may ask to see.
  struct Header {
    int32_t hop_limit = 0;
    int32_t traffic_class = 0;
  };
  base::Result<Header> HeaderFor(const Ancillary& ancillary, bool v4);
  static void AddControl(InetDatagramSocket& target, const InetAddress& to, const Header& header,
                         Ancillary& ancillary);
  base::Result<void> Deliver(Task& task, SendRequest& request, InetDatagramSocket& target,
                             const InetAddress& to, const InetAddress& from);
  const std::shared_ptr<Channel> inbox_;
  std::atomic<int> refused_{0};  // ECONNREFUSED, reported once: nobody had the peer's port.
  std::atomic<bool> write_ended_{false};
};

}  // namespace sentry
