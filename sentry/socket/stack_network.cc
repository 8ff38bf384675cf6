#include "sentry/socket/stack_network.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/socket/packet_link.h"

namespace sentry {

StackNetwork::StackNetwork(Kernel& kernel)
    : clock_(kernel.clock()),
      random_(kernel.random()),
      stack_(*this, *this, [this] { Rearm(); }),
      timer_(kernel.timers().NewTimer([this] {
        stack_.RunTimers();
        Rearm();
      })) {}

StackNetwork::~StackNetwork() { timer_->Cancel(); }

// Together, so that an older answer never replaces a newer one.
void StackNetwork::Rearm() {
  const absl::MutexLock lock(&timer_mu_);
  const int64_t next = stack_.NextTimerNs();
  // Never Cancel, which would wait for the callback, and that for the caller's locks.
  timer_->Arm(next == netstack::kNever ? Deadline::Never() : Deadline::At(next));
}

base::Result<void> StackNetwork::AddLink(LinkConfig config) {
  if (stack_.FindInterface(config.index) != nullptr) return base::Errno(EEXIST);
  auto link = std::make_unique<PacketLink>(
      std::move(config.socket), netstack::Link::Properties{.kind = netstack::Link::Kind::kEthernet,
                                                           .mtu = config.mtu,
                                                           .address = config.mac,
                                                           .completes_checksums = true,
                                                           .splits_segments = true});
  PacketLink* raw = link.get();
  netstack::Interface& interface =
      stack_.AddInterface(std::move(config.name), std::move(link), config.index);
  links_.emplace_back(raw, &interface);
  return {};
}

base::Result<void> StackNetwork::Start() {
  for (auto& [link, interface] : links_) TRY(link->Start(*interface));
  return {};
}

InterfaceList StackNetwork::Interfaces() const {
  InterfaceList list;
  for (const netstack::Interface* each : stack_.Interfaces()) {
    Interface interface;
    interface.index = each->index();
    interface.name = each->name();
    interface.mtu = each->mtu();
    interface.flags = IFF_UP | IFF_RUNNING | 0x10000 /* IFF_LOWER_UP */;
    if (each->is_loopback()) {
      interface.flags |= IFF_LOOPBACK;
      interface.hardware_type = ARPHRD_LOOPBACK;
    } else {
      interface.flags |= IFF_BROADCAST | IFF_MULTICAST;
      interface.hardware_type = ARPHRD_ETHER;
      interface.hardware_address = each->mac().bytes;
    }
    for (const netstack::InterfaceAddress& own : stack_.Addresses(each->index())) {
      const netstack::IpAddress& ip = own.prefix.address;
      InterfaceAddress address;
      address.family = ip.is_v4() ? AF_INET : AF_INET6;
      std::copy(ip.Packed().begin(), ip.Packed().end(), address.bytes.begin());
      address.prefix_length = own.prefix.bits;
      address.scope = ip.is_loopback()     ? uint8_t{RT_SCOPE_HOST}
                      : ip.is_link_local() ? uint8_t{RT_SCOPE_LINK}
                                           : uint8_t{RT_SCOPE_UNIVERSE};
      interface.addresses.push_back(address);
    }
    list.push_back(std::move(interface));
  }
  return list;
}

}  // namespace sentry
