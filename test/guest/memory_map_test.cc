// mmap, munmap, brk: placement, what a mapping shows, what is refused.

#include <sys/resource.h>

#include <fstream>
#include <sstream>

#include "test/guest/memory_support.h"

namespace {

using namespace guest;  // NOLINT

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

void* MapAt(void* at, size_t bytes, int flags) { return mmap(at, bytes, kReadWrite, flags, -1, 0); }

TEST_CASE("anonymous memory is zero and keeps what is written", "[memory]") {
  Map map(1 << 20);
  for (size_t i = 0; i < map.size; i += 512) REQUIRE(map[i] == 0);
  for (size_t i = 0; i < map.size; i += 512) map[i] = static_cast<uint8_t>(i / 512);
  for (size_t i = 0; i < map.size; i += 512) REQUIRE(map[i] == static_cast<uint8_t>(i / 512));
}

TEST_CASE("mmap refuses", "[memory]") {
  CHECK(ErrorOf(MapAt(nullptr, 0, kAnonymous)) == EINVAL);
  CHECK(ErrorOf(MapAt(nullptr, ~size_t{0}, kAnonymous)) == ENOMEM);
  CHECK(ErrorOf(MapAt(nullptr, size_t{1} << 47, kAnonymous)) == ENOMEM);
  CHECK(ErrorOf(MapAt(nullptr, kPage, MAP_ANONYMOUS)) == EINVAL);
  CHECK(ErrorOf(MapAt(nullptr, kPage, MAP_ANONYMOUS | MAP_SHARED_VALIDATE)) == EINVAL);
  CHECK(ErrorOf(MapAt(reinterpret_cast<void*>(0x70000001), kPage, kAnonymous | MAP_FIXED)) ==
        EINVAL);
  CHECK(ErrorOf(MapAt(reinterpret_cast<void*>(0x7ffffffff000), kPage, kAnonymous | MAP_FIXED)) ==
        ENOMEM);
  CHECK(ErrorOf(MapAt(nullptr, kPage, MAP_PRIVATE)) == EBADF);
  CHECK(syscall(SYS_mmap, 0, kPage, PROT_READ, kAnonymous, -1, 1) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("mmap of a file obeys how it was opened", "[memory]") {
  char name[] = "/tmp/ravelin-memory-XXXXXX";
  const int both = mkstemp(name);
  REQUIRE(ftruncate(both, kPage) == 0);
  const int reader = open(name, O_RDONLY);
  const int writer = open(name, O_WRONLY);
  unlink(name);
  CHECK(ErrorOf(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, reader, 0)) == EACCES);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_SHARED, writer, 0)) == EACCES);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, writer, 0)) == EACCES);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, both, 1)) == EINVAL);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, 0, both, 0)) == EINVAL);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE | MAP_GROWSDOWN, both, 0)) == EINVAL);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_SHARED_VALIDATE | (1 << 25), both, 0)) ==
        EOPNOTSUPP);
  Map shared(kPage, PROT_READ, MAP_SHARED, reader);
  CHECK(ErrorOf(mprotect(shared.at, kPage, kReadWrite)) == EACCES);
  Map own(kPage, kReadWrite, MAP_PRIVATE, reader);
  own[0] = 1;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, ends[0], 0)) == ENODEV);
  const int directory = open("/tmp", O_RDONLY);
  CHECK(ErrorOf(mmap(nullptr, kPage, PROT_READ, MAP_PRIVATE, directory, 0)) == ENODEV);
  for (const int fd : {both, reader, writer, ends[0], ends[1], directory}) close(fd);
}

TEST_CASE("a free hint is followed, a taken one is not", "[memory]") {
  Map map(3 * kPage);
  munmap(map.page(1), kPage);
  void* again = MapAt(map.page(1) + 17, kPage, kAnonymous);
  CHECK(again == map.page(1));
  void* other = MapAt(map.page(1), kPage, kAnonymous);
  CHECK(other != map.page(1));
  munmap(other, kPage);
}

TEST_CASE("MAP_FIXED replaces, MAP_FIXED_NOREPLACE does not", "[memory]") {
  Map map(3 * kPage);
  for (size_t page = 0; page < 3; page++) *map.page(page) = 7;
  CHECK(ErrorOf(MapAt(map.page(1), kPage, kAnonymous | MAP_FIXED_NOREPLACE)) == EEXIST);
  CHECK(MapAt(map.page(1), kPage, kAnonymous | MAP_FIXED) == map.page(1));
  CHECK(*map.page(0) == 7);
  CHECK(*map.page(1) == 0);
  CHECK(*map.page(2) == 7);
}

TEST_CASE("MAP_32BIT stays low", "[memory]") {
  Map map(kPage, kReadWrite, kAnonymous | MAP_32BIT);
  CHECK(reinterpret_cast<uintptr_t>(map.at) < 0x80000000);
  map[0] = 1;
}

TEST_CASE("munmap refuses and takes holes", "[memory]") {
  Map map(4 * kPage);
  CHECK(ErrorOf(munmap(map.at + 1, kPage)) == EINVAL);
  CHECK(ErrorOf(munmap(map.at, 0)) == EINVAL);
  CHECK(ErrorOf(munmap(map.at, ~size_t{0})) == EINVAL);
  CHECK(munmap(map.page(1), kPage) == 0);
  CHECK(munmap(map.page(1), kPage) == 0);
  *map.page(0) = *map.page(2) = 1;
  CHECK(LoadFails(map.page(1)) == -SIGSEGV);
  CHECK(munmap(map.at, 4 * kPage) == 0);
  CHECK(LoadFails(map.page(0)) == -SIGSEGV);
}

TEST_CASE("a private file mapping is a copy on write", "[memory]") {
  TemporaryFile file(3 * kPage);
  Map map(3 * kPage, kReadWrite, MAP_PRIVATE, file.fd);
  CHECK(map[kPage] == 'f');
  map[kPage] = 'x';
  CHECK(map[kPage + 1] == 'f');
  CHECK(file.At(kPage) == 'f');
  Map second(kPage, PROT_READ, MAP_PRIVATE, file.fd, kPage);
  CHECK(second[0] == 'f');
}

TEST_CASE("a shared file mapping, read and write see the same bytes", "[memory]") {
  TemporaryFile file(2 * kPage);
  Map map(2 * kPage, kReadWrite, MAP_SHARED, file.fd);
  map[5] = 'm';
  CHECK(file.At(5) == 'm');
  REQUIRE(pwrite(file.fd, "wr", 2, kPage) == 2);
  CHECK(map[kPage] == 'w');
  Map other(kPage, PROT_READ, MAP_SHARED, file.fd, kPage);
  map[kPage + 1] = 'Q';
  CHECK(other[1] == 'Q');
}

TEST_CASE("read and write work on mapped buffers", "[memory]") {
  TemporaryFile source(3 * kPage);
  TemporaryFile target(3 * kPage);
  Map map(3 * kPage, kReadWrite, MAP_SHARED, target.fd);
  REQUIRE(pwrite(source.fd, "hello", 5, kPage - 2) == 5);
  CHECK(pread(source.fd, map.at + 100, 2 * kPage, 0) == 2 * kPage);
  CHECK(std::memcmp(map.at + 100 + kPage - 2, "hello", 5) == 0);
  CHECK(target.At(100 + kPage - 2) == 'h');
  CHECK(pwrite(source.fd, map.at + 100 + kPage - 2, 5, 0) == 5);
  CHECK(source.At(4) == 'o');
}

TEST_CASE("pages behind the end of a file raise SIGBUS", "[memory]") {
  TemporaryFile file(kPage + 10);
  const int flags = GENERATE(MAP_PRIVATE, MAP_SHARED);
  Map map(4 * kPage, kReadWrite, flags, file.fd);
  CHECK(map[kPage + 9] == 'f');
  CHECK(map[kPage + 10] == 0);
  CHECK(LoadFails(map.page(2)) == -SIGBUS);
  CHECK(StoreFails(map.page(3)) == -SIGBUS);
  CHECK(write(file.fd, map.page(2), 1) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("a file that shrinks and grows takes mapped pages along", "[memory]") {
  TemporaryFile file(3 * kPage);
  Map map(3 * kPage, kReadWrite, MAP_SHARED, file.fd);
  map[2 * kPage] = 'x';
  REQUIRE(ftruncate(file.fd, kPage) == 0);
  CHECK(LoadFails(map.page(2)) == -SIGBUS);
  CHECK(map[0] == 'f');
  REQUIRE(ftruncate(file.fd, 3 * kPage) == 0);
  CHECK(map[2 * kPage] == 0);
}

TEST_CASE("a file that shrinks takes private copies along", "[memory]") {
  const bool in_memory = GENERATE(false, true);
  TemporaryFile file(2 * kPage);
  const int fd = in_memory ? memfd_create("test", 0) : dup(file.fd);
  REQUIRE(ftruncate(fd, 2 * kPage) == 0);
  Map map(2 * kPage, kReadWrite, MAP_PRIVATE, fd);
  map[0] = map[kPage] = 'x';
  REQUIRE(ftruncate(fd, 100) == 0);
  CHECK(map[0] == 'x');
  CHECK(LoadFails(map.page(1)) == -SIGBUS);
  REQUIRE(ftruncate(fd, 2 * kPage) == 0);
  CHECK(map[kPage] == 0);
  close(fd);
}

TEST_CASE("bytes behind the end of the file in its last page do not reach the file", "[memory]") {
  TemporaryFile file(10);
  Map map(kPage, kReadWrite, MAP_SHARED, file.fd);
  map[20] = 'x';
  REQUIRE(msync(map.at, kPage, MS_SYNC) == 0);
  CHECK(lseek(file.fd, 0, SEEK_END) == 10);
}

TEST_CASE("a mapping outlives its descriptor and its name", "[memory]") {
  uint8_t* at = nullptr;
  {
    TemporaryFile file(kPage);
    at = static_cast<uint8_t*>(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, file.fd, 0));
    REQUIRE(at != MAP_FAILED);
  }
  CHECK(at[7] == 'f');
  at[7] = 'g';
  CHECK(at[7] == 'g');
  munmap(at, kPage);
}

TEST_CASE("a memfd is mapped and sealed", "[memory]") {
  const int fd = memfd_create("test", MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0);
  REQUIRE(ftruncate(fd, 2 * kPage) == 0);
  {
    Map map(2 * kPage, kReadWrite, MAP_SHARED, fd);
    map[kPage] = 'm';
    char byte = 0;
    CHECK(pread(fd, &byte, 1, kPage) == 1);
    CHECK(byte == 'm');
    CHECK(ErrorOf(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE)) == EBUSY);
  }
  CHECK(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE) == 0);
  CHECK(ErrorOf(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, fd, 0)) == EPERM);
  Map own(kPage, kReadWrite, MAP_PRIVATE, fd);
  own[0] = 1;
  close(fd);
}

TEST_CASE("/dev/zero gives anonymous memory", "[memory]") {
  const int fd = open("/dev/zero", O_RDWR);
  REQUIRE(fd >= 0);
  Map own(2 * kPage, kReadWrite, MAP_PRIVATE, fd);
  Map shared(2 * kPage, kReadWrite, MAP_SHARED, fd);
  close(fd);
  own[kPage] = 1;
  CHECK(shared[kPage] == 0);
  CHECK(StoreFails(&shared[kPage]) == 0);
  CHECK(shared[kPage] == 1);
}

TEST_CASE("huge reservations cost nothing until touched", "[memory]") {
  Map map(size_t{1} << 42, PROT_NONE, kAnonymous | MAP_NORESERVE);
  uint8_t* middle = map.at + (size_t{1} << 41);
  REQUIRE(mprotect(middle, 64 * kPage, kReadWrite) == 0);
  middle[63 * kPage] = 5;
  CHECK(middle[63 * kPage] == 5);
  CHECK(LoadFails(middle + 64 * kPage) == -SIGSEGV);
  Map lazy(size_t{1} << 42, kReadWrite, kAnonymous | MAP_NORESERVE);
  lazy[size_t{1} << 41] = 1;
  lazy[(size_t{1} << 42) - 1] = 2;
  CHECK(lazy[size_t{1} << 41] == 1);
}

TEST_CASE("an arena opened page by page stays whole", "[memory]") {
  Map map(1024 * kPage, PROT_NONE);
  for (size_t page = 0; page < 1024; page++) {
    REQUIRE(mprotect(map.at, (page + 1) * kPage, kReadWrite) == 0);
    *map.page(page) = static_cast<uint8_t>(page);
  }
  for (size_t page = 0; page < 1024; page++) REQUIRE(*map.page(page) == static_cast<uint8_t>(page));
}

TEST_CASE("many areas are possible, more than the limit are not", "[memory]") {
  const int result = RunChild([] {
    constexpr size_t kPages = 140000;
    auto* at = static_cast<uint8_t*>(
        mmap(nullptr, kPages * kPage, PROT_NONE, kAnonymous | MAP_NORESERVE, -1, 0));
    if (at == MAP_FAILED) return 1;
    size_t page = 0;
    while (page < kPages && mprotect(at + page * kPage, kPage, PROT_READ) == 0) page += 2;
    if (page >= kPages || errno != ENOMEM) return 2;
    if (page < 65000 || page > 65540) return 3;
    return munmap(at, kPages * kPage) == 0 ? 0 : 4;
  });
  CHECK(result == 0);
}

TEST_CASE("brk grows and shrinks", "[memory]") {
  const int result = RunChild([] {
    const auto call = [](uintptr_t at) { return static_cast<uintptr_t>(syscall(SYS_brk, at)); };
    const uintptr_t start = call(0);
    if (call(start + 3 * kPage) != start + 3 * kPage) return 1;
    auto* bytes = reinterpret_cast<uint8_t*>(start);
    bytes[3 * kPage - 1] = 5;
    if (call(start + kPage) != start + kPage) return 2;
    if (call(start + 3 * kPage) != start + 3 * kPage) return 3;
    if (bytes[3 * kPage - 1] != 0 && (start % kPage) == 0) return 4;
    if (call(1) != start + 3 * kPage) return 5;
    if (call(~uintptr_t{0}) != start + 3 * kPage) return 6;
    rlimit limit{kPage, kPage};
    if (setrlimit(RLIMIT_DATA, &limit) != 0) return 7;
    if (call(start + 1000 * kPage) != start + 3 * kPage) return 8;
    return 0;
  });
  CHECK(result == 0);
}

TEST_CASE("RLIMIT_AS bounds mmap, mremap and brk", "[memory][limits]") {
  const int result = RunChild([] {
    rlimit limit{size_t{1} << 30, size_t{1} << 30};
    if (setrlimit(RLIMIT_AS, &limit) != 0) return 1;
    if (ErrorOf(MapAt(nullptr, size_t{1} << 30, kAnonymous)) != ENOMEM) return 2;
    void* small = MapAt(nullptr, kPage, kAnonymous);
    if (small == MAP_FAILED) return 3;
    if (ErrorOf(mremap(small, kPage, size_t{1} << 30, MREMAP_MAYMOVE)) != ENOMEM) return 4;
    return 0;
  });
  CHECK(result == 0);
}

TEST_CASE("/proc/self/maps shows areas with their rights", "[memory][proc]") {
  Map map(3 * kPage);
  REQUIRE(mprotect(map.page(1), kPage, PROT_READ) == 0);
  std::ifstream maps("/proc/self/maps");
  std::stringstream wanted;
  wanted << std::hex << reinterpret_cast<uintptr_t>(map.page(1)) << "-"
         << reinterpret_cast<uintptr_t>(map.page(2)) << " r--p";
  bool found = false, heap_or_stack = false;
  for (std::string line; std::getline(maps, line);) {
    found |= line.find(wanted.str()) != std::string::npos;
    heap_or_stack |= line.find("[stack]") != std::string::npos;
  }
  CHECK(found);
  CHECK(heap_or_stack);
}

TEST_CASE("MAP_POPULATE and MAP_LOCKED have their pages at once", "[memory]") {
  Map map(16 * kPage, kReadWrite, kAnonymous | MAP_POPULATE);
  unsigned char present[16];
  REQUIRE(mincore(map.at, map.size, present) == 0);
  for (const unsigned char page : present) CHECK((page & 1) == 1);
}

}  // namespace
