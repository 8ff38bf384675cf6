#pragma once

// --network=sandbox: the sandbox's own TCP/IP (netstack/) over links that the runtime opened in a
// network namespace and whose addresses it moved here. All internet sockets are the stack's then,
// loopback included.

#include <cstdint>
#include <memory>
#include <string>

#include "absl/synchronization/mutex.h"
#include "netstack/stack/stack.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"
#include "sentry/socket/interfaces.h"
#include "sentry/time/clock.h"
#include "sentry/time/timer_service.h"

namespace sentry {

class Kernel;
class PacketLink;

class StackNetwork final : private netstack::Clock, private netstack::Random {
 public:
  // `kernel` outlives it.
  explicit StackNetwork(Kernel& kernel);
  ~StackNetwork() override;

  netstack::Stack& stack() { return stack_; }

  // --- Before the first process.
  struct LinkConfig {
    std::string name;
    int index = 0;
    uint32_t mtu = 1500;
    netstack::MacAddress mac = {};
    base::Fd socket;  // See packet_link.h.
  };
  // EEXIST: the index is taken.
  base::Result<void> AddLink(LinkConfig config);
  // Starts receiving. EAGAIN.
  base::Result<void> Start();

  // What netlink and the like are to show.
  InterfaceList Interfaces() const;

 private:
  int64_t NowNs() const override { return clock_.MonotonicNs(); }
  void Fill(std::span<uint8_t> bytes) override { random_.Fill(bytes.data(), bytes.size()); }
  void Rearm() ABSL_LOCKS_EXCLUDED(timer_mu_);

  const sentry::Clock& clock_;
  sentry::Random& random_;
  absl::Mutex timer_mu_;
  netstack::Stack stack_;
  std::vector<std::pair<PacketLink*, netstack::Interface*>> links_;
  std::unique_ptr<Timer> timer_;  // The last: its callback uses everything above.
};

}  // namespace sentry
