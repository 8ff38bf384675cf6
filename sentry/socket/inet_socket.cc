#include "sentry/socket/inet_socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/network_namespace.h"

namespace sentry {

using base::Errno;
using base::Result;

// --- Both protocols.

InetSocket::InetSocket(Kernel& kernel, const Kind& kind, bool nonblocking,
                       CredentialsRef credentials)
    : Socket(kernel, kind, nonblocking, std::move(credentials)), local_(AnyAddress(kind.family)) {
  ports().Register(this);
}

InetSocket::~InetSocket() {
  ports().Unregister(this);
  // The table's lock comes before name_mu_.
  uint16_t port = 0;
  {
    const absl::MutexLock lock(&name_mu_);
    if (has_port_) port = local_.port;
  }
  if (port != 0) ports().Release(this, protocol(), port);
}

InetPorts& InetSocket::ports() const { return network().ports(); }

InetAddress InetSocket::local() const {
  const absl::MutexLock lock(&name_mu_);
  return local_;
}

std::optional<InetAddress> InetSocket::connected_peer() const {
  const absl::MutexLock lock(&name_mu_);
  return peer_;
}

void InetSocket::SetNames(const InetAddress& local, const std::optional<InetAddress>& peer) {
  const absl::MutexLock lock(&name_mu_);
  local_ = local;
  peer_ = peer;
}

void InetSocket::SetPeer(const std::optional<InetAddress>& peer) {
  const absl::MutexLock lock(&name_mu_);
  peer_ = peer;
}

uint64_t InetSocket::receive_queue() {
  const auto queued = InputQueued();
  return queued.ok() ? queued.value() : 0;
}

Result<void> InetSocket::BindTo(const InetAddress& address) {
  auto self = std::static_pointer_cast<InetSocket>(shared_from_this());
  const absl::MutexLock binding(&bind_mu_);
  {
    const absl::MutexLock lock(&name_mu_);
    if (has_port_) return Errno(EINVAL);
  }
  InetAddress bound = address;
  bound.port = TRY(ports().Bind(self, address));
  const absl::MutexLock lock(&name_mu_);
  local_ = bound;
  has_port_ = true;
  return {};
}

Result<void> InetSocket::Bind(Task& task, const SocketAddress& address) {
  const InetAddress wanted = TRY(ParseInetAddress(address, kind().family));
  if (wanted.is_v4() && kind().family == AF_INET6 && v6_only()) return Errno(EINVAL);
  if (!wanted.is_any() && !IsOwnAddress(wanted)) return Errno(EADDRNOTAVAIL);
  if (wanted.port != 0 && wanted.port < InetPorts::kUnprivilegedFirst &&
      !task.credentials()->HasCapability(CAP_NET_BIND_SERVICE)) {
    return Errno(EACCES);
  }
  return BindTo(wanted);
}

Result<void> InetSocket::CheckReachable(const InetAddress& to) const {
  return to.is_loopback() ? Result<void>() : Errno(ENETUNREACH);
}

Result<InetAddress> InetSocket::SourceFor(const InetAddress& peer) const {
  return peer.is_v4() ? InetAddress::V4(INADDR_LOOPBACK, 0) : InetAddress::V6Loopback(0);
}

Result<void> InetSocket::BindFor(const InetAddress& peer) {
  InetAddress source = TRY(SourceFor(peer));
  bool has_port = false;
  {
    const absl::MutexLock lock(&name_mu_);
    has_port = has_port_;
    // A connected socket bound to the wildcard shows the address it talks from.
    if (has_port && local_.is_any()) {
      source.port = local_.port;
      local_ = source;
    }
  }
  if (has_port) return {};
  const auto result = BindTo(source);
  // Another thread of the guest has bound it meanwhile.
  if (!result.ok() && result.error() == EINVAL) return {};
  if (!result.ok() && result.error() == EADDRINUSE) return Errno(EADDRNOTAVAIL);
  return result;
}

Result<InetAddress> InetSocket::Destination(const SocketAddress& address) {
  InetAddress to;
  if (kind().family == AF_INET6 && address.family() == AF_INET && !v6_only()) {
    to = TRY(ParseInetAddress(address, AF_INET));
  } else {
    to = TRY(ParseInetAddress(address, kind().family));
  }
  if (to.is_v4() && v6_only()) return Errno(ENETUNREACH);
  if (to.is_any())
    to = to.is_v4() ? InetAddress::V4(INADDR_LOOPBACK, to.port) : InetAddress::V6Loopback(to.port);
  if (to.is_broadcast() && !options().broadcast) return Errno(EACCES);
  TRY(CheckReachable(to));
  const InetAddress from = local();
  // ::1 cannot be reached from 127.0.0.1.
  if (!from.is_any() && from.is_v4() != to.is_v4()) return Errno(ENETUNREACH);
  return to;
}

Result<SocketAddress> InetSocket::LocalAddress() {
  return FormatInetAddress(local(), kind().family);
}

Result<SocketAddress> InetSocket::PeerAddress() {
  const auto peer = connected_peer();
  if (!peer) return Errno(ENOTCONN);
  return FormatInetAddress(*peer, kind().family);
}

// --- TCP.

InetStreamSocket::InetStreamSocket(Kernel& kernel, int family, bool nonblocking,
                                   CredentialsRef credentials)
    : InetSocket(kernel, {family, SOCK_STREAM, IPPROTO_TCP}, nonblocking, std::move(credentials)),
      core_(kernel.network().rights(), StreamCore::Rules::kTcp, Channel::Mode::kStream,
            shared_queue()) {}

InetStreamSocket::~InetStreamSocket() {
  if (options().linger_on != 0 && options().linger_seconds == 0) core_.ResetOnClose();
}

Result<void> InetStreamSocket::Listen(Task&, int backlog) {
  const StreamCore::State state = core_.state();
  if (state != StreamCore::State::kNew && state != StreamCore::State::kListening)
    return Errno(EINVAL);
  if (local().port == 0) TRY(BindTo(local()));
  TRY(ports().CheckListen(*this));
  return core_.Listen(backlog);
}

Result<SocketRef> InetStreamSocket::Accept(Task&, bool nonblocking_result) {
  SocketRef accepted = TRY(core_.Accept());
  auto& socket = static_cast<InetStreamSocket&>(*accepted);
  if (nonblocking_result) socket.set_flags(socket.flags() | O_NONBLOCK);
  return accepted;
}

// Linux answers a non-blocking connect before the handshake is over, always: the answer is in the
// socket's backlog, even over lo. Programs that take it from poll(2) and SO_ERROR see the same
// here.
Result<void> InetStreamSocket::Connect(Task&, const SocketAddress& address) {
  if (address.length < 2) return Errno(EINVAL);
  const InetAddress to = TRY(Destination(address));
  switch (outcome_.exchange(Outcome::kNone)) {
    case Outcome::kConnected:
      return {};
    case Outcome::kRefused: {
      const int error = connect_error_.exchange(0);
      return Errno(error != 0 ? error : ECONNABORTED);
    }
    case Outcome::kNone:
      break;
  }
  const Result<void> result = ConnectNow(to);
  if (!nonblocking()) return result;
  if (result.ok()) {
    outcome_ = Outcome::kConnected;
    return Errno(EINPROGRESS);
  }
  if (result.error() != ECONNREFUSED) return result;
  connect_error_ = ECONNREFUSED;
  outcome_ = Outcome::kRefused;
  wait_queue()->Notify(kPollReadable | kPollWritable | kPollAlways);
  return Errno(EINPROGRESS);
}

PollMask InetStreamSocket::Poll(PollMask interest) {
  if (connect_error_ == 0) return core_.Poll(interest);
  return (interest & (kPollReadable | kPollWritable | POLLRDHUP)) | kPollAlways;
}

int InetStreamSocket::TakeError() {
  const int error = connect_error_.exchange(0);
  return error != 0 ? error : core_.TakeError();
}

Result<void> InetStreamSocket::ConnectNow(const InetAddress& to) {
  TRY(core_.ClaimConnect());
  const auto connect = [&]() -> Result<void> {
    const auto found = ports().FindListener(to);
    if (found == nullptr) return Errno(ECONNREFUSED);
    auto& listener = static_cast<InetStreamSocket&>(*found);
    TRY(BindFor(to));
    auto accepted = std::make_shared<InetStreamSocket>(kernel(), listener.kind().family, false,
                                                       listener.credentials());
    accepted->SetNames(to, local());
    accepted->options().keep_alive = listener.options().keep_alive.load();
    accepted->options().receive_bytes = listener.options().receive_bytes.load();
    accepted->options().send_bytes = listener.options().send_bytes.load();
    accepted->options().linger_on = listener.options().linger_on.load();
    accepted->options().linger_seconds = listener.options().linger_seconds.load();
    accepted->options().oob_inline = listener.options().oob_inline.load();
    InetStreamSocket& raw = *accepted;
    peer_receive_bytes_ = listener.options().receive_bytes.load();
    raw.peer_receive_bytes_ = options().receive_bytes.load();
    // In flight on a wire of our own: what the sender may buffer and what the receiver may.
    const size_t there = size_t{options().send_bytes} + listener.options().receive_bytes;
    const size_t back = size_t{listener.options().send_bytes} + options().receive_bytes;
    SetPeer(to);
    TRY(core_.ConnectTo(listener.core_, std::move(accepted), raw.core_, there, back,
                        nonblocking()));
    core_.inbox()->set_urgent_inline(options().oob_inline);
    core_.outbox()->set_urgent_inline(listener.options().oob_inline);
    return {};
  };
  const auto result = connect();
  if (!result.ok()) {
    core_.Unclaim();
    SetPeer(std::nullopt);
  }
  return result;
}

Result<SocketAddress> InetStreamSocket::PeerAddress() {
  if (core_.state() != StreamCore::State::kConnected) return Errno(ENOTCONN);
  return InetSocket::PeerAddress();
}

Result<size_t> InetStreamSocket::Send(Task& task, SendRequest& request) {
  request.ancillary = {};  // No rights over the internet.
  if (const int error = connect_error_.exchange(0)) return Errno(error);
  return core_.Send(task, request, {});
}

Result<ReceiveResult> InetStreamSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_OOB) != 0) {
    return options().oob_inline ? Result<ReceiveResult>(Errno(EINVAL))
                                : core_.ReceiveUrgent(request);
  }
  if ((request.flags & MSG_ERRQUEUE) != 0) return Errno(EAGAIN);
  if (const int error = connect_error_.exchange(0)) return Errno(error);
  if ((request.flags & MSG_TRUNC) != 0 && (request.flags & MSG_PEEK) == 0) {
    // tcp(7): discards the bytes instead of copying them.
    std::vector<std::byte> bin(std::min<uint64_t>(request.to.remaining(), 65536));
    IoBuffer discard{std::span<std::byte>(bin)};
    const ReceiveRequest discarding{discard, request.flags};
    ReceiveResult result = TRY(core_.Receive(discarding, false));
    request.to.Skip(result.bytes);
    return result;
  }
  return core_.Receive(request, false);
}

int InetStreamSocket::state_number() {
  switch (core_.state()) {
    case StreamCore::State::kListening:
      return 10;  // TCP_LISTEN
    case StreamCore::State::kConnected: {
      const auto in = core_.inbox();
      const auto out = core_.outbox();
      if (in->writing_finished())
        return out->writing_finished() ? 7 : 8;  // TCP_CLOSE, TCP_CLOSE_WAIT
      return out->writing_finished() ? 5 : 1;    // TCP_FIN_WAIT2, TCP_ESTABLISHED
    }
    default:
      return 7;  // TCP_CLOSE
  }
}

Result<uint64_t> InetStreamSocket::InputQueued() {
  if (listening()) return Errno(EINVAL);
  const auto inbox = core_.inbox();
  return uint64_t{inbox == nullptr ? 0 : inbox->NextBytes()};
}

uint64_t InetStreamSocket::OutputQueued() {
  // What the peer's side holds was delivered, as acknowledged bytes are.
  return 0;
}

void InetStreamSocket::OnBufferSizes() {
  if (const auto outbox = core_.outbox()) {
    outbox->set_byte_limit(size_t{options().send_bytes} + peer_receive_bytes_);
  }
}

}  // namespace sentry
