#include "platform/memory/memory_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "platform/memory/memfd_pool.h"
#include "platform/memory/pool_watch.h"

namespace {

using platform::MemoryPool;
using platform::PoolRange;

constexpr uint64_t kPage = 4096;

std::unique_ptr<MemoryPool> NewPool(uint64_t bytes_max = uint64_t{1} << 44) {
  auto pool = MemoryPool::Create(bytes_max);
  REQUIRE(pool.ok());
  return std::move(pool).value();
}

TEST_CASE("a new pool holds nothing", "[memory]") {
  auto pool = NewPool();
  CHECK(pool->allocated_bytes() == 0);
  static_cast<platform::MemfdPool&>(*pool).Trim();
  CHECK(pool->resident_bytes() == 0);
  CHECK(pool->fd() >= 0);
}

TEST_CASE("pages read as zero, also when they are given out again", "[memory]") {
  auto pool = NewPool();
  const PoolRange first = pool->Allocate(2 * kPage).value();
  memset(pool->Window(first).data(), 0x5a, first.size());
  CHECK(pool->resident_bytes() == 2 * kPage);
  pool->DropReference(first);
  static_cast<platform::MemfdPool&>(*pool).Trim();
  CHECK(pool->resident_bytes() == 0);
  CHECK(pool->allocated_bytes() == 0);
  const PoolRange second = pool->Allocate(2 * kPage).value();
  CHECK(second == first);
  for (std::byte byte : pool->Window(second)) REQUIRE(byte == std::byte{0});
}

TEST_CASE("neighbouring allocations grow downwards", "[memory]") {
  auto pool = NewPool();
  PoolRange last = pool->Allocate(kPage).value();
  for (int i = 0; i < 10; i++) {
    const PoolRange next = pool->Allocate(3 * kPage).value();
    CHECK(next.end == last.start);
    last = next;
  }
}

TEST_CASE("references are counted per page", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(4 * kPage).value();
  const PoolRange middle{range.start + kPage, range.start + 3 * kPage};
  pool->AddReference(middle);
  CHECK_FALSE(pool->IsUnique(range));
  CHECK_FALSE(pool->IsUnique(middle));
  CHECK(pool->IsUnique({range.start, range.start + kPage}));
  CHECK(pool->IsUnique({range.end - kPage, range.end}));
  pool->DropReference(range);
  CHECK(pool->allocated_bytes() == 2 * kPage);
  CHECK(pool->IsUnique(middle));
  pool->DropReference({middle.start, middle.start + kPage});
  pool->DropReference({middle.start + kPage, middle.end});
  CHECK(pool->allocated_bytes() == 0);
}

TEST_CASE("a range over two allocations can be referenced and dropped", "[memory]") {
  auto pool = NewPool();
  const PoolRange upper = pool->Allocate(kPage).value();
  const PoolRange lower = pool->Allocate(kPage).value();
  REQUIRE(lower.end == upper.start);
  const PoolRange both{lower.start, upper.end};
  pool->AddReference(both);
  CHECK_FALSE(pool->IsUnique(both));
  pool->DropReference(both);
  CHECK(pool->IsUnique(both));
}

TEST_CASE("alignment is kept", "[memory]") {
  auto pool = NewPool();
  const uint64_t alignment = uint64_t{1} << GENERATE(12, 13, 21, 30);
  (void)pool->Allocate(kPage).value();
  for (int i = 0; i < 3; i++) {
    const PoolRange range = pool->Allocate(3 * kPage, alignment).value();
    CHECK(range.start % alignment == 0);
    CHECK(range.size() == 3 * kPage);
  }
}

TEST_CASE("the limit of the pool is ENOMEM, and reached exactly", "[memory][limits]") {
  auto pool = NewPool(4 * kPage);
  CHECK(pool->Allocate(5 * kPage).error() == ENOMEM);
  const PoolRange all = pool->Allocate(4 * kPage).value();
  CHECK(pool->Allocate(kPage).error() == ENOMEM);
  pool->DropReference({all.start + kPage, all.start + 2 * kPage});
  CHECK(pool->Allocate(kPage).ok());
  CHECK(pool->Allocate(kPage).error() == ENOMEM);
}

TEST_CASE("an allocation larger than a growth step works", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(uint64_t{5} << 30).value();
  pool->Window(range)[range.size() - 1] = std::byte{1};
  CHECK(pool->resident_bytes() == kPage);
}

TEST_CASE("discarded pages read as zero and stay allocated", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(2 * kPage).value();
  memset(pool->Window(range).data(), 1, range.size());
  pool->Discard({range.start, range.start + kPage});
  CHECK(pool->resident_bytes() == kPage);
  CHECK(pool->Window(range)[0] == std::byte{0});
  CHECK(pool->Window(range)[kPage] == std::byte{1});
  CHECK(pool->allocated_bytes() == 2 * kPage);
}

TEST_CASE("populated pages are resident before the first touch", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(64 * kPage).value();
  pool->Populate(range);
  CHECK(pool->resident_bytes() == 64 * kPage);
  CHECK(pool->Window(range)[0] == std::byte{0});
}

TEST_CASE("a second mapping of the memfd shows the same bytes", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(kPage).value();
  void* other =
      mmap(nullptr, kPage, PROT_READ, MAP_SHARED, pool->fd(), static_cast<off_t>(range.start));
  REQUIRE(other != MAP_FAILED);
  pool->Window(range)[7] = std::byte{42};
  CHECK(static_cast<const std::byte*>(other)[7] == std::byte{42});
  munmap(other, kPage);
}

// A model of the counts, page by page, decides what the pool must say.
TEST_CASE("random references agree with a page-by-page model", "[memory]") {
  constexpr uint64_t kPages = 64;
  auto pool = NewPool();
  const PoolRange base = pool->Allocate(kPages * kPage).value();
  std::vector<int> model(kPages, 1);
  std::mt19937_64 random(1);
  for (int step = 0; step < 20000; step++) {
    const uint64_t first = random() % kPages;
    const uint64_t count = 1 + random() % (kPages - first);
    const PoolRange range{base.start + first * kPage, base.start + (first + count) * kPage};
    bool droppable = true;
    bool unique = true;
    for (uint64_t page = first; page < first + count; page++) {
      droppable = droppable && model[page] > 1;
      unique = unique && model[page] == 1;
    }
    REQUIRE(pool->IsUnique(range) == unique);
    if (droppable && random() % 2 == 0) {
      pool->DropReference(range);
      for (uint64_t page = first; page < first + count; page++) model[page]--;
    } else {
      pool->AddReference(range);
      for (uint64_t page = first; page < first + count; page++) model[page]++;
    }
  }
  for (uint64_t page = 0; page < kPages; page++) {
    for (; model[page] > 0; model[page]--) {
      pool->DropReference({base.start + page * kPage, base.start + (page + 1) * kPage});
    }
  }
  CHECK(pool->allocated_bytes() == 0);
  // Everything has come together again.
  CHECK(pool->Allocate(kPages * kPage).value() == base);
}

TEST_CASE("threads never get the same page", "[memory]") {
  auto pool = NewPool();
  std::atomic<int> errors = 0;
  std::vector<std::thread> threads;
  for (int i = 1; i <= 4; i++) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 300; round++) {
        const PoolRange range =
            pool->Allocate(static_cast<uint64_t>(1 + round % 5) * kPage).value();
        for (std::byte& byte : pool->Window(range)) {
          if (byte != std::byte{0}) errors++;
          byte = static_cast<std::byte>(i);
        }
        for (std::byte byte : pool->Window(range)) {
          if (byte != static_cast<std::byte>(i)) errors++;
        }
        pool->DropReference(range);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(errors == 0);
  static_cast<platform::MemfdPool&>(*pool).Trim();
  CHECK(pool->resident_bytes() == 0);
}

TEST_CASE("a big range comes back zeroed and present, also in part", "[memory]") {
  constexpr uint64_t kBig = 256 * kPage;
  auto pool = NewPool();
  const PoolRange first = pool->Allocate(kBig).value();
  memset(pool->Window(first).data(), 0x5a, first.size());
  pool->DropReference(first);
  CHECK(pool->allocated_bytes() == 0);
  for (int half = 0; half < 2; half++) {
    const PoolRange part = pool->Allocate(kBig / 2).value();
    CHECK(part.start >= first.start);
    CHECK(part.end <= first.end);
    CHECK(pool->resident_bytes() == kBig);
    const std::span<std::byte> bytes = pool->Window(part);
    CHECK(std::all_of(bytes.begin(), bytes.end(), [](std::byte b) { return b == std::byte{0}; }));
  }
  CHECK(pool->allocated_bytes() == kBig);
}

TEST_CASE("big ranges that nobody asks for go back to the host", "[memory]") {
  auto pool = NewPool();
  const PoolRange range = pool->Allocate(256 * kPage).value();
  memset(pool->Window(range).data(), 0x5a, range.size());
  pool->DropReference(range);
  for (int i = 0; i < 100 && pool->resident_bytes() != 0; i++) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  CHECK(pool->resident_bytes() == 0);
}

TEST_CASE("the pool tells once when more is given out than the mark", "[memory]") {
  const std::unique_ptr<MemoryPool> pool = MemoryPool::Create().value();
  platform::PoolWatch& watch = platform::WatchOf(*pool);
  int told = 0;
  watch.SetWatcher([&told] { ++told; });
  REQUIRE(watch.Watch(64 << 10));
  const PoolRange first = pool->Allocate(64 << 10).value();
  CHECK(told == 0);
  const PoolRange second = pool->Allocate(4096).value();
  CHECK(told == 1);
  CHECK_FALSE(watch.Watch(64 << 10));
  const PoolRange third = pool->Allocate(4096).value();
  CHECK(told == 1);
  pool->DropReference(second);
  pool->DropReference(third);
  REQUIRE(watch.Watch(64 << 10));
  pool->DropReference(pool->Allocate(8192).value());
  CHECK(told == 2);
  watch.SetWatcher(nullptr);
  pool->DropReference(first);
  CHECK_FALSE(watch.refuses_files());
  watch.Refuse(true, false);
  CHECK(watch.refuses_files());
  CHECK_FALSE(watch.refuses_tasks());
}

}  // namespace
