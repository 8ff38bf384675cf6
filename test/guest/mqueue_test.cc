// POSIX message queues (mq_overview(7)).

#include <fcntl.h>
#include <mqueue.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <ctime>
#include <string>

#include "catch2/catch.hpp"

namespace {

// Gone at the end of its test.
struct Queue {
  explicit Queue(long messages = 4, int flags = O_NONBLOCK)
      : name("/ravelin-" + std::to_string(getpid())) {
    mq_attr attributes{};
    attributes.mq_maxmsg = messages;
    attributes.mq_msgsize = 32;
    mq_unlink(name.c_str());
    id = mq_open(name.c_str(), O_CREAT | O_EXCL | O_RDWR | flags, 0600, &attributes);
    REQUIRE(id >= 0);
  }
  ~Queue() {
    mq_close(id);
    mq_unlink(name.c_str());
  }
  Queue(const Queue&) = delete;
  Queue& operator=(const Queue&) = delete;
  std::string Receive(unsigned* priority = nullptr) const {
    char buffer[32];
    const ssize_t count = mq_receive(id, buffer, sizeof(buffer), priority);
    return count < 0 ? "errno " + std::to_string(errno)
                     : std::string(buffer, static_cast<size_t>(count));
  }
  int Send(const std::string& text, unsigned priority = 0) const {
    return mq_send(id, text.data(), text.size(), priority);
  }
  const std::string name;
  mqd_t id;
};

}  // namespace

TEST_CASE("the highest priority comes first, the oldest first in each", "[mqueue]") {
  const Queue queue;
  REQUIRE(queue.Send("low", 1) == 0);
  REQUIRE(queue.Send("high", 9) == 0);
  REQUIRE(queue.Send("low too", 1) == 0);
  unsigned priority = 0;
  CHECK(queue.Receive(&priority) == "high");
  CHECK(priority == 9);
  CHECK(queue.Receive() == "low");
  CHECK(queue.Receive() == "low too");
  CHECK(queue.Receive() == "errno " + std::to_string(EAGAIN));
}

TEST_CASE("limits of a queue are kept", "[mqueue]") {
  const Queue queue(1);
  CHECK(queue.Send(std::string(33, 'x')) == -1);
  CHECK(errno == EMSGSIZE);
  CHECK(queue.Send("x", 32768) == -1);
  CHECK(errno == EINVAL);
  REQUIRE(queue.Send("x") == 0);
  CHECK(queue.Send("y") == -1);
  CHECK(errno == EAGAIN);
  char small[8];
  CHECK(mq_receive(queue.id, small, sizeof(small), nullptr) == -1);
  CHECK(errno == EMSGSIZE);
  pollfd poll_fd{queue.id, POLLIN | POLLOUT, 0};
  CHECK(poll(&poll_fd, 1, 0) == 1);
  CHECK(poll_fd.revents == POLLIN);
  mq_attr attributes{};
  REQUIRE(mq_getattr(queue.id, &attributes) == 0);
  CHECK(attributes.mq_curmsgs == 1);
  CHECK(attributes.mq_flags == O_NONBLOCK);
}

TEST_CASE("names are checked", "[mqueue]") {
  const Queue queue;
  CHECK(mq_open(queue.name.c_str(), O_CREAT | O_EXCL | O_RDWR, 0600, nullptr) == -1);
  CHECK(errno == EEXIST);
  CHECK(mq_open("/ravelin-absent", O_RDWR) == -1);
  CHECK(errno == ENOENT);
  CHECK(mq_open("/ravelin/sub", O_CREAT | O_RDWR, 0600, nullptr) == -1);
  CHECK(errno == EACCES);
  mq_attr attributes{};
  CHECK(mq_open("/ravelin-bad", O_CREAT | O_RDWR, 0600, &attributes) == -1);
  CHECK(errno == EINVAL);
  const mqd_t reader = mq_open(queue.name.c_str(), O_RDONLY);
  REQUIRE(reader >= 0);
  CHECK(mq_send(reader, "x", 1, 0) == -1);
  CHECK(errno == EBADF);
  mq_close(reader);
}

TEST_CASE("a receiver sleeps until a message, or its time is over", "[mqueue]") {
  const Queue queue(4, 0);
  timespec soon{};
  clock_gettime(CLOCK_REALTIME, &soon);
  char buffer[32];
  CHECK(mq_timedreceive(queue.id, buffer, sizeof(buffer), nullptr, &soon) == -1);
  CHECK(errno == ETIMEDOUT);
  const pid_t child = fork();
  if (child == 0) {
    usleep(20'000);
    _exit(queue.Send("hello") == 0 ? 0 : 1);
  }
  CHECK(queue.Receive() == "hello");
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("one process is told of a message in an empty queue, once", "[mqueue][signal]") {
  const Queue queue;
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGUSR1);
  REQUIRE(sigprocmask(SIG_BLOCK, &set, nullptr) == 0);
  sigevent event{};
  event.sigev_notify = SIGEV_SIGNAL;
  event.sigev_signo = SIGUSR1;
  event.sigev_value.sival_int = 77;
  REQUIRE(mq_notify(queue.id, &event) == 0);
  CHECK(mq_notify(queue.id, &event) == -1);
  CHECK(errno == EBUSY);
  REQUIRE(queue.Send("x") == 0);
  siginfo_t info{};
  const timespec limit{5, 0};
  REQUIRE(sigtimedwait(&set, &info, &limit) == SIGUSR1);
  CHECK(info.si_code == SI_MESGQ);
  CHECK(info.si_value.sival_int == 77);
  CHECK(info.si_pid == getpid());
  REQUIRE(queue.Send("y") == 0);
  const timespec none{0, 0};
  CHECK(sigtimedwait(&set, &info, &none) == -1);
}
