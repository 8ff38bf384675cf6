#pragma once

// UDP (RFC 768, RFC 8200 8.1): finds the receiver, checks and makes checksums. Queues are the
// receivers' own: a table entry is a name and somebody to call.

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/transport.h"
#include "platform/base/result.h"

namespace netstack {

class Stack;

namespace udp {

inline constexpr size_t kHeaderBytes = 8;

struct Datagram {
  IpAddress source;
  IpAddress destination;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  uint8_t hop_limit = 0;
  uint8_t traffic_class = 0;
  int interface_index = 0;
  Packet& payload;  // Without headers; may be taken apart unless the receiver is one of many.
};

class Receiver {
 public:
  virtual ~Receiver() = default;
  // No lock of the stack is held.
  virtual void OnDatagram(Datagram& datagram) = 0;
  virtual void OnError(const TransportError& error) = 0;
};

// What a receiver listens to.
struct Binding {
  IpAddress local;   // Any: all of the family; V6Any takes IPv4, too, unless v6_only.
  IpAddress remote;  // Any: everybody.
  uint16_t local_port = 0;
  uint16_t remote_port = 0;
  int interface_index = 0;  // 0: all.
  bool v6_only = false;
  bool shares = false;  // SO_REUSEPORT: datagrams are spread over those that share.
};

struct Send {
  IpAddress source;  // Any: chosen.
  IpAddress destination;
  uint16_t source_port = 0;
  uint16_t destination_port = 0;
  int interface_index = 0;
  uint8_t hop_limit = 64;
  uint8_t traffic_class = 0;
  bool dont_fragment = false;
  bool no_checksum = false;  // IPv4 only.
};

class Table {
 public:
  explicit Table(Stack& stack) : stack_(stack) {}

  // Replaces what the receiver had. Conflicts are the caller's business.
  void Bind(const std::shared_ptr<Receiver>& receiver, const Binding& binding)
      ABSL_LOCKS_EXCLUDED(mu_);
  void Unbind(const Receiver* receiver, uint16_t port) ABSL_LOCKS_EXCLUDED(mu_);
  // `payload` without header. EMSGSIZE, and what FindPath says.
  base::Result<void> Send(const Send& send, PacketPtr payload);

  void Receive(Received received);
  void OnError(const TransportError& error);

 private:
  struct Entry {
    std::weak_ptr<Receiver> receiver;
    const Receiver* identity = nullptr;
    Binding binding;
  };
  static int Score(const Binding& binding, const Received& received, uint16_t remote_port);
  using Receivers = std::vector<std::shared_ptr<Receiver>>;
  Receivers Find(const Received& received, uint16_t local_port, uint16_t remote_port)
      ABSL_LOCKS_EXCLUDED(mu_);

  Stack& stack_;
  absl::Mutex mu_;
  absl::flat_hash_map<uint16_t, std::vector<Entry>> ports_ ABSL_GUARDED_BY(mu_);
};

}  // namespace udp
}  // namespace netstack
