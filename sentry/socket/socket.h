#pragma once

// Sockets (socket(7)): what all families share, and the interface through which the system calls
// see them. A family (unix, loopback internet, netlink) makes Sockets; another network stack can
// take a family over by being one.
//
// Nothing here sleeps: calls that cannot go on return EAGAIN, and the system-call layer waits on
// wait_queue().

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/vfs/file.h"

namespace sentry {

class Kernel;
class NetworkNamespace;
class Socket;
class Task;
using SocketRef = std::shared_ptr<Socket>;

inline constexpr uint32_t kSocketAddressBytesMax = 128;   // sizeof(sockaddr_storage)
inline constexpr int kListenBacklogMax = 4096;            // net.core.somaxconn
inline constexpr uint32_t kSocketBufferDefault = 212992;  // net.core.[rw]mem_default and _max
inline constexpr size_t kRightsPerMessageMax = 253;       // SCM_MAX_FD
inline constexpr size_t kOptionBytesMax = 256;

// As the guest wrote it, with its length. The family is in the first two bytes.
struct SocketAddress {
  std::array<uint8_t, kSocketAddressBytesMax> bytes = {};
  uint32_t length = 0;
  uint16_t family() const {
    return length >= 2 ? static_cast<uint16_t>(bytes[0] | (bytes[1] << 8)) : 0;
  }
  std::span<const uint8_t> view() const { return std::span(bytes).first(length); }
};

// struct ucred.
struct PeerCredentials {
  int32_t pid = 0;
  uint32_t uid = 0;
  uint32_t gid = 0;
  friend bool operator==(const PeerCredentials&, const PeerCredentials&) = default;
};

// A control message other than rights and credentials, ready for the guest.
struct ControlMessage {
  int32_t level = 0;
  int32_t type = 0;
  std::vector<uint8_t> data;
};

struct Ancillary {
  std::vector<FileRef> files;  // SCM_RIGHTS
  std::optional<PeerCredentials> credentials;
  std::vector<ControlMessage> others;
};

struct SendRequest {
  IoBuffer& from;
  int flags = 0;
  const SocketAddress* to = nullptr;  // Null: the connected peer.
  Ancillary ancillary = {};
};

struct ReceiveRequest {
  IoBuffer& to;
  int flags = 0;
};

struct ReceiveResult {
  size_t bytes = 0;       // Put into the buffer.
  size_t full_bytes = 0;  // Of the whole record (MSG_TRUNC asks for it).
  int flags = 0;          // MSG_TRUNC, MSG_EOR
  SocketAddress from;
  Ancillary ancillary;
};

enum class ShutdownHow { kRead = 0, kWrite = 1, kBoth = 2 };

// What setsockopt(SOL_SOCKET) keeps.
struct SocketOptions {
  std::atomic<bool> reuse_address{false}, reuse_port{false}, keep_alive{false}, broadcast{false};
  std::atomic<bool> pass_credentials{false}, oob_inline{false}, dont_route{false}, no_check{false};
  std::atomic<uint32_t> send_bytes{kSocketBufferDefault}, receive_bytes{kSocketBufferDefault};
  std::atomic<int32_t> receive_low_water{1}, priority{0};
  std::atomic<int64_t> receive_timeout_ns{0}, send_timeout_ns{0};  // 0: none.
  std::atomic<int32_t> linger_on{0}, linger_seconds{0};
};

class Socket : public File {
 public:
  struct Kind {
    int family = 0;
    int type = 0;  // SOCK_STREAM, ...
    int protocol = 0;
  };
  Socket(Kernel& kernel, const Kind& kind, bool nonblocking, CredentialsRef credentials);

  const Kind& kind() const { return kind_; }
  SocketOptions& options() { return options_; }
  Kernel& kernel() const { return kernel_; }
  // Where it was made.
  NetworkNamespace& network() const { return *network_; }

  // --- The system calls. Default: EOPNOTSUPP.
  virtual base::Result<void> Bind(Task& task, const SocketAddress& address);
  virtual base::Result<void> Listen(Task& task, int backlog);
  // EAGAIN while no connection waits.
  virtual base::Result<SocketRef> Accept(Task& task, bool nonblocking_result);
  // EAGAIN: the peer's backlog is full.
  virtual base::Result<void> Connect(Task& task, const SocketAddress& address);
  virtual base::Result<SocketAddress> LocalAddress() = 0;
  virtual base::Result<SocketAddress> PeerAddress() = 0;
  // Bytes taken. EAGAIN with request.from advanced if only a part was. EPIPE raises no signal here.
  virtual base::Result<size_t> Send(Task& task, SendRequest& request) = 0;
  virtual base::Result<ReceiveResult> Receive(Task& task, ReceiveRequest& request) = 0;
  // Netlink: the kernel may put bytes into its inbox, unasked.
  virtual bool TakesKernelMessages() const { return false; }
  virtual void PushFromKernel(std::span<const std::byte> data) { (void)data; }
  virtual base::Result<void> Shutdown(ShutdownHow how) = 0;
  // The option's value, as many bytes as it has / from the guest's bytes. Default: SOL_SOCKET's;
  // ENOPROTOOPT else.
  virtual base::Result<std::vector<uint8_t>> GetOption(Task& task, int level, int name);
  virtual base::Result<void> SetOption(Task& task, int level, int name,
                                       std::span<const uint8_t> value);
  // A stream of bytes without records: MSG_WAITALL and partial sends make sense.
  bool is_stream() const { return kind_.type == 1; }

  // --- File.
  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  base::Result<Attributes> GetAttributes() override;
  base::Result<void> SetAttributes(const AttributeChanges& changes) override;
  WaitQueue* wait_queue() override { return queue_.get(); }
  bool SupportsAsync() const override { return true; }
  Deadline ReadDeadline(Task& task) override;
  Deadline WriteDeadline(Task& task) override;
  std::string DisplayName() const override;
  uint64_t number() const { return number_; }

  // For /proc/net: kind-independent facts.
  virtual bool listening() { return false; }

 protected:
  // Bytes that a read would give now / that were sent and not yet read (SIOCINQ, SIOCOUTQ).
  virtual base::Result<uint64_t> InputQueued() = 0;
  virtual uint64_t OutputQueued() { return 0; }
  // SO_ERROR: reported once.
  virtual int TakeError() { return 0; }
  // SO_PEERCRED. ENOTCONN-like sockets give pid 0, uid and gid -1.
  virtual PeerCredentials peer_credentials() { return {0, ~0u, ~0u}; }
  // SO_SNDBUF, SO_RCVBUF have changed.
  virtual void OnBufferSizes() {}
  const std::shared_ptr<WaitQueue>& shared_queue() const { return queue_; }

 private:
  base::Result<void> SetBufferSize(Task& task, int name, int32_t value);
  Kernel& kernel_;
  const std::shared_ptr<NetworkNamespace> network_;
  const Kind kind_;
  const uint64_t number_;
  const std::shared_ptr<WaitQueue> queue_;  // Also held by those who may have to notify it.
  SocketOptions options_;
};

// Raises SIGPIPE for a send that failed with EPIPE, unless MSG_NOSIGNAL.
void RaiseBrokenPipe(Task& task, int flags);

PeerCredentials CredentialsOf(Task& task);
// As the namespaces of `task` call them.
PeerCredentials CredentialsSeenBy(Task& task, const PeerCredentials& theirs);

// --- Values of options.
std::vector<uint8_t> OptionValue(int32_t value);
// EINVAL if shorter than an int.
base::Result<int32_t> OptionNumber(std::span<const uint8_t> value);

// One protocol family. Stateless: what sockets share is in the NetworkNamespace.
class SocketFamily {
 public:
  virtual ~SocketFamily() = default;
  // ESOCKTNOSUPPORT, EPROTONOSUPPORT, EPERM.
  virtual base::Result<SocketRef> Make(Task& task, const Socket::Kind& kind,
                                       bool nonblocking) const = 0;
  // EOPNOTSUPP by default.
  virtual base::Result<std::pair<SocketRef, SocketRef>> MakePair(Task& task,
                                                                 const Socket::Kind& kind,
                                                                 bool nonblocking) const;
};

// Null: EAFNOSUPPORT.
const SocketFamily* FindSocketFamily(int family);
const SocketFamily& UnixFamily();
const SocketFamily& InetFamily();  // AF_INET and AF_INET6.
const SocketFamily& NetlinkFamily();

}  // namespace sentry
