#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

int Advise(Guest& guest, uint64_t at, uint64_t length, int advice) {
  return ErrorOf(guest.memory->Madvise(at, length, advice));
}

TEST_CASE("madvise refuses what Linux refuses", "[mm][madvise]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  CHECK(Advise(guest, at, kPage, 77) == EINVAL);
  CHECK(Advise(guest, at, kPage, -1) == EINVAL);
  CHECK(Advise(guest, at + 1, kPage, MADV_DONTNEED) == EINVAL);
  CHECK(Advise(guest, at, ~uint64_t{0}, MADV_DONTNEED) == EINVAL);
  CHECK(Advise(guest, at, 0, MADV_DONTNEED) == 0);
  CHECK(Advise(guest, 0x5000'0000, kPage, MADV_DONTNEED) == ENOMEM);
  CHECK(Advise(guest, at, kPage, MADV_REMOVE) == EINVAL);
  CHECK(Advise(guest, at, kPage, MADV_HUGEPAGE) == 0);
  CHECK(Advise(guest, at, kPage, MADV_WILLNEED) == 0);
  auto file = std::make_shared<HostFile>(std::string(kPage, 'f'));
  const uint64_t text = guest.MapFile(file, kPage, PROT_READ, MAP_PRIVATE);
  CHECK(Advise(guest, text, kPage, MADV_FREE) == EINVAL);
  CHECK(Advise(guest, text, kPage, MADV_WIPEONFORK) == EINVAL);
  CHECK(Advise(guest, text, kPage, MADV_POPULATE_WRITE) == EINVAL);
  CHECK(Advise(guest, text, kPage, MADV_POPULATE_READ) == 0);
  CHECK(Advise(guest, text, kPage, MADV_REMOVE) == EACCES);
  guest.memory->Mlock(at, kPage, false).value();
  CHECK(Advise(guest, at, kPage, MADV_DONTNEED) == EINVAL);
  CHECK(Advise(guest, at, kPage, 24) == 0);
}

TEST_CASE("MADV_DONTNEED gives back memory, over holes too", "[mm][madvise]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(8 * kPage);
  for (uint64_t page = 0; page < 8; page++) guest.Store(at + page * kPage, 1);
  const uint64_t before = sandbox.pool->resident_bytes();
  CHECK(Advise(guest, at + kPage, 2 * kPage, MADV_DONTNEED) == 0);
  CHECK(sandbox.pool->resident_bytes() == before - 2 * kPage);
  CHECK(guest.Load(at) == 1);
  CHECK(guest.Load(at + kPage) == 0);
  CHECK(guest.Load(at + 3 * kPage) == 1);
  guest.memory->Munmap(at + 4 * kPage, kPage).value();
  CHECK(Advise(guest, at, 8 * kPage, MADV_DONTNEED) == ENOMEM);
  CHECK(guest.Load(at) == 0);
  CHECK(guest.Load(at + 7 * kPage) == 0);
}

TEST_CASE("MADV_DONTNEED shows the file again", "[mm][madvise]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(2 * kPage, 'f'));
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE);
  CHECK(guest.Store(at, 'x'));
  CHECK(Advise(guest, at, kPage, MADV_DONTNEED) == 0);
  CHECK(guest.Load(at) == 'f');
  CHECK(guest.Store(at, 'y'));
}

TEST_CASE("MADV_DONTNEED on one side of a fork spares the other", "[mm][madvise][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(4 * kPage);
  parent.Store(at, 1);
  Guest child = sandbox.Fork(parent);
  CHECK(Advise(child, at, 4 * kPage, MADV_DONTNEED) == 0);
  CHECK(child.Load(at) == 0);
  CHECK(parent.Load(at) == 1);
  CHECK(child.Store(at, 2));
}

TEST_CASE("MADV_REMOVE empties shared memory for all", "[mm][madvise]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  guest.Store(at, 1);
  guest.Store(at + kPage, 2);
  CHECK(Advise(guest, at, kPage, MADV_DONTNEED) == 0);
  CHECK(guest.Load(at) == 1);
  CHECK(Advise(guest, at, kPage, MADV_REMOVE) == 0);
  CHECK(guest.Load(at) == 0);
  CHECK(guest.Load(at + kPage) == 2);
}

TEST_CASE("msync checks its arguments and writes back shared files", "[mm][msync]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(kPage, 'f'));
  const uint64_t at = guest.MapFile(file, kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  MemoryManager& memory = *guest.memory;
  CHECK(ErrorOf(memory.Msync(at, kPage, MS_SYNC | MS_ASYNC)) == EINVAL);
  CHECK(ErrorOf(memory.Msync(at, kPage, 64)) == EINVAL);
  CHECK(ErrorOf(memory.Msync(at + 1, kPage, MS_SYNC)) == EINVAL);
  CHECK(ErrorOf(memory.Msync(0x5000'0000, kPage, MS_SYNC)) == ENOMEM);
  CHECK(ErrorOf(memory.Msync(at, ~uint64_t{0}, MS_SYNC)) == ENOMEM);
  CHECK(memory.Msync(at, 0, MS_SYNC).ok());
  CHECK(memory.Msync(at, kPage, MS_ASYNC).ok());
  CHECK(file->syncs == 0);
  CHECK(memory.Msync(at, kPage, MS_SYNC).ok());
  CHECK(file->syncs == 1);
  memory.Mlock(at, kPage, false).value();
  CHECK(ErrorOf(memory.Msync(at, kPage, MS_INVALIDATE)) == EBUSY);
}

TEST_CASE("locked memory counts against its limit", "[mm][mlock][limits]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  MemoryManager& memory = *guest.memory;
  sentry::MemoryLimits limits;
  limits.locked_bytes = 4 * kPage;
  memory.SetLimits(limits);
  const uint64_t at = guest.Map(8 * kPage);
  CHECK(memory.Mlock(at + 100, 4 * kPage - 200, false).ok());
  CHECK(memory.Usage().locked_bytes == 4 * kPage);
  CHECK(memory.Mlock(at, 4 * kPage, false).ok());
  CHECK(ErrorOf(memory.Mlock(at, 5 * kPage, false)) == ENOMEM);
  CHECK(guest.MapError(0, kPage, kAnonymous | MAP_LOCKED) == EAGAIN);
  CHECK(memory.Munlock(at, 2 * kPage).ok());
  CHECK(memory.Usage().locked_bytes == 2 * kPage);
  CHECK(guest.MapError(0, kPage, kAnonymous | MAP_LOCKED) == 0);
  CHECK(ErrorOf(memory.MlockAll(0)) == EINVAL);
  CHECK(ErrorOf(memory.MlockAll(MCL_ONFAULT)) == EINVAL);
  CHECK(ErrorOf(memory.MlockAll(MCL_CURRENT)) == ENOMEM);
  CHECK(memory.MlockAll(MCL_FUTURE).ok());
  CHECK(guest.MapError(0, 2 * kPage, kAnonymous) == EAGAIN);
  memory.MunlockAll();
  CHECK(memory.Usage().locked_bytes == 0);
  CHECK(ErrorOf(memory.Mlock(0x5000'0000, kPage, false)) == ENOMEM);
  limits.locked_bytes = 0;
  memory.SetLimits(limits);
  CHECK(ErrorOf(memory.Mlock(at, kPage, false)) == EPERM);
  CHECK(guest.MapError(0, kPage, kAnonymous | MAP_LOCKED) == EPERM);
}

TEST_CASE("mincore tells what is resident", "[mm][mincore]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(64 * kPage);
  guest.Store(at + kPage, 1);
  const auto pages = guest.memory->Mincore(at, 4 * kPage);
  CHECK(pages.value() == std::vector<uint8_t>{0, 1, 0, 0});
  CHECK(ErrorOf(guest.memory->Mincore(at + 1, kPage)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Mincore(at + 63 * kPage, 3 * kPage)) == ENOMEM);
  CHECK(guest.memory->Madvise(at, 64 * kPage, MADV_POPULATE_WRITE).ok());
}

}  // namespace
