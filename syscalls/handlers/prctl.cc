#include "syscalls/handlers/prctl.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <utility>

#include "platform/base/user_addr.h"
#include "sentry/kernel/credentials.h"
#include "sentry/kernel/task.h"
#include "syscalls/handlers/seccomp.h"

namespace syscalls {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::Credentials;
using sentry::Task;

constexpr uint32_t kAllSecureBits = SECURE_ALL_BITS | SECURE_ALL_LOCKS;

template <typename Change>
Result<uint64_t> ChangeCredentials(Task& task, Change&& change) {
  auto changed = std::make_shared<Credentials>(task.own_credentials());
  TRY(change(*changed));
  task.set_credentials(std::move(changed));
  return uint64_t{0};
}

Result<uint64_t> PutInt(Task& task, uint64_t address, int32_t value) {
  TRY(task.CopyOut(UserOut<int32_t>(UserAddr(address)), value));
  return uint64_t{0};
}

Result<uint64_t> SetName(Task& task, uint64_t address) {
  // strncpy_from_user: up to 15 bytes, no error for a longer one.
  std::array<std::byte, 15> bytes{};
  const size_t got = TRY(task.memory().CopyInBytes(UserAddr(address), bytes));
  const auto* text = reinterpret_cast<const char*>(bytes.data());
  const size_t length = strnlen(text, got);
  if (length == got && got < bytes.size()) return Errno(EFAULT);
  task.set_name(std::string(text, length));
  return uint64_t{0};
}

Result<uint64_t> GetName(Task& task, uint64_t address) {
  std::array<std::byte, 16> bytes{};
  const std::string name = task.name();
  std::memcpy(bytes.data(), name.data(), std::min(name.size(), bytes.size() - 1));
  TRY(task.memory().CopyOutExactly(UserAddr(address), bytes));
  return uint64_t{0};
}

bool Locked(const Credentials& credentials, uint32_t bit) {
  return (credentials.securebits & (1U << (bit + 1))) != 0;
}

Result<uint64_t> SetKeepCapabilities(Task& task, uint64_t value) {
  if (value > 1) return Errno(EINVAL);
  if (Locked(task.own_credentials(), SECURE_KEEP_CAPS)) return Errno(EPERM);
  return ChangeCredentials(task, [value](Credentials& changed) -> Result<void> {
    changed.keep_capabilities = value == 1;
    return {};
  });
}

Result<uint64_t> SetSecureBits(Task& task, uint64_t value) {
  const Credentials& own = task.own_credentials();
  const auto bits = static_cast<uint32_t>(value);
  const uint32_t old = own.securebits | (own.keep_capabilities ? 1U << SECURE_KEEP_CAPS : 0);
  const uint32_t locked = (old & SECURE_ALL_LOCKS) >> 1;
  const bool touches_locked = (locked & (old ^ bits)) != 0 || (old & SECURE_ALL_LOCKS & ~bits) != 0;
  if (touches_locked || (value & ~uint64_t{kAllSecureBits}) != 0 ||
      !own.HasOwnCapability(CAP_SETPCAP))
    return Errno(EPERM);
  return ChangeCredentials(task, [bits](Credentials& changed) -> Result<void> {
    changed.securebits = bits & ~(1U << SECURE_KEEP_CAPS);
    changed.keep_capabilities = (bits & (1U << SECURE_KEEP_CAPS)) != 0;
    return {};
  });
}

Result<uint64_t> DropBounding(Task& task, uint64_t capability) {
  if (!task.own_credentials().HasOwnCapability(CAP_SETPCAP)) return Errno(EPERM);
  if (capability > CAP_LAST_CAP) return Errno(EINVAL);
  return ChangeCredentials(task, [capability](Credentials& changed) -> Result<void> {
    changed.bounding &= ~(uint64_t{1} << capability);
    return {};
  });
}

Result<uint64_t> Ambient(Task& task, uint64_t operation, uint64_t capability, uint64_t c,
                         uint64_t d) {
  const Credentials& own = task.own_credentials();
  if (operation == PR_CAP_AMBIENT_CLEAR_ALL) {
    if ((capability | c | d) != 0) return Errno(EINVAL);
    return ChangeCredentials(task, [](Credentials& changed) -> Result<void> {
      changed.ambient = 0;
      return {};
    });
  }
  if ((c | d) != 0 || capability > CAP_LAST_CAP) return Errno(EINVAL);
  const uint64_t bit = uint64_t{1} << capability;
  switch (operation) {
    case PR_CAP_AMBIENT_IS_SET:
      return uint64_t{(own.ambient & bit) != 0};
    case PR_CAP_AMBIENT_RAISE:
      if ((own.permitted & own.inheritable & bit) == 0) return Errno(EPERM);
      if ((own.securebits & (1U << SECURE_NO_CAP_AMBIENT_RAISE)) != 0) return Errno(EPERM);
      break;
    case PR_CAP_AMBIENT_LOWER:
      break;
    default:
      return Errno(EINVAL);
  }
  return ChangeCredentials(task, [=](Credentials& changed) -> Result<void> {
    changed.ambient =
        operation == PR_CAP_AMBIENT_RAISE ? changed.ambient | bit : changed.ambient & ~bit;
    return {};
  });
}

Result<uint64_t> SetNoNewPrivileges(Task& task) {
  return ChangeCredentials(task, [](Credentials& changed) -> Result<void> {
    changed.no_new_privileges = true;
    return {};
  });
}

Result<uint64_t> SetTimerSlack(Task& task, uint64_t slack_ns) {
  sentry::SchedulingAttributes attributes = task.scheduling();
  attributes.timer_slack_ns =
      static_cast<int64_t>(slack_ns) <= 0 ? attributes.default_timer_slack_ns : slack_ns;
  task.set_scheduling(std::move(attributes));
  return uint64_t{0};
}

// Options of credentials; nullopt-like ENOSYS for the others.
Result<uint64_t> CredentialOption(Task& task, int32_t option, uint64_t a, uint64_t b, uint64_t c,
                                  uint64_t d) {
  const Credentials& own = task.own_credentials();
  switch (option) {
    case PR_GET_KEEPCAPS:
      return uint64_t{own.keep_capabilities};
    case PR_SET_KEEPCAPS:
      return SetKeepCapabilities(task, a);
    case PR_GET_SECUREBITS:
      return uint64_t{own.securebits | (own.keep_capabilities ? 1U << SECURE_KEEP_CAPS : 0)};
    case PR_SET_SECUREBITS:
      return SetSecureBits(task, a);
    case PR_CAPBSET_READ:
      if (a > CAP_LAST_CAP) return Errno(EINVAL);
      return (own.bounding >> a) & 1;
    case PR_CAPBSET_DROP:
      return DropBounding(task, a);
    case PR_CAP_AMBIENT:
      return Ambient(task, a, b, c, d);
    case PR_GET_NO_NEW_PRIVS:
      if ((a | b | c | d) != 0) return Errno(EINVAL);
      return uint64_t{own.no_new_privileges};
    case PR_SET_NO_NEW_PRIVS:
      if (a != 1 || (b | c | d) != 0) return Errno(EINVAL);
      return SetNoNewPrivileges(task);
    default:
      return Errno(EINVAL);
  }
}

}  // namespace

Result<uint64_t> Prctl(Task& task, int32_t option, uint64_t a, uint64_t b, uint64_t c, uint64_t d) {
  switch (option) {
    case PR_SET_PDEATHSIG:
      if (a > static_cast<uint64_t>(sentry::kSignalMax)) return Errno(EINVAL);
      task.parent_death_signal().store(static_cast<int32_t>(a));
      return uint64_t{0};
    case PR_GET_PDEATHSIG:
      return PutInt(task, a, task.parent_death_signal().load());
    case PR_GET_DUMPABLE:
      return static_cast<uint64_t>(task.memory().dumpable().load());
    case PR_SET_DUMPABLE:
      if (a > 1) return Errno(EINVAL);
      task.memory().dumpable().store(static_cast<int>(a));
      return uint64_t{0};
    case PR_SET_NAME:
      return SetName(task, a);
    case PR_GET_NAME:
      return GetName(task, a);
    case PR_GET_TIMING:
      return uint64_t{PR_TIMING_STATISTICAL};
    case PR_SET_TIMING:
      if (a != PR_TIMING_STATISTICAL) return Errno(EINVAL);
      return uint64_t{0};
    case PR_GET_TSC:
      return PutInt(task, a, PR_TSC_ENABLE);
    case PR_SET_TSC:
      if (a != PR_TSC_ENABLE) return Errno(EINVAL);
      return uint64_t{0};
    case PR_GET_TIMERSLACK:
      return task.scheduling().timer_slack_ns;
    case PR_SET_TIMERSLACK:
      return SetTimerSlack(task, a);
    case PR_MCE_KILL_GET:
      if ((a | b | c | d) != 0) return Errno(EINVAL);
      return uint64_t{PR_MCE_KILL_DEFAULT};
    case PR_GET_CHILD_SUBREAPER:
      return PutInt(task, a, task.group().child_subreaper().load() ? 1 : 0);
    case PR_SET_CHILD_SUBREAPER:
      task.group().child_subreaper().store(a != 0);
      return uint64_t{0};
    case PR_GET_TID_ADDRESS:
      TRY(task.CopyOut(UserOut<uint64_t>(UserAddr(a)), task.clear_child_tid()));
      return uint64_t{0};
    case PR_GET_THP_DISABLE:
      if ((a | b | c | d) != 0) return Errno(EINVAL);
      return uint64_t{0};
    case PR_SET_THP_DISABLE:
      if ((b | c | d) != 0) return Errno(EINVAL);
      return uint64_t{0};  // A hint about the host's page size.
    case PR_GET_SECCOMP:
      return static_cast<uint64_t>(sentry::Seccomp::Mode(task));
    case PR_SET_SECCOMP:
      return SetSeccomp(task, a, UserAddr(b));
    case PR_SET_MM:
      return Errno(task.own_credentials().HasCapability(CAP_SYS_RESOURCE) ? EINVAL : EPERM);
    default:
      return CredentialOption(task, option, a, b, c, d);
  }
}

}  // namespace syscalls
