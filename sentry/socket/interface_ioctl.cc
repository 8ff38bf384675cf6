#include "sentry/socket/interface_ioctl.h"

#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <netinet/in.h>

#include <array>
#include <cstring>
#include <string_view>

#include "sentry/kernel/task.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;

// struct ifreq as bytes: a name, then a union whose members begin there.
using InterfaceRequest = std::array<uint8_t, 40>;
constexpr size_t kUnion = IFNAMSIZ;
static_assert(sizeof(ifreq) == sizeof(InterfaceRequest));

constexpr std::string_view kLoopbackName = "lo";

struct InterfaceList {  // struct ifconf
  int32_t length = 0;
  uint32_t pad = 0;
  uint64_t buffer = 0;
};

template <typename T>
void Put(InterfaceRequest& request, const T& value) {
  static_assert(sizeof(T) <= sizeof(InterfaceRequest) - kUnion);
  std::memcpy(request.data() + kUnion, &value, sizeof(T));
}

sockaddr_in InternetAddress(uint32_t address) {
  sockaddr_in result = {};
  result.sin_family = AF_INET;
  result.sin_addr.s_addr = htonl(address);
  return result;
}

bool IsLoopback(const InterfaceRequest& request) {
  const std::string_view name(reinterpret_cast<const char*>(request.data()), IFNAMSIZ);
  return name.substr(0, name.find('\0')) == kLoopbackName;
}

Result<uint64_t> ListInterfaces(Task& task, uint64_t argument) {
  const base::UserInOut<InterfaceList> pointer{UserAddr(argument)};
  InterfaceList list = TRY(task.CopyIn(pointer));
  InterfaceRequest entry = {};
  std::memcpy(entry.data(), kLoopbackName.data(), kLoopbackName.size());
  Put(entry, InternetAddress(INADDR_LOOPBACK));
  if (list.buffer == 0) {
    list.length = sizeof(entry);
  } else if (list.length >= static_cast<int32_t>(sizeof(entry))) {
    TRY(task.CopyOut(base::UserOut<InterfaceRequest>(UserAddr(list.buffer)), entry));
    list.length = sizeof(entry);
  } else {
    list.length = 0;
  }
  TRY(task.CopyOut(pointer, list));
  return uint64_t{0};
}

}  // namespace

Result<uint64_t> InterfaceIoctl(Task& task, uint32_t command, uint64_t argument) {
  if (command == SIOCGIFCONF) return ListInterfaces(task, argument);
  if (command < SIOCGIFNAME || command > SIOCGIFTXQLEN) return Errno(ENOTTY);
  const base::UserInOut<InterfaceRequest> pointer{UserAddr(argument)};
  InterfaceRequest request = TRY(task.CopyIn(pointer));
  if (command == SIOCGIFNAME) {
    int32_t index = 0;
    std::memcpy(&index, request.data() + kUnion, sizeof(index));
    if (index != kLoopbackIndex) return Errno(ENODEV);
    std::memset(request.data(), 0, IFNAMSIZ);
    std::memcpy(request.data(), kLoopbackName.data(), kLoopbackName.size());
    TRY(task.CopyOut(pointer, request));
    return uint64_t{0};
  }
  if (!IsLoopback(request)) return Errno(ENODEV);
  switch (command) {
    case SIOCGIFINDEX:
      Put(request, kLoopbackIndex);
      break;
    case SIOCGIFFLAGS:
      Put(request, static_cast<int16_t>(IFF_UP | IFF_LOOPBACK | IFF_RUNNING));
      break;
    case SIOCGIFADDR:
    case SIOCGIFDSTADDR:
      Put(request, InternetAddress(INADDR_LOOPBACK));
      break;
    case SIOCGIFNETMASK:
      Put(request, InternetAddress(0xff000000));
      break;
    case SIOCGIFBRDADDR:
      Put(request, InternetAddress(INADDR_ANY));
      break;
    case SIOCGIFMTU:
      Put(request, kLoopbackMtu);
      break;
    case SIOCGIFMETRIC:
      Put(request, int32_t{0});
      break;
    case SIOCGIFTXQLEN:
      Put(request, int32_t{1000});
      break;
    case SIOCGIFHWADDR: {
      sockaddr address = {};
      address.sa_family = ARPHRD_LOOPBACK;
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
