#include "sentry/socket/interface_ioctl.h"

#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/socket/interfaces.h"
#include "sentry/socket/network_namespace.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;

// struct ifreq as bytes: a name, then a union whose members begin there.
using InterfaceRequest = std::array<uint8_t, 40>;
constexpr size_t kUnion = IFNAMSIZ;
static_assert(sizeof(ifreq) == sizeof(InterfaceRequest));

struct ConfigurationList {  // struct ifconf
  int32_t length = 0;
  uint32_t pad = 0;
  uint64_t buffer = 0;
};

template <typename T>
void Put(InterfaceRequest& request, const T& value) {
  static_assert(sizeof(T) <= sizeof(InterfaceRequest) - kUnion);
  std::memcpy(request.data() + kUnion, &value, sizeof(T));
}

sockaddr_in InternetAddress(uint32_t host_order) {
  sockaddr_in result = {};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(host_order);
  return result;
}

uint32_t HostOrder(const InterfaceAddress& address) {
  uint32_t raw;
  std::memcpy(&raw, address.bytes.data(), sizeof(raw));
  return ntohl(raw);
}

// An interface's first IPv4 address, which is the one that these calls know. Null: none.
const InterfaceAddress* FirstV4(const Interface& interface) {
  for (const InterfaceAddress& each : interface.addresses) {
    if (each.family == AF_INET) return &each;
  }
  return nullptr;
}

uint32_t NetMask(const InterfaceAddress& address) {
  return address.prefix_length == 0 ? 0 : ~uint32_t{0} << (32 - address.prefix_length);
}

void PutName(InterfaceRequest& request, const Interface& interface) {
  std::memset(request.data(), 0, IFNAMSIZ);
  std::memcpy(request.data(), interface.name.data(),
              std::min<size_t>(interface.name.size(), IFNAMSIZ - 1));
}

// Those with an IPv4 address, as many as the guest has room for.
Result<uint64_t> ListInterfaces(Task& task, const InterfaceList& interfaces, uint64_t argument) {
  const base::UserInOut<ConfigurationList> pointer{UserAddr(argument)};
  ConfigurationList list = TRY(task.CopyIn(pointer));
  int32_t length = 0;
  for (const Interface& each : interfaces) {
    const InterfaceAddress* address = FirstV4(each);
    if (address == nullptr) continue;
    constexpr auto kEntryBytes = static_cast<int32_t>(sizeof(InterfaceRequest));
    if (list.buffer != 0) {
      if (list.length - length < kEntryBytes) break;
      InterfaceRequest entry = {};
      PutName(entry, each);
      Put(entry, InternetAddress(HostOrder(*address)));
      const UserAddr to(list.buffer + static_cast<uint64_t>(length));
      TRY(task.CopyOut(base::UserOut<InterfaceRequest>(to), entry));
    }
    length += kEntryBytes;
  }
  list.length = length;
  TRY(task.CopyOut(pointer, list));
  return uint64_t{0};
}

// EADDRNOTAVAIL: the interface has no IPv4 address.
Result<void> AnswerAddress(uint32_t command, const Interface& interface,
                           InterfaceRequest& request) {
  const InterfaceAddress* address = FirstV4(interface);
  if (address == nullptr) return Errno(EADDRNOTAVAIL);
  const uint32_t own = HostOrder(*address);
  const uint32_t mask = NetMask(*address);
  switch (command) {
    case SIOCGIFNETMASK:
      Put(request, InternetAddress(mask));
      break;
    case SIOCGIFBRDADDR:
      Put(request,
          InternetAddress((interface.flags & IFF_BROADCAST) != 0 ? own | ~mask : INADDR_ANY));
      break;
    default:
      Put(request, InternetAddress(own));
  }
  return {};
}

}  // namespace

Result<uint64_t> InterfaceIoctl(Task& task, uint32_t command, uint64_t argument) {
  if (command != SIOCGIFCONF && (command < SIOCGIFNAME || command > SIOCGIFTXQLEN))
    return Errno(ENOTTY);
  const auto interfaces = task.own_namespaces().network->interfaces().Get();
  if (command == SIOCGIFCONF) return ListInterfaces(task, *interfaces, argument);
  const base::UserInOut<InterfaceRequest> pointer{UserAddr(argument)};
  InterfaceRequest request = TRY(task.CopyIn(pointer));
  if (command == SIOCGIFNAME) {
    int32_t index = 0;
    std::memcpy(&index, request.data() + kUnion, sizeof(index));
    const Interface* found = FindInterface(*interfaces, index);
    if (found == nullptr) return Errno(ENODEV);
    PutName(request, *found);
    TRY(task.CopyOut(pointer, request));
    return uint64_t{0};
  }
  const std::string_view name(reinterpret_cast<const char*>(request.data()), IFNAMSIZ);
  const Interface* interface = FindInterface(*interfaces, name.substr(0, name.find('\0')));
  if (interface == nullptr) return Errno(ENODEV);
  switch (command) {
    case SIOCGIFINDEX:
      Put(request, interface->index);
      break;
    case SIOCGIFFLAGS:
      Put(request, static_cast<int16_t>(interface->flags));
      break;
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
    case SIOCGIFNETMASK:
    case SIOCGIFBRDADDR:
      TRY(AnswerAddress(command, *interface, request));
      break;
    case SIOCGIFMTU:
      Put(request, static_cast<int32_t>(interface->mtu));
      break;
    case SIOCGIFMETRIC:
      Put(request, int32_t{0});
      break;
    case SIOCGIFTXQLEN:
      Put(request, int32_t{1000});
      break;
    case SIOCGIFHWADDR: {
      sockaddr address = {};
      address.sa_family = interface->hardware_type;
      std::memcpy(address.sa_data, interface->hardware_address.data(),
                  interface->hardware_address.size());
      Put(request, address);
      break;
    }
    default:
      // Setting anything needs CAP_NET_ADMIN over a real interface.
      return Errno(EPERM);
  }
  TRY(task.CopyOut(pointer, request));
  return uint64_t{0};
}

}  // namespace sentry
