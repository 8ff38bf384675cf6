#pragma once

// The shared memory between a client (sentry) and a server (gofer), and how each wakes the other.
//
// A sealed memfd holds a word with one bit per slot ("there is a request") and the slots; each slot
// has a request area and a response area, so as many requests can be under way as there are slots.
// The client wakes a sleeping server by a byte through the socket, so that the server waits for
// work and for the end of its peer in one read(2); a thread of the client that sleeps does so on
// its slot's futex. Both sides spin for a moment first.
//
// Where the client can keep its thread on one CPU during a call, it says which, and the server
// moves there: a hand-over on one CPU takes 5 us, a wake-up on another one 50 us on a VM. Then
// nobody spins.
//
// Each side takes the other for an enemy: the memory may change at any time, so a length is read
// once, bounded, and the message copied out before anything looks at it. Slots are given out by
// state private to the client. The seals keep either side from truncating the memory under the
// other.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace gofer {

inline constexpr size_t kSlots = 32;
// One largest xattr value and what goes around it.
inline constexpr size_t kMessageBytesMax = 80 * 1024;

// What a launcher creates and hands to the two processes: `memory` to both, one socket each.
struct ChannelEnds {
  base::Fd memory;
  base::Fd client_socket;
  base::Fd server_socket;
};
absl::StatusOr<ChannelEnds> CreateChannel();

// One process's mapping of the memory.
class Channel {
 public:
  // How long to look for news before sleeping. 0 never spins.
  static constexpr uint32_t kDefaultSpinNs = 20'000;

  // Takes over both descriptors. Fails if the memory is not what CreateChannel makes.
  static absl::StatusOr<Channel> Map(base::Fd memory, base::Fd socket);
  Channel(Channel&& other) noexcept;
  Channel& operator=(Channel&&) = delete;
  ~Channel();

  int socket() const { return socket_.get(); }
  void set_spin_ns(uint32_t spin_ns) { spin_ns_ = spin_ns; }

  // ---- Client. One thread per slot at a time.

  // Puts a request of `bytes` bytes, written to RequestArea(slot), before the server. `cpu`: where
  // the calling thread stays until Await returns, kAnyCpu if that is not known.
  static constexpr int kAnyCpu = -1;
  void Submit(size_t slot, size_t bytes, int cpu = kAnyCpu);
  // Waits for the response and copies it to `out`. EPIPE if the peer has gone, EBADMSG if it states
  // a length that cannot be. `out` must hold kMessageBytesMax.
  base::Result<size_t> Await(size_t slot, std::span<std::byte> out, int cpu = kAnyCpu);
  std::span<std::byte> RequestArea(size_t slot);

  // ---- Server.

  // Waits for requests: a bit per slot. EPIPE if the peer has gone.
  base::Result<uint32_t> WaitForRequests();
  // Copies the request of `slot` to `out` (kMessageBytesMax). EBADMSG as above.
  base::Result<size_t> TakeRequest(size_t slot, std::span<std::byte> out);
  // Hands over a response of `bytes` bytes, written to ResponseArea(slot).
  void Respond(size_t slot, size_t bytes);
  std::span<std::byte> ResponseArea(size_t slot);

 private:
  struct Header;
  struct Slot;

  Channel(base::Fd memory, base::Fd socket, std::byte* base, uint32_t spin_ns);
  Header& header() const;
  // False if the peer has gone.
  bool Ring();
  // Server: goes to the CPU that the last two requests came from. True if that is where it is now.
  bool FollowClient();
  Slot& slot(size_t index) const;
  // False if the time is up before `ready`.
  template <typename Predicate>
  bool Spin(Predicate ready) const;

  base::Fd memory_;
  base::Fd socket_;
  std::byte* base_;
  uint32_t spin_ns_;
  // Server: 1 + the CPU it stays on, and that of the last request; 0 for none.
  uint32_t own_cpu_ = 0;
  uint32_t last_cpu_ = 0;
};

}  // namespace gofer
