#include <thread>

#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

TEST_CASE("a private file mapping shows the file until it is written", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(3 * kPage, 'f'));
  const uint64_t at = guest.MapFile(file, 3 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  CHECK(guest.Load(at) == 'f');
  CHECK(guest.faults == 1);
  CHECK(guest.space().Entries().begin()->second.host_fd == file->fd());
  CHECK(guest.space().ProtectionAt(at) == PROT_READ);
  CHECK(guest.Store(at + kPage, 'x'));
  CHECK(guest.Load(at + kPage) == 'x');
  CHECK(guest.Load(at + kPage + 1) == 'f');
  CHECK(file->Content() == std::string(3 * kPage, 'f'));
}

TEST_CASE("pages behind the end of a file do not exist", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(kPage + 10, 'f'));
  const int flags = GENERATE(MAP_PRIVATE, MAP_SHARED);
  const uint64_t at = guest.MapFile(file, 4 * kPage, PROT_READ | PROT_WRITE, flags);
  CHECK(guest.Load(at + kPage + 9) == 'f');
  CHECK(guest.Load(at + kPage + 10) == 0);
  CHECK_FALSE(guest.Load(at + 2 * kPage).has_value());
  CHECK(guest.last_fault->signal == SIGBUS);
  CHECK_FALSE(guest.Store(at + 3 * kPage, 1));
  CHECK(guest.last_fault->signal == SIGBUS);
  CHECK(guest.Read(at, 4 * kPage).size() == 2 * kPage);
}

TEST_CASE("a shared mapping and the file are the same bytes", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(2 * kPage, 'f'));
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  CHECK(guest.Store(at + 1, 'g'));
  CHECK(file->Content().substr(0, 3) == "fgf");
  guest.Write(at + 2, "hij");
  CHECK(file->Content().substr(0, 6) == "fghijf");
  REQUIRE(pwrite(file->fd(), "ZZ", 2, 0) == 2);
  CHECK(guest.Load(at) == 'Z');
  CHECK(guest.Read(at, 3) == "ZZh");
}

TEST_CASE("a copy to the last page of a shared file does not make the file longer", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>("short");
  const uint64_t at = guest.MapFile(file, kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  guest.Write(at + 3, "after the end");
  CHECK(file->Content() == "shoaf");
}

TEST_CASE("a file that shrinks takes its pages away", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(3 * kPage, 'f'));
  const uint64_t at = guest.MapFile(file, 3 * kPage, PROT_READ, MAP_SHARED);
  CHECK(guest.Load(at + 2 * kPage) == 'f');
  file->Truncate(kPage);
  CHECK(guest.Load(at) == 'f');
  CHECK_FALSE(guest.Load(at + 2 * kPage).has_value());
  CHECK(guest.last_fault->signal == SIGBUS);
  file->Truncate(3 * kPage);
  CHECK(guest.Load(at + 2 * kPage) == 0);
}

TEST_CASE("truncation takes private copies away too", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(2 * kPage, 'f'));
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  CHECK(guest.Store(at, 'x'));
  CHECK(guest.Store(at + kPage, 'y'));
  file->Truncate(100);
  CHECK(guest.Load(at) == 'x');
  CHECK_FALSE(guest.Load(at + kPage).has_value());
  CHECK(guest.last_fault->signal == SIGBUS);
  file->Truncate(2 * kPage);
  CHECK(guest.Load(at + kPage) == 0);
}

TEST_CASE("a file that the host does not map is copied", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(2 * kPage, 'f'));
  file->translate_error = ENODEV;
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  CHECK(guest.Load(at + kPage) == 'f');
  CHECK(guest.Read(at, 4) == "ffff");
}

TEST_CASE("a file that the host maps only without execution is copied", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(2 * kPage, 'f'));
  guest.space().FailMap(0, EPERM);
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  CHECK(guest.Load(at + kPage) == 'f');
}

TEST_CASE("a stack grows down to its limit and no further", "[mm][limits]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  sentry::MemoryLimits limits;
  limits.stack_bytes = 1 << 20;
  guest.memory->SetLimits(limits);
  const uint64_t top = 0x7000'0000;
  MmapRequest request;
  request.address = top - 4 * kPage;
  request.length = 4 * kPage;
  request.protection = PROT_READ | PROT_WRITE;
  request.flags = kAnonymous | MAP_FIXED;
  request.grows_down = true;
  REQUIRE(guest.memory->Mmap(request).ok());
  CHECK(guest.Store(top - 10 * kPage, 1));
  CHECK(guest.Store(top - (1 << 20), 2));
  CHECK_FALSE(guest.Store(top - (1 << 20) - 1, 3));
  CHECK(guest.last_fault->code == SEGV_MAPERR);
  CHECK(guest.memory->Vmas().size() == 1);
  // The sentry's own accesses grow it too.
  guest.memory->Munmap(top - (1 << 20), (1 << 20) - kPage).value();
  guest.Write(top - 3 * kPage, "down");
  CHECK(guest.Read(top - 3 * kPage, 4) == "down");
}

TEST_CASE("a stack keeps its distance from what is below", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t top = 0x7000'0000;
  guest.Map(4 * kPage, PROT_READ | PROT_WRITE, kAnonymous | MAP_FIXED | MAP_GROWSDOWN,
            top - 4 * kPage);
  const uint64_t guard = 256 * kPage;
  guest.Map(kPage, PROT_READ, kAnonymous | MAP_FIXED, top - 8 * kPage - guard);
  CHECK(guest.Store(top - 7 * kPage, 1));
  CHECK_FALSE(guest.Store(top - 8 * kPage, 1));
}

TEST_CASE("several threads fault on the same pages", "[mm][threads]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(64 * kPage);
  Guest child = sandbox.Fork(guest);
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; id++) {
    threads.emplace_back([&, id] {
      for (uint64_t page = 0; page < 64; page++) {
        const uint64_t address = at + page * kPage + static_cast<uint64_t>(id);
        while (!guest.space().Store(address, static_cast<uint8_t>(id + 1))) {
          guest.memory->HandleFault(address, platform::kAccessWrite);
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (uint64_t page = 0; page < 64; page++) {
    CHECK(guest.Read(at + page * kPage, 5) == std::string("\1\2\3\4\0", 5));
    CHECK(child.Read(at + page * kPage, 5) == std::string(5, '\0'));
  }
}

}  // namespace
