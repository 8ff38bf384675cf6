#include "netstack/link/loopback.h"

#include <utility>

#include "netstack/stack/interface.h"

namespace netstack {

LoopbackLink::LoopbackLink()
    : Link({.kind = Kind::kLoopback,
            .mtu = kMtu,
            .address = {},
            .completes_checksums = true,
            .splits_segments = true}) {}

void LoopbackLink::Send(PacketPtr packet) {
  // The ports of both directions: a flow and its answers share a queue.
  size_t hash = 0;
  if (const uint8_t* header = packet->Pull(44)) {
    const size_t ports = packet->is_v4 ? 20 : 40;
    hash = static_cast<size_t>(header[ports] ^ header[ports + 2]) ^
           static_cast<size_t>(header[ports + 1] ^ header[ports + 3]);
  }
  const size_t index = hash % kQueues;
  Queue& queue = queues_[index];
  const absl::MutexLock lock(&queue.mu);
  if (queue.packets.size() >= kPacketsMax) return;
  queue.packets.push_back(std::move(packet));
  occupied_.fetch_or(1u << index, std::memory_order_release);
}

void LoopbackLink::Drain(Interface& interface) {
  while (const uint32_t occupied = occupied_.load(std::memory_order_acquire)) {
    const auto index = static_cast<size_t>(__builtin_ctz(occupied));
    occupied_.fetch_and(~(1u << index), std::memory_order_acq_rel);
    DrainQueue(queues_[index], interface);
  }
}

void LoopbackLink::DrainQueue(Queue& queue, Interface& interface) {
  {
    const absl::MutexLock lock(&queue.mu);
    if (queue.busy) return;
    queue.busy = true;
  }
  std::deque<PacketPtr> batch;
  while (true) {
    {
      const absl::MutexLock lock(&queue.mu);
      batch.swap(queue.packets);
      if (batch.empty()) {
        queue.busy = false;
        return;
      }
    }
    for (PacketPtr& packet : batch) {
      if (packet->checksum == ChecksumState::kPartial) packet->checksum = ChecksumState::kVerified;
      interface.Receive(std::move(packet));
    }
    batch.clear();
  }
}

}  // namespace netstack
