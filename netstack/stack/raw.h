#pragma once

// Who wants whole packets of a protocol besides the transports: raw and ping sockets.

#include <atomic>
#include <memory>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "netstack/stack/transport.h"

namespace netstack {

class RawReceiver {
 public:
  virtual ~RawReceiver() = default;
  // Starts with the IP header. No lock of the stack is held. True: this packet had a taker.
  virtual bool OnRaw(const Received& received) = 0;
};

class RawTable {
 public:
  void Add(bool v4, uint8_t protocol, std::weak_ptr<RawReceiver> receiver)
      ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    entries_.push_back({v4, protocol, std::move(receiver)});
    count_.store(entries_.size(), std::memory_order_release);
  }
  void RemoveExpired() ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    std::erase_if(entries_, [](const Entry& entry) { return entry.receiver.expired(); });
    count_.store(entries_.size(), std::memory_order_release);
  }
  bool Deliver(const Received& received) ABSL_LOCKS_EXCLUDED(mu_) {
    if (count_.load(std::memory_order_acquire) == 0) return false;
    std::vector<std::shared_ptr<RawReceiver>> takers;
    {
      const absl::MutexLock lock(&mu_);
      for (const Entry& entry : entries_) {
        if (entry.v4 != received.destination.is_v4() || entry.protocol != received.protocol)
          continue;
        if (auto taker = entry.receiver.lock()) takers.push_back(std::move(taker));
      }
    }
    bool taken = false;
    for (const auto& taker : takers) taken |= taker->OnRaw(received);
    return taken;
  }

 private:
  struct Entry {
    bool v4 = true;
    uint8_t protocol = 0;
    std::weak_ptr<RawReceiver> receiver;
  };
  absl::Mutex mu_;
  std::vector<Entry> entries_ ABSL_GUARDED_BY(mu_);
  std::atomic<size_t> count_{0};
};

}  // namespace netstack
