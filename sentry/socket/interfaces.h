#pragma once

// The network interfaces that a network namespace shows: what netlink, netdevice(7)'s ioctls and
// /proc/net tell. By default lo alone; a network of the host, or a stack, puts its own list here.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/synchronization/mutex.h"

namespace sentry {

inline constexpr int32_t kLoopbackIndex = 1;
inline constexpr int32_t kLoopbackMtu = 65536;

struct InterfaceAddress {
  int family = 0;                      // AF_INET, AF_INET6
  std::array<uint8_t, 16> bytes = {};  // 4 of them for AF_INET.
  uint8_t prefix_length = 0;
  uint8_t scope = 0;  // RT_SCOPE_*
};

struct Interface {
  int32_t index = 0;
  std::string name;
  uint32_t flags = 0;  // IFF_*
  uint32_t mtu = 0;
  uint16_t hardware_type = 0;  // ARPHRD_*
  std::array<uint8_t, 6> hardware_address = {};
  std::vector<InterfaceAddress> addresses;
};

using InterfaceList = std::vector<Interface>;

// lo, 127.0.0.1/8, ::1/128.
InterfaceList LoopbackOnly();
// Null if there is none.
const Interface* FindInterface(const InterfaceList& list, int32_t index);
const Interface* FindInterface(const InterfaceList& list, std::string_view name);

// Read as a whole, replaced as a whole. Any thread.
class InterfaceTable {
 public:
  InterfaceTable();
  std::shared_ptr<const InterfaceList> Get() const ABSL_LOCKS_EXCLUDED(mu_);
  void Set(InterfaceList list) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  mutable absl::Mutex mu_;
  std::shared_ptr<const InterfaceList> list_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
