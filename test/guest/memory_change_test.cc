// mprotect, mremap, madvise, msync, mlock, mincore and their kin.

#include <linux/mempolicy.h>
#include <setjmp.h>
#include <sys/resource.h>

#include <vector>

#include "test/guest/memory_support.h"

namespace {

using namespace guest;  // NOLINT

constexpr int kAnonymous = MAP_PRIVATE | MAP_ANONYMOUS;
constexpr int kReadWrite = PROT_READ | PROT_WRITE;

TEST_CASE("remap_file_pages shows other pages of a shared object in place", "[memory]") {
  const TemporaryFile file(4 * kPage);
  Map map(4 * kPage, kReadWrite, MAP_SHARED, file.fd);
  for (size_t i = 0; i < 4; ++i) *map.page(i) = static_cast<uint8_t>('0' + i);
  REQUIRE(remap_file_pages(map.page(0), kPage, 0, 3, 0) == 0);
  REQUIRE(remap_file_pages(map.page(3), kPage, 0, 0, 0) == 0);
  CHECK(*map.page(0) == '3');
  CHECK(*map.page(1) == '1');
  CHECK(*map.page(3) == '0');
  *map.page(0) = 'x';
  CHECK(file.At(3 * kPage) == 'x');
  REQUIRE(remap_file_pages(map.page(0), 2 * kPage, 0, 0, 0) == 0);  // Over two areas.
  CHECK(*map.page(1) == '1');
  CHECK(ErrorOf(remap_file_pages(map.page(0), kPage, PROT_READ, 0, 0)) == EINVAL);
  CHECK(ErrorOf(remap_file_pages(map.page(0), 0, 0, 0, 0)) == EINVAL);
  CHECK(ErrorOf(remap_file_pages(map.page(0), kPage, 0, ~size_t{0}, 0)) == EINVAL);
  Map own(2 * kPage);
  CHECK(ErrorOf(remap_file_pages(own.page(0), kPage, 0, 1, 0)) == EINVAL);
  Map shared(2 * kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  *shared.page(1) = 7;
  REQUIRE(remap_file_pages(shared.page(0), kPage, 0, 1, 0) == 0);
  CHECK(*shared.page(0) == 7);
}

TEST_CASE("mprotect refuses", "[memory]") {
  Map map(4 * kPage);
  CHECK(ErrorOf(mprotect(map.at + 1, kPage, PROT_READ)) == EINVAL);
  CHECK(ErrorOf(mprotect(map.at, kPage, 0x40)) == EINVAL);
  CHECK(ErrorOf(mprotect(map.at, kPage, PROT_GROWSDOWN | PROT_GROWSUP)) == EINVAL);
  CHECK(ErrorOf(mprotect(map.at, kPage, PROT_READ | PROT_GROWSDOWN)) == EINVAL);
  CHECK(mprotect(map.at, 0, PROT_READ) == 0);
  munmap(map.page(2), kPage);
  CHECK(ErrorOf(mprotect(map.at, 4 * kPage, PROT_READ)) == ENOMEM);
  // What came before the hole has changed, what comes after has not.
  CHECK(StoreFails(map.page(0)) == -SIGSEGV);
  CHECK(StoreFails(map.page(3)) == 0);
}

TEST_CASE("rights are enforced for the program and for the kernel", "[memory]") {
  Map map(3 * kPage);
  *map.page(1) = 'a';
  REQUIRE(mprotect(map.page(1), kPage, PROT_READ) == 0);
  CHECK(LoadFails(map.page(1)) == 0);
  CHECK(StoreFails(map.page(1)) == -SIGSEGV);
  const int zero = open("/dev/zero", O_RDONLY);
  CHECK(ErrorOf(read(zero, map.page(1), 1)) == EFAULT);
  CHECK(read(zero, map.at + 10, 2 * kPage) == static_cast<ssize_t>(kPage - 10));
  REQUIRE(mprotect(map.page(1), kPage, PROT_NONE) == 0);
  CHECK(LoadFails(map.page(1)) == -SIGSEGV);
  const int null = open("/dev/null", O_WRONLY);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK(ErrorOf(write(ends[1], map.page(1), 1)) == EFAULT);
  REQUIRE(mprotect(map.at, 3 * kPage, kReadWrite) == 0);
  CHECK(*map.page(1) == 'a');
  for (const int fd : {zero, null, ends[0], ends[1]}) close(fd);
}

TEST_CASE("a fault tells its address and reason", "[memory][signal]") {
  static sigjmp_buf back;
  static siginfo_t seen;
  struct sigaction action{}, old{};
  action.sa_flags = SA_SIGINFO;
  action.sa_sigaction = [](int, siginfo_t* info, void*) {
    seen = *info;
    siglongjmp(back, 1);
  };
  REQUIRE(sigaction(SIGSEGV, &action, &old) == 0);
  Map map(2 * kPage);
  REQUIRE(mprotect(map.at, kPage, PROT_READ) == 0);
  munmap(map.page(1), kPage);
  volatile uint8_t* at = map.at;
  if (sigsetjmp(back, 1) == 0) at[123] = 1;
  CHECK(seen.si_addr == map.at + 123);
  CHECK(seen.si_code == SEGV_ACCERR);
  if (sigsetjmp(back, 1) == 0) at[kPage + 5] = 1;
  CHECK(seen.si_addr == map.at + kPage + 5);
  CHECK(seen.si_code == SEGV_MAPERR);
  sigaction(SIGSEGV, &old, nullptr);
}

TEST_CASE("code written to memory runs once it may", "[memory]") {
  Map map(kPage);
  const uint8_t code[] = {0xb8, 42, 0, 0, 0, 0xc3};  // mov $42, %eax; ret
  std::memcpy(map.at, code, sizeof(code));
  const auto function = reinterpret_cast<int (*)()>(map.at);
  CHECK(RunChild([&] { return function(); }) == -SIGSEGV);
  REQUIRE(mprotect(map.at, kPage, PROT_READ | PROT_EXEC) == 0);
  CHECK(function() == 42);
  REQUIRE(mprotect(map.at, kPage, PROT_READ | PROT_WRITE | PROT_EXEC) == 0);
  map[1] = 43;
  CHECK(function() == 43);
}

TEST_CASE("mremap refuses", "[memory]") {
  Map map(4 * kPage);
  CHECK(ErrorOf(mremap(map.at + 1, kPage, kPage, 0)) == EINVAL);
  CHECK(ErrorOf(mremap(map.at, kPage, 0, 0)) == EINVAL);
  CHECK(ErrorOf(mremap(map.at, kPage, kPage, 8)) == EINVAL);
  CHECK(ErrorOf(mremap(map.at, kPage, kPage, MREMAP_FIXED, map.page(2))) == EINVAL);
  CHECK(ErrorOf(mremap(map.at, 0, kPage, MREMAP_MAYMOVE)) == EINVAL);
  CHECK(ErrorOf(mremap(map.at, kPage, 2 * kPage, 0)) == ENOMEM);
  CHECK(ErrorOf(mremap(map.at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_FIXED, map.page(1))) ==
        EINVAL);
  munmap(map.page(2), kPage);
  CHECK(ErrorOf(mremap(map.page(2), kPage, 2 * kPage, MREMAP_MAYMOVE)) == EFAULT);
  CHECK(ErrorOf(mremap(map.page(1), 3 * kPage, 4 * kPage, MREMAP_MAYMOVE)) == EFAULT);
}

TEST_CASE("mremap grows, shrinks and moves with its bytes", "[memory]") {
  auto* at = static_cast<uint8_t*>(mmap(nullptr, 4 * kPage, kReadWrite, kAnonymous, -1, 0));
  REQUIRE(at != MAP_FAILED);
  for (size_t page = 0; page < 4; page++) at[page * kPage] = static_cast<uint8_t>(page + 1);
  REQUIRE(mremap(at, 4 * kPage, 2 * kPage, 0) == at);
  CHECK(LoadFails(at + 2 * kPage) == -SIGSEGV);
  REQUIRE(mremap(at, 2 * kPage, 4 * kPage, 0) == at);
  CHECK(at[2 * kPage] == 0);
  auto* moved = static_cast<uint8_t*>(mremap(at, 4 * kPage, 600 * kPage, MREMAP_MAYMOVE));
  REQUIRE(moved != MAP_FAILED);
  CHECK(moved[0] == 1);
  CHECK(moved[kPage] == 2);
  moved[599 * kPage] = 9;
  Map target(2 * kPage);
  target[0] = 77;
  REQUIRE(mremap(moved + kPage, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, target.page(1)) ==
          target.page(1));
  CHECK(target[0] == 77);
  CHECK(target[kPage] == 2);
  CHECK(LoadFails(moved + kPage) == -SIGSEGV);
  munmap(moved, 600 * kPage);
}

TEST_CASE("MREMAP_DONTUNMAP leaves an empty mapping behind", "[memory]") {
  Map map(2 * kPage);
  map[5] = 5;
  auto* moved = static_cast<uint8_t*>(
      mremap(map.at, 2 * kPage, 2 * kPage, MREMAP_MAYMOVE | MREMAP_DONTUNMAP));
  REQUIRE(moved != MAP_FAILED);
  CHECK(moved[5] == 5);
  CHECK(map[5] == 0);
  map[5] = 6;
  CHECK(moved[5] == 5);
  munmap(moved, 2 * kPage);
}

TEST_CASE("mremap from size zero doubles a shared mapping", "[memory]") {
  Map map(2 * kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  auto* twin = static_cast<uint8_t*>(mremap(map.at, 0, 2 * kPage, MREMAP_MAYMOVE));
  REQUIRE(twin != MAP_FAILED);
  map[kPage] = 3;
  CHECK(twin[kPage] == 3);
  munmap(twin, 2 * kPage);
}

TEST_CASE("a moved file mapping keeps its place in the file", "[memory]") {
  TemporaryFile file(4 * kPage);
  REQUIRE(pwrite(file.fd, "b", 1, kPage) == 1);
  REQUIRE(pwrite(file.fd, "c", 1, 2 * kPage) == 1);
  auto* at = static_cast<uint8_t*>(mmap(nullptr, kPage, kReadWrite, MAP_SHARED, file.fd, kPage));
  REQUIRE(at != MAP_FAILED);
  at = static_cast<uint8_t*>(mremap(at, kPage, 2 * kPage, MREMAP_MAYMOVE));
  REQUIRE(at != MAP_FAILED);
  CHECK(at[0] == 'b');
  CHECK(at[kPage] == 'c');
  munmap(at, 2 * kPage);
}

TEST_CASE("madvise refuses", "[memory]") {
  Map map(2 * kPage);
  CHECK(ErrorOf(madvise(map.at, kPage, 77)) == EINVAL);
  CHECK(ErrorOf(madvise(map.at + 1, kPage, MADV_DONTNEED)) == EINVAL);
  CHECK(ErrorOf(madvise(map.at, ~size_t{0}, MADV_DONTNEED)) == EINVAL);
  CHECK(madvise(map.at, 0, MADV_DONTNEED) == 0);
  CHECK(ErrorOf(madvise(map.at, kPage, MADV_REMOVE)) == EINVAL);
  munmap(map.page(1), kPage);
  CHECK(ErrorOf(madvise(map.at, 2 * kPage, MADV_NORMAL)) == ENOMEM);
}

TEST_CASE("MADV_DONTNEED forgets private pages", "[memory]") {
  Map map(4 * kPage);
  for (size_t page = 0; page < 4; page++) *map.page(page) = 1;
  REQUIRE(madvise(map.page(1), 2 * kPage, MADV_DONTNEED) == 0);
  CHECK(*map.page(0) == 1);
  CHECK(*map.page(1) == 0);
  CHECK(*map.page(3) == 1);
  TemporaryFile file(kPage);
  Map copy(kPage, kReadWrite, MAP_PRIVATE, file.fd);
  copy[0] = 'x';
  REQUIRE(madvise(copy.at, kPage, MADV_DONTNEED) == 0);
  CHECK(copy[0] == 'f');
  Map shared(kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  shared[0] = 9;
  REQUIRE(madvise(shared.at, kPage, MADV_DONTNEED) == 0);
  CHECK(shared[0] == 9);
}

TEST_CASE("MADV_FREE keeps what is written afterwards", "[memory]") {
  Map map(2 * kPage);
  map[0] = 1;
  REQUIRE(madvise(map.at, kPage, MADV_FREE) == 0);
  map[0] = 2;
  CHECK(map[0] == 2);
  TemporaryFile file(kPage);
  Map text(kPage, PROT_READ, MAP_PRIVATE, file.fd);
  CHECK(ErrorOf(madvise(text.at, kPage, MADV_FREE)) == EINVAL);
}

TEST_CASE("MADV_REMOVE punches a hole in shared memory", "[memory]") {
  Map map(2 * kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  map[0] = map[kPage] = 1;
  REQUIRE(madvise(map.at, kPage, MADV_REMOVE) == 0);
  CHECK(map[0] == 0);
  CHECK(map[kPage] == 1);
}

TEST_CASE("MADV_POPULATE_WRITE makes pages, within rights", "[memory]") {
  Map map(8 * kPage);
  REQUIRE(madvise(map.at, 8 * kPage, MADV_POPULATE_WRITE) == 0);
  unsigned char present[8];
  REQUIRE(mincore(map.at, map.size, present) == 0);
  CHECK((present[7] & 1) == 1);
  REQUIRE(mprotect(map.at, kPage, PROT_READ) == 0);
  CHECK(ErrorOf(madvise(map.at, kPage, MADV_POPULATE_WRITE)) == EINVAL);
  CHECK(madvise(map.at, kPage, MADV_POPULATE_READ) == 0);
  munmap(map.page(1), kPage);
  CHECK(ErrorOf(madvise(map.at, 4 * kPage, MADV_POPULATE_READ)) == ENOMEM);
}

TEST_CASE("msync refuses and writes back", "[memory]") {
  TemporaryFile file(kPage);
  Map map(kPage, kReadWrite, MAP_SHARED, file.fd);
  CHECK(ErrorOf(msync(map.at, kPage, MS_SYNC | MS_ASYNC)) == EINVAL);
  CHECK(ErrorOf(msync(map.at, kPage, 64)) == EINVAL);
  CHECK(ErrorOf(msync(map.at + 1, kPage, MS_SYNC)) == EINVAL);
  map[0] = 's';
  CHECK(msync(map.at, kPage, MS_SYNC) == 0);
  CHECK(file.At(0) == 's');
  Map hole(3 * kPage);
  munmap(hole.page(1), kPage);
  CHECK(ErrorOf(msync(hole.at, 3 * kPage, MS_ASYNC)) == ENOMEM);
}

TEST_CASE("mlock counts against its limit, unless privileged", "[memory][limits]") {
  Map map(8 * kPage);
  CHECK(mlock(map.at + 10, kPage) == 0);
  CHECK(ErrorOf(madvise(map.at, kPage, MADV_DONTNEED)) == EINVAL);
  CHECK(ErrorOf(msync(map.at, kPage, MS_INVALIDATE)) == EBUSY);
  CHECK(munlock(map.at, 8 * kPage) == 0);
  CHECK(madvise(map.at, kPage, MADV_DONTNEED) == 0);
  CHECK(syscall(SYS_mlock2, map.at, kPage, MLOCK_ONFAULT) == 0);
  CHECK(ErrorOf(syscall(SYS_mlock2, map.at, kPage, 8)) == EINVAL);
  munmap(map.page(4), kPage);
  CHECK(ErrorOf(mlock(map.page(3), 3 * kPage)) == ENOMEM);
  CHECK(ErrorOf(mlockall(0)) == EINVAL);
  CHECK(ErrorOf(mlockall(MCL_ONFAULT)) == EINVAL);
  const int result = RunChild([&] {
    rlimit limit{4 * kPage, 4 * kPage};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 1;
    if (setresuid(65534, 65534, 65534) != 0) return 2;
    munlockall();
    if (mlock(map.at, 4 * kPage) != 0) return 3;
    Map more(2 * kPage);
    if (ErrorOf(mlock(more.at, kPage)) != ENOMEM) return 4;
    if (ErrorOf(mmap(nullptr, kPage, PROT_READ, kAnonymous | MAP_LOCKED, -1, 0)) != EAGAIN)
      return 5;
    if (ErrorOf(mlockall(MCL_CURRENT)) != ENOMEM) return 6;
    munlockall();
    limit = {0, 0};
    if (setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 7;
    if (ErrorOf(mlock(map.at, kPage)) != EPERM) return 8;
    return 0;
  });
  CHECK(result == 0);
}

TEST_CASE("mincore refuses, and tells untouched from touched", "[memory]") {
  Map map(64 * kPage);
  // Far from each other, for hosts that give huge pages.
  REQUIRE(madvise(map.at, map.size, MADV_NOHUGEPAGE) == 0);
  REQUIRE(madvise(map.at, map.size, MADV_DONTNEED) == 0);
  map[40 * kPage] = 1;
  unsigned char present[64];
  CHECK(ErrorOf(mincore(map.at + 1, kPage, present)) == EINVAL);
  CHECK(ErrorOf(mincore(map.at, 64 * kPage, nullptr)) == EFAULT);
  REQUIRE(mincore(map.at, 64 * kPage, present) == 0);
  CHECK((present[40] & 1) == 1);
  munmap(map.page(63), kPage);
  CHECK(ErrorOf(mincore(map.at, 64 * kPage, present)) == ENOMEM);
}

TEST_CASE("memory policy on one node", "[memory][numa]") {
  const auto get = [](int* mode, unsigned long* mask, unsigned long bits, void* at,
                      unsigned long flags) {
    return syscall(SYS_get_mempolicy, mode, mask, bits, at, flags);
  };
  int mode = -1;
  unsigned long mask[16] = {~0ul};
  REQUIRE(get(&mode, nullptr, 0, nullptr, 0) == 0);
  CHECK(mode == MPOL_DEFAULT);
  REQUIRE(get(nullptr, mask, 1024, nullptr, MPOL_F_MEMS_ALLOWED) == 0);
  CHECK((mask[0] & 1) == 1);
  CHECK(ErrorOf(get(&mode, nullptr, 0, nullptr, 64)) == EINVAL);
  CHECK(ErrorOf(get(&mode, nullptr, 0, &mode, 0)) == EINVAL);
  CHECK(ErrorOf(get(&mode, nullptr, 0, reinterpret_cast<void*>(0x1000), MPOL_F_ADDR)) == EFAULT);
  const auto set = [](int policy, const unsigned long* nodes, unsigned long bits) {
    return syscall(SYS_set_mempolicy, policy, nodes, bits);
  };
  const unsigned long node0 = 1, node5 = 32, none = 0;
  CHECK(set(MPOL_DEFAULT, nullptr, 0) == 0);
  CHECK(ErrorOf(set(MPOL_DEFAULT, &node0, 64)) == EINVAL);
  CHECK(ErrorOf(set(99, nullptr, 0)) == EINVAL);
  CHECK(ErrorOf(set(MPOL_BIND, &none, 64)) == EINVAL);
  CHECK(ErrorOf(set(MPOL_BIND, &node5, 64)) == EINVAL);
  CHECK(ErrorOf(set(MPOL_BIND, reinterpret_cast<unsigned long*>(8), 64)) == EFAULT);
  Map map(2 * kPage);
  CHECK(syscall(SYS_mbind, map.at, kPage, MPOL_BIND, &node0, 64, 0) == 0);
  CHECK(ErrorOf(syscall(SYS_mbind, map.at + 1, kPage, MPOL_BIND, &node0, 64, 0)) == EINVAL);
  CHECK(ErrorOf(syscall(SYS_mbind, map.at, kPage, MPOL_BIND, &node0, 64, 64)) == EINVAL);
  munmap(map.page(1), kPage);
  CHECK(ErrorOf(syscall(SYS_mbind, map.at, 2 * kPage, MPOL_BIND, &node0, 64, 0)) == EFAULT);
}

}  // namespace
