#pragma once

// lo. Packets are queued and delivered when no lock of a connection is held (Stack::Drain): a
// segment's answer comes back to the very connection that sent it.
//
// Several queues, chosen by flow, so that connections do not wait for each other; each is emptied
// by one thread at a time, in order. Who finds a queue being emptied leaves its packets to that
// thread.

#include <array>
#include <atomic>
#include <deque>

#include "absl/synchronization/mutex.h"
#include "netstack/link/link.h"

namespace netstack {

class Interface;

class LoopbackLink final : public Link {
 public:
  static constexpr uint32_t kMtu = 65536;
  static constexpr size_t kPacketsMax = 4096;  // Per queue; more are dropped.
  LoopbackLink();
  void Send(PacketPtr packet) override;
  // Delivers everything queued, and what is sent meanwhile.
  void Drain(Interface& interface);

 private:
  static constexpr size_t kQueues = 8;
  struct Queue {
    absl::Mutex mu;
    std::deque<PacketPtr> packets ABSL_GUARDED_BY(mu);
    bool busy ABSL_GUARDED_BY(mu) = false;
  };
  void DrainQueue(Queue& queue, Interface& interface);
  std::array<Queue, kQueues> queues_;
  std::atomic<uint32_t> occupied_{0};  // A bit per queue that may have packets.
};

}  // namespace netstack
