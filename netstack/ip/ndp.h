#pragma once

// Neighbour discovery (RFC 4861), duplicate address detection and stateless autoconfiguration (RFC
// 4862). Redirects are not followed. Everything must have hop limit 255: it comes from the link.

#include <cstdint>
#include <map>
#include <optional>

#include "absl/synchronization/mutex.h"
#include "netstack/stack/address.h"
#include "netstack/stack/timer.h"
#include "netstack/stack/transport.h"

namespace netstack {

class Stack;

class Ndp final : public TimerTarget {
 public:
  static constexpr int kSolicitationsMax = 3;  // MAX_RTR_SOLICITATIONS
  static constexpr int64_t kSolicitationIntervalNs = 4 * kNsPerSecond;
  static constexpr int64_t kDetectionNs = kNsPerSecond;  // RetransTimer
  static constexpr size_t kRouterAddressesMax = 16;      // net.ipv6.conf.max_addresses
  static constexpr size_t kRouterRoutesMax = 64;

  explicit Ndp(Stack& stack) : stack_(stack) {}

  void Receive(Received& received);  // A checked ICMPv6 message of types 133 to 137.
  void Ask(Interface& interface, const IpAddress& address, const std::optional<MacAddress>& to);
  // The address is tentative now; it becomes preferred if nobody objects.
  void StartDetection(int interface_index, const IpAddress& address) ABSL_LOCKS_EXCLUDED(mu_);
  // Looks for routers and follows their advertisements from now on.
  void StartAutoconfiguration(int interface_index) ABSL_LOCKS_EXCLUDED(mu_);
  void OnTimer() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Options {
    std::optional<MacAddress> link_address;  // Source or target, whichever was asked for.
    uint32_t mtu = 0;
    std::vector<std::span<const uint8_t>> prefixes;
  };
  struct Detection {
    int interface_index = 0;
    IpAddress address;
    friend auto operator<=>(const Detection&, const Detection&) = default;
  };
  struct Autoconfiguration {
    int sent = 0;
    int64_t due_ns = 0;
    bool answered = false;
  };
  // False: malformed, to be dropped whole.
  static bool ParseOptions(std::span<const uint8_t> options, uint8_t link_type, Options& out);
  void OnSolicitation(const Received& received, std::span<const uint8_t> message);
  void OnAdvertisement(const Received& received, std::span<const uint8_t> message);
  void OnRouterAdvertisement(const Received& received, std::span<const uint8_t> message);
  void TakePrefix(Interface& interface, std::span<const uint8_t> option);
  void Advertise(Interface& interface, const IpAddress& target, const IpAddress& to,
                 bool solicited);
  void SendSolicitation(Interface& interface, const IpAddress& source, const IpAddress& target,
                        const std::optional<MacAddress>& to);
  void SendRouterSolicitation(Interface& interface);
  void SendMessage(Interface& interface, const IpAddress& source, const IpAddress& destination,
                   const std::optional<MacAddress>& mac, std::span<const uint8_t> message);

  Stack& stack_;
  absl::Mutex mu_;
  std::map<Detection, int64_t> detections_ ABSL_GUARDED_BY(mu_);  // Until when.
  std::map<int, Autoconfiguration> autoconfigurations_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack
