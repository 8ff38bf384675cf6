#pragma once

// Who has which port, for bind(2)'s conflicts and for finding the receiver. Internal to one
// sandbox: there is no wire behind it.

#include <cstdint>
#include <map>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/socket/inet_address.h"

namespace sentry {

class InetSocket;

class InetPorts {
 public:
  static constexpr uint16_t kEphemeralFirst = 32768;  // net.ipv4.ip_local_port_range
  static constexpr uint16_t kEphemeralLast = 60999;
  static constexpr uint16_t kUnprivilegedFirst = 1024;

  // Takes `address` (port 0: a free ephemeral one) for `socket`. Returns the port. EADDRINUSE,
  // EAGAIN (none left).
  base::Result<uint16_t> Bind(const std::shared_ptr<InetSocket>& socket, const InetAddress& address)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Release(const InetSocket* socket, int protocol, uint16_t port) ABSL_LOCKS_EXCLUDED(mu_);
  // listen(2): EADDRINUSE if another socket listens there and not both share the port.
  base::Result<void> CheckListen(const InetSocket& socket) ABSL_LOCKS_EXCLUDED(mu_);
  // The listening socket for a connection to `to`, null if there is none. Sockets that share a port
  // take turns.
  std::shared_ptr<InetSocket> FindListener(const InetAddress& to) ABSL_LOCKS_EXCLUDED(mu_);
  // The socket that gets a datagram.
  std::shared_ptr<InetSocket> FindReceiver(int protocol, const InetAddress& to,
                                           const InetAddress& from) ABSL_LOCKS_EXCLUDED(mu_);

  // All inet sockets, for /proc/net/tcp and friends.
  void Register(InetSocket* socket) ABSL_LOCKS_EXCLUDED(mu_);
  void Unregister(InetSocket* socket) ABSL_LOCKS_EXCLUDED(mu_);
  std::vector<std::shared_ptr<InetSocket>> All() ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Entry {
    const InetSocket* identity = nullptr;
    std::weak_ptr<InetSocket> socket;
    InetAddress address;
  };
  using Key = std::pair<int, uint16_t>;  // Protocol and port.
  // Declared before the lock is taken: the last reference to a socket must not go while it is held.
  using References = std::vector<std::shared_ptr<InetSocket>>;
  bool ConflictsLocked(const InetSocket& socket, const InetAddress& address, References& seen)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  absl::Mutex mu_;
  std::map<Key, std::vector<Entry>> ports_ ABSL_GUARDED_BY(mu_);
  std::map<uint64_t, InetSocket*> sockets_ ABSL_GUARDED_BY(mu_);
  uint16_t next_ephemeral_ ABSL_GUARDED_BY(mu_) = kEphemeralFirst;
  uint32_t turn_ ABSL_GUARDED_BY(mu_) = 0;
};

}  // namespace sentry
