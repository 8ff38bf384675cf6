#pragma once

// Result<T>: a value or an Errno. TRY(expression) yields the value or returns the error from the
// enclosing function, which must itself return a Result (of any type).

#include <optional>
#include <type_traits>
#include <utility>
#include <variant>

#include "platform/base/check.h"
#include "platform/base/errno.h"

namespace base {

template <typename T>
class [[nodiscard]] Result {
 public:
  using ValueType = T;
  Result(Errno error) : storage_(std::in_place_index<1>, error) {}  // NOLINT: implicit by design
  template <typename U = T>
    requires(std::is_constructible_v<T, U &&> && !std::is_same_v<std::remove_cvref_t<U>, Errno> &&
             !std::is_same_v<std::remove_cvref_t<U>, Result>)
  Result(U&& value) : storage_(std::in_place_index<0>, std::forward<U>(value)) {}  // NOLINT

  bool ok() const { return storage_.index() == 0; }
  // Precondition: !ok().
  Errno error() const { return *std::get_if<1>(&storage_); }
  // Precondition: ok().
  T& value() & {
    RAVELIN_CHECK(ok());
    return *std::get_if<0>(&storage_);
  }
  const T& value() const& {
    RAVELIN_CHECK(ok());
    return *std::get_if<0>(&storage_);
  }
  T&& value() && {
    RAVELIN_CHECK(ok());
    return std::move(*std::get_if<0>(&storage_));
  }
  T value_or(T fallback) && { return ok() ? std::move(*this).value() : std::move(fallback); }

 private:
  std::variant<T, Errno> storage_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  using ValueType = void;
  Result() = default;
  Result(Errno error) : error_(error.value()) {}  // NOLINT: implicit by design
  bool ok() const { return error_ == 0; }
  Errno error() const { return Errno(error_); }
  void value() const { RAVELIN_CHECK(ok()); }

 private:
  int error_ = 0;
};

// The calling thread's errno as an error. Precondition: errno != 0.
inline Errno LastErrno() { return Errno(errno); }

}  // namespace base

#define RAVELIN_CONCAT_INNER(a, b) a##b
#define RAVELIN_CONCAT(a, b) RAVELIN_CONCAT_INNER(a, b)
#define RAVELIN_TRY(expression, name) \
  __extension__({                     \
    auto name = (expression);         \
    if (!name.ok()) [[unlikely]] {    \
      return name.error();            \
    }                                 \
    std::move(name).value();          \
  })
// The name is unique so that TRYs nest.
#define TRY(expression) RAVELIN_TRY(expression, RAVELIN_CONCAT(try_result_, __COUNTER__))
