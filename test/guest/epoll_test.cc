// epoll(7).

#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <cstdint>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "test/guest/events_support.h"

namespace {

using test::Child;
using test::Fd;
using test::PipeFds;

int Ctl(int epoll, int operation, int fd, uint32_t events, uint64_t data = 0) {
  epoll_event event{};
  event.events = events;
  event.data.u64 = data;
  return epoll_ctl(epoll, operation, fd, &event);
}
std::vector<epoll_event> Wait(int epoll, int timeout_ms = 0, int count = 16) {
  std::vector<epoll_event> events(static_cast<size_t>(count));
  const int ready = epoll_wait(epoll, events.data(), count, timeout_ms);
  events.resize(ready > 0 ? static_cast<size_t>(ready) : 0);
  return events;
}
void Put(int fd) { REQUIRE(write(fd, "x", 1) == 1); }
void Take(int fd) {
  char byte = 0;
  REQUIRE(read(fd, &byte, 1) == 1);
}

}  // namespace

TEST_CASE("level triggered events come as long as there is something", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends(O_NONBLOCK);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN, 77) == 0);
  CHECK(Wait(epoll).empty());
  Put(ends.writer);
  for (int i = 0; i < 3; ++i) {
    const auto events = Wait(epoll);
    REQUIRE(events.size() == 1);
    CHECK(events[0].events == EPOLLIN);
    CHECK(events[0].data.u64 == 77);
  }
  Take(ends.reader);
  CHECK(Wait(epoll).empty());
}

TEST_CASE("edge triggered events come once for each change", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends(O_NONBLOCK);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN | EPOLLET) == 0);
  Put(ends.writer);
  CHECK(Wait(epoll).size() == 1);
  CHECK(Wait(epoll).empty());
  Put(ends.writer);
  CHECK(Wait(epoll).size() == 1);
  CHECK(Wait(epoll).empty());
  // Setting it again asks again.
  CHECK(Ctl(epoll, EPOLL_CTL_MOD, ends.reader, EPOLLIN | EPOLLET) == 0);
  CHECK(Wait(epoll).size() == 1);
}

TEST_CASE("a one-shot entry sleeps until it is set again", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends(O_NONBLOCK);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN | EPOLLONESHOT) == 0);
  Put(ends.writer);
  CHECK(Wait(epoll).size() == 1);
  Put(ends.writer);
  CHECK(Wait(epoll).empty());
  REQUIRE(Ctl(epoll, EPOLL_CTL_MOD, ends.reader, EPOLLIN | EPOLLONESHOT) == 0);
  CHECK(Wait(epoll).size() == 1);
}

TEST_CASE("hang-ups come unasked", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends;
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, 0) == 0);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.writer, EPOLLET) == 0);
  CHECK(Wait(epoll).empty());
  ends.writer.Reset();
  const auto events = Wait(epoll);
  REQUIRE(events.size() == 1);
  CHECK(events[0].events == EPOLLHUP);
}

TEST_CASE("epoll_ctl refuses what it must", "[epoll]") {
  const Fd epoll(epoll_create1(EPOLL_CLOEXEC));
  PipeFds ends;
  CHECK(Ctl(epoll, EPOLL_CTL_MOD, ends.reader, EPOLLIN) == -1);
  CHECK(errno == ENOENT);
  CHECK(Ctl(epoll, EPOLL_CTL_DEL, ends.reader, EPOLLIN) == -1);
  CHECK(errno == ENOENT);
  CHECK(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN) == 0);
  CHECK(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN) == -1);
  CHECK(errno == EEXIST);
  CHECK(Ctl(epoll, EPOLL_CTL_ADD, epoll, EPOLLIN) == -1);
  CHECK(errno == EINVAL);
  CHECK(Ctl(ends.reader, EPOLL_CTL_ADD, ends.writer, EPOLLIN) == -1);
  CHECK(errno == EINVAL);
  CHECK(Ctl(epoll, EPOLL_CTL_ADD, 999, EPOLLIN) == -1);
  CHECK(errno == EBADF);
  CHECK(Ctl(999, EPOLL_CTL_ADD, ends.writer, EPOLLIN) == -1);
  CHECK(errno == EBADF);
  CHECK(Ctl(epoll, 9, ends.reader, EPOLLIN) == -1);
  CHECK(errno == EINVAL);
  CHECK(epoll_ctl(epoll, EPOLL_CTL_ADD, ends.writer, nullptr) == -1);
  CHECK(errno == EFAULT);
  const Fd directory(open("/tmp", O_RDONLY));
  CHECK(Ctl(epoll, EPOLL_CTL_ADD, directory, EPOLLIN) == -1);
  CHECK(errno == EPERM);
  CHECK(epoll_create(0) == -1);
  CHECK(errno == EINVAL);
  CHECK(epoll_create1(1) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("epoll_wait refuses what it must", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends;
  std::array<epoll_event, 2> events{};
  CHECK(epoll_wait(epoll, events.data(), 0, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(epoll_wait(ends.reader, events.data(), 1, 0) == -1);
  CHECK(errno == EINVAL);
  CHECK(epoll_wait(-1, events.data(), 1, 0) == -1);
  CHECK(errno == EBADF);
  Put(ends.writer);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN | EPOLLET) == 0);
  CHECK(epoll_wait(epoll, test::BadPointer<epoll_event>(), 1, 0) == -1);
  CHECK(errno == EFAULT);
  CHECK(Wait(epoll).size() == 1);
}

TEST_CASE("the time-out of epoll_wait is kept", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  const int64_t before = test::NowMs();
  CHECK(Wait(epoll, 30).empty());
  CHECK(test::NowMs() - before >= 29);
  epoll_event event{};
  const timespec time{0, 20'000'000};
  CHECK(syscall(441, epoll.operator int(), &event, 1, &time, nullptr, 0) == 0);
}

TEST_CASE("a signal ends epoll_wait, whatever its handler says", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  const test::CountSignals counter(SIGUSR1, SA_RESTART);
  const test::SignalSoon soon(SIGUSR1, 40);
  epoll_event event{};
  CHECK(epoll_wait(epoll, &event, 1, 3000) == -1);
  CHECK(errno == EINTR);
  CHECK(test::g_signals == 1);
}

TEST_CASE("epoll_pwait lets a signal through for the wait only", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  const test::CountSignals counter(SIGUSR1);
  sigset_t blocked, old, none;
  sigemptyset(&blocked);
  sigemptyset(&none);
  sigaddset(&blocked, SIGUSR1);
  sigprocmask(SIG_BLOCK, &blocked, &old);
  kill(getpid(), SIGUSR1);
  CHECK(test::g_signals == 0);
  epoll_event event{};
  CHECK(epoll_pwait(epoll, &event, 1, 3000, &none) == -1);
  CHECK(errno == EINTR);
  CHECK(test::g_signals == 1);
  sigset_t current;
  sigprocmask(SIG_SETMASK, nullptr, &current);
  CHECK(sigismember(&current, SIGUSR1) == 1);
  sigprocmask(SIG_SETMASK, &old, nullptr);
}

TEST_CASE("a closed file leaves the set, a duplicate keeps it", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends;
  Put(ends.writer);
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN) == 0);
  Fd copy(dup(ends.reader));
  ends.reader.Reset();
  CHECK(Wait(epoll).size() == 1);
  copy.Reset();
  CHECK(Wait(epoll).empty());
}

TEST_CASE("every ready entry has its turn", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  std::vector<PipeFds> pipes(8);
  for (size_t i = 0; i < pipes.size(); ++i) {
    REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, pipes[i].reader, EPOLLIN, i) == 0);
    Put(pipes[i].writer);
  }
  uint64_t seen = 0;
  for (int i = 0; i < 4; ++i) {
    const auto events = Wait(epoll, 0, 2);
    REQUIRE(events.size() == 2);
    for (const epoll_event& event : events) seen |= uint64_t{1} << event.data.u64;
  }
  CHECK(seen == 0xff);
}

TEST_CASE("sets nest, but not too deep and not in circles", "[epoll]") {
  PipeFds ends;
  std::vector<Fd> chain;
  for (int i = 0; i < 6; ++i) chain.emplace_back(epoll_create1(0));
  REQUIRE(Ctl(chain[0], EPOLL_CTL_ADD, ends.reader, EPOLLIN) == 0);
  for (size_t i = 1; i < 5; ++i) REQUIRE(Ctl(chain[i], EPOLL_CTL_ADD, chain[i - 1], EPOLLIN) == 0);
  CHECK(Ctl(chain[5], EPOLL_CTL_ADD, chain[4], EPOLLIN) == -1);
  CHECK((errno == ELOOP || errno == EINVAL));
  CHECK(Ctl(chain[0], EPOLL_CTL_ADD, chain[3], EPOLLIN) == -1);
  CHECK(errno == ELOOP);
  CHECK(Wait(chain[4]).empty());
  Put(ends.writer);
  CHECK(Wait(chain[4], 1000).size() == 1);
  pollfd entry{chain[2], POLLIN, 0};
  CHECK(poll(&entry, 1, 0) == 1);
  Take(ends.reader);
  CHECK(Wait(chain[4]).empty());
  CHECK(poll(&entry, 1, 0) == 0);
}

TEST_CASE("nested sets can be turned round", "[epoll]") {
  const Fd a(epoll_create1(0)), b(epoll_create1(0));
  for (int i = 0; i < 3; ++i) {
    REQUIRE(Ctl(a, EPOLL_CTL_ADD, b, EPOLLIN) == 0);
    CHECK(Ctl(a, EPOLL_CTL_DEL, b, 0) == 0);
    REQUIRE(Ctl(b, EPOLL_CTL_ADD, a, EPOLLIN) == 0);
    CHECK(Ctl(b, EPOLL_CTL_DEL, a, 0) == 0);
  }
}

TEST_CASE("exclusive entries wake one set of several", "[epoll]") {
  const Fd event(eventfd(0, EFD_NONBLOCK | EFD_SEMAPHORE));
  constexpr int kThreads = 4;
  std::atomic<int> woken{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kThreads; ++i) {
    threads.emplace_back([&] {
      const Fd epoll(epoll_create1(0));
      if (Ctl(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET) != 0) return;
      if (!Wait(epoll, 400).empty()) ++woken;
    });
  }
  test::SleepMs(150);
  const uint64_t one = 1;
  CHECK(write(event, &one, 8) == 8);
  for (std::thread& thread : threads) thread.join();
  CHECK(woken >= 1);
  CHECK(woken < kThreads);
  const Fd epoll(epoll_create1(0));
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLEXCLUSIVE) == 0);
  CHECK(Ctl(epoll, EPOLL_CTL_MOD, event, EPOLLIN | EPOLLEXCLUSIVE) == -1);
  CHECK(errno == EINVAL);
  CHECK(Ctl(epoll, EPOLL_CTL_MOD, event, EPOLLIN) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a write wakes a thread in epoll_wait", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  PipeFds ends;
  REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, ends.reader, EPOLLIN) == 0);
  std::thread writer([&] {
    test::SleepMs(50);
    (void)!write(ends.writer, "x", 1);
  });
  CHECK(Wait(epoll, 3000).size() == 1);
  writer.join();
}

TEST_CASE("many idle descriptors cost a wait nothing", "[epoll]") {
  const Fd epoll(epoll_create1(0));
  std::vector<Fd> idle;
  for (int i = 0; i < 800; ++i) {
    idle.emplace_back(eventfd(0, 0));
    if (idle.back() < 0) break;
    REQUIRE(Ctl(epoll, EPOLL_CTL_ADD, idle.back(), EPOLLIN) == 0);
  }
  const uint64_t one = 1;
  REQUIRE(write(idle[400], &one, 8) == 8);
  CHECK(Wait(epoll, 0, 64).size() == 1);
}
