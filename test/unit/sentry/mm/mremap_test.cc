#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

int RemapError(Guest& guest, uint64_t old_address, uint64_t old_length, uint64_t new_length,
               int flags, uint64_t new_address = 0) {
  return ErrorOf(guest.memory->Mremap(old_address, old_length, new_length, flags, new_address));
}

TEST_CASE("mremap refuses what Linux refuses", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  CHECK(RemapError(guest, at + 1, kPage, kPage, 0) == EINVAL);
  CHECK(RemapError(guest, at, kPage, 0, 0) == EINVAL);
  CHECK(RemapError(guest, at, kPage, kPage, 8) == EINVAL);
  CHECK(RemapError(guest, at, kPage, kPage, MREMAP_FIXED, at) == EINVAL);
  CHECK(RemapError(guest, at, kPage, 2 * kPage, MREMAP_DONTUNMAP | MREMAP_MAYMOVE) == EINVAL);
  CHECK(RemapError(guest, at, kPage, kPage, MREMAP_DONTUNMAP) == EINVAL);
  CHECK(RemapError(guest, 0x5000'0000, kPage, 2 * kPage, MREMAP_MAYMOVE) == EFAULT);
  CHECK(RemapError(guest, at, 5 * kPage, 6 * kPage, MREMAP_MAYMOVE) == EFAULT);
  CHECK(RemapError(guest, at, 0, kPage, MREMAP_MAYMOVE) == EINVAL);
  CHECK(RemapError(guest, at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, at + kPage) ==
        EINVAL);
  CHECK(RemapError(guest, at, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, at + 1) == EINVAL);
  guest.Map(kPage, PROT_READ, kAnonymous | MAP_FIXED, at + 4 * kPage);
  CHECK(RemapError(guest, at, 4 * kPage, 5 * kPage, 0) == ENOMEM);
}

TEST_CASE("an area grows where it is or moves with its bytes", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at =
      guest.Map(2 * kPage, PROT_READ | PROT_WRITE, kAnonymous | MAP_FIXED, 0x5000'0000);
  guest.Store(at, 1);
  guest.Store(at + kPage, 2);
  CHECK(guest.memory->Mremap(at, 2 * kPage, 4 * kPage, 0, 0).value() == at);
  CHECK(guest.Store(at + 3 * kPage, 3));
  guest.Map(kPage, PROT_READ, kAnonymous | MAP_FIXED, at + 4 * kPage);
  const uint64_t moved = guest.memory->Mremap(at, 4 * kPage, 8 * kPage, MREMAP_MAYMOVE, 0).value();
  CHECK(moved != at);
  CHECK(guest.Load(moved) == 1);
  CHECK(guest.Load(moved + kPage) == 2);
  CHECK(guest.Load(moved + 3 * kPage) == 3);
  CHECK(guest.Load(moved + 7 * kPage) == 0);
  CHECK_FALSE(guest.Load(at).has_value());
  CHECK(guest.memory->Mremap(moved, 8 * kPage, kPage, 0, 0).value() == moved);
  CHECK_FALSE(guest.Load(moved + kPage).has_value());
  CHECK(sandbox.pool->allocated_bytes() <= 2 * kPage);
}

TEST_CASE("a part of an area moves to a fixed place and replaces what is there", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(4 * kPage);
  const uint64_t to = guest.Map(4 * kPage);
  for (uint64_t page = 0; page < 4; page++) {
    guest.Store(at + page * kPage, static_cast<uint8_t>(10 + page));
    guest.Store(to + page * kPage, static_cast<uint8_t>(20 + page));
  }
  CHECK(guest.memory
            ->Mremap(at + kPage, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, to + kPage)
            .value() == to + kPage);
  CHECK(guest.Load(to) == 20);
  CHECK(guest.Load(to + kPage) == 11);
  CHECK(guest.Load(to + 2 * kPage) == 12);
  CHECK(guest.Load(to + 3 * kPage) == 23);
  CHECK(guest.Load(at) == 10);
  CHECK_FALSE(guest.Load(at + kPage).has_value());
  CHECK(guest.Load(at + 3 * kPage) == 13);
}

TEST_CASE("MREMAP_DONTUNMAP leaves an empty area", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(2 * kPage);
  guest.Store(at, 5);
  const uint64_t moved =
      guest.memory->Mremap(at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP, 0).value();
  CHECK(guest.Load(moved) == 5);
  CHECK(guest.Load(at) == 0);
  CHECK(guest.Store(at, 6));
  CHECK(guest.Load(moved) == 5);
}

TEST_CASE("an old size of zero doubles a shared mapping", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  const uint64_t twin = guest.memory->Mremap(at, 0, 2 * kPage, MREMAP_MAYMOVE, 0).value();
  CHECK(twin != at);
  CHECK(guest.Store(at + 1, 3));
  CHECK(guest.Load(twin + 1) == 3);
  CHECK(guest.Load(at + 1) == 3);
}

TEST_CASE("copy-on-write pages move as such", "[mm][mremap][fork]") {
  Sandbox sandbox;
  Guest parent = sandbox.NewGuest();
  const uint64_t at = parent.Map(2 * kPage);
  parent.Store(at, 1);
  Guest child = sandbox.Fork(parent);
  const uint64_t to =
      child.memory->Mremap(at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, 0x5000'0000)
          .value();
  CHECK(child.Store(to, 2));
  CHECK(parent.Load(at) == 1);
  CHECK(parent.Store(at, 3));
  CHECK(child.Load(to) == 2);
}

TEST_CASE("a file mapping moves and grows with its offset", "[mm][mremap]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(kPage, 'a') + std::string(kPage, 'b') +
                                         std::string(kPage, 'c'));
  const uint64_t at = guest.MapFile(file, kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE, kPage);
  CHECK(guest.Store(at, 'X'));
  const uint64_t moved = guest.memory->Mremap(at, kPage, 2 * kPage, MREMAP_MAYMOVE, 0).value();
  CHECK(guest.Load(moved) == 'X');
  CHECK(guest.Load(moved + 1) == 'b');
  CHECK(guest.Load(moved + kPage) == 'c');
}

}  // namespace
