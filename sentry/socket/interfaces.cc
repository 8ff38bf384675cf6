#include "sentry/socket/interfaces.h"

#include <linux/if.h>
#include <linux/if_arp.h>
#include <linux/rtnetlink.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

namespace sentry {

InterfaceList LoopbackOnly() {
  Interface lo;
  lo.index = kLoopbackIndex;
  lo.name = "lo";
  lo.flags = IFF_UP | IFF_LOOPBACK | IFF_RUNNING | IFF_LOWER_UP;
  lo.mtu = kLoopbackMtu;
  lo.hardware_type = ARPHRD_LOOPBACK;
  lo.addresses.push_back({AF_INET, {127, 0, 0, 1}, 8, RT_SCOPE_HOST});
  InterfaceAddress v6{AF_INET6, {}, 128, RT_SCOPE_HOST};
  v6.bytes.back() = 1;
  lo.addresses.push_back(v6);
  return {lo};
}

const Interface* FindInterface(const InterfaceList& list, int32_t index) {
  const auto found = std::find_if(list.begin(), list.end(),
                                  [&](const Interface& each) { return each.index == index; });
  return found == list.end() ? nullptr : &*found;
}

const Interface* FindInterface(const InterfaceList& list, std::string_view name) {
  const auto found = std::find_if(list.begin(), list.end(),
                                  [&](const Interface& each) { return each.name == name; });
  return found == list.end() ? nullptr : &*found;
}

InterfaceTable::InterfaceTable() : list_(std::make_shared<InterfaceList>(LoopbackOnly())) {}

std::shared_ptr<const InterfaceList> InterfaceTable::Get() const {
  const absl::MutexLock lock(&mu_);
  return list_;
}

void InterfaceTable::Set(InterfaceList list) {
  auto fresh = std::make_shared<const InterfaceList>(std::move(list));
  const absl::MutexLock lock(&mu_);
  list_ = std::move(fresh);
}

}  // namespace sentry
