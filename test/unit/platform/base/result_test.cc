#include "platform/base/result.h"

#include <memory>

#include "catch2/catch.hpp"
#include "platform/base/user_addr.h"

namespace {

using base::Errno;
using base::Result;

Result<int> Half(int value) {
  if (value % 2 != 0) return Errno(EINVAL);
  return value / 2;
}

Result<int> Quarter(int value) { return TRY(Half(TRY(Half(value)))); }

TEST_CASE("TRY passes values and hands errors up", "[base]") {
  CHECK(Quarter(8).value() == 2);
  CHECK(Quarter(6).error() == EINVAL);
}

TEST_CASE("a result moves what cannot be copied", "[base]") {
  Result<std::unique_ptr<int>> result = std::make_unique<int>(7);
  CHECK(*std::move(result).value() == 7);
}

TEST_CASE("a guest address that wraps is a fault", "[base]") {
  CHECK(base::UserAddr(~uint64_t{0}).Plus(1).error() == EFAULT);
  CHECK(base::UserAddr(1).Plus(1).value() == base::UserAddr(2));
}

}  // namespace
