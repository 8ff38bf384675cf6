#pragma once

// Guest addresses. They are numbers: nothing here dereferences one. Only sentry/mm turns them into
// bytes, after a check against the guest's memory map.

#include <cstdint>
#include <type_traits>

#include "platform/base/result.h"

namespace base {

class UserAddr {
 public:
  constexpr UserAddr() = default;
  constexpr explicit UserAddr(uint64_t value) : value_(value) {}
  constexpr uint64_t value() const { return value_; }
  constexpr bool is_null() const { return value_ == 0; }
  // EFAULT if the sum wraps.
  Result<UserAddr> Plus(uint64_t bytes) const {
    uint64_t sum = 0;
    if (__builtin_add_overflow(value_, bytes, &sum)) return Errno(EFAULT);
    return UserAddr(sum);
  }
  friend constexpr auto operator<=>(UserAddr, UserAddr) = default;

 private:
  uint64_t value_ = 0;
};

// A type whose bytes may cross into the guest: plain data with no padding that could leak ours.
template <typename T>
concept AbiSafe = std::is_trivially_copyable_v<T> && std::has_unique_object_representations_v<T>;

// Pointer parameters of system calls, by the direction in which the bytes go.
template <AbiSafe T>
class UserIn {
 public:
  using Type = T;
  explicit constexpr UserIn(UserAddr addr) : addr_(addr) {}
  constexpr UserAddr addr() const { return addr_; }
  constexpr bool is_null() const { return addr_.is_null(); }

 private:
  UserAddr addr_;
};

template <AbiSafe T>
class UserOut {
 public:
  using Type = T;
  explicit constexpr UserOut(UserAddr addr) : addr_(addr) {}
  constexpr UserAddr addr() const { return addr_; }
  constexpr bool is_null() const { return addr_.is_null(); }

 private:
  UserAddr addr_;
};

template <AbiSafe T>
class UserInOut {
 public:
  using Type = T;
  explicit constexpr UserInOut(UserAddr addr) : addr_(addr) {}
  constexpr UserAddr addr() const { return addr_; }
  constexpr bool is_null() const { return addr_.is_null(); }
  constexpr UserIn<T> in() const { return UserIn<T>(addr_); }
  constexpr UserOut<T> out() const { return UserOut<T>(addr_); }

 private:
  UserAddr addr_;
};

inline constexpr uint64_t kPageSize = 4096;
constexpr uint64_t PageDown(uint64_t value) { return value & ~(kPageSize - 1); }
// Precondition: value <= UINT64_MAX - kPageSize + 1.
constexpr uint64_t PageUp(uint64_t value) { return PageDown(value + kPageSize - 1); }

}  // namespace base
