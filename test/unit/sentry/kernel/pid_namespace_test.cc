#include "sentry/kernel/pid_namespace.h"

#include "catch2/catch.hpp"

namespace {

using sentry::PidNamespace;

TEST_CASE("ids rise, wrap, and leave the first ones alone", "[pid]") {
  PidNamespace pids(100000);
  const absl::MutexLock lock(&pids.tree_mu());
  CHECK(pids.ReserveIdLocked(0).value() == 1);
  CHECK(pids.ReserveIdLocked(0).value() == 2);
  pids.ReleaseIdLocked(2);
  CHECK(pids.ReserveIdLocked(0).value() == 3);  // Not reused at once.
  for (int id = 4; id < PidNamespace::kIdMax; ++id) REQUIRE(pids.ReserveIdLocked(0).value() == id);
  CHECK_FALSE(pids.ReserveIdLocked(0).ok());
  pids.ReleaseIdLocked(200);
  pids.ReleaseIdLocked(400);
  CHECK(pids.ReserveIdLocked(0).value() == 400);
  CHECK(pids.ReserveIdLocked(0).error() == EAGAIN);
}

TEST_CASE("a wanted id is given if it is free", "[pid]") {
  PidNamespace pids(10);
  const absl::MutexLock lock(&pids.tree_mu());
  CHECK(pids.ReserveIdLocked(77).value() == 77);
  CHECK(pids.ReserveIdLocked(77).error() == EEXIST);
  CHECK(pids.ReserveIdLocked(PidNamespace::kIdMax).error() == EINVAL);
}

TEST_CASE("the number of tasks is bounded", "[pid][limits]") {
  PidNamespace pids(3);
  const absl::MutexLock lock(&pids.tree_mu());
  for (int i = 0; i < 3; ++i) REQUIRE(pids.ReserveIdLocked(0).ok());
  CHECK(pids.ReserveIdLocked(0).error() == EAGAIN);
}

}  // namespace
