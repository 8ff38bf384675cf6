#pragma once

// Messages between a sentry with --network=host and its network gofer: one request per packet of a
// SOCK_SEQPACKET pair, one reply, in turn. A descriptor travels with the reply that hands it over.
//
// Fixed layout, same build on both ends. Neither trusts the other: lengths are checked on receipt,
// and what is no message is EBADMSG.

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>

#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer::network {

// Socket addresses and option values; TCP_INFO is the longest that is let through.
inline constexpr size_t kDataBytesMax = 512;

enum class Operation : uint32_t {
  kSocket = 1,        // first: family, second: type, third: protocol. Value: handle; a descriptor.
  kBind = 2,          // data: address
  kConnect = 3,       // data: address
  kListen = 4,        // first: backlog
  kAccept = 5,        // Value: handle; a descriptor.
  kLocalAddress = 6,  // Data: address.
  kPeerAddress = 7,   // Data: address.
  kGetOption = 8,     // first: level, second: name. Data: value.
  kSetOption = 9,     // first: level, second: name; data: value.
  kShutdown = 10,     // first: SHUT_*
  kClose = 11,        // The handle is gone.
  kInterfaces = 12,   // first: number of the entry. Data: InterfaceEntry; ENOENT past the last.
};

struct Request {
  Operation operation{};
  uint32_t handle = 0;
  std::array<int32_t, 3> arguments{};
  uint32_t data_bytes = 0;
  std::array<uint8_t, kDataBytesMax> data{};
  std::span<const uint8_t> view() const { return std::span(data).first(data_bytes); }
};

struct Reply {
  int32_t error = 0;  // errno, or 0.
  int32_t value = 0;
  uint32_t data_bytes = 0;
  std::array<uint8_t, kDataBytesMax> data{};
  std::span<const uint8_t> view() const { return std::span(data).first(data_bytes); }
};

inline constexpr int32_t kInterfaceEntriesMax = 256;

// An interface (family 0), or one of its addresses. They are looked at when the first is asked for.
struct InterfaceEntry {
  std::array<char, 16> name{};  // NUL-terminated.
  uint32_t index = 0;
  uint32_t flags = 0;  // IFF_*
  uint32_t mtu = 0;
  uint16_t hardware_type = 0;  // ARPHRD_*
  std::array<uint8_t, 6> hardware_address{};
  uint16_t family = 0;
  uint8_t prefix_length = 0;
  uint8_t scope = 0;
  std::array<uint8_t, 16> address{};
};
static_assert(sizeof(InterfaceEntry) <= kDataBytesMax);

// Both block. EPIPE when the peer has gone, EBADMSG for what is no message (descriptors that came
// with it are closed).
base::Result<void> SendRequest(int socket, const Request& request);
base::Result<Request> ReceiveRequest(int socket);

// `fd` -1: none.
base::Result<void> SendReply(int socket, const Reply& reply, int fd);
struct ReceivedReply {
  Reply reply;
  base::Fd fd;  // Empty too if this process had no number left for it.
};
base::Result<ReceivedReply> ReceiveReply(int socket);

}  // namespace gofer::network
