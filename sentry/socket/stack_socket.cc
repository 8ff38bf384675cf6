#include "sentry/socket/stack_socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "netstack/tcp/connection.h"
#include "netstack/tcp/listener.h"
#include "netstack/tcp/table.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/inet_ports.h"
#include "sentry/socket/stack_socket_internal.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using netstack::SlabRef;
using netstack::Slice;
using netstack::Slices;
namespace tcp = netstack::tcp;

constexpr size_t kChunkBytes = 65536;
constexpr size_t kWritableRoom = 2048;  // Less is not worth waking a writer for.

// Lives as long as the connection may speak; holds only what it needs to wake somebody.
class QueueObserver final : public tcp::Observer {
 public:
  explicit QueueObserver(std::shared_ptr<WaitQueue> queue) : queue_(std::move(queue)) {}
  void OnEvents(uint32_t events) override {
    PollMask mask = 0;
    if ((events & (tcp::kReadable | tcp::kPeerClosed)) != 0) mask |= kPollReadable;
    if ((events & tcp::kPeerClosed) != 0) mask |= POLLRDHUP;
    if ((events & (tcp::kWritable | tcp::kConnected)) != 0) mask |= kPollWritable;
    if ((events & tcp::kUrgent) != 0) mask |= POLLPRI;
    if ((events & (tcp::kFailed | tcp::kClosedAll)) != 0)
      mask |= kPollReadable | kPollWritable | POLLRDHUP | kPollAlways;
    if (mask != 0) queue_->Notify(mask);
  }

 private:
  const std::shared_ptr<WaitQueue> queue_;
};

class StackStreamSocket final : public StackInetSocket {
 public:
  StackStreamSocket(Kernel& kernel, std::shared_ptr<StackNetwork> network, int family,
                    bool nonblocking, CredentialsRef credentials)
      : StackInetSocket(kernel, std::move(network), {family, SOCK_STREAM, IPPROTO_TCP}, nonblocking,
                        std::move(credentials)) {}
  ~StackStreamSocket() override {
    if (listener_ != nullptr) listener_->Close();
    if (connection_ != nullptr)
      connection_->Close(options().linger_on != 0 && options().linger_seconds == 0);
  }

  Result<void> Listen(Task& task, int backlog) override;
  Result<SocketRef> Accept(Task& task, bool nonblocking_result) override;
  Result<void> Connect(Task& task, const SocketAddress& address) override;
  Result<SocketAddress> PeerAddress() override;
  Result<size_t> Send(Task& task, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  Result<void> Shutdown(ShutdownHow how) override;
  Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name) override;
  Result<void> SetOption(Task& task, int level, int name, std::span<const uint8_t> value) override;
  PollMask Poll(PollMask interest) override;
  bool listening() override { return listener() != nullptr; }
  int state_number() override {
    if (listening()) return static_cast<int>(tcp::State::kListen);
    const auto held = connection();
    return static_cast<int>(held == nullptr ? tcp::State::kClosed : held->GetStatus().state);
  }

 protected:
  Result<uint64_t> InputQueued() override {
    if (listening()) return Errno(EINVAL);
    const auto held = connection();
    return uint64_t{held == nullptr ? 0 : held->Readable()};
  }
  uint64_t OutputQueued() override {
    const auto held = connection();
    return held == nullptr ? 0 : held->GetInfo().send_queued;
  }
  int TakeError() override {
    const auto held = connection();
    return held == nullptr ? 0 : held->TakeError();
  }
  void OnBufferSizes() override { ApplySettings(); }

 private:
  std::shared_ptr<tcp::Connection> connection() ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    return connection_;
  }
  std::shared_ptr<tcp::Listener> listener() ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    return listener_;
  }
  void Fill(tcp::Settings& settings);
  void ApplySettings();
  Result<void> StartConnect(const InetAddress& to);
  Result<ReceiveResult> ReceiveUrgent(tcp::Connection& held, ReceiveRequest& request);
  Result<size_t> CopyReceived(tcp::Connection& held, ReceiveRequest& request, size_t limit);

  absl::Mutex mu_;
  std::shared_ptr<tcp::Connection> connection_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<tcp::Listener> listener_ ABSL_GUARDED_BY(mu_);
  bool connect_reported_ ABSL_GUARDED_BY(mu_) = false;
  std::atomic<bool> buffers_set_{false}, reno_{false};
  std::atomic<uint16_t> mss_max_{0};
  absl::Mutex read_mu_;  // Held over the copy to the reader: two readers see the stream in order.
};

// --- Settings.

void StackStreamSocket::Fill(tcp::Settings& settings) {
  const auto option = [&](int name) { return PlainOption(IPPROTO_TCP, name).value_or(0); };
  settings.no_delay = option(TCP_NODELAY) != 0;
  settings.cork = option(TCP_CORK) != 0;
  settings.quick_ack = option(TCP_QUICKACK) != 0;
  settings.keep_alive = options().keep_alive;
  settings.urgent_inline = options().oob_inline;
  settings.keep_idle_ns = option(TCP_KEEPIDLE) * netstack::kNsPerSecond;
  settings.keep_interval_ns = option(TCP_KEEPINTVL) * netstack::kNsPerSecond;
  settings.keep_probes = option(TCP_KEEPCNT);
  settings.syn_retries = option(TCP_SYNCNT);
  settings.user_timeout_ns = option(TCP_USER_TIMEOUT) * netstack::kNsPerMs;
  settings.window_clamp = static_cast<uint32_t>(std::max(option(TCP_WINDOW_CLAMP), 0));
  const int32_t linger = option(TCP_LINGER2);
  settings.fin_wait_ns = linger < 0 ? 0 : std::min(linger, 120) * netstack::kNsPerSecond;
  settings.mss_max = mss_max_;
  settings.congestion = reno_ ? tcp::CongestionKind::kReno : tcp::CongestionKind::kCubic;
  if (buffers_set_) {
    settings.send_buffer = options().send_bytes;
    settings.receive_buffer = options().receive_bytes;
  }
}

void StackStreamSocket::ApplySettings() {
  if (const auto held = connection())
    held->ChangeSettings([&](tcp::Settings& settings) { Fill(settings); });
  if (const auto held = listener())
    held->ChangeSettings([&](tcp::Settings& settings) { Fill(settings); });
}

Result<std::vector<uint8_t>> StackStreamSocket::GetOption(Task& task, int level, int name) {
  const auto held = connection();
  if (level == SOL_SOCKET && name == SO_ACCEPTCONN) return OptionValue(listening() ? 1 : 0);
  if (level != IPPROTO_TCP) return InetSocket::GetOption(task, level, name);
  switch (name) {
    case TCP_MAXSEG:
      return OptionValue(held == nullptr ? 536 : static_cast<int32_t>(held->GetInfo().send_mss));
    case TCP_CONGESTION: {
      const std::string_view text = reno_ ? "reno" : "cubic";
      std::vector<uint8_t> value(text.begin(), text.end());
      value.resize(16);
      return value;
    }
    case TCP_INFO: {
      tcp_info info = {};
      info.tcpi_state = static_cast<uint8_t>(state_number());
      if (held != nullptr) {
        const auto now = held->GetInfo();
        const auto us = [](int64_t ns) {
          return static_cast<uint32_t>(std::max<int64_t>(ns, 0) / 1000);
        };
        info.tcpi_ca_state = now.congestion_state;
        info.tcpi_retransmits = static_cast<uint8_t>(now.retransmits);
        info.tcpi_backoff = now.backoff;
        info.tcpi_options = static_cast<uint8_t>((now.timestamps ? 1 : 0) | (now.sack ? 2 : 0) |
                                                 (now.send_scale != 0 ? 4 : 0));
        info.tcpi_snd_wscale = now.send_scale & 0xf;
        info.tcpi_rcv_wscale = now.receive_scale & 0xf;
        info.tcpi_rto = us(now.rto_ns);
        info.tcpi_snd_mss = now.send_mss;
        info.tcpi_rcv_mss = now.receive_mss;
        info.tcpi_unacked = now.unacked_segments;
        info.tcpi_sacked = now.sacked_segments;
        info.tcpi_lost = now.lost_segments;
        info.tcpi_rtt = us(now.srtt_ns);
        info.tcpi_rttvar = us(now.rttvar_ns);
        info.tcpi_snd_ssthresh = now.ssthresh / now.send_mss;
        info.tcpi_snd_cwnd = now.cwnd / now.send_mss;
        info.tcpi_rcv_rtt = us(now.receive_rtt_ns);
        info.tcpi_rcv_space = now.receive_window;
        info.tcpi_total_retrans = now.total_retransmits;
        info.tcpi_pmtu = now.send_mss + 52;
      }
      const auto* raw = reinterpret_cast<const uint8_t*>(&info);
      return std::vector<uint8_t>(raw, raw + sizeof(info));
    }
    default:
      return InetSocket::GetOption(task, level, name);
  }
}

Result<void> StackStreamSocket::SetOption(Task& task, int level, int name,
                                          std::span<const uint8_t> value) {
  if (level == IPPROTO_TCP && name == TCP_MAXSEG) {
    const int32_t bytes = TRY(OptionNumber(value));
    if (bytes < 88 || bytes > 32767) return Errno(EINVAL);
    mss_max_ = static_cast<uint16_t>(bytes);
  } else if (level == IPPROTO_TCP && name == TCP_CONGESTION) {
    const std::string_view text(reinterpret_cast<const char*>(value.data()), value.size());
    const std::string_view wanted = text.substr(0, text.find('\0'));
    if (wanted != "cubic" && wanted != "reno") return Errno(ENOENT);
    reno_ = wanted == "reno";
  } else {
    const bool buffers = level == SOL_SOCKET && (name == SO_SNDBUF || name == SO_RCVBUF ||
                                                 name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE);
    if (buffers) buffers_set_ = true;
    TRY(InetSocket::SetOption(task, level, name, value));
  }
  ApplySettings();
  if (const auto held = connection()) {
    const auto field = [&](int v4, int v6) {
      const bool v6_peer = kind().family == AF_INET6 && !held->flow().remote.is_v4();
      const int32_t set = v6_peer ? PlainOption(IPPROTO_IPV6, v6).value_or(0)
                                  : PlainOption(IPPROTO_IP, v4).value_or(0);
      return static_cast<uint8_t>(set);
    };
    held->SetHeaderFields(field(IP_TTL, IPV6_UNICAST_HOPS), field(IP_TOS, IPV6_TCLASS));
  }
  return {};
}

// --- Opening.

Result<void> StackStreamSocket::Listen(Task&, int backlog) {
  if (const auto held = listener()) {
    held->SetBacklog(backlog);
    return {};
  }
  if (connection() != nullptr) return Errno(EINVAL);
  if (local().port == 0) TRY(BindTo(local()));
  TRY(ports().CheckListen(*this));
  const InetAddress name = local();
  tcp::Listener::Options wanted;
  wanted.local = ToStack(name);
  wanted.port = name.port;
  wanted.v6_only = v6_only();
  wanted.shares = shares_port();
  Fill(wanted.settings);
  const absl::MutexLock lock(&mu_);
  listener_ = TRY(tcp::Listener::Open(stack(), wanted, backlog,
                                      std::make_shared<QueueObserver>(shared_queue())));
  return {};
}

Result<SocketRef> StackStreamSocket::Accept(Task&, bool nonblocking_result) {
  const auto held = listener();
  if (held == nullptr) return Errno(EINVAL);
  auto peer = TRY(held->Accept());
  auto accepted = std::make_shared<StackStreamSocket>(kernel(), network_, kind().family,
                                                      nonblocking_result, credentials());
  const netstack::FlowKey& flow = peer->flow();
  accepted->SetNames(FromStack(flow.local, flow.local_port),
                     FromStack(flow.remote, flow.remote_port));
  accepted->CopyOptionsFrom(*this);
  accepted->buffers_set_ = buffers_set_.load();
  accepted->reno_ = reno_.load();
  {
    const absl::MutexLock lock(&accepted->mu_);
    accepted->connection_ = peer;
    accepted->connect_reported_ = true;
  }
  peer->SetObserver(std::make_shared<QueueObserver>(accepted->shared_queue()));
  return SocketRef(std::move(accepted));
}

Result<void> StackStreamSocket::StartConnect(const InetAddress& to) {
  const bool automatic = local().port == 0;
  TRY(BindFor(to));
  tcp::Connection::Options wanted;
  Fill(wanted.settings);
  const int32_t hops = to.is_v4() ? PlainOption(IPPROTO_IP, IP_TTL).value_or(64)
                                  : PlainOption(IPPROTO_IPV6, IPV6_UNICAST_HOPS).value_or(64);
  wanted.hop_limit = static_cast<uint8_t>(hops);
  const InetAddress from = local();
  wanted.flow = {ToStack(from), ToStack(to), from.port, to.port};
  if (from.is_any()) wanted.flow.local = netstack::IpAddress::Any(to.is_v4());
  auto made =
      tcp::Connection::Connect(stack(), wanted, std::make_shared<QueueObserver>(shared_queue()));
  if (!made.ok())
    return made.error() == EADDRINUSE && automatic ? Errno(EADDRNOTAVAIL) : made.error();
  const netstack::FlowKey& flow = made.value()->flow();
  SetNames(FromStack(flow.local, flow.local_port), to);
  const absl::MutexLock lock(&mu_);
  connection_ = std::move(made).value();
  connect_reported_ = false;
  return {};
}

// A blocking caller comes back (EAGAIN) until the handshake is over.
Result<void> StackStreamSocket::Connect(Task&, const SocketAddress& address) {
  if (address.length < 2) return Errno(EINVAL);
  if (listening()) return Errno(EISCONN);
  auto held = connection();
  if (held == nullptr) {
    const InetAddress to = TRY(Destination(address));
    TRY(StartConnect(to));
    held = connection();
    if (nonblocking()) return Errno(EINPROGRESS);
  }
  const auto status = held->GetStatus();
  if (status.state == tcp::State::kSynSent || status.state == tcp::State::kSynReceived)
    return Errno(nonblocking() ? EALREADY : EAGAIN);
  const absl::MutexLock lock(&mu_);
  if (status.state == tcp::State::kClosed && !connect_reported_) {
    // The socket may try again.
    const int error = held->TakeError();
    connection_.reset();
    SetPeer(std::nullopt);
    return Errno(error != 0 ? error : ECONNABORTED);
  }
  if (std::exchange(connect_reported_, true)) return Errno(EISCONN);
  return {};
}

Result<SocketAddress> StackStreamSocket::PeerAddress() {
  const auto held = connection();
  if (held == nullptr) return Errno(ENOTCONN);
  const tcp::State state = held->GetStatus().state;
  if (state == tcp::State::kSynSent || state == tcp::State::kClosed) return Errno(ENOTCONN);
  return InetSocket::PeerAddress();
}

// --- Bytes.

Result<size_t> StackStreamSocket::Send(Task&, SendRequest& request) {
  const auto held = connection();
  if (held == nullptr) return Errno(EPIPE);
  const bool urgent = (request.flags & MSG_OOB) != 0;
  while (request.from.remaining() > 0) {
    const auto status = held->GetStatus();
    if (status.state == tcp::State::kSynSent || status.state == tcp::State::kSynReceived)
      return Errno(EAGAIN);
    if (status.error != 0 || status.write_finished || status.state == tcp::State::kClosed) {
      if (request.from.done() > 0) break;
      const int error = held->TakeError();
      return Errno(error != 0 ? error : EPIPE);
    }
    if (status.send_room == 0) return Errno(EAGAIN);
    const size_t size =
        std::min<uint64_t>({status.send_room, request.from.remaining(), kChunkBytes});
    Slice slice{SlabRef::New(size), 0, static_cast<uint32_t>(size)};
    const auto copied =
        request.from.CopyIn(std::as_writable_bytes(std::span(slice.slab->data(), size)));
    if (!copied.ok()) {
      if (request.from.done() > 0) break;
      return copied.error();
    }
    slice.size = static_cast<uint32_t>(copied.value());
    const bool push = (request.flags & MSG_MORE) == 0;
    const auto sent = held->Send(std::move(slice), push, urgent && request.from.remaining() == 0);
    if (!sent.ok()) return sent.error();
    if (copied.value() < size) break;
  }
  return static_cast<size_t>(request.from.done());
}

Result<ReceiveResult> StackStreamSocket::ReceiveUrgent(tcp::Connection& held,
                                                       ReceiveRequest& request) {
  if (options().oob_inline) return Errno(EINVAL);
  const auto byte = held.TakeUrgent((request.flags & MSG_PEEK) != 0);
  if (!byte) return Errno(EINVAL);
  ReceiveResult result;
  const std::byte value{*byte};
  if (request.to.remaining() > 0) result.bytes = TRY(request.to.CopyOut({&value, 1}));
  result.full_bytes = 1;
  result.flags = MSG_OOB;
  return result;
}

// Up to `limit` bytes that are there. Those that the guest got are gone from the queue, unless it
// peeks.
Result<size_t> StackStreamSocket::CopyReceived(tcp::Connection& held, ReceiveRequest& request,
                                               size_t limit) {
  const bool peek = (request.flags & MSG_PEEK) != 0;
  const bool discard = (request.flags & MSG_TRUNC) != 0 && !peek;
  size_t done = 0;
  while (done < limit && request.to.remaining() > 0) {
    Slices slices;
    const size_t wanted = std::min<uint64_t>({limit - done, request.to.remaining(), kChunkBytes});
    const size_t got = held.Peek(peek ? done : 0, wanted, slices);
    if (got == 0) break;
    size_t copied = 0;
    Result<void> fault;
    for (const Slice& slice : slices) {
      if (discard) {
        request.to.Skip(slice.size);
        copied += slice.size;
        continue;
      }
      const auto moved = request.to.CopyOut(std::as_bytes(slice.bytes()));
      if (!moved.ok()) {
        fault = moved.error();
        break;
      }
      copied += moved.value();
      if (moved.value() < slice.size) break;
    }
    if (!peek && copied != 0) held.Consume(copied);
    done += copied;
    if (!fault.ok() && done == 0) return fault.error();
    if (copied < got) break;
  }
  return done;
}

Result<ReceiveResult> StackStreamSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_ERRQUEUE) != 0) return Errno(EAGAIN);
  const auto held = connection();
  if (held == nullptr) return Errno(ENOTCONN);
  if ((request.flags & MSG_OOB) != 0) return ReceiveUrgent(*held, request);
  const absl::MutexLock reading(&read_mu_);
  const auto status = held->GetStatus();
  if (status.state == tcp::State::kSynSent || status.state == tcp::State::kSynReceived)
    return Errno(EAGAIN);
  ReceiveResult result;
  if (status.readable > 0) {
    // A read stops at the urgent mark, and the next one goes beyond it (tcp(7)).
    size_t limit = SIZE_MAX;
    if (status.bytes_to_mark != SIZE_MAX && status.bytes_to_mark > 0) limit = status.bytes_to_mark;
    result.bytes = result.full_bytes = TRY(CopyReceived(*held, request, limit));
    return result;
  }
  if (status.error != 0) return Errno(held->TakeError());
  const bool over = status.peer_finished || status.read_shut ||
                    status.state == tcp::State::kClosed || status.state == tcp::State::kTimeWait;
  if (over || request.to.remaining() == 0) return result;
  return Errno(EAGAIN);
}

Result<void> StackStreamSocket::Shutdown(ShutdownHow how) {
  if (listening()) {
    // As Linux: a listener that is shut for reading listens no more.
    std::shared_ptr<tcp::Listener> gone;
    {
      const absl::MutexLock lock(&mu_);
      if (how != ShutdownHow::kWrite) gone.swap(listener_);
    }
    if (gone != nullptr) gone->Close();
    wait_queue()->Notify(kPollReadable | kPollWritable | kPollAlways);
    return {};
  }
  const auto held = connection();
  if (held == nullptr || held->GetStatus().state == tcp::State::kClosed) return Errno(ENOTCONN);
  if (how != ShutdownHow::kWrite) held->ShutdownRead();
  if (how != ShutdownHow::kRead) held->ShutdownWrite();
  wait_queue()->Notify(kPollReadable | kPollWritable | POLLRDHUP | kPollAlways);
  return {};
}

PollMask StackStreamSocket::Poll(PollMask interest) {
  interest |= kPollAlways;
  if (const auto held = listener()) return held->Waiting() > 0 ? kPollReadable & interest : 0;
  const auto held = connection();
  if (held == nullptr) return (kPollWritable | POLLHUP) & interest;
  const auto status = held->GetStatus();
  PollMask mask = 0;
  const bool connecting =
      status.state == tcp::State::kSynSent || status.state == tcp::State::kSynReceived;
  const bool closed = status.state == tcp::State::kClosed || status.state == tcp::State::kTimeWait;
  const bool reading_over = status.peer_finished || status.read_shut || closed;
  const bool writing_over = status.write_finished || closed;
  if (status.readable > 0) mask |= kPollReadable;
  if (reading_over) mask |= kPollReadable | POLLRDHUP;
  if (!connecting && (status.send_room >= kWritableRoom || writing_over)) mask |= kPollWritable;
  if (reading_over && writing_over) mask |= POLLHUP;
  if (status.error != 0) mask |= POLLERR | kPollReadable | kPollWritable;
  if (status.has_urgent) mask |= POLLPRI;
  return mask & interest;
}

}  // namespace

Result<SocketRef> NewStackSocket(Task& task, const std::shared_ptr<StackNetwork>& network,
                                 const Socket::Kind& kind, bool nonblocking) {
  switch (kind.type) {
    case SOCK_STREAM:
      if (kind.protocol != 0 && kind.protocol != IPPROTO_TCP) return Errno(EPROTONOSUPPORT);
      return SocketRef(std::make_shared<StackStreamSocket>(task.kernel(), network, kind.family,
                                                           nonblocking, task.credentials()));
    case SOCK_DGRAM:
      return NewStackDatagramSocket(task, network, kind, nonblocking);
    case SOCK_RAW:
      return NewStackRawSocket(task, network, kind, nonblocking);
    default:
      return Errno(ESOCKTNOSUPPORT);
  }
}

}  // namespace sentry
