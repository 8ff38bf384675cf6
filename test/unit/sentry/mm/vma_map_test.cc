#include "sentry/mm/vma_map.h"

#include <random>
#include <set>

#include "catch2/catch.hpp"

namespace {

using sentry::Vma;
using sentry::VmaMap;

constexpr uint64_t kPage = 4096;

Vma Area(uint64_t start, uint64_t end, int protection = PROT_READ) {
  Vma vma;
  vma.start = start;
  vma.end = end;
  vma.protection = protection;
  return vma;
}

TEST_CASE("a free range is found from the top down", "[mm]") {
  VmaMap map;
  CHECK(map.FindGapBelow(kPage, 0x10000, 0x100000) == 0xff000);
  map.Insert(Area(0xff000, 0x100000));
  CHECK(map.FindGapBelow(kPage, 0x10000, 0x100000) == 0xfe000);
  map.Insert(Area(0xf0000, 0xfd000));
  CHECK(map.FindGapBelow(2 * kPage, 0x10000, 0x100000) == 0xfd000);
  CHECK(map.FindGapBelow(3 * kPage, 0x10000, 0x100000) == 0xed000);
  CHECK_FALSE(map.FindGapBelow(0x100000, 0x10000, 0x100000).has_value());
}

TEST_CASE("a free range is found from the bottom up", "[mm]") {
  VmaMap map;
  map.Insert(Area(0x10000, 0x12000));
  map.Insert(Area(0x13000, 0x14000));
  CHECK(map.FindGapAbove(kPage, 0x10000, 0x100000) == 0x12000);
  CHECK(map.FindGapAbove(2 * kPage, 0x10000, 0x100000) == 0x14000);
  CHECK_FALSE(map.FindGapAbove(kPage, 0x10000, 0x12000).has_value());
}

TEST_CASE("the guard gap below a stack stays free", "[mm]") {
  VmaMap map;
  Vma stack = Area(0x900000, 0x1000000);
  stack.grows_down = true;
  map.Insert(stack);
  CHECK(map.FindGapBelow(kPage, 0x10000, 0x1000000) == 0x900000 - sentry::kStackGuardBytes - kPage);
}

TEST_CASE("neighbours with the same properties become one area", "[mm]") {
  VmaMap map;
  map.Insert(Area(0x10000, 0x12000));
  map.Insert(Area(0x12000, 0x14000));
  map.Insert(Area(0x14000, 0x16000, PROT_WRITE));
  map.Merge(0x12000, 0x14000);
  CHECK(map.size() == 2);
  map.Split(0x11000);
  CHECK(map.size() == 3);
  CHECK(map.total_bytes() == 0x6000);
}

// The search remembers where there is nothing; it must forget that when something is freed.
TEST_CASE("a remembered search finds what a fresh one finds", "[mm]") {
  std::mt19937 random(7);
  VmaMap map;
  std::set<uint64_t> used;
  constexpr uint64_t kLow = 0x10000, kHigh = 0x90000;
  for (int step = 0; step < 20000; step++) {
    const uint64_t pages = 1 + random() % 4;
    if (random() % 2 == 0) {
      std::optional<uint64_t> expected;
      for (uint64_t at = kHigh - pages * kPage; at >= kLow && !expected; at -= kPage) {
        bool free = true;
        for (uint64_t page = 0; page < pages; page++) free &= !used.contains(at + page * kPage);
        if (free) expected = at;
      }
      const std::optional<uint64_t> found = map.FindGapBelow(pages * kPage, kLow, kHigh);
      REQUIRE(found == expected);
      if (!found) continue;
      map.Insert(Area(*found, *found + pages * kPage));
      for (uint64_t page = 0; page < pages; page++) used.insert(*found + page * kPage);
    } else {
      const uint64_t start = kLow + random() % 128 * kPage;
      const uint64_t end = start + pages * kPage;
      map.Split(start);
      map.Split(end);
      for (auto it = map.FindFrom(start); it != map.end() && it->second.start < end;) {
        it = map.Erase(it);
      }
      for (uint64_t at = start; at < end; at += kPage) used.erase(at);
    }
    REQUIRE(map.total_bytes() == used.size() * kPage);
  }
}

}  // namespace
