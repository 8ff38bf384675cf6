// eventfd, timerfd, signalfd, epoll, poll and select through the dispatcher.

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>

#include <array>
#include <cerrno>
#include <cstdint>

#include "catch2/catch.hpp"
#include "sentry/fs/anon/epoll.h"
#include "sentry/fs/anon/eventfd.h"
#include "sentry/kernel/task.h"
#include "syscalls/abi/epoll.h"
#include "syscalls/abi/poll.h"
#include "syscalls/abi/time.h"
#include "test/support/test_task.h"

namespace {

using syscalls::abi::EpollEvent;
using syscalls::abi::Itimerspec;
using syscalls::abi::Pollfd;
using syscalls::abi::Timespec;
using test::TestTask;

constexpr uint64_t kPage = TestTask::kPage;
constexpr uint64_t kPageEnd = TestTask::kPageEnd;

int64_t Eventfd(TestTask& task, uint32_t value, int flags = EFD_NONBLOCK) {
  const int64_t fd = task.Call(SYS_eventfd2, value, flags);
  REQUIRE(fd >= 0);
  return fd;
}
void Signal(TestTask& task, int64_t fd, uint64_t value = 1) {
  const auto file = task.fds().Get(static_cast<int32_t>(fd)).value();
  sentry::IoBuffer from(std::span<const std::byte>(std::as_bytes(std::span(&value, 1))));
  REQUIRE(file->Write(task.task(), from, nullptr).ok());
}
int64_t Ctl(TestTask& task, int64_t epoll, int operation, int64_t fd, uint32_t events,
            uint64_t data = 0) {
  task.Poke(kPage, EpollEvent{events, data});
  return task.Call(SYS_epoll_ctl, epoll, operation, fd, kPage);
}

TEST_CASE("flags that are not known are refused by all that make descriptors", "[syscalls][anon]") {
  TestTask task;
  CHECK(task.Call(SYS_eventfd2, 0, O_APPEND) == -EINVAL);
  CHECK(task.Call(SYS_timerfd_create, CLOCK_MONOTONIC, O_APPEND) == -EINVAL);
  CHECK(task.Call(SYS_epoll_create1, O_NONBLOCK) == -EINVAL);
  CHECK(task.Call(SYS_epoll_create, 0) == -EINVAL);
  CHECK(task.Call(SYS_inotify_init1, O_APPEND) == -EINVAL);
  task.Poke(kPage, uint64_t{0});
  CHECK(task.Call(SYS_signalfd4, -1, kPage, 8, O_APPEND) == -EINVAL);
  CHECK(task.Call(SYS_signalfd4, -1, kPage, 4, 0) == -EINVAL);
  CHECK(task.Call(SYS_signalfd4, -1, kPageEnd - 7, 8, 0) == -EFAULT);
  CHECK(task.Call(SYS_memfd_create, task.PokeString(kPage, "x"), 0x4000) == -EINVAL);
  CHECK(task.fds().Numbers().empty());
}

TEST_CASE("the largest value of an eventfd blocks writers, not readers", "[syscalls][anon]") {
  TestTask task;
  const int64_t fd = Eventfd(task, 0);
  const auto file = std::dynamic_pointer_cast<sentry::EventFile>(
      task.fds().Get(static_cast<int32_t>(fd)).value());
  Signal(task, fd, sentry::EventFile::kCountMax);
  CHECK(file->Poll(~0U) == sentry::kPollReadable);
  file->Signal(5);
  CHECK((file->Poll(~0U) & POLLERR) != 0);
}

TEST_CASE("epoll_wait reports and faults without losing an edge", "[syscalls][epoll][efault]") {
  TestTask task;
  const int64_t epoll = task.Call(SYS_epoll_create1, 0);
  const int64_t event = Eventfd(task, 1);
  REQUIRE(Ctl(task, epoll, EPOLL_CTL_ADD, event, EPOLLIN | EPOLLET | EPOLLONESHOT, 99) == 0);
  for (uint64_t short_by = 1; short_by <= sizeof(EpollEvent); ++short_by) {
    CHECK(task.Call(SYS_epoll_wait, epoll, kPageEnd - sizeof(EpollEvent) + short_by, 1, 0) ==
          -EFAULT);
  }
  REQUIRE(task.Call(SYS_epoll_wait, epoll, kPageEnd - sizeof(EpollEvent), 1, 0) == 1);
  const auto got = task.Peek<EpollEvent>(kPageEnd - sizeof(EpollEvent));
  CHECK(got.events == EPOLLIN);
  CHECK(got.data == 99);
  Signal(task, event);
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, 1, 0) == 0);
}

TEST_CASE("epoll_wait takes counts from one to what fits an int", "[syscalls][epoll][limits]") {
  TestTask task;
  const int64_t epoll = task.Call(SYS_epoll_create1, 0);
  constexpr int32_t kMax = INT32_MAX / 12;
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, 0, 0) == -EINVAL);
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, -1, 0) == -EINVAL);
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, kMax + 1, 0) == -EINVAL);
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, kMax, 0) == 0);
}

TEST_CASE("an interrupted epoll_wait is never restarted, poll is", "[syscalls][epoll][poll]") {
  TestTask task;
  const int64_t epoll = task.Call(SYS_epoll_create1, 0);
  REQUIRE(task.task().SendSignal(sentry::SignalInfo::FromUser(SIGUSR1, 1, 0)).ok());
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, 1, -1) == -EINTR);
  CHECK(task.Call(SYS_poll, 0, 0, -1) == -base::kRestartBlock.value());
  CHECK(task.Call(SYS_select, 0, 0, 0, 0, 0) == -base::kRestartNoHand.value());
}

TEST_CASE("entries of files that were closed disappear", "[syscalls][epoll]") {
  TestTask task;
  const int64_t epoll = task.Call(SYS_epoll_create1, 0);
  for (int round = 0; round < 300; ++round) {
    const int64_t event = Eventfd(task, 1);
    REQUIRE(Ctl(task, epoll, EPOLL_CTL_ADD, event, EPOLLIN) == 0);
    REQUIRE(task.fds().Close(task.task(), static_cast<int32_t>(event)).ok());
  }
  CHECK(task.Call(SYS_epoll_wait, epoll, kPage, 16, 0) == 0);
  const auto file = std::dynamic_pointer_cast<sentry::EpollFile>(
      task.fds().Get(static_cast<int32_t>(epoll)).value());
  CHECK(file->FdInfo().empty());
  CHECK(file->Poll(~0U) == 0);
}

TEST_CASE("a set that goes while it is watched leaves the outer one in peace",
          "[syscalls][epoll]") {
  TestTask task;
  const int64_t outer = task.Call(SYS_epoll_create1, 0);
  const int64_t event = Eventfd(task, 0);
  for (int round = 0; round < 8; ++round) {
    const int64_t inner = task.Call(SYS_epoll_create1, 0);
    REQUIRE(Ctl(task, inner, EPOLL_CTL_ADD, event, EPOLLIN) == 0);
    REQUIRE(Ctl(task, outer, EPOLL_CTL_ADD, inner, EPOLLIN) == 0);
    Signal(task, event);
    CHECK(task.Call(SYS_epoll_wait, outer, kPage, 1, 0) == 1);
    REQUIRE(task.fds().Close(task.task(), static_cast<int32_t>(inner)).ok());
    CHECK(task.Call(SYS_epoll_wait, outer, kPage, 1, 0) == 0);
  }
}

TEST_CASE("poll writes what has changed, at most as many entries as descriptors",
          "[syscalls][poll][limits]") {
  TestTask task;
  const int64_t event = Eventfd(task, 1);
  task.Poke(kPage, std::array<Pollfd, 3>{
                       {{static_cast<int32_t>(event), POLLIN, 0}, {-1, POLLIN, 9}, {77, 0, 0}}});
  CHECK(task.Call(SYS_poll, kPage, 3, 0) == 2);
  const auto entries = task.Peek<std::array<Pollfd, 3>>(kPage);
  CHECK(entries[0].revents == POLLIN);
  CHECK(entries[1].revents == 0);
  CHECK(entries[2].revents == POLLNVAL);
  CHECK(task.Call(SYS_poll, kPage, task.task().fd_limit() + 1, 0) == -EINVAL);
  CHECK(task.Call(SYS_poll, kPageEnd - 7, 1, 0) == -EFAULT);
  CHECK(task.Call(SYS_poll, 0, 0, 0) == 0);
}

TEST_CASE("select refuses a closed descriptor and faults in each set",
          "[syscalls][select][efault]") {
  TestTask task;
  const int64_t event = Eventfd(task, 1);
  task.Poke(kPage, (uint64_t{1} << event) | (uint64_t{1} << 20));
  task.Poke(kPage + 8, std::array<uint64_t, 2>{0, 0});
  CHECK(task.Call(SYS_select, 64, kPage, 0, 0, kPage + 8) == -EBADF);
  CHECK(task.Call(SYS_select, 20, kPage, 0, 0, kPage + 8) == 1);
  CHECK(task.Peek<uint64_t>(kPage) == uint64_t{1} << event);
  CHECK(task.Call(SYS_select, 64, kPageEnd - 7, 0, 0, kPage + 8) == -EFAULT);
  CHECK(task.Call(SYS_select, 64, 0, kPageEnd - 7, 0, kPage + 8) == -EFAULT);
  CHECK(task.Call(SYS_select, 64, 0, 0, kPageEnd - 7, kPage + 8) == -EFAULT);
  CHECK(task.Call(SYS_select, -1, 0, 0, 0, kPage + 8) == -EINVAL);
}

TEST_CASE("a timerfd expires, and faults at every byte", "[syscalls][timerfd][efault]") {
  TestTask task;
  const int64_t fd = task.Call(SYS_timerfd_create, CLOCK_MONOTONIC, TFD_NONBLOCK);
  REQUIRE(fd >= 0);
  for (uint64_t short_by = 1; short_by <= sizeof(Itimerspec); ++short_by) {
    const uint64_t address = kPageEnd - sizeof(Itimerspec) + short_by;
    CHECK(task.Call(SYS_timerfd_settime, fd, 0, address, 0) == -EFAULT);
    CHECK(task.Call(SYS_timerfd_gettime, fd, address) == -EFAULT);
  }
  task.Poke(kPage, Itimerspec{{0, 0}, {100, 5}});
  CHECK(task.Call(SYS_timerfd_settime, fd, 0, kPage, 0) == 0);
  CHECK(task.Call(SYS_timerfd_gettime, fd, kPage) == 0);
  CHECK(task.Peek<Itimerspec>(kPage).it_value.tv_sec >= 99);
  CHECK(task.Call(SYS_timerfd_gettime, task.Call(SYS_epoll_create1, 0), kPage) == -EINVAL);
}

TEST_CASE("a signalfd takes what its mask names", "[syscalls][signalfd]") {
  TestTask task;
  const uint64_t mask = sentry::SignalBit(SIGUSR1);
  task.Poke(kPage, mask);
  REQUIRE(task.Call(SYS_rt_sigprocmask, SIG_BLOCK, kPage, 0, 8) == 0);
  const int64_t fd = task.Call(SYS_signalfd4, -1, kPage, 8, SFD_NONBLOCK);
  REQUIRE(fd >= 0);
  const auto file = task.fds().Get(static_cast<int32_t>(fd)).value();
  std::array<signalfd_siginfo, 2> records{};
  const auto read = [&] {
    sentry::IoBuffer to{std::span<std::byte>(std::as_writable_bytes(std::span(records)))};
    return file->Read(task.task(), to, nullptr);
  };
  CHECK(read().error() == EAGAIN);
  REQUIRE(task.task().SendSignal(sentry::SignalInfo::FromUser(SIGUSR1, 5, 6)).ok());
  CHECK(file->Poll(~0U) == sentry::kPollReadable);
  CHECK(read().value() == sizeof(signalfd_siginfo));
  CHECK(records[0].ssi_signo == SIGUSR1);
  CHECK(records[0].ssi_pid == 5);
  CHECK(records[0].ssi_uid == 6);
  CHECK(file->Poll(~0U) == 0);
}

}  // namespace
