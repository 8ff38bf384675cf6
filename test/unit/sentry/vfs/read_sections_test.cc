// What is retired lives exactly as long as somebody may be looking at it.

#include "sentry/vfs/read_sections.h"

#include <array>
#include <atomic>
#include <memory>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "catch2/catch.hpp"

namespace {

using sentry::ReadSections;

TEST_CASE("without readers what is retired goes at once", "[vfs][read_sections]") {
  ReadSections sections;
  auto object = std::make_shared<int>(1);
  const std::weak_ptr<int> left = object;
  sections.Retire(std::move(object));
  CHECK(!left.expired());
  sections.Collect();
  CHECK(left.expired());
}

TEST_CASE("a reader keeps what was retired while he is inside", "[vfs][read_sections]") {
  ReadSections sections;
  auto object = std::make_shared<int>(1);
  const std::weak_ptr<int> left = object;
  {
    const ReadSections::Section outer(sections);
    sections.Retire(std::move(object));
    sections.Collect();
    {
      const ReadSections::Section inner(sections);
      CHECK(!left.expired());
    }
    CHECK(!left.expired());
  }
  CHECK(left.expired());
}

TEST_CASE("readers that come later do not keep it", "[vfs][read_sections]") {
  ReadSections sections;
  auto object = std::make_shared<int>(1);
  const std::weak_ptr<int> left = object;
  std::optional<ReadSections::Section> early;
  early.emplace(sections);
  sections.Retire(std::move(object));
  sections.Collect();
  // Some that overlap each other: one is inside at all times.
  std::array<std::optional<ReadSections::Section>, 2> late;
  late[0].emplace(sections);
  early.reset();
  for (int i = 1; i < 4; ++i) {
    late[i % 2].emplace(sections);
    late[(i + 1) % 2].reset();
  }
  CHECK(left.expired());
}

TEST_CASE("readers never see what has been destroyed", "[vfs][read_sections]") {
  struct Object {
    ~Object() { alive.store(false); }
    std::atomic<bool> alive{true};
  };
  ReadSections sections;
  auto current = std::make_shared<Object>();
  std::atomic<Object*> place{current.get()};
  std::atomic<bool> stop{false};
  std::atomic<int> dead{0};
  std::vector<std::thread> readers;
  for (int i = 0; i < 3; ++i) {
    readers.emplace_back([&] {
      while (!stop.load(std::memory_order_relaxed)) {
        const ReadSections::Section section(sections);
        const Object* object = place.load(std::memory_order_acquire);
        for (int look = 0; look < 50; ++look) {
          if (!object->alive.load(std::memory_order_relaxed)) dead.fetch_add(1);
        }
      }
    });
  }
  for (int i = 0; i < 20000; ++i) {
    auto next = std::make_shared<Object>();
    place.store(next.get(), std::memory_order_release);
    sections.Retire(std::exchange(current, std::move(next)));
    sections.Collect();
  }
  stop.store(true);
  for (std::thread& reader : readers) reader.join();
  CHECK(dead.load() == 0);
}

}  // namespace
