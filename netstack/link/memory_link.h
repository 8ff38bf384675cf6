#pragma once

// A link whose other end is a program: what was sent is taken out with Take, what is to be received
// goes to Interface::Receive. For tests and for feeding one stack from another.

#include <deque>

#include "absl/synchronization/mutex.h"
#include "netstack/link/link.h"

namespace netstack {

class MemoryLink final : public Link {
 public:
  static constexpr size_t kPacketsMax = 4096;
  explicit MemoryLink(const Properties& properties) : Link(properties) {}

  void Send(PacketPtr packet) override {
    const absl::MutexLock lock(&mu_);
    if (sent_.size() < kPacketsMax) sent_.push_back(std::move(packet));
  }
  // Null if there is none.
  PacketPtr Take() {
    const absl::MutexLock lock(&mu_);
    if (sent_.empty()) return nullptr;
    PacketPtr packet = std::move(sent_.front());
    sent_.pop_front();
    return packet;
  }

 private:
  absl::Mutex mu_;
  std::deque<PacketPtr> sent_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack
