#include "sentry/kernel/memory_limit.h"

#include "catch2/catch.hpp"

namespace {

TEST_CASE("tasks that memory has room for, and never more than wanted", "[memory]") {
  using sentry::TasksWithin;
  constexpr uint64_t kGigabyte = uint64_t{1} << 30;
  CHECK(TasksWithin(0, 32768) == 32768);               // No limit.
  CHECK(TasksWithin(kGigabyte, 10) == 10);             // Fewer than the least are wanted.
  CHECK(TasksWithin(1 << 20, 32768) == 64);            // The least.
  CHECK(TasksWithin(64 * kGigabyte, 32768) == 32768);  // As many as wanted.
  CHECK(TasksWithin(kGigabyte, 32768) < 32768);
}

}  // namespace
