#include <random>

#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT

TEST_CASE("after fork each side keeps its own bytes", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(64 * kPage);
  for (uint64_t page = 0; page < 64; page++) parent.Store(at + page * kPage, 1);
  Guest child = sandbox.Fork(parent);
  CHECK(child.Load(at) == 1);
  CHECK(child.faults == 0);
  CHECK(parent.Store(at, 2));
  CHECK(parent.faults == 1);
  CHECK(child.Load(at) == 1);
  CHECK(child.Store(at + kPage, 3));
  CHECK(parent.Load(at + kPage) == 1);
  child.Write(at + 40 * kPage, "child");
  CHECK(parent.Read(at + 40 * kPage, 2) == std::string("\1\0", 2));
}

TEST_CASE("a parent alone again gets its pages back in one step", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(256 * kPage);
  for (uint64_t page = 0; page < 256; page++) parent.Store(at + page * kPage, 7);
  const uint64_t allocated = sandbox.pool->allocated_bytes();
  {
    Guest child = sandbox.Fork(parent);
  }
  parent.faults = 0;
  for (uint64_t page = 0; page < 256; page++) CHECK(parent.Store(at + page * kPage, 8));
  CHECK(parent.faults == 1);
  CHECK(sandbox.pool->allocated_bytes() == allocated);
}

TEST_CASE("fork protects the parent with few calls", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  for (int area = 0; area < 10; area++) parent.Map(16 * kPage);
  const uint64_t before = parent.space().counters().protects;
  Guest child = sandbox.Fork(parent);
  CHECK(parent.space().counters().protects == before + 1);
  Guest second = sandbox.Fork(parent);
  CHECK(parent.space().counters().protects == before + 1);
}

TEST_CASE("pages that were never touched are not made by copying", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(256 * kPage);
  parent.Store(at + 5 * kPage, 1);
  Guest child = sandbox.Fork(parent);
  const uint64_t before = sandbox.pool->resident_bytes();
  CHECK(child.Store(at + 6 * kPage, 1));
  CHECK(sandbox.pool->resident_bytes() == before + 2 * kPage);
  CHECK(child.Load(at + 5 * kPage) == 1);
}

TEST_CASE("shared memory stays shared, marked areas do not come along", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t shared = parent.Map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  const uint64_t gone = parent.Map(kPage);
  const uint64_t wiped = parent.Map(kPage);
  parent.memory->Madvise(gone, kPage, MADV_DONTFORK).value();
  parent.memory->Madvise(wiped, kPage, MADV_WIPEONFORK).value();
  parent.Store(wiped, 5);
  Guest child = sandbox.Fork(parent);
  CHECK(child.Store(shared, 9));
  CHECK(parent.Load(shared) == 9);
  CHECK_FALSE(child.Load(gone).has_value());
  CHECK(child.Load(wiped) == 0);
  CHECK(parent.Load(wiped) == 5);
  CHECK(parent.Store(wiped, 6));
}

TEST_CASE("mprotect does not give copy-on-write pages away", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(4 * kPage);
  parent.Store(at, 1);
  Guest child = sandbox.Fork(parent);
  child.memory->Mprotect(at, 4 * kPage, PROT_READ).value();
  child.memory->Mprotect(at, 4 * kPage, PROT_READ | PROT_WRITE).value();
  CHECK(child.Store(at, 2));
  CHECK(parent.Load(at) == 1);
}

TEST_CASE("what is written after each fork is copied by the next one", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(64 * kPage);
  for (uint64_t page = 0; page < 64; page++) parent.Store(at + page * kPage, 1);
  {
    Guest first(parent.memory->Fork(true).value());
    CHECK(parent.Store(at + 20 * kPage, 2));
    CHECK(parent.faults == 1);
  }
  Guest second(parent.memory->Fork(true).value());
  parent.faults = 0;
  CHECK(parent.Store(at + 20 * kPage, 3));
  CHECK(parent.faults == 0);
  CHECK(second.Load(at + 20 * kPage) == 2);
  CHECK(second.Store(at + 20 * kPage, 4));
  CHECK(second.faults == 0);
  CHECK(parent.Load(at + 20 * kPage) == 3);
  // The others are shared as ever.
  CHECK(second.Store(at + 21 * kPage, 5));
  CHECK(second.faults == 1);
  CHECK(parent.Load(at + 21 * kPage) == 1);
}

TEST_CASE("many areas take part in a fork that copies", "[mm][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  std::vector<uint64_t> areas;
  for (int area = 0; area < 40; area++) areas.push_back(parent.Map(3 * kPage));
  for (int round = 0; round < 4; round++) {
    Guest child(parent.memory->Fork(true).value());
    for (size_t i = 0; i < areas.size(); i++) {
      const auto value = static_cast<uint8_t>(10 * round + 1);
      CHECK(parent.Store(areas[i] + kPage, value));
      CHECK(child.Load(areas[i] + kPage) == (round == 0 ? 0 : 10 * (round - 1) + 1));
    }
  }
}

// A random family of processes against a model that copies everything.
TEST_CASE("a family of processes behaves as if everything were copied", "[mm][fork]") {
  struct Member {
    Guest guest;
    std::vector<uint8_t> model;
  };
  constexpr uint64_t kPages = 48;
  const uint32_t seed = GENERATE(1u, 2u, 3u);
  std::mt19937 random(seed);
  Sandbox sandbox;
  std::vector<Member> family;
  family.push_back({sandbox.NewGuest(), std::vector<uint8_t>(kPages)});
  const uint64_t at = family[0].guest.Map(kPages * kPage);
  for (int step = 0; step < 4000; step++) {
    const size_t who = random() % family.size();
    const uint64_t page = random() % kPages;
    const auto value = static_cast<uint8_t>(random());
    Member& member = family[who];
    switch (random() % 16) {
      case 0:
        if (family.size() < 6) {
          Guest child = sandbox.Fork(member.guest);
          std::vector<uint8_t> model = member.model;
          family.push_back({std::move(child), std::move(model)});
        }
        break;
      case 1:
        if (family.size() > 1) family.erase(family.begin() + static_cast<ptrdiff_t>(who));
        break;
      case 2: {
        const uint64_t count = std::min<uint64_t>(1 + random() % 8, kPages - page);
        REQUIRE(member.guest.memory->Madvise(at + page * kPage, count * kPage, MADV_DONTNEED).ok());
        for (uint64_t i = 0; i < count; i++) member.model[page + i] = 0;
        break;
      }
      case 3: {
        const std::byte byte{value};
        REQUIRE(member.guest.memory->CopyOutExactly(UserAddr(at + page * kPage), {&byte, 1}).ok());
        member.model[page] = value;
        break;
      }
      case 4:
        REQUIRE(member.guest.memory->Mprotect(at + page * kPage, kPage, PROT_READ).ok());
        REQUIRE(
            member.guest.memory->Mprotect(at + page * kPage, kPage, PROT_READ | PROT_WRITE).ok());
        break;
      default:
        REQUIRE(member.guest.Store(at + page * kPage, value));
        member.model[page] = value;
    }
    Member& checked = family[random() % family.size()];
    const uint64_t seen = random() % kPages;
    REQUIRE(checked.guest.Load(at + seen * kPage) == checked.model[seen]);
  }
}

}  // namespace
