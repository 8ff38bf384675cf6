#include "sentry/socket/host_socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "gofer/network/client.h"
#include "sentry/kernel/host_poller.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

constexpr size_t kHostIoBytesMax = size_t{1} << 20;
constexpr size_t kControlBytesMax = 1024;
constexpr uint16_t kFirstUnprivilegedPort = 1024;
// What sendmsg(2) and recvmsg(2) of the host are let in on; whether to wait is decided here.
constexpr int kSendFlags = MSG_MORE | MSG_CONFIRM | MSG_DONTROUTE | MSG_EOR;
constexpr int kReceiveFlags = MSG_PEEK | MSG_TRUNC | MSG_ERRQUEUE | MSG_OOB;

Result<size_t> Count(ssize_t result) {
  if (result < 0) return Errno(errno == EWOULDBLOCK ? EAGAIN : errno);
  return static_cast<size_t>(result);
}

SocketAddress AddressFrom(std::span<const uint8_t> bytes) {
  SocketAddress address;
  address.length = static_cast<uint32_t>(std::min<size_t>(bytes.size(), address.bytes.size()));
  std::copy_n(bytes.begin(), address.length, address.bytes.begin());
  return address;
}

// Host control messages that a guest may see, and send: the internet protocols' own, and time
// stamps. Rights and credentials are the sentry's business.
bool IsPlainControl(int level, int type, bool sending) {
  if (level == IPPROTO_IP || level == IPPROTO_IPV6 || level == IPPROTO_UDP) return true;
  return !sending && level == SOL_SOCKET && (type == SO_TIMESTAMP || type == SO_TIMESTAMPNS);
}

class HostSocket final : public Socket {
 public:
  HostSocket(Task& task, const Kind& kind, bool nonblocking, CredentialsRef credentials,
             std::shared_ptr<gofer::network::Client> network, gofer::network::HostSocket host)
      : Socket(task.kernel(), kind, nonblocking, std::move(credentials)),
        network_(std::move(network)),
        host_(std::move(host)),
        poller_(task.kernel().host_poller()) {}
  ~HostSocket() override {
    if (watched_) poller_.Remove(host_.fd.get());
    host_.fd.Reset();
    network_->Close(host_.handle);
  }
  // Before anybody waits for it. Errors are epoll_ctl's.
  Result<void> Watch() {
    TRY(poller_.Add(host_.fd.get(), *wait_queue()));
    watched_ = true;
    return {};
  }

  Result<void> Bind(Task& task, const SocketAddress& address) override;
  Result<void> Listen(Task& task, int backlog) override;
  Result<SocketRef> Accept(Task& task, bool nonblocking_result) override;
  Result<void> Connect(Task& task, const SocketAddress& address) override;
  Result<SocketAddress> LocalAddress() override {
    return AddressFrom(TRY(network_->LocalAddress(host_.handle)));
  }
  Result<SocketAddress> PeerAddress() override {
    return AddressFrom(TRY(network_->PeerAddress(host_.handle)));
  }
  Result<size_t> Send(Task& task, SendRequest& request) override;
  Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) override;
  Result<void> Shutdown(ShutdownHow how) override {
    return network_->Shutdown(host_.handle, static_cast<int>(how));
  }
  Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name) override;
  Result<void> SetOption(Task& task, int level, int name, std::span<const uint8_t> value) override;
  PollMask Poll(PollMask interest) override {
    return HostPoller::Ready(host_.fd.get(), interest | kPollAlways);
  }
  bool listening() override { return listening_; }

 protected:
  Result<uint64_t> InputQueued() override {
    int count = 0;
    if (ioctl(host_.fd.get(), FIONREAD, &count) != 0) return base::LastErrno();
    return static_cast<uint64_t>(std::max(count, 0));
  }

 private:
  Result<void> SendDatagram(SendRequest& request, msghdr& message, int flags);
  static std::vector<ControlMessage> ControlFrom(msghdr& message);

  const std::shared_ptr<gofer::network::Client> network_;
  gofer::network::HostSocket host_;
  HostPoller& poller_;
  bool watched_ = false;
  std::atomic<bool> listening_{false};
  std::atomic<bool> connecting_{false};  // A connect that its caller still waits for.
};

Result<void> HostSocket::Bind(Task& task, const SocketAddress& address) {
  if (address.length < 2) return Errno(EINVAL);
  uint16_t port = 0;  // In the same place in both kinds of addresses.
  if (address.length >= 4) port = static_cast<uint16_t>(address.bytes[2] << 8 | address.bytes[3]);
  // The host may allow what the guest's own rules do not.
  if (port != 0 && port < kFirstUnprivilegedPort &&
      !task.credentials()->HasCapability(CAP_NET_BIND_SERVICE)) {
    return Errno(EACCES);
  }
  return network_->Bind(host_.handle, address.view());
}

Result<void> HostSocket::Listen(Task&, int backlog) {
  TRY(network_->Listen(host_.handle, std::clamp(backlog, 0, kListenBacklogMax)));
  listening_ = true;
  return {};
}

Result<SocketRef> HostSocket::Accept(Task& task, bool nonblocking_result) {
  if (kind().type != SOCK_STREAM) return Errno(EOPNOTSUPP);
  // A look first: an empty backlog is the usual case of a server's loop, and no reason for a
  // message.
  if (listening_ && HostPoller::Ready(host_.fd.get(), kPollReadable) == 0) return Errno(EAGAIN);
  auto connection = TRY(network_->Accept(host_.handle));
  auto accepted = std::make_shared<HostSocket>(task, kind(), nonblocking_result, credentials(),
                                               network_, std::move(connection));
  TRY(accepted->Watch());
  return SocketRef(std::move(accepted));
}

// The host's socket never waits. A guest that does comes back here once the socket is writable, and
// takes the result.
Result<void> HostSocket::Connect(Task&, const SocketAddress& address) {
  if (address.length < 2) return Errno(EINVAL);
  if (connecting_.load()) {
    if (HostPoller::Ready(host_.fd.get(), kPollWritable) == 0) return Errno(EAGAIN);
    connecting_ = false;
    const auto bytes = TRY(network_->GetOption(host_.handle, SOL_SOCKET, SO_ERROR));
    const int32_t error = TRY(OptionNumber(bytes));
    return error == 0 ? Result<void>() : Errno(error);
  }
  const auto started = network_->Connect(host_.handle, address.view());
  if (started.ok() || started.error() != EINPROGRESS || nonblocking()) return started;
  connecting_ = true;
  return Errno(EAGAIN);
}

Result<size_t> HostSocket::Send(Task&, SendRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  msghdr message = {};
  if (request.to != nullptr) {
    message.msg_name = const_cast<uint8_t*>(request.to->bytes.data());
    message.msg_namelen = request.to->length;
  }
  alignas(cmsghdr) std::array<char, kControlBytesMax> control = {};
  size_t used = 0;
  for (const ControlMessage& each : request.ancillary.others) {
    if (!IsPlainControl(each.level, each.type, true)) continue;
    if (used + CMSG_SPACE(each.data.size()) > control.size()) return Errno(ENOBUFS);
    cmsghdr header = {};
    header.cmsg_level = each.level;
    header.cmsg_type = each.type;
    header.cmsg_len = CMSG_LEN(each.data.size());
    std::memcpy(control.data() + used, &header, sizeof(header));
    std::copy(each.data.begin(), each.data.end(), control.data() + used + CMSG_LEN(0));
    used += CMSG_SPACE(each.data.size());
  }
  if (used > 0) {
    message.msg_control = control.data();
    message.msg_controllen = used;
  }
  const int flags = (request.flags & kSendFlags) | MSG_DONTWAIT | MSG_NOSIGNAL;
  if (!is_stream() || request.from.remaining() == 0) {
    const size_t size = request.from.remaining();
    TRY(SendDatagram(request, message, flags));
    return size;
  }
  while (request.from.remaining() > 0) {
    const auto moved =
        request.from.WithHostMemory(std::min<uint64_t>(request.from.remaining(), kHostIoBytesMax),
                                    false, [&](std::span<const iovec> parts) -> Result<size_t> {
                                      message.msg_iov = const_cast<iovec*>(parts.data());
                                      message.msg_iovlen = parts.size();
                                      return Count(sendmsg(host_.fd.get(), &message, flags));
                                    });
    if (!moved.ok()) {
      if (moved.error() == EAGAIN || request.from.done() == 0) return moved.error();
      break;
    }
    if (moved.value() == 0) break;
  }
  return static_cast<size_t>(request.from.done());
}

// Whole or not at all, so through a copy: guest memory may have holes in it.
Result<void> HostSocket::SendDatagram(SendRequest& request, msghdr& message, int flags) {
  constexpr size_t kDatagramBytesMax = 65535;
  const size_t size = request.from.remaining();
  if (size > kDatagramBytesMax) return Errno(EMSGSIZE);
  std::vector<std::byte> bytes(size);
  IoBuffer peek = request.from;  // A host that is not ready must find it unmoved.
  if (size > 0 && TRY(peek.CopyIn(bytes)) < size) return Errno(EFAULT);
  iovec part = {bytes.data(), bytes.size()};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  TRY(Count(sendmsg(host_.fd.get(), &message, flags)));
  request.from.Skip(size);
  return {};
}

std::vector<ControlMessage> HostSocket::ControlFrom(msghdr& message) {
  std::vector<ControlMessage> messages;
  for (cmsghdr* each = CMSG_FIRSTHDR(&message); each != nullptr;
       each = CMSG_NXTHDR(&message, each)) {
    if (each->cmsg_len < CMSG_LEN(0)) break;
    if (!IsPlainControl(each->cmsg_level, each->cmsg_type, false)) continue;
    const auto* data = CMSG_DATA(each);
    messages.push_back(
        {each->cmsg_level, each->cmsg_type, {data, data + (each->cmsg_len - CMSG_LEN(0))}});
  }
  return messages;
}

Result<ReceiveResult> HostSocket::Receive(Task&, ReceiveRequest& request) {
  ReceiveResult result;
  std::array<uint8_t, sizeof(sockaddr_storage)> name;
  alignas(cmsghdr) std::array<char, kControlBytesMax> control;
  const int flags = (request.flags & kReceiveFlags) | MSG_DONTWAIT;
  msghdr message = {};
  size_t full = 0;
  const auto receive = [&](std::span<const iovec> parts) -> Result<size_t> {
    message = {};
    message.msg_name = name.data();
    message.msg_namelen = name.size();
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    message.msg_iov = const_cast<iovec*>(parts.data());
    message.msg_iovlen = parts.size();
    // Of a datagram the whole length is wanted, as of one that is cut.
    const int how = is_stream() ? flags : flags | MSG_TRUNC;
    full = TRY(Count(recvmsg(host_.fd.get(), &message, how)));
    size_t room = 0;
    for (const iovec& part : parts) room += part.iov_len;
    return std::min(full, room);
  };
  if (request.to.remaining() == 0) {
    TRY(receive({}));
  } else if (is_stream() && (flags & MSG_TRUNC) != 0 && (flags & MSG_PEEK) == 0) {
    // tcp(7): the bytes are thrown away; the buffer stays as it is.
    std::vector<std::byte> bin(std::min<uint64_t>(request.to.remaining(), 65536));
    const iovec part = {bin.data(), bin.size()};
    result.bytes = TRY(receive({&part, 1}));
    request.to.Skip(result.bytes);
  } else {
    result.bytes = TRY(request.to.WithHostMemory(
        std::min<uint64_t>(request.to.remaining(), kHostIoBytesMax), true, receive));
  }
  result.full_bytes = full;
  result.flags = message.msg_flags & (MSG_TRUNC | MSG_ERRQUEUE | MSG_EOR | MSG_OOB);
  if (message.msg_namelen > 0) {
    result.from =
        AddressFrom(std::span(name).first(std::min<size_t>(message.msg_namelen, name.size())));
  }
  result.ancillary.others = ControlFrom(message);
  return result;
}

Result<std::vector<uint8_t>> HostSocket::GetOption(Task& task, int level, int name) {
  if (level != SOL_SOCKET) return network_->GetOption(host_.handle, level, name);
  switch (name) {
    // Known here, or kept here because waiting is.
    case SO_TYPE:
    case SO_DOMAIN:
    case SO_PROTOCOL:
    case SO_PEERCRED:
    case SO_PASSCRED:
    case SO_RCVTIMEO:
    case SO_SNDTIMEO:
    case SO_PRIORITY:
    case SO_MARK:
    case SO_BINDTODEVICE:
      return Socket::GetOption(task, level, name);
    default:
      return network_->GetOption(host_.handle, level, name);
  }
}

Result<void> HostSocket::SetOption(Task& task, int level, int name,
                                   std::span<const uint8_t> value) {
  if (level == SOL_SOCKET) {
    switch (name) {
      case SO_PASSCRED:
      case SO_RCVTIMEO:
      case SO_SNDTIMEO:
      case SO_PRIORITY:
      case SO_MARK:
        return Socket::SetOption(task, level, name, value);
      case SO_BINDTODEVICE:
        // Binding to a device of the host is more than a guest is let in on.
        return Errno(EPERM);
      case SO_SNDBUFFORCE:
      case SO_RCVBUFFORCE:
        if (!task.credentials()->HasCapability(CAP_NET_ADMIN)) return Errno(EPERM);
        name = name == SO_SNDBUFFORCE ? SO_SNDBUF : SO_RCVBUF;
        break;
      default:
        break;
    }
  }
  return network_->SetOption(host_.handle, level, name, value);
}

}  // namespace

Result<SocketRef> NewHostSocket(Task& task, const std::shared_ptr<gofer::network::Client>& network,
                                const Socket::Kind& kind, bool nonblocking) {
  if (kind.type == SOCK_RAW)
    return Errno(task.credentials()->HasCapability(CAP_NET_RAW) ? EPROTONOSUPPORT : EPERM);
  auto host = TRY(network->Socket(kind.family, kind.type, kind.protocol));
  Socket::Kind known = kind;
  if (known.protocol == 0)
    known.protocol = kind.type == SOCK_STREAM ? int{IPPROTO_TCP} : int{IPPROTO_UDP};
  auto socket = std::make_shared<HostSocket>(task, known, nonblocking, task.credentials(), network,
                                             std::move(host));
  TRY(socket->Watch());
  return SocketRef(std::move(socket));
}

}  // namespace sentry
