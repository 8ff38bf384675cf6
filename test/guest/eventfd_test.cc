// eventfd(2), timerfd_create(2), signalfd(2).

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Child;
using test::Fd;

short Ready(int fd) {
  pollfd entry{fd, POLLIN | POLLOUT, 0};
  poll(&entry, 1, 0);
  return entry.revents;
}
bool Put(int fd, uint64_t value) { return write(fd, &value, 8) == 8; }
// The value, or minus errno.
int64_t Get(int fd) {
  uint64_t value = 0;
  if (read(fd, &value, 8) != 8) return -errno;
  return static_cast<int64_t>(value);
}
itimerspec InMs(int64_t value, int64_t interval = 0) {
  return {{interval / 1000, interval % 1000 * 1'000'000}, {value / 1000, value % 1000 * 1'000'000}};
}

class BlockSignals {
 public:
  explicit BlockSignals(std::initializer_list<int> signals) {
    sigemptyset(&set);
    for (const int signal : signals) sigaddset(&set, signal);
    sigprocmask(SIG_BLOCK, &set, &old_);
  }
  ~BlockSignals() {
    const timespec none{};
    while (sigtimedwait(&set, nullptr, &none) > 0) {
    }
    sigprocmask(SIG_SETMASK, &old_, nullptr);
  }
  BlockSignals(const BlockSignals&) = delete;
  BlockSignals& operator=(const BlockSignals&) = delete;
  sigset_t set;

 private:
  sigset_t old_;
};

}  // namespace

TEST_CASE("an eventfd adds up and is emptied by a read", "[eventfd]") {
  const Fd event(eventfd(3, EFD_NONBLOCK));
  CHECK(Ready(event) == (POLLIN | POLLOUT));
  CHECK(Put(event, 4));
  CHECK(Get(event) == 7);
  CHECK(Get(event) == -EAGAIN);
  CHECK(Ready(event) == POLLOUT);
}

TEST_CASE("a semaphore eventfd counts down", "[eventfd]") {
  const Fd event(eventfd(2, EFD_NONBLOCK | EFD_SEMAPHORE));
  CHECK(Get(event) == 1);
  CHECK(Get(event) == 1);
  CHECK(Get(event) == -EAGAIN);
}

TEST_CASE("an eventfd does not overflow", "[eventfd]") {
  const Fd event(eventfd(0, EFD_NONBLOCK));
  CHECK(!Put(event, ~uint64_t{0}));
  CHECK(errno == EINVAL);
  CHECK(Put(event, ~uint64_t{0} - 1));
  CHECK(Ready(event) == POLLIN);
  CHECK(!Put(event, 1));
  CHECK(errno == EAGAIN);
  CHECK(Put(event, 0));
}

TEST_CASE("an eventfd wants eight bytes and known flags", "[eventfd]") {
  const Fd event(eventfd(1, 0));
  uint32_t small = 0;
  CHECK(read(event, &small, 4) == -1);
  CHECK(errno == EINVAL);
  CHECK(write(event, &small, 4) == -1);
  CHECK(errno == EINVAL);
  CHECK(eventfd(0, O_APPEND) == -1);
  CHECK(errno == EINVAL);
  CHECK(write(event, test::BadPointer<char>(), 8) == -1);
  CHECK(errno == EFAULT);
  CHECK(lseek(event, 0, SEEK_SET) <= 0);
}

TEST_CASE("an eventfd wakes another process", "[eventfd]") {
  const Fd event(eventfd(0, 0));
  Child child([&] {
    test::SleepMs(40);
    return Put(event, 9) ? 0 : 1;
  });
  CHECK(Get(event) == 9);
  CHECK(child.Wait() == 0);
}

TEST_CASE("anonymous files say what they are", "[eventfd][proc]") {
  const Fd event(eventfd(0, 0));
  std::array<char, 64> link{};
  const std::string name = "/proc/self/fd/" + std::to_string(static_cast<int>(event));
  REQUIRE(readlink(name.c_str(), link.data(), link.size() - 1) > 0);
  CHECK(std::string(link.data()) == "anon_inode:[eventfd]");
  struct stat status{};
  CHECK(fstat(event, &status) == 0);
  CHECK((status.st_mode & 0777) == 0600);
  CHECK(fcntl(event, F_GETFL) == O_RDWR);
}

TEST_CASE("a timerfd expires once", "[timerfd]") {
  const int clock = GENERATE(CLOCK_MONOTONIC, CLOCK_REALTIME, CLOCK_BOOTTIME);
  const Fd timer(timerfd_create(clock, 0));
  REQUIRE(timer >= 0);
  const itimerspec setting = InMs(20);
  const int64_t before = test::NowMs();
  REQUIRE(timerfd_settime(timer, 0, &setting, nullptr) == 0);
  CHECK(Ready(timer) == 0);
  CHECK(Get(timer) == 1);
  CHECK(test::NowMs() - before >= 19);
  CHECK(Ready(timer) == 0);
  itimerspec current{};
  CHECK(timerfd_gettime(timer, &current) == 0);
  CHECK(current.it_value.tv_nsec == 0);
}

TEST_CASE("a timerfd counts the expirations nobody read", "[timerfd]") {
  const Fd timer(timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK));
  const itimerspec setting = InMs(5, 5);
  REQUIRE(timerfd_settime(timer, 0, &setting, nullptr) == 0);
  test::SleepMs(104);
  CHECK(Ready(timer) == POLLIN);
  const int64_t count = Get(timer);
  CHECK(count >= 15);
  CHECK(count <= 100);
  itimerspec current{};
  CHECK(timerfd_gettime(timer, &current) == 0);
  CHECK(current.it_interval.tv_nsec == 5'000'000);
  CHECK(current.it_value.tv_nsec <= 5'000'000);
  CHECK(current.it_value.tv_nsec > 0);
  const itimerspec off = InMs(0);
  itimerspec old{};
  CHECK(timerfd_settime(timer, 0, &off, &old) == 0);
  CHECK(old.it_interval.tv_nsec == 5'000'000);
  test::SleepMs(20);
  CHECK(Get(timer) == -EAGAIN);
}

TEST_CASE("a timerfd takes absolute times, also past ones", "[timerfd]") {
  const Fd timer(timerfd_create(CLOCK_REALTIME, 0));
  itimerspec setting{};
  clock_gettime(CLOCK_REALTIME, &setting.it_value);
  setting.it_value.tv_sec -= 10;
  setting.it_interval.tv_sec = 1;
  REQUIRE(timerfd_settime(timer, TFD_TIMER_ABSTIME | TFD_TIMER_CANCEL_ON_SET, &setting, nullptr) ==
          0);
  const int64_t count = Get(timer);
  CHECK(count >= 10);
  CHECK(count <= 12);
}

TEST_CASE("timerfd calls refuse what they must", "[timerfd]") {
  CHECK(timerfd_create(CLOCK_PROCESS_CPUTIME_ID, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(timerfd_create(CLOCK_MONOTONIC, O_APPEND) == -1);
  CHECK(errno == EINVAL);
  const Fd timer(timerfd_create(CLOCK_MONOTONIC, 0));
  itimerspec setting{};
  setting.it_value.tv_nsec = 1'000'000'000;
  CHECK(timerfd_settime(timer, 0, &setting, nullptr) == -1);
  CHECK(errno == EINVAL);
  CHECK(timerfd_settime(timer, 8, &setting, nullptr) == -1);
  CHECK(errno == EINVAL);
  const Fd event(eventfd(0, 0));
  CHECK(timerfd_gettime(event, &setting) == -1);
  CHECK(errno == EINVAL);
  CHECK(timerfd_gettime(-1, &setting) == -1);
  CHECK(errno == EBADF);
  uint32_t small = 0;
  CHECK(read(timer, &small, 4) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a signalfd gives blocked signals as records", "[signalfd]") {
  const BlockSignals blocked{SIGUSR1, SIGRTMIN};
  const Fd signals(signalfd(-1, &blocked.set, SFD_NONBLOCK));
  REQUIRE(signals >= 0);
  std::array<signalfd_siginfo, 4> records{};
  CHECK(read(signals, records.data(), sizeof(records)) == -1);
  CHECK(errno == EAGAIN);
  CHECK(Ready(signals) == 0);
  kill(getpid(), SIGUSR1);
  sigval value{};
  value.sival_int = 55;
  sigqueue(getpid(), SIGRTMIN, value);
  CHECK(Ready(signals) == POLLIN);
  REQUIRE(read(signals, records.data(), sizeof(records)) == 2 * sizeof(records[0]));
  CHECK(records[0].ssi_signo == SIGUSR1);
  CHECK(records[0].ssi_pid == static_cast<uint32_t>(getpid()));
  CHECK(records[0].ssi_uid == getuid());
  CHECK(records[0].ssi_code == SI_USER);
  CHECK(records[1].ssi_signo == static_cast<uint32_t>(SIGRTMIN));
  CHECK(records[1].ssi_code == SI_QUEUE);
  CHECK(records[1].ssi_int == 55);
  CHECK(read(signals, records.data(), 127) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("the mask of a signalfd can be changed", "[signalfd]") {
  const BlockSignals blocked{SIGUSR1, SIGUSR2};
  sigset_t only_two;
  sigemptyset(&only_two);
  sigaddset(&only_two, SIGUSR2);
  const Fd signals(signalfd(-1, &only_two, SFD_NONBLOCK));
  kill(getpid(), SIGUSR1);
  CHECK(Ready(signals) == 0);
  CHECK(signalfd(signals, &blocked.set, 0) == signals);
  CHECK(Ready(signals) == POLLIN);
  const Fd event(eventfd(0, 0));
  CHECK(signalfd(event, &only_two, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_signalfd4, -1, &only_two, 7, 0) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a read of a signalfd sleeps until a signal comes", "[signalfd]") {
  const BlockSignals blocked{SIGUSR1};
  const Fd signals(signalfd(-1, &blocked.set, 0));
  const test::SignalSoon soon(SIGUSR1, 50);
  signalfd_siginfo record{};
  CHECK(read(signals, &record, sizeof(record)) == sizeof(record));
  CHECK(record.ssi_signo == SIGUSR1);
}

TEST_CASE("a signalfd shows each process its own signals", "[signalfd]") {
  const BlockSignals blocked{SIGUSR1};
  const Fd signals(signalfd(-1, &blocked.set, SFD_NONBLOCK));
  kill(getpid(), SIGUSR1);
  Child child([&] {
    if (Ready(signals) != 0) return 1;
    kill(getpid(), SIGUSR1);
    signalfd_siginfo record{};
    if (read(signals, &record, sizeof(record)) != sizeof(record)) return 2;
    return record.ssi_pid == static_cast<uint32_t>(getpid()) ? 0 : 3;
  });
  CHECK(child.Wait() == 0);
  CHECK(Ready(signals) == POLLIN);
}
