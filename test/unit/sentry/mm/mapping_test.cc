#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT: the fixture's names are the test's vocabulary

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

TEST_CASE("anonymous memory reads as zero and keeps what is stored", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(3 * kPage);
  CHECK(guest.Load(at + 5) == 0);
  CHECK(guest.Store(at + 5, 77));
  CHECK(guest.Load(at + 5) == 77);
  CHECK(guest.faults == 0);
}

TEST_CASE("mmap refuses what Linux refuses, in its order", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  CHECK(guest.MapError(0, 0, kAnonymous) == EINVAL);
  CHECK(guest.MapError(0, ~uint64_t{0}, kAnonymous) == ENOMEM);
  CHECK(guest.MapError(0x10001, kPage, kAnonymous | MAP_FIXED) == EINVAL);
  CHECK(guest.MapError(0x1000, kPage, kAnonymous | MAP_FIXED) == EPERM);
  CHECK(guest.MapError(0x7fff'ffff'f000, kPage, kAnonymous | MAP_FIXED) == ENOMEM);
  CHECK(guest.MapError(0, kPage, MAP_ANONYMOUS) == EINVAL);
  CHECK(guest.MapError(0, kPage, MAP_ANONYMOUS | MAP_SHARED_VALIDATE) == EINVAL);
  CHECK(guest.MapError(0, kPage, MAP_ANONYMOUS | MAP_SHARED | MAP_GROWSDOWN) == EINVAL);
  CHECK(guest.MapError(0, uint64_t{1} << 47, kAnonymous) == ENOMEM);
  CHECK(guest.MapError(0, kPage, kAnonymous | MAP_HUGETLB) == ENOMEM);
  MmapRequest request;
  request.length = kPage;
  request.flags = MAP_PRIVATE;
  request.offset = ~uint64_t{0} - kPage + 1;
  CHECK(ErrorOf(guest.memory->Mmap(request)) == EOVERFLOW);
}

TEST_CASE("MAP_FIXED_NOREPLACE does not replace", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(2 * kPage);
  CHECK(guest.MapError(at, kPage, kAnonymous | MAP_FIXED_NOREPLACE) == EEXIST);
  CHECK(guest.MapError(at + 2 * kPage, kPage, kAnonymous | MAP_FIXED_NOREPLACE) == 0);
}

TEST_CASE("MAP_FIXED replaces a part", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(3 * kPage);
  for (uint64_t page = 0; page < 3; page++) guest.Store(at + page * kPage, 9);
  guest.Map(kPage, PROT_READ | PROT_WRITE, kAnonymous | MAP_FIXED, at + kPage);
  CHECK(guest.Load(at) == 9);
  CHECK(guest.Load(at + kPage) == 0);
  CHECK(guest.Load(at + 2 * kPage) == 9);
  guest.Map(kPage, PROT_NONE, kAnonymous | MAP_FIXED, at + 2 * kPage);
  CHECK_FALSE(guest.Load(at + 2 * kPage).has_value());
  CHECK(guest.last_fault->code == SEGV_ACCERR);
}

TEST_CASE("a hint is followed where it is free", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  CHECK(guest.Map(kPage, PROT_READ, kAnonymous, 0x5000'0123) == 0x5000'0000);
  CHECK(guest.Map(kPage, PROT_READ, kAnonymous, 0x5000'0123) != 0x5000'0000);
  CHECK(guest.Map(kPage, PROT_READ, kAnonymous, 0x1010) == FakePlatform::kAddressMin);
  const uint64_t low = guest.Map(kPage, PROT_READ, kAnonymous | MAP_32BIT);
  CHECK(low >= 0x4000'0000);
  CHECK(low < 0x8000'0000);
}

TEST_CASE("munmap checks its arguments and takes holes", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  CHECK(ErrorOf(guest.memory->Munmap(at + 1, kPage)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Munmap(at, 0)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Munmap(at, ~uint64_t{0})) == EINVAL);
  CHECK(guest.memory->Munmap(at + kPage, kPage).ok());
  CHECK(guest.memory->Munmap(at + kPage, kPage).ok());
  CHECK(guest.Store(at, 1));
  CHECK_FALSE(guest.Load(at + kPage).has_value());
  CHECK(guest.last_fault->code == SEGV_MAPERR);
  CHECK(guest.Store(at + 2 * kPage, 1));
  CHECK(guest.memory->Munmap(at, 4 * kPage).ok());
  CHECK(guest.space().Entries().empty());
  CHECK(sandbox.pool->allocated_bytes() == 0);
}

TEST_CASE("the number of areas is limited", "[mm][limits]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t count = 65530;
  const uint64_t at = guest.Map(2 * (count + 8) * kPage, PROT_NONE);
  int error = 0;
  for (uint64_t page = 0; page < count + 8 && error == 0; page++) {
    error = ErrorOf(guest.memory->Mprotect(at + 2 * page * kPage, kPage, PROT_READ));
  }
  CHECK(error == ENOMEM);
  CHECK(guest.memory->Vmas().size() >= count - 2);
  CHECK(guest.memory->Vmas().size() <= count);
}

TEST_CASE("mprotect refuses what Linux refuses", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  CHECK(ErrorOf(guest.memory->Mprotect(at + 1, kPage, PROT_READ)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Mprotect(at, kPage, 0x40)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Mprotect(at, ~uint64_t{0}, PROT_READ)) == ENOMEM);
  CHECK(ErrorOf(guest.memory->Mprotect(at, kPage, PROT_GROWSDOWN | PROT_GROWSUP)) == EINVAL);
  CHECK(ErrorOf(guest.memory->Mprotect(at, kPage, PROT_READ | PROT_GROWSDOWN)) == EINVAL);
  CHECK(guest.memory->Mprotect(at, 0, PROT_READ).ok());
  guest.memory->Munmap(at + 2 * kPage, kPage).value();
  CHECK(ErrorOf(guest.memory->Mprotect(at, 4 * kPage, PROT_READ)) == ENOMEM);
  // What came before the hole has changed.
  CHECK_FALSE(guest.Store(at, 1));
  CHECK(guest.Store(at + 3 * kPage, 1));
}

TEST_CASE("a protection takes effect and goes again", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(3 * kPage);
  CHECK(guest.Store(at + kPage, 4));
  guest.memory->Mprotect(at + kPage, kPage, PROT_READ).value();
  CHECK_FALSE(guest.Store(at + kPage, 5));
  CHECK(guest.last_fault->code == SEGV_ACCERR);
  CHECK(guest.Load(at + kPage) == 4);
  CHECK(guest.memory->Vmas().size() == 3);
  guest.memory->Mprotect(at + kPage, kPage, PROT_NONE).value();
  CHECK_FALSE(guest.Load(at + kPage).has_value());
  CHECK(guest.Read(at, 3 * kPage).size() == kPage);
  guest.memory->Mprotect(at, 3 * kPage, PROT_READ | PROT_WRITE).value();
  CHECK(guest.memory->Vmas().size() == 1);
  CHECK(guest.Load(at + kPage) == 4);
  CHECK(guest.Store(at + kPage, 6));
}

TEST_CASE("a shared mapping of a read-only file never becomes writable", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  MmapRequest request;
  request.length = kPage;
  request.protection = PROT_READ;
  request.flags = MAP_SHARED;
  request.mappable = std::make_shared<HostFile>("text");
  request.file_writable = false;
  const uint64_t at = guest.memory->Mmap(request).value();
  CHECK(ErrorOf(guest.memory->Mprotect(at, kPage, PROT_READ | PROT_WRITE)) == EACCES);
  CHECK(guest.memory->Mprotect(at, kPage, PROT_READ | PROT_EXEC).ok());
}

TEST_CASE("memory reserved with PROT_NONE costs nothing until it is opened", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(uint64_t{1} << 40, PROT_NONE, kAnonymous | MAP_NORESERVE);
  CHECK(sandbox.pool->allocated_bytes() == 0);
  // As an allocator's arena does, page by page.
  for (uint64_t page = 0; page < 512; page++) {
    guest.memory->Mprotect(at, (page + 1) * kPage, PROT_READ | PROT_WRITE).value();
    REQUIRE(guest.Store(at + page * kPage, static_cast<uint8_t>(page)));
  }
  CHECK(guest.memory->Vmas().size() == 2);
  CHECK(guest.space().counters().maps <= 2);
  CHECK_FALSE(guest.Load(at + 512 * kPage).has_value());
  CHECK(guest.Load(at + 300 * kPage) == 300 % 256);
}

TEST_CASE("a huge area gets memory where it is touched", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(uint64_t{1} << 42);
  CHECK(sandbox.pool->allocated_bytes() == 0);
  CHECK(guest.Store(at + (uint64_t{1} << 41) + 123, 1));
  CHECK(guest.Read(at + (uint64_t{1} << 40), 100) == std::string(100, '\0'));
  CHECK(sandbox.pool->allocated_bytes() <= uint64_t{64} << 20);
  guest.Write(at + (uint64_t{1} << 40) - 3, "across");
  CHECK(guest.Read(at + (uint64_t{1} << 40) - 3, 6) == "across");
}

TEST_CASE("limits on address space and data", "[mm][limits]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  sentry::MemoryLimits limits;
  limits.address_space_bytes = 10 * kPage;
  guest.memory->SetLimits(limits);
  const uint64_t at = guest.Map(10 * kPage);
  CHECK(guest.MapError(0, kPage, kAnonymous) == ENOMEM);
  CHECK(guest.MapError(at, kPage, kAnonymous | MAP_FIXED) == 0);
  CHECK(ErrorOf(guest.memory->Mremap(at, 10 * kPage, 11 * kPage, MREMAP_MAYMOVE, 0)) == ENOMEM);
  guest.memory->Munmap(at, 10 * kPage).value();
  limits = {};
  limits.data_bytes = 2 * kPage;
  guest.memory->SetLimits(limits);
  guest.Map(2 * kPage);
  CHECK(guest.MapError(0, kPage, kAnonymous) == ENOMEM);
  CHECK(guest.MapError(0, kPage, kAnonymous, PROT_READ) == 0);
  limits = {};
  limits.commit_bytes = uint64_t{1} << 30;
  guest.memory->SetLimits(limits);
  CHECK(guest.MapError(0, uint64_t{2} << 30, kAnonymous) == ENOMEM);
  CHECK(guest.MapError(0, uint64_t{2} << 30, kAnonymous | MAP_NORESERVE) == 0);
}

TEST_CASE("the break grows, shrinks and keeps within its limits", "[mm][limits]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  MemoryManager& memory = *guest.memory;
  memory.SetBrkStart(0x60'0000);
  CHECK(memory.Brk(0) == 0x60'0000);
  CHECK(memory.Brk(0x60'0123) == 0x60'0123);
  CHECK(guest.Store(0x60'0800, 3));
  CHECK(memory.Brk(0x64'0000) == 0x64'0000);
  CHECK(guest.Load(0x60'0800) == 3);
  CHECK(guest.Store(0x63'ffff, 4));
  CHECK(memory.Vmas().size() == 1);
  CHECK(memory.Vmas()[0].name == "[heap]");
  CHECK(memory.Brk(0x61'0000) == 0x61'0000);
  CHECK_FALSE(guest.Load(0x63'ffff).has_value());
  CHECK(memory.Brk(0x64'0000) == 0x64'0000);
  CHECK(guest.Load(0x63'ffff) == 0);
  CHECK(memory.Brk(0x5f'0000) == 0x64'0000);
  guest.Map(kPage, PROT_READ, kAnonymous | MAP_FIXED, 0x66'0000);
  CHECK(memory.Brk(0x66'0000) == 0x64'0000);
  CHECK(memory.Brk(0x65'e000) == 0x65'e000);
  sentry::MemoryLimits limits;
  limits.data_bytes = 0x5'f000;
  memory.SetLimits(limits);
  CHECK(memory.Brk(0x65'f001) == 0x65'e000);
  CHECK(memory.Brk(0) == 0x65'e000);
}

TEST_CASE("a heap that grows in steps stays one mapping of the host", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  guest.memory->SetBrkStart(0x60'0000);
  std::map<uint64_t, uint64_t> offsets;
  for (uint64_t step = 1; step <= 100; step++) {
    const uint64_t end = 0x60'0000 + step * 2 * kPage;
    REQUIRE(guest.memory->Brk(end) == end);
  }
  uint64_t breaks = 0;
  std::optional<uint64_t> expected;
  for (const auto& [start, entry] : guest.space().Entries()) {
    if (expected.has_value() && entry.offset != *expected) breaks++;
    expected = entry.offset + (entry.end - start);
  }
  CHECK(breaks == 0);
}

TEST_CASE("a host out of mappings does not stop a guest", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t first = guest.Map(kPage);
  CHECK(guest.Store(first, 42));
  guest.space().FailMap(0, ENOMEM);
  const uint64_t second = guest.Map(kPage);
  CHECK(guest.Store(second, 43));
  CHECK(guest.Load(first) == 42);
}

TEST_CASE("areas are reported in order with their names", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t shared = guest.Map(kPage, PROT_READ, MAP_SHARED | MAP_ANONYMOUS);
  const uint64_t own = guest.Map(kPage, PROT_READ | PROT_WRITE);
  guest.Store(own, 1);
  const std::vector<sentry::VmaInfo> lines = guest.memory->Vmas();
  REQUIRE(lines.size() == 2);
  CHECK(lines[0].start == own);
  CHECK_FALSE(lines[0].shared);
  CHECK(lines[0].private_bytes == kPage);
  CHECK(lines[1].start == shared);
  CHECK(lines[1].shared);
  CHECK(lines[1].inode != 0);
  CHECK(guest.memory->Usage().virtual_bytes == 2 * kPage);
  CHECK(guest.memory->Usage().resident_bytes >= kPage);
}

TEST_CASE("an area that is touched in sequence comes in few, growing steps", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  constexpr uint64_t kPages = 8192;
  const uint64_t at = guest.Map(kPages * kPage);
  for (uint64_t page = 0; page < kPages; page++) REQUIRE(guest.Store(at + page * kPage, 1));
  CHECK(guest.faults < 60);
  // Elsewhere: all of it at once.
  const uint64_t other = guest.Map(kPages * kPage);
  guest.faults = 0;
  for (uint64_t page = kPages - 1; page >= 97; page -= 97) guest.Store(other + page * kPage, 1);
  CHECK(guest.faults == 1);
}

TEST_CASE("a new area hides what it replaces, however late it is shown", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  constexpr uint64_t kBytes = uint64_t{4} << 20;
  const uint64_t at = guest.Map(kBytes);
  for (uint64_t page = 0; page < kBytes; page += kPage) guest.Store(at + page, 7);
  guest.Map(kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, at);
  for (uint64_t page = 0; page < kBytes; page += kPage) CHECK(guest.Load(at + page) == 0);
  const auto file = std::make_shared<HostFile>(std::string(4 * kPage, 'f'));
  MmapRequest request;
  request.address = at + kPage;
  request.length = 4 * kPage;
  request.protection = PROT_READ | PROT_WRITE;
  request.flags = MAP_PRIVATE | MAP_FIXED;
  request.mappable = file;
  REQUIRE(guest.memory->Mmap(request).ok());
  CHECK(guest.Load(at) == 0);
  CHECK(guest.Load(at + kPage) == 'f');
  CHECK(guest.Store(at + 2 * kPage, 'g'));
  CHECK(guest.Load(at + 2 * kPage) == 'g');
  CHECK(file->Content() == std::string(4 * kPage, 'f'));
}

TEST_CASE("pieces of a file that a linker maps are shown in one step", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const auto file = std::make_shared<HostFile>(std::string(16 * kPage, 'f'));
  const auto maps = guest.space().counters().maps;
  const uint64_t at = guest.MapFile(file, 20 * kPage, PROT_READ, MAP_PRIVATE);
  const auto piece = [&](uint64_t page, int protection) {
    MmapRequest request;
    request.address = at + page * kPage;
    request.length = 4 * kPage;
    request.protection = protection;
    request.flags = MAP_PRIVATE | MAP_FIXED;
    request.offset = page * kPage;
    request.mappable = file;
    REQUIRE(guest.memory->Mmap(request).ok());
  };
  piece(4, PROT_READ | PROT_EXEC);
  piece(12, PROT_READ | PROT_WRITE);
  CHECK(guest.space().counters().maps == maps);
  // The end of the data, populated as any small area, takes the rest along.
  guest.Map(4 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED,
            at + 16 * kPage);
  CHECK(guest.space().counters().maps > maps);
  CHECK(guest.Store(at + 13 * kPage, 'x'));
  CHECK(guest.Load(at) == 'f');
  CHECK(guest.Load(at + 5 * kPage) == 'f');
  CHECK(guest.Store(at + 17 * kPage, 'y'));
  CHECK(guest.faults == 0);
  guest.memory->Munmap(at, 20 * kPage).value();
  CHECK_FALSE(guest.Load(at).has_value());
  CHECK_FALSE(guest.Load(at + 17 * kPage).has_value());
}

TEST_CASE("a memory that takes over the address space of another finds it empty", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  CHECK(guest.Store(at, 1));
  Guest next(guest.memory->TakeOver(0));
  CHECK_FALSE(next.Load(at).has_value());
  CHECK(sandbox.pool->allocated_bytes() == 0);
  const uint64_t own = next.Map(4 * kPage);
  CHECK(next.Store(own, 2));
  CHECK(guest.Read(at, 1).empty());
  CHECK(guest.memory->TakeOver(0) == nullptr);
}

}  // namespace
