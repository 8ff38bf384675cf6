#pragma once

// The sentry's side of the network gofer: makes host sockets without the sentry being allowed to.
// Data goes through the descriptors that it hands over; everything that names an address, or
// changes a socket, is asked for here.
//
// Any thread; calls take turns. All are answered without waiting for the network. A gofer that has
// gone is ENETDOWN (runsc ends the sandbox then).

#include <cstdint>
#include <span>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "gofer/network/protocol.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer::network {

// A socket of the host: non-blocking, close-on-exec.
struct HostSocket {
  uint32_t handle = 0;
  base::Fd fd;
};

class Client {
 public:
  explicit Client(base::Fd socket) : socket_(std::move(socket)) {}
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;

  // Errors are socket(2)'s, and EACCES for what the gofer does not make. ENFILE: no descriptor
  // left.
  base::Result<HostSocket> Socket(int family, int type, int protocol);
  base::Result<HostSocket> Accept(uint32_t handle);
  base::Result<void> Bind(uint32_t handle, std::span<const uint8_t> address);
  base::Result<void> Connect(uint32_t handle, std::span<const uint8_t> address);
  base::Result<void> Listen(uint32_t handle, int backlog);
  base::Result<std::vector<uint8_t>> LocalAddress(uint32_t handle);
  base::Result<std::vector<uint8_t>> PeerAddress(uint32_t handle);
  // At most kDataBytesMax. ENOPROTOOPT for options that are not let through.
  base::Result<std::vector<uint8_t>> GetOption(uint32_t handle, int level, int name);
  base::Result<void> SetOption(uint32_t handle, int level, int name,
                               std::span<const uint8_t> value);
  base::Result<void> Shutdown(uint32_t handle, int how);
  void Close(uint32_t handle);
  // Of the host's network namespace, when the gofer was started. At most kInterfaceEntriesMax.
  std::vector<InterfaceEntry> Interfaces();

 private:
  base::Result<ReceivedReply> Ask(const Request& request) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<HostSocket> AskForSocket(const Request& request);
  base::Result<std::vector<uint8_t>> AskForData(const Request& request);
  absl::Mutex mu_;
  const base::Fd socket_;  // A request and its reply are one turn, under mu_.
};

inline constexpr int32_t kInterfaceEntriesMax = 256;

}  // namespace gofer::network
