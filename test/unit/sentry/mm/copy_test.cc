#include "test/unit/sentry/mm/fixture.h"

namespace {

using namespace test;  // NOLINT
using sentry::IoBuffer;
using sentry::UserRange;

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;

// One accessible page between two that are not.
struct Island {
  explicit Island(Guest& guest) {
    const uint64_t low = guest.Map(3 * kPage, PROT_NONE);
    start = low + kPage;
    end = start + kPage;
    guest.memory->Mprotect(start, kPage, PROT_READ | PROT_WRITE).value();
  }
  uint64_t start = 0;
  uint64_t end = 0;
};

TEST_CASE("a copy stops at each byte that faults", "[mm][efault]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const Island island(guest);
  for (uint64_t inside = 0; inside <= 16; inside++) {
    CAPTURE(inside);
    std::array<std::byte, 16> bytes;
    bytes.fill(std::byte{0x5a});
    const UserAddr at(island.end - inside);
    const auto out = guest.memory->CopyOutBytes(at, bytes);
    const auto in = guest.memory->CopyInBytes(at, bytes);
    if (inside == 0) {
      CHECK(ErrorOf(out) == EFAULT);
      CHECK(ErrorOf(in) == EFAULT);
    } else {
      CHECK(out.value() == inside);
      CHECK(in.value() == inside);
    }
    CHECK(guest.memory->CopyOutExactly(at, bytes).ok() == (inside == 16));
    CHECK(guest.memory->CopyInExactly(at, bytes).ok() == (inside == 16));
    IoBuffer buffer(*guest.memory, at, 16);
    const auto written = buffer.CopyOut(bytes);
    CHECK(written.ok() == (inside > 0));
    CHECK(buffer.done() == inside);
  }
}

TEST_CASE("nothing at all is copied from an address that wraps", "[mm][efault]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  std::array<std::byte, 64> bytes;
  CHECK(ErrorOf(guest.memory->CopyInBytes(UserAddr(~uint64_t{0} - 8), bytes)) == EFAULT);
  CHECK(ErrorOf(guest.memory->CopyOutBytes(UserAddr(0), bytes)) == EFAULT);
  CHECK(guest.memory->CopyInBytes(UserAddr(0), {}).value() == 0);
}

TEST_CASE("strings end at their NUL, their limit or a fault", "[mm][efault]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const Island island(guest);
  guest.Write(island.start + 300, std::string(600, 's') + '\0');
  CHECK(guest.memory->CopyInString(UserAddr(island.start + 300), 4096).value() ==
        std::string(600, 's'));
  CHECK(guest.memory->CopyInString(UserAddr(island.start + 300), 601).value().size() == 600);
  CHECK(ErrorOf(guest.memory->CopyInString(UserAddr(island.start + 300), 600)) == ENAMETOOLONG);
  guest.Write(island.end - 5, "12345");
  CHECK(ErrorOf(guest.memory->CopyInString(UserAddr(island.end - 5), 4096)) == EFAULT);
  CHECK(ErrorOf(guest.memory->CopyInString(UserAddr(island.end), 4096)) == EFAULT);
  guest.Write(island.end - 1, std::string(1, '\0'));
  CHECK(guest.memory->CopyInString(UserAddr(island.end - 5), 4096).value() == "1234");
}

TEST_CASE("rights of the mapping bind copies, except a debugger's", "[mm]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(kPage, 'f'));
  const uint64_t text = guest.MapFile(file, kPage, PROT_READ | PROT_EXEC, MAP_PRIVATE);
  const std::array<std::byte, 1> breakpoint{std::byte{0xcc}};
  CHECK(ErrorOf(guest.memory->CopyOutBytes(UserAddr(text), breakpoint)) == EFAULT);
  CHECK(guest.memory->ForceCopyOut(UserAddr(text), breakpoint).ok());
  CHECK(guest.Load(text) == 0xcc);
  CHECK_FALSE(guest.Store(text, 1));
  CHECK(file->Content()[0] == 'f');
  const uint64_t hidden = guest.Map(kPage, PROT_NONE);
  std::array<std::byte, 1> byte;
  CHECK(ErrorOf(guest.memory->CopyInBytes(UserAddr(hidden), byte)) == EFAULT);
  CHECK(guest.memory->ForceCopyIn(UserAddr(hidden), byte).ok());
  const uint64_t shared = guest.MapFile(file, kPage, PROT_READ, MAP_SHARED);
  CHECK(ErrorOf(guest.memory->ForceCopyOut(UserAddr(shared), breakpoint)) == EFAULT);
}

TEST_CASE("words are loaded and exchanged atomically", "[mm][futex]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const Island island(guest);
  MemoryManager& memory = *guest.memory;
  CHECK(ErrorOf(memory.LoadWord(UserAddr(island.start + 2))) == EINVAL);
  CHECK(ErrorOf(memory.LoadWord(UserAddr(island.end))) == EFAULT);
  CHECK(memory.LoadWord(UserAddr(island.start)).value() == 0);
  CHECK(memory.CompareExchangeWord(UserAddr(island.start), 0, 5).value() == 0);
  CHECK(memory.CompareExchangeWord(UserAddr(island.start), 0, 6).value() == 5);
  CHECK(memory.LoadWord(UserAddr(island.start)).value() == 5);
  auto file = std::make_shared<HostFile>(std::string(kPage, 'f'));
  const uint64_t at = guest.MapFile(file, kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  CHECK(memory.LoadWord(UserAddr(at)).value() == 0x66666666);
  CHECK(memory.CompareExchangeWord(UserAddr(at), 0x66666666, 0x67676767).value() == 0x66666666);
  CHECK(file->Content().substr(0, 5) == "ggggf");
}

TEST_CASE("futex keys follow what is shared", "[mm][futex]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t own = guest.Map(kPage);
  const uint64_t shared = guest.Map(kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS);
  Guest child = sandbox.Fork(guest);
  const auto key = [](Guest& who, uint64_t at, bool is_shared) {
    return who.memory->GetFutexKey(UserAddr(at), is_shared).value();
  };
  CHECK(key(guest, own, true) == key(guest, own, false));
  CHECK_FALSE(key(guest, own, true) == key(child, own, true));
  CHECK(key(guest, shared, true) == key(child, shared, true));
  CHECK_FALSE(key(guest, shared, false) == key(child, shared, false));
  CHECK_FALSE(key(guest, shared, true) == key(guest, shared + 4, true));
  CHECK(ErrorOf(guest.memory->GetFutexKey(UserAddr(own + 1), true)) == EINVAL);
  CHECK(ErrorOf(guest.memory->GetFutexKey(UserAddr(0x1000), true)) == EFAULT);
}

TEST_CASE("an I/O buffer walks its ranges", "[mm][io]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(kPage);
  IoBuffer buffer(*guest.memory, std::vector<UserRange>{{UserAddr(at), 3},
                                                        {UserAddr(at + 50), 0},
                                                        {UserAddr(at + 100), 4},
                                                        {UserAddr(at + 200), 9}});
  CHECK(buffer.remaining() == 16);
  const std::string text = "0123456789";
  CHECK(buffer.CopyOut(std::as_bytes(std::span(text))).value() == 10);
  CHECK(guest.Read(at, 3) == "012");
  CHECK(guest.Read(at + 100, 4) == "3456");
  CHECK(guest.Read(at + 200, 4) == std::string("789\0", 4));
  buffer.Truncate(2);
  CHECK(buffer.ZeroOut(100).value() == 2);
  CHECK(buffer.remaining() == 0);
  CHECK(buffer.done() == 12);
  CHECK(buffer.CopyOut(std::as_bytes(std::span(text))).value() == 0);
}

TEST_CASE("an I/O buffer over the sentry's own bytes", "[mm][io]") {
  std::array<std::byte, 8> bytes{};
  IoBuffer buffer{std::span<std::byte>(bytes)};
  const std::string text = "abc";
  CHECK(buffer.CopyOut(std::as_bytes(std::span(text))).value() == 3);
  CHECK(buffer.remaining() == 5);
  CHECK(bytes[2] == std::byte{'c'});
  const auto moved = buffer.WithHostMemory(100, true, [](std::span<const iovec> vectors) {
    CHECK(vectors.size() == 1);
    CHECK(vectors[0].iov_len == 5);
    return base::Result<size_t>(size_t{4});
  });
  CHECK(moved.value() == 4);
  CHECK(buffer.remaining() == 1);
}

base::Result<size_t> FillWith(std::span<const iovec> vectors, char letter) {
  size_t total = 0;
  for (const iovec& vector : vectors) {
    std::memset(vector.iov_base, letter, vector.iov_len);
    total += vector.iov_len;
  }
  return total;
}

TEST_CASE("host I/O goes straight to guest memory", "[mm][io]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const uint64_t at = guest.Map(40 * kPage);
  Guest child = sandbox.Fork(guest);
  IoBuffer buffer(*guest.memory, UserAddr(at + 10), 30 * kPage);
  const auto moved = buffer.WithHostMemory(
      ~uint64_t{0}, true, [](std::span<const iovec> vectors) { return FillWith(vectors, 'w'); });
  CHECK(moved.value() == 30 * kPage);
  CHECK(guest.Read(at + 10, 30 * kPage) == std::string(30 * kPage, 'w'));
  CHECK(child.Read(at + 10, 30 * kPage) == std::string(30 * kPage, '\0'));
  CHECK(guest.Load(at + 9) == 0);
}

TEST_CASE("host I/O to memory that is not in the pool is bounced", "[mm][io]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  auto file = std::make_shared<HostFile>(std::string(kPage + 100, 'f'));
  const uint64_t at = guest.MapFile(file, 2 * kPage, PROT_READ | PROT_WRITE, MAP_SHARED);
  IoBuffer to(*guest.memory, UserAddr(at + kPage - 1), 2);
  CHECK(to.WithHostMemory(2, true, [](auto vectors) { return FillWith(vectors, 'w'); }).value() ==
        2);
  CHECK(file->Content().substr(kPage - 2, 4) == "fwwf");
  IoBuffer from(*guest.memory, UserAddr(at), 3 * kPage);
  std::string seen;
  const auto moved = from.WithHostMemory(3 * kPage, false, [&](std::span<const iovec> vectors) {
    seen.assign(static_cast<const char*>(vectors[0].iov_base), vectors[0].iov_len);
    return base::Result<size_t>(size_t{5});
  });
  CHECK(moved.value() == 5);
  CHECK(from.done() == 5);
  CHECK(seen.size() == 2 * kPage);
  CHECK(seen.substr(kPage - 2, 4) == "fwwf");
}

TEST_CASE("host I/O ends before a fault and reports one at its start", "[mm][io][efault]") {
  Sandbox sandbox;
  Guest guest = sandbox.NewGuest();
  const Island island(guest);
  IoBuffer buffer(*guest.memory, UserAddr(island.end - 7), 100);
  const auto fill = [](std::span<const iovec> vectors) { return FillWith(vectors, 'w'); };
  CHECK(buffer.WithHostMemory(100, true, fill).value() == 7);
  CHECK(ErrorOf(buffer.WithHostMemory(100, true, fill)) == EFAULT);
  const uint64_t zero = guest.Map(uint64_t{4} << 30, PROT_READ, kAnonymous | MAP_NORESERVE);
  IoBuffer zeroes(*guest.memory, UserAddr(zero), kPage);
  CHECK(ErrorOf(zeroes.WithHostMemory(100, true, fill)) == EFAULT);
  const auto moved = zeroes.WithHostMemory(100, false, [](std::span<const iovec> vectors) {
    CHECK(static_cast<const char*>(vectors[0].iov_base)[99] == 0);
    return base::Result<size_t>(vectors[0].iov_len);
  });
  CHECK(moved.value() == 100);
  CHECK(sandbox.pool->allocated_bytes() <= uint64_t{4} << 20);
}

}  // namespace
