#pragma once

// The table of system calls: the coverage document and the dispatcher are printed and driven from
// it.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <tuple>
#include <type_traits>
#include <utility>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"

namespace sentry {
class Task;
}

namespace syscalls {

using RegisterFile = std::array<uint64_t, 6>;  // rdi, rsi, rdx, r10, r8, r9
using Handler = base::Result<uint64_t> (*)(sentry::Task&, const RegisterFile&);

enum class Support : uint8_t {
  kUnknown,  // No row.
  kFull,
  kPartial,  // Works with the differences that the note names.
  kRefused,  // Answers with an errno as an unprivileged container would get, for the reason in the
             // note.
};

struct Row {
  uint16_t number = 0;
  std::string_view name;
  Handler handler = nullptr;  // Null: ENOSYS (or `refusal`).
  Support support = Support::kUnknown;
  std::string_view note;
  int refusal = 0;  // kRefused: the errno.
};

inline constexpr size_t kTableSize = 512;
using Table = std::array<Row, kTableSize>;

// Register -> typed argument. Integers truncate exactly as the Linux entry path does.
template <typename T>
constexpr T FromRegister(uint64_t raw) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(raw);
  } else if constexpr (std::is_same_v<T, base::UserAddr>) {
    return base::UserAddr(raw);
  } else {
    return T(base::UserAddr(raw));
  }
}

// Adapts a typed handler to the uniform entry signature; its parameters are the decoder.
template <auto kFunction>
struct Bind;
template <typename R, typename... Args, base::Result<R> (*kFunction)(sentry::Task&, Args...)>
struct Bind<kFunction> {
  static_assert(sizeof...(Args) <= std::tuple_size_v<RegisterFile>);
  static base::Result<uint64_t> Call(sentry::Task& task, const RegisterFile& registers) {
    return [&]<size_t... I>(std::index_sequence<I...>) -> base::Result<uint64_t> {
      (void)registers;
      if constexpr (std::is_void_v<R>) {
        TRY(kFunction(task, FromRegister<Args>(registers[I])...));
        return uint64_t{0};
      } else {
        return static_cast<uint64_t>(TRY(kFunction(task, FromRegister<Args>(registers[I])...)));
      }
    }(std::index_sequence_for<Args...>{});
  }
};

template <auto kFunction>
constexpr Row Full(uint16_t number, std::string_view name) {
  return {number, name, &Bind<kFunction>::Call, Support::kFull, "", 0};
}
template <auto kFunction>
constexpr Row Partial(uint16_t number, std::string_view name, std::string_view note) {
  return {number, name, &Bind<kFunction>::Call, Support::kPartial, note, 0};
}
constexpr Row Refused(uint16_t number, std::string_view name, int refusal, std::string_view note) {
  return {number, name, nullptr, Support::kRefused, note, refusal};
}

// Indexed by number.
const Table& X8664();

}  // namespace syscalls
