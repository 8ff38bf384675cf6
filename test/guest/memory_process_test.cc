// Memory between processes and threads: fork and copy on write, shared memory, stacks, other
// processes' memory, barriers, and the time that needs no system call.

#include <elf.h>
#include <linux/membarrier.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>

#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "test/guest/memory_support.h"

namespace {

using namespace guest;  // NOLINT

constexpr int kReadWrite = PROT_READ | PROT_WRITE;

TEST_CASE("after fork neither side sees the other's writes", "[memory][fork]") {
  Map map(64 * kPage);
  for (size_t page = 0; page < 64; page++) *map.page(page) = 1;
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    char byte;
    // After the parent has written.
    if (read(ends[0], &byte, 1) != 1) _exit(2);
    for (size_t page = 0; page < 64; page++) {
      if (*map.page(page) != 1) _exit(3);
      *map.page(page) = 3;
    }
    _exit(0);
  }
  for (size_t page = 0; page < 64; page += 2) *map.page(page) = 2;
  REQUIRE(write(ends[1], "x", 1) == 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  for (size_t page = 0; page < 64; page++) CHECK(*map.page(page) == (page % 2 == 0 ? 2 : 1));
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("what may only be written may be read on x86, also after fork", "[memory][fork]") {
  Map map(4 * kPage);
  std::memset(map.at, 7, 4 * kPage);
  char path[] = "/tmp/ravelin-write-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  unlink(path);
  REQUIRE(ftruncate(fd, kPage) == 0);
  void* file = mmap(nullptr, kPage, PROT_WRITE, MAP_PRIVATE, fd, 0);
  REQUIRE(file != MAP_FAILED);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    if (mprotect(map.at, 4 * kPage, PROT_WRITE) != 0) _exit(1);
    int sum = *static_cast<volatile char*>(static_cast<void*>(map.page(0)));
    *static_cast<volatile char*>(static_cast<void*>(map.page(1))) = 3;
    sum += *static_cast<volatile char*>(static_cast<void*>(map.page(1)));
    sum += *static_cast<volatile char*>(file);
    _exit(sum);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 10 << 8);
  munmap(file, kPage);
  close(fd);
}

TEST_CASE("generations of forks keep their bytes apart", "[memory][fork]") {
  Map map(16 * kPage);
  for (int generation = 1; generation <= 20; generation++) {
    map[3 * kPage] = static_cast<uint8_t>(generation);
    const int result = RunChild([&] {
      if (map[3 * kPage] != generation) return 1;
      map[3 * kPage] = 200;
      return RunChild([&] { return map[3 * kPage] == 200 && map[4 * kPage] == 0 ? 0 : 2; });
    });
    REQUIRE(result == 0);
    REQUIRE(map[3 * kPage] == generation);
  }
}

TEST_CASE("a fork while other threads write gives a whole copy", "[memory][fork][threads]") {
  Map map(32 * kPage);
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    uint64_t value = 0;
    while (!stop) {
      value++;
      for (size_t page = 0; page < 32; page++) {
        *reinterpret_cast<volatile uint64_t*>(map.page(page)) = value;
      }
    }
  });
  int bad = 0;
  for (int round = 0; round < 20; round++) {
    bad += RunChild([&] {
             // Written in order, so they never rise.
             uint64_t previous = ~uint64_t{0};
             for (size_t page = 0; page < 32; page++) {
               const uint64_t value = *reinterpret_cast<volatile uint64_t*>(map.page(page));
               if (value > previous) return 1;
               previous = value;
             }
             const uint64_t first = *reinterpret_cast<volatile uint64_t*>(map.page(0));
             return first - previous <= 1 ? 0 : 1;
           }) != 0;
  }
  stop = true;
  writer.join();
  CHECK(bad == 0);
}

TEST_CASE("shared anonymous memory is shared with children", "[memory][fork]") {
  Map map(4 * kPage, kReadWrite, MAP_SHARED | MAP_ANONYMOUS);
  CHECK(StoreFails(&map[2 * kPage + 1]) == 0);
  CHECK(map[2 * kPage + 1] == 1);
}

TEST_CASE("MADV_DONTFORK and MADV_WIPEONFORK", "[memory][fork]") {
  Map gone(kPage), wiped(kPage);
  gone[0] = wiped[0] = 5;
  REQUIRE(madvise(gone.at, kPage, MADV_DONTFORK) == 0);
  REQUIRE(madvise(wiped.at, kPage, MADV_WIPEONFORK) == 0);
  CHECK(LoadFails(gone.at) == -SIGSEGV);
  CHECK(RunChild([&] { return int{wiped[0]}; }) == 0);
  CHECK(wiped[0] == 5);
  REQUIRE(madvise(wiped.at, kPage, MADV_KEEPONFORK) == 0);
  CHECK(RunChild([&] { return int{wiped[0]}; }) == 5);
}

// Touches the stack down to `bytes` below.
__attribute__((noinline)) int UseStack(size_t bytes) {
  volatile char block[8192];
  block[0] = static_cast<char>(bytes);
  block[8191] = 1;
  if (bytes <= sizeof(block)) return block[0] & 0;
  return UseStack(bytes - sizeof(block)) + (block[8191] & 0);
}

TEST_CASE("the stack grows to its limit", "[memory][stack]") {
  CHECK(RunChild([] { return UseStack(size_t{6} << 20); }) == 0);
  CHECK(RunChild([] { return UseStack(size_t{64} << 20); }) == -SIGSEGV);
}

TEST_CASE("a MAP_GROWSDOWN area grows, for system calls too", "[memory][stack]") {
  Map room(2048 * kPage, PROT_NONE);
  uint8_t* top = room.page(2048);
  munmap(room.at, room.size);
  auto* area =
      static_cast<uint8_t*>(mmap(top - 2 * kPage, 2 * kPage, kReadWrite,
                                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED, -1, 0));
  REQUIRE(area == top - 2 * kPage);
  *(top - 3 * kPage) = 1;
  CHECK(*(top - 3 * kPage) == 1);
  const int zero = open("/dev/zero", O_RDONLY);
  CHECK(read(zero, top - 5 * kPage, 10) == 10);
  close(zero);
  munmap(top - 8 * kPage, 8 * kPage);
}

TEST_CASE("threads fault on the same fresh pages", "[memory][threads]") {
  Map map(256 * kPage);
  std::vector<std::thread> threads;
  for (int id = 0; id < 4; id++) {
    threads.emplace_back([&map, id] {
      for (size_t page = 0; page < 256; page++) map.page(page)[id] = static_cast<uint8_t>(id + 1);
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t page = 0; page < 256; page++) {
    for (int id = 0; id < 4; id++) REQUIRE(map.page(page)[id] == id + 1);
  }
}

TEST_CASE("munmap takes memory from running threads", "[memory][threads]") {
  const int result = RunChild([] {
    static std::atomic<uint8_t*> shared{nullptr};
    shared =
        static_cast<uint8_t*>(mmap(nullptr, kPage, kReadWrite, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    std::thread user([] {
      while (true) *static_cast<volatile uint8_t*>(shared.load()) = 1;
    });
    usleep(10'000);
    munmap(shared, kPage);
    usleep(1'000'000);
    _exit(0);
    return 0;
  });
  CHECK(result == -SIGSEGV);
}

TEST_CASE("process_vm_readv and process_vm_writev reach a child", "[memory]") {
  Map map(4 * kPage);
  std::memcpy(map.at + kPage - 3, "parent", 6);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const pid_t child = fork();
  if (child == 0) {
    std::memcpy(map.at + kPage - 3, "child!", 6);
    if (write(ends[1], "x", 1) != 1) _exit(1);
    while (*static_cast<volatile uint8_t*>(map.at) == 0) usleep(1000);
    _exit(map[1] == 'k' ? 0 : 2);
  }
  char byte;
  REQUIRE(read(ends[0], &byte, 1) == 1);
  char text[6] = {};
  iovec local{text, 6};
  iovec remote[2] = {{map.at + kPage - 3, 4}, {map.at + kPage + 1, 2}};
  CHECK(process_vm_readv(child, &local, 1, remote, 2, 0) == 6);
  CHECK(std::memcmp(text, "child!", 6) == 0);
  CHECK(ErrorOf(process_vm_readv(child, &local, 1, remote, 2, 1)) == EINVAL);
  iovec bad{reinterpret_cast<void*>(0x1000), 4};
  CHECK(ErrorOf(process_vm_readv(child, &local, 1, &bad, 1, 0)) == EFAULT);
  text[0] = 1;
  text[1] = 'k';
  iovec two{text + 1, 1};
  iovec second{map.at + 1, 1};
  CHECK(process_vm_writev(child, &two, 1, &second, 1, 0) == 1);
  iovec one{text, 1};
  iovec first{map.at, 1};
  CHECK(process_vm_writev(child, &one, 1, &first, 1, 0) == 1);
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
  CHECK(ErrorOf(process_vm_readv(child, &local, 1, remote, 2, 0)) == ESRCH);
  close(ends[0]);
  close(ends[1]);
}

TEST_CASE("membarrier orders memory between threads", "[memory][threads]") {
  const long commands = syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 0, 0);
  REQUIRE(commands > 0);
  REQUIRE((commands & MEMBARRIER_CMD_PRIVATE_EXPEDITED) != 0);
  CHECK(ErrorOf(syscall(SYS_membarrier, MEMBARRIER_CMD_QUERY, 1, 0)) == EINVAL);
  CHECK(ErrorOf(syscall(SYS_membarrier, 1 << 20, 0, 0)) == EINVAL);
  CHECK(RunChild([] {
          if (ErrorOf(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0)) != EPERM)
            return 1;
          return 0;
        }) == 0);
  REQUIRE(syscall(SYS_membarrier, MEMBARRIER_CMD_REGISTER_PRIVATE_EXPEDITED, 0, 0) == 0);
  // Dekker's: the fast side has no barrier of its own, the slow side has both.
  static std::atomic<int> fast, slow;
  static std::atomic<int> both;
  static std::atomic<int> round, arrived;
  std::thread other([] {
    for (int i = 1; i <= 300; i++) {
      while (round.load() != i) {
      }
      fast.store(1, std::memory_order_relaxed);
      asm volatile("" : : : "memory");
      if (slow.load(std::memory_order_relaxed) == 0) both++;
      arrived++;
    }
  });
  int seen_twice = 0;
  for (int i = 1; i <= 300; i++) {
    fast = slow = both = arrived = 0;
    round = i;
    slow.store(1, std::memory_order_relaxed);
    REQUIRE(syscall(SYS_membarrier, MEMBARRIER_CMD_PRIVATE_EXPEDITED, 0, 0) == 0);
    if (fast.load(std::memory_order_relaxed) == 0) both++;
    while (arrived.load() == 0) {
    }
    seen_twice += both.load() == 2;
  }
  other.join();
  CHECK(seen_twice == 0);
}

TEST_CASE("time from the vDSO and from the kernel never runs backwards", "[memory][vdso]") {
  const auto by_kernel = [](clockid_t clock) {
    timespec now{};
    REQUIRE(syscall(SYS_clock_gettime, clock, &now) == 0);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  };
  const auto by_library = [](clockid_t clock) {
    timespec now{};
    REQUIRE(clock_gettime(clock, &now) == 0);
    return int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
  };
  int64_t last = 0;
  for (int i = 0; i < 20000; i++) {
    const int64_t first = by_library(CLOCK_MONOTONIC);
    REQUIRE(first >= last);
    const int64_t second = by_kernel(CLOCK_MONOTONIC);
    REQUIRE(second >= first);
    last = second;
    if (i % 4000 == 0) usleep(100'000);
  }
  const int64_t realtime = by_library(CLOCK_REALTIME);
  CHECK(std::abs(by_kernel(CLOCK_REALTIME) - realtime) < 1'000'000'000);
  timeval day{};
  REQUIRE(gettimeofday(&day, nullptr) == 0);
  CHECK(std::abs(int64_t{day.tv_sec} - realtime / 1'000'000'000) <= 1);
  CHECK(std::abs(int64_t{time(nullptr)} - realtime / 1'000'000'000) <= 1);
  timespec resolution{};
  REQUIRE(clock_getres(CLOCK_MONOTONIC, &resolution) == 0);
  CHECK(resolution.tv_nsec == 1);
}

TEST_CASE("the auxiliary vector describes this program", "[memory][loader]") {
  const auto* header = reinterpret_cast<const Elf64_Ehdr*>(getauxval(AT_SYSINFO_EHDR));
  REQUIRE(header != nullptr);
  CHECK(std::memcmp(header->e_ident, ELFMAG, SELFMAG) == 0);
  CHECK(getauxval(AT_PAGESZ) == kPage);
  CHECK(getauxval(AT_CLKTCK) == 100);
  CHECK(getauxval(AT_PHENT) == sizeof(Elf64_Phdr));
  CHECK(getauxval(AT_UID) == getuid());
  CHECK(getauxval(AT_SECURE) == 0);
  CHECK(std::string(reinterpret_cast<const char*>(getauxval(AT_PLATFORM))) == "x86_64");
  CHECK(getauxval(AT_RANDOM) != 0);
  CHECK(getauxval(AT_MINSIGSTKSZ) >= 1024);
  const auto* segments = reinterpret_cast<const Elf64_Phdr*>(getauxval(AT_PHDR));
  bool load = false;
  for (size_t i = 0; i < getauxval(AT_PHNUM); i++) load |= segments[i].p_type == PT_LOAD;
  CHECK(load);
}

}  // namespace
