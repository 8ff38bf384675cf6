#pragma once

// ICMP (RFC 792, RFC 1122 3.2.2) and ICMPv6 (RFC 4443): answers echo requests, sends errors within
// a rate, hands errors that come in to the transport whose packet they quote.

#include <array>
#include <cstdint>

#include "absl/synchronization/mutex.h"
#include "netstack/stack/transport.h"

namespace netstack {

class Stack;

class Icmp {
 public:
  // Tokens: 1000 errors a second, 50 at once (net.ipv4.icmp_msgs_per_sec and _burst), and for one
  // destination one in 100 ms after the first six, like Linux's per-peer limit.
  static constexpr int64_t kPerSecond = 1000;
  static constexpr int64_t kBurst = 50;
  static constexpr int64_t kPeerIntervalNs = 100 * 1'000'000;
  static constexpr int64_t kPeerBurst = 6;

  explicit Icmp(Stack& stack);

  void Receive(Received received);  // Protocol 1 or 58.

  // --- Errors about a packet that came, which starts with its IP header. Nothing is sent about
  // groups, errors, fragments other than the first (RFC 1122 3.2.2, RFC 4443 2.4 (e)).
  void SendPortUnreachable(Packet& packet);
  void SendProtocolUnreachable(Packet& packet, uint32_t next_field_offset);
  void SendReassemblyTimeout(PacketPtr packet);
  void SendParameterProblem(Packet& packet, uint8_t code, uint32_t pointer);  // IPv6

 private:
  void ReceiveV4(Received& received);
  void ReceiveV6(Received& received);
  void ReceiveError(const Received& received, const uint8_t* message, size_t size);
  void AnswerEcho(Received& received, uint8_t reply_type);
  void SendError(Packet& packet, uint8_t type, uint8_t code, uint32_t word);
  bool MayAnswer(Packet& packet);
  bool TakeToken(const IpAddress& destination) ABSL_LOCKS_EXCLUDED(mu_);

  struct Bucket {
    int64_t tokens_ns = 0;  // Time that has been saved up.
    int64_t updated_ns = 0;
  };
  static bool Take(Bucket& bucket, int64_t now, int64_t cost_ns, int64_t burst);

  Stack& stack_;
  absl::Mutex mu_;
  Bucket all_ ABSL_GUARDED_BY(mu_);
  std::array<Bucket, 256> peers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack
