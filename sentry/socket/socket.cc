#include "sentry/socket/socket.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sockios.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "sentry/fs/anon/anonymous_files.h"
#include "sentry/kernel/current_task.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/kernel/user_namespace.h"
#include "sentry/socket/interface_ioctl.h"
#include "sentry/socket/network_namespace.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

constexpr uint32_t kSendBytesMin = 4608;
constexpr uint32_t kReceiveBytesMin = 2304;
constexpr int64_t kSecondNs = 1'000'000'000;

// struct timeval of SO_RCVTIMEO.
struct TimeValue {
  int64_t seconds = 0;
  int64_t microseconds = 0;
};

template <typename T>
std::vector<uint8_t> Bytes(const T& value) {
  std::vector<uint8_t> bytes(sizeof(T));
  std::memcpy(bytes.data(), &value, sizeof(T));
  return bytes;
}

template <typename T>
Result<T> FromBytes(std::span<const uint8_t> bytes) {
  if (bytes.size() < sizeof(T)) return Errno(EINVAL);
  T value;
  std::memcpy(&value, bytes.data(), sizeof(T));
  return value;
}

std::vector<uint8_t> TimeOption(int64_t ns) {
  return Bytes(TimeValue{ns / kSecondNs, ns % kSecondNs / 1000});
}

Result<int64_t> TimeFromOption(std::span<const uint8_t> bytes) {
  const auto value = TRY(FromBytes<TimeValue>(bytes));
  if (value.microseconds < 0 || value.microseconds >= 1'000'000) return Errno(EDOM);
  // Linux: a negative time means "do not wait at all".
  if (value.seconds < 0) return int64_t{1};
  constexpr int64_t kSecondsMax = int64_t{1} << 32;
  return std::min(value.seconds, kSecondsMax) * kSecondNs + value.microseconds * 1000;
}

Deadline DeadlineAfter(Kernel& kernel, int64_t timeout_ns) {
  if (timeout_ns == 0) return Deadline::Never();
  return Deadline::At(kernel.clock().MonotonicNs() + timeout_ns);
}

}  // namespace

std::vector<uint8_t> OptionValue(int32_t value) { return Bytes(value); }
Result<int32_t> OptionNumber(std::span<const uint8_t> value) { return FromBytes<int32_t>(value); }

void RaiseBrokenPipe(Task& task, int flags) {
  if ((flags & MSG_NOSIGNAL) != 0) return;
  (void)task.SendSignal(SignalInfo::FromUser(SIGPIPE, task.group().id(), task.credentials()->uid));
}

PeerCredentials CredentialsSeenBy(Task& task, const PeerCredentials& theirs) {
  const UserNamespaceRef& users = task.own_credentials().user_namespace;
  if (theirs.uid == kInvalidId) return theirs;
  return {SeenBy(task, theirs.pid), UidSeenFrom(users, theirs.uid), GidSeenFrom(users, theirs.gid)};
}

PeerCredentials CredentialsOf(Task& task) {
  const auto credentials = task.credentials();
  return {task.group().id(), credentials->euid, credentials->egid};
}

namespace {

std::shared_ptr<NetworkNamespace> NetworkOfCaller(Kernel& kernel) {
  const Task* task = CurrentTask();
  return task == nullptr ? kernel.initial_namespaces()->network : task->own_namespaces().network;
}

}  // namespace

Socket::Socket(Kernel& kernel, const Kind& kind, bool nonblocking, CredentialsRef credentials)
    : File({}, static_cast<uint32_t>(nonblocking ? O_RDWR | O_NONBLOCK : O_RDWR),
           std::move(credentials)),
      kernel_(kernel),
      network_(NetworkOfCaller(kernel)),
      kind_(kind),
      number_(kernel.anonymous_files().NextInode()),
      queue_(std::make_shared<WaitQueue>()) {}

Result<void> Socket::Bind(Task&, const SocketAddress&) { return Errno(EOPNOTSUPP); }
Result<void> Socket::Listen(Task&, int) { return Errno(EOPNOTSUPP); }
Result<SocketRef> Socket::Accept(Task&, bool) { return Errno(EOPNOTSUPP); }
Result<void> Socket::Connect(Task&, const SocketAddress&) { return Errno(EOPNOTSUPP); }

Result<size_t> Socket::Read(Task& task, IoBuffer& to, uint64_t*) {
  ReceiveRequest request{to, 0};
  ReceiveResult result = TRY(Receive(task, request));
  // Rights that nobody asked to see are dropped, as by recv(2).
  return result.bytes;
}

Result<size_t> Socket::Write(Task& task, IoBuffer& from, uint64_t*) {
  SendRequest request{.from = from};
  auto result = Send(task, request);
  if (!result.ok() && result.error() == EPIPE) {
    if (from.done() > 0) return static_cast<size_t>(from.done());
    RaiseBrokenPipe(task, 0);
  }
  return result;
}

Deadline Socket::ReadDeadline(Task&) { return DeadlineAfter(kernel_, options_.receive_timeout_ns); }
Deadline Socket::WriteDeadline(Task&) { return DeadlineAfter(kernel_, options_.send_timeout_ns); }

Result<uint64_t> Socket::Ioctl(Task& task, uint32_t command, uint64_t argument) {
  const base::UserOut<int32_t> out{base::UserAddr(argument)};
  switch (command) {
    case FIONREAD: {
      const uint64_t count = TRY(InputQueued());
      TRY(task.CopyOut(out, static_cast<int32_t>(std::min<uint64_t>(count, INT32_MAX))));
      return uint64_t{0};
    }
    case SIOCOUTQ:
      TRY(task.CopyOut(out, static_cast<int32_t>(std::min<uint64_t>(OutputQueued(), INT32_MAX))));
      return uint64_t{0};
    default:
      return InterfaceIoctl(task, command, argument);
  }
}

Result<Attributes> Socket::GetAttributes() {
  Attributes attributes = kernel_.anonymous_files().anonymous_attributes();
  attributes.inode = number_;
  attributes.mode = S_IFSOCK | 0777;
  attributes.uid = credentials()->fsuid;
  attributes.gid = credentials()->fsgid;
  return attributes;
}

Result<void> Socket::SetAttributes(const AttributeChanges&) { return {}; }

std::string Socket::DisplayName() const { return "socket:[" + std::to_string(number_) + "]"; }

Result<std::vector<uint8_t>> Socket::GetOption(Task& task, int level, int name) {
  if (level != SOL_SOCKET) return Errno(ENOPROTOOPT);
  switch (name) {
    case SO_TYPE:
      return OptionValue(kind_.type);
    case SO_DOMAIN:
      return OptionValue(kind_.family);
    case SO_PROTOCOL:
      return OptionValue(kind_.protocol);
    case SO_ERROR:
      return OptionValue(TakeError());
    case SO_ACCEPTCONN:
      return OptionValue(listening() ? 1 : 0);
    case SO_REUSEADDR:
      return OptionValue(options_.reuse_address);
    case SO_REUSEPORT:
      return OptionValue(options_.reuse_port);
    case SO_KEEPALIVE:
      return OptionValue(options_.keep_alive);
    case SO_BROADCAST:
      return OptionValue(options_.broadcast);
    case SO_OOBINLINE:
      return OptionValue(options_.oob_inline);
    case SO_DONTROUTE:
      return OptionValue(options_.dont_route);
    case SO_NO_CHECK:
      return OptionValue(options_.no_check);
    case SO_PASSCRED:
      return OptionValue(options_.pass_credentials);
    case SO_PRIORITY:
      return OptionValue(options_.priority);
    case SO_RCVLOWAT:
      return OptionValue(options_.receive_low_water);
    case SO_SNDLOWAT:
      return OptionValue(1);
    case SO_SNDBUF:
      return OptionValue(static_cast<int32_t>(options_.send_bytes.load()));
    case SO_RCVBUF:
      return OptionValue(static_cast<int32_t>(options_.receive_bytes.load()));
    case SO_LINGER:
      return Bytes(linger{options_.linger_on, options_.linger_seconds});
    case SO_RCVTIMEO:
      return TimeOption(options_.receive_timeout_ns);
    case SO_SNDTIMEO:
      return TimeOption(options_.send_timeout_ns);
    case SO_PEERCRED:
      return Bytes(CredentialsSeenBy(task, peer_credentials()));
    case SO_BINDTODEVICE:
      return std::vector<uint8_t>{};
    case SO_MARK:
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
      return OptionValue(0);
    default:
      return Errno(ENOPROTOOPT);
  }
}

Result<void> Socket::SetBufferSize(Task& task, int name, int32_t value) {
  const bool force = name == SO_SNDBUFFORCE || name == SO_RCVBUFFORCE;
  if (force && !task.credentials()->HasCapability(CAP_NET_ADMIN)) return Errno(EPERM);
  // Doubled for the kernel's own needs, as programs expect to read back.
  const uint32_t wanted = std::min(static_cast<uint32_t>(value), kSocketBufferDefault) * 2;
  if (name == SO_SNDBUF || name == SO_SNDBUFFORCE) {
    options_.send_bytes = std::max(wanted, kSendBytesMin);
  } else {
    options_.receive_bytes = std::max(wanted, kReceiveBytesMin);
  }
  OnBufferSizes();
  return {};
}

Result<void> Socket::SetOption(Task& task, int level, int name, std::span<const uint8_t> value) {
  if (level != SOL_SOCKET) return Errno(ENOPROTOOPT);
  if (name == SO_BINDTODEVICE) {
    const std::string device(value.begin(), std::find(value.begin(), value.end(), uint8_t{0}));
    if (!device.empty() && device != "lo") return Errno(ENODEV);
    return {};
  }
  const int32_t number = TRY(OptionNumber(value));
  const bool on = number != 0;
  switch (name) {
    case SO_REUSEADDR:
      options_.reuse_address = on;
      return {};
    case SO_REUSEPORT:
      options_.reuse_port = on;
      return {};
    case SO_KEEPALIVE:
      options_.keep_alive = on;
      return {};
    case SO_BROADCAST:
      options_.broadcast = on;
      return {};
    case SO_OOBINLINE:
      options_.oob_inline = on;
      return {};
    case SO_DONTROUTE:
      options_.dont_route = on;
      return {};
    case SO_NO_CHECK:
      options_.no_check = on;
      return {};
    case SO_PASSCRED:
      options_.pass_credentials = on;
      return {};
    case SO_PRIORITY:
      if ((number < 0 || number > 6) && !task.credentials()->HasCapability(CAP_NET_ADMIN))
        return Errno(EPERM);
      options_.priority = number;
      return {};
    case SO_RCVLOWAT:
      options_.receive_low_water = number < 0 ? INT32_MAX : std::max(number, 1);
      return {};
    case SO_SNDBUF:
    case SO_SNDBUFFORCE:
    case SO_RCVBUF:
    case SO_RCVBUFFORCE:
      return SetBufferSize(task, name, number);
    case SO_LINGER: {
      const auto wanted = TRY(FromBytes<linger>(value));
      options_.linger_on = wanted.l_onoff != 0 ? 1 : 0;
      options_.linger_seconds = wanted.l_linger;
      return {};
    }
    case SO_RCVTIMEO:
      options_.receive_timeout_ns = TRY(TimeFromOption(value));
      return {};
    case SO_SNDTIMEO:
      options_.send_timeout_ns = TRY(TimeFromOption(value));
      return {};
    case SO_MARK:
      if (!task.credentials()->HasCapability(CAP_NET_ADMIN)) return Errno(EPERM);
      return on ? Errno(EOPNOTSUPP) : Result<void>();
    case SO_TIMESTAMP:
    case SO_TIMESTAMPNS:
      // Messages carry no time stamps here.
      return on ? Errno(EOPNOTSUPP) : Result<void>();
    default:
      // SO_TYPE, SO_DOMAIN, SO_ERROR, SO_PEERCRED, SO_SNDLOWAT: read only.
      return Errno(ENOPROTOOPT);
  }
}

Result<std::pair<SocketRef, SocketRef>> SocketFamily::MakePair(Task&, const Socket::Kind&,
                                                               bool) const {
  return Errno(EOPNOTSUPP);
}

const SocketFamily* FindSocketFamily(int family) {
  switch (family) {
    case AF_UNIX:
      return &UnixFamily();
    case AF_INET:
    case AF_INET6:
      return &InetFamily();
    case AF_NETLINK:
      return &NetlinkFamily();
    default:
      return nullptr;
  }
}

}  // namespace sentry
