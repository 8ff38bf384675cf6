// poll(2), ppoll(2), select(2), pselect(2).

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {
using test::Child;
using test::Fd;
using test::PipeFds;
}  // namespace

TEST_CASE("poll looks at each descriptor by itself", "[poll]") {
  PipeFds ends;
  pollfd entries[] = {
      {ends.reader, POLLIN, 7}, {ends.writer, POLLOUT, 0}, {-5, POLLIN, 7}, {999, POLLIN, 0}};
  CHECK(poll(entries, 4, 0) == 2);
  CHECK(entries[0].revents == 0);
  CHECK(entries[1].revents == POLLOUT);
  CHECK(entries[2].revents == 0);
  CHECK(entries[3].revents == POLLNVAL);
}

TEST_CASE("regular files are always ready", "[poll]") {
  const Fd file(open("/proc/self/exe", O_RDONLY));
  pollfd entry{file, POLLIN | POLLOUT, 0};
  CHECK(poll(&entry, 1, -1) == 1);
  CHECK((entry.revents & POLLIN) != 0);
}

TEST_CASE("poll sleeps for its time-out, or until something happens", "[poll]") {
  PipeFds ends;
  pollfd entry{ends.reader, POLLIN, 0};
  int64_t before = test::NowMs();
  CHECK(poll(&entry, 1, 30) == 0);
  CHECK(test::NowMs() - before >= 29);
  CHECK(poll(nullptr, 0, 10) == 0);
  Child child([&] {
    test::SleepMs(40);
    return write(ends.writer, "x", 1) == 1 ? 0 : 1;
  });
  before = test::NowMs();
  CHECK(poll(&entry, 1, 5000) == 1);
  CHECK(entry.revents == POLLIN);
  CHECK(test::NowMs() - before < 4000);
  CHECK(child.Wait() == 0);
}

TEST_CASE("poll refuses too many entries and bad memory", "[poll]") {
  rlimit limit{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &limit) == 0);
  if (limit.rlim_cur < 100'000) {
    std::vector<pollfd> entries(limit.rlim_cur + 1, pollfd{-1, 0, 0});
    CHECK(poll(entries.data(), entries.size(), 0) == -1);
    CHECK(errno == EINVAL);
  }
  CHECK(poll(test::BadPointer<pollfd>(), 1, 0) == -1);
  CHECK(errno == EFAULT);
}

TEST_CASE("a signal with a handler ends poll with EINTR", "[poll]") {
  PipeFds ends;
  const test::CountSignals counter(SIGUSR1, SA_RESTART);
  const test::SignalSoon soon(SIGUSR1, 40);
  pollfd entry{ends.reader, POLLIN, 0};
  CHECK(poll(&entry, 1, 3000) == -1);
  CHECK(errno == EINTR);
}

TEST_CASE("a stop does not prolong poll", "[poll]") {
  Child child([] {
    const int64_t before = test::NowMs();
    if (poll(nullptr, 0, 300) != 0) return 1;
    const int64_t took = test::NowMs() - before;
    return took >= 299 && took < 2000 ? 0 : 2;
  });
  test::SleepMs(60);
  kill(child.pid(), SIGSTOP);
  test::SleepMs(60);
  kill(child.pid(), SIGCONT);
  CHECK(child.Wait() == 0);
}

TEST_CASE("ppoll lets a signal through and tells the time that is left", "[poll]") {
  const test::CountSignals counter(SIGUSR1);
  sigset_t blocked, old, none;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, &old);
  kill(getpid(), SIGUSR1);
  timespec timeout{5, 0};
  CHECK(syscall(SYS_ppoll, nullptr, 0, &timeout, &none, 8) == -1);
  CHECK(errno == EINTR);
  CHECK(test::g_signals == 1);
  CHECK(timeout.tv_sec >= 3);
  timeout = {0, 20'000'000};
  CHECK(syscall(SYS_ppoll, nullptr, 0, &timeout, nullptr, 8) == 0);
  CHECK(timeout.tv_sec == 0);
  CHECK(timeout.tv_nsec == 0);
  CHECK(syscall(SYS_ppoll, nullptr, 0, &timeout, &none, 7) == -1);
  CHECK(errno == EINVAL);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("select answers in its three sets", "[select]") {
  PipeFds ends;
  fd_set in, out, except;
  FD_ZERO(&in);
  FD_ZERO(&out);
  FD_ZERO(&except);
  FD_SET(ends.reader, &in);
  FD_SET(ends.writer, &out);
  FD_SET(ends.reader, &except);
  timeval timeout{};
  CHECK(select(FD_SETSIZE, &in, &out, &except, &timeout) == 1);
  CHECK(!FD_ISSET(ends.reader, &in));
  CHECK(FD_ISSET(ends.writer, &out));
  CHECK(!FD_ISSET(ends.reader, &except));
  CHECK(write(ends.writer, "x", 1) == 1);
  FD_SET(ends.reader, &in);
  CHECK(select(FD_SETSIZE, &in, &out, nullptr, nullptr) == 2);
  CHECK(FD_ISSET(ends.reader, &in));
  ends.writer.Reset();
  FD_ZERO(&in);
  FD_SET(ends.reader, &in);
  CHECK(select(ends.reader + 1, &in, nullptr, nullptr, nullptr) == 1);
}

TEST_CASE("select takes only the descriptors below its count", "[select]") {
  PipeFds ends;
  fd_set out;
  FD_ZERO(&out);
  FD_SET(ends.writer, &out);
  timeval timeout{};
  CHECK(select(ends.writer, nullptr, &out, nullptr, &timeout) == 0);
}

TEST_CASE("select tells what is left of its time-out", "[select]") {
  PipeFds ends;
  fd_set in;
  FD_ZERO(&in);
  FD_SET(ends.reader, &in);
  timeval timeout{0, 30'000};
  CHECK(select(ends.reader + 1, &in, nullptr, nullptr, &timeout) == 0);
  CHECK(timeout.tv_usec == 0);
  CHECK(write(ends.writer, "x", 1) == 1);
  FD_SET(ends.reader, &in);
  timeout = {5, 0};
  CHECK(select(ends.reader + 1, &in, nullptr, nullptr, &timeout) == 1);
  CHECK(timeout.tv_sec >= 3);
}

TEST_CASE("select refuses closed descriptors and odd arguments", "[select]") {
  int closed = 0;
  {
    const Fd file(dup(0));
    closed = file;
  }
  fd_set in;
  FD_ZERO(&in);
  FD_SET(closed, &in);
  timeval timeout{};
  CHECK(select(closed + 1, &in, nullptr, nullptr, &timeout) == -1);
  CHECK(errno == EBADF);
  CHECK(select(-1, &in, nullptr, nullptr, &timeout) == -1);
  CHECK(errno == EINVAL);
  timeout = {-1, 0};
  CHECK(select(0, nullptr, nullptr, nullptr, &timeout) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("pselect lets a signal through for its duration", "[select]") {
  const test::CountSignals counter(SIGUSR1);
  sigset_t blocked, old, none;
  sigemptyset(&none);
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, &old);
  const test::SignalSoon soon(SIGUSR1, 40);
  const timespec timeout{3, 0};
  CHECK(pselect(0, nullptr, nullptr, nullptr, &timeout, &none) == -1);
  CHECK(errno == EINTR);
  CHECK(test::g_signals == 1);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}
