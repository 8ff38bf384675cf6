#include "sentry/loader/vdso.h"

#include <elf.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "sentry/loader/vdso/vvar.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/time/host_clock.h"
#include "test/support/fake_platform.h"

extern "C" const unsigned char ravelin_vdso_start[];
extern "C" const unsigned char ravelin_vdso_end[];

namespace {

using sentry::Vdso;

// A counter and a clock under the test's control: 3 ticks per nanosecond unless told otherwise.
struct FakeTime final : sentry::Clock {
  int64_t MonotonicNs() const override { return monotonic_ns; }
  int64_t RealtimeNs() const override { return monotonic_ns + offset_ns; }
  static uint64_t Read(void* self) { return static_cast<FakeTime*>(self)->ticks; }
  void Advance(int64_t ns, int64_t host_ppm = 0) {
    ticks += static_cast<uint64_t>(ns) * 3;
    monotonic_ns += ns + ns * host_ppm / 1'000'000;
  }
  Vdso::Counter counter() { return {&Read, this, true}; }

  uint64_t ticks = 1'000'000;
  int64_t monotonic_ns = 5'000'000'000;
  int64_t offset_ns = int64_t{1'700'000'000} * 1'000'000'000;
};

struct Fixture {
  std::unique_ptr<platform::MemoryPool> pool =
      platform::MemoryPool::Create(uint64_t{1} << 32).value();
  FakeTime time;
  std::shared_ptr<Vdso> vdso = Vdso::Create(*pool, time, time.counter()).value();
};

TEST_CASE("the line follows the host's clock", "[vdso]") {
  Fixture f;
  CHECK(f.vdso->MonotonicNs() == f.time.monotonic_ns);
  f.time.Advance(20'000'000);
  CHECK(f.vdso->MonotonicNs() == f.time.monotonic_ns);
  // From here on the counter alone tells.
  f.time.ticks += 3'000'000;
  CHECK(std::abs(f.vdso->MonotonicNs() - (f.time.monotonic_ns + 1'000'000)) <= 1);
  CHECK(f.vdso->RealtimeNs() - f.vdso->MonotonicNs() == f.time.offset_ns);
}

TEST_CASE("time never runs backwards while the host is steered", "[vdso]") {
  Fixture f;
  f.time.Advance(20'000'000);
  int64_t last = f.vdso->MonotonicNs();
  int64_t worst = 0;
  for (int step = 0; step < 200'000; step++) {
    const int64_t ppm = (step / 20'000) % 2 == 0 ? 100 : -100;
    f.time.Advance(100'000, ppm);
    const int64_t now = f.vdso->MonotonicNs();
    REQUIRE(now >= last);
    last = now;
    worst = std::max(worst, std::abs(now - f.time.monotonic_ns));
  }
  // A steering of 100 ppm within a line's second of life.
  CHECK(worst < 300'000);
}

TEST_CASE("a steady host is followed to the microsecond", "[vdso]") {
  Fixture f;
  f.time.Advance(20'000'000, 50);
  f.vdso->MonotonicNs();
  for (int step = 0; step < 100'000; step++) {
    f.time.Advance(100'000, 50);
    REQUIRE(std::abs(f.vdso->MonotonicNs() - f.time.monotonic_ns) <= 1000);
  }
}

TEST_CASE("a counter that ran on while the host's clock stood is not believed", "[vdso]") {
  Fixture f;
  f.time.Advance(2'000'000'000);
  f.vdso->MonotonicNs();
  f.time.Advance(2'000'000'000);
  const int64_t before = f.vdso->MonotonicNs();
  f.time.ticks += 3'600'000'000'000;  // Suspended.
  f.time.Advance(1'000'000);
  const int64_t after = f.vdso->MonotonicNs();
  CHECK(after >= before);
  CHECK(after - f.time.monotonic_ns <= 1'000'000'000);
}

TEST_CASE("a counter that went back starts anew", "[vdso]") {
  Fixture f;
  f.time.Advance(50'000'000);
  const int64_t before = f.vdso->MonotonicNs();
  f.time.ticks = 5;
  CHECK(f.vdso->MonotonicNs() >= before);
  f.time.Advance(50'000'000);
  CHECK(f.vdso->MonotonicNs() == f.time.monotonic_ns);
}

TEST_CASE("realtime follows a step of the host's", "[vdso]") {
  Fixture f;
  f.time.Advance(50'000'000);
  f.vdso->RealtimeNs();
  f.time.offset_ns += 3'600'000'000'000;
  f.time.Advance(2'000'000'000);
  CHECK(f.vdso->RealtimeNs() == f.time.RealtimeNs());
}

TEST_CASE("an unusable counter leaves everything to the host", "[vdso]") {
  Fixture f;
  Vdso::Counter counter = f.time.counter();
  counter.usable = false;
  const auto vdso = Vdso::Create(*f.pool, f.time, counter).value();
  for (int i = 0; i < 5; i++) {
    f.time.Advance(100'000'000);
    CHECK(vdso->MonotonicNs() == f.time.monotonic_ns);
  }
}

// Runs the guest's code in this process: the library and its page, as the guest would see them.
struct MappedVdso {
  explicit MappedVdso(const std::shared_ptr<Vdso>& vdso) {
    auto pool_memory = sentry::MemoryManager::Create(platform, *pool, 0).value();
    address = vdso->MapInto(*pool_memory).value();
    memory = pool_memory;
    CHECK_FALSE(memory->HandleFault(address, platform::kAccessRead).has_value());
    const auto entries = static_cast<test::FakeAddressSpace&>(memory->address_space()).Entries();
    base = static_cast<std::byte*>(
        mmap(nullptr, 4 * 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    for (const auto& [start, entry] : entries) {
      REQUIRE(mmap(base + (start - (address - 4096)), entry.end - start, entry.protection,
                   MAP_SHARED | MAP_FIXED, entry.host_fd,
                   static_cast<off_t>(entry.offset)) != MAP_FAILED);
    }
  }
  ~MappedVdso() { munmap(base, 4 * 4096); }
  template <typename Function>
  Function Symbol(const char* name) {
    std::byte* image = base + 4096;
    Elf64_Ehdr header;
    std::memcpy(&header, image, sizeof(header));
    const auto* segments = reinterpret_cast<const Elf64_Phdr*>(image + header.e_phoff);
    const Elf64_Dyn* dynamic = nullptr;
    for (int i = 0; i < header.e_phnum; i++) {
      if (segments[i].p_type == PT_DYNAMIC) {
        dynamic = reinterpret_cast<const Elf64_Dyn*>(image + segments[i].p_offset);
      }
    }
    REQUIRE(dynamic != nullptr);
    const char* strings = nullptr;
    const Elf64_Sym* symbols = nullptr;
    const uint32_t* hash = nullptr;
    for (; dynamic->d_tag != DT_NULL; dynamic++) {
      if (dynamic->d_tag == DT_STRTAB)
        strings = reinterpret_cast<const char*>(image + dynamic->d_un.d_ptr);
      if (dynamic->d_tag == DT_SYMTAB)
        symbols = reinterpret_cast<const Elf64_Sym*>(image + dynamic->d_un.d_ptr);
      if (dynamic->d_tag == DT_HASH)
        hash = reinterpret_cast<const uint32_t*>(image + dynamic->d_un.d_ptr);
    }
    for (uint32_t i = 0; i < hash[1]; i++) {
      if (std::strcmp(strings + symbols[i].st_name, name) == 0) {
        return reinterpret_cast<Function>(image + symbols[i].st_value);
      }
    }
    return nullptr;
  }

  std::unique_ptr<platform::MemoryPool> pool =
      platform::MemoryPool::Create(uint64_t{1} << 32).value();
  test::FakePlatform platform;
  std::shared_ptr<sentry::MemoryManager> memory;
  uint64_t address = 0;
  std::byte* base = nullptr;
};

TEST_CASE("the guest's code and the sentry's clock agree", "[vdso]") {
  const auto pool = platform::MemoryPool::Create(uint64_t{1} << 32).value();
  sentry::HostClock host;
  const auto vdso = Vdso::Create(*pool, host).value();
  usleep(20'000);
  vdso->MonotonicNs();
  MappedVdso mapped(vdso);
  using GetTime = int (*)(int, timespec*);
  const auto get_time = mapped.Symbol<GetTime>("__vdso_clock_gettime");
  REQUIRE(get_time != nullptr);
  REQUIRE(mapped.Symbol<GetTime>("__vdso_gettimeofday") != nullptr);
  REQUIRE(mapped.Symbol<GetTime>("__vdso_time") != nullptr);
  REQUIRE(mapped.Symbol<GetTime>("__vdso_getcpu") != nullptr);
  REQUIRE(mapped.Symbol<GetTime>("clock_getres") != nullptr);
  std::atomic<bool> stop{false};
  std::thread other([&] {
    while (!stop) vdso->MonotonicNs();
  });
  int64_t last = 0;
  std::vector<int64_t> distances;
  for (int i = 0; i < 200'000; i++) {
    if (i % 1000 == 0) usleep(1000);
    timespec now{};
    const int64_t before = vdso->MonotonicNs();
    REQUIRE(get_time(CLOCK_MONOTONIC, &now) == 0);
    const int64_t guest = int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
    const int64_t after = vdso->MonotonicNs();
    // Until the first line, the library asks the kernel, here the host's.
    REQUIRE(guest >= before);
    REQUIRE(guest <= after);
    REQUIRE(guest >= last);
    last = after;
    distances.push_back(std::abs(guest - host.MonotonicNs()));
  }
  stop = true;
  other.join();
  // Not all: a thread may be preempted between its two looks.
  std::nth_element(distances.begin(), distances.begin() + 100'000, distances.end());
  CHECK(distances[100'000] < 1000);
}

}  // namespace
