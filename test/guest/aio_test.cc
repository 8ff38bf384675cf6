// Asynchronous I/O by the system calls (io_setup(2) and its kin).

#include <fcntl.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <string>

#include "catch2/catch.hpp"

namespace {

struct Context {
  Context() { REQUIRE(syscall(SYS_io_setup, 8, &id) == 0); }
  ~Context() { syscall(SYS_io_destroy, id); }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  long Submit(iocb& request) const {
    iocb* list[] = {&request};
    return syscall(SYS_io_submit, id, 1, list);
  }
  // Its result; -1000 if there is no completion within a moment.
  long Fetch(io_event* event, long least = 1) const {
    timespec limit{2, 0};
    if (least == 0) limit = {0, 0};
    return syscall(SYS_io_getevents, id, least, 1, event, &limit);
  }
  aio_context_t id = 0;
};

iocb Request(int opcode, int fd, void* buffer, size_t bytes, long offset) {
  iocb request{};
  request.aio_data = 42;
  request.aio_lio_opcode = static_cast<uint16_t>(opcode);
  request.aio_fildes = static_cast<uint32_t>(fd);
  request.aio_buf = reinterpret_cast<uint64_t>(buffer);
  request.aio_nbytes = bytes;
  request.aio_offset = offset;
  return request;
}

}  // namespace

TEST_CASE("a write and a read complete with their counts", "[aio]") {
  const Context context;
  char path[] = "/tmp/ravelin-aio-XXXXXX";
  const int fd = mkstemp(path);
  REQUIRE(fd >= 0);
  unlink(path);
  char text[] = "some text";
  iocb write = Request(IOCB_CMD_PWRITE, fd, text, 9, 100);
  REQUIRE(context.Submit(write) == 1);
  io_event event{};
  REQUIRE(context.Fetch(&event) == 1);
  CHECK(event.res == 9);
  CHECK(event.data == 42);
  CHECK(event.obj == reinterpret_cast<uint64_t>(&write));
  char back[16] = {};
  iocb read = Request(IOCB_CMD_PREAD, fd, back, sizeof(back), 105);
  REQUIRE(context.Submit(read) == 1);
  REQUIRE(context.Fetch(&event) == 1);
  CHECK(event.res == 4);
  CHECK(std::string(back) == "text");
  CHECK(context.Fetch(&event, 0) == 0);
  close(fd);
}

TEST_CASE("what is wrong with a request is said at once", "[aio]") {
  const Context context;
  char byte = 0;
  iocb request = Request(IOCB_CMD_PREAD, -1, &byte, 1, 0);
  CHECK(context.Submit(request) == -1);
  CHECK(errno == EBADF);
  const int fd = open("/dev/null", O_RDONLY);
  request = Request(77, fd, &byte, 1, 0);
  CHECK(context.Submit(request) == -1);
  CHECK(errno == EINVAL);
  request = Request(IOCB_CMD_PWRITE, fd, &byte, 1, 0);
  CHECK(context.Submit(request) == -1);
  CHECK(errno == EBADF);
  close(fd);
  aio_context_t id = 1;
  CHECK(syscall(SYS_io_setup, 1, &id) == -1);
  CHECK(errno == EINVAL);
  CHECK(syscall(SYS_io_destroy, 12345) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("a poll completes when the file is ready, and tells an eventfd", "[aio]") {
  const Context context;
  int fds[2];
  REQUIRE(pipe(fds) == 0);
  const int event_fd = eventfd(0, EFD_NONBLOCK);
  iocb request = Request(IOCB_CMD_POLL, fds[0], nullptr, 0, 0);
  request.aio_buf = POLLIN;
  request.aio_flags = IOCB_FLAG_RESFD;
  request.aio_resfd = static_cast<uint32_t>(event_fd);
  REQUIRE(context.Submit(request) == 1);
  io_event event{};
  CHECK(context.Fetch(&event, 0) == 0);
  REQUIRE(write(fds[1], "x", 1) == 1);
  REQUIRE(context.Fetch(&event) == 1);
  CHECK((event.res & POLLIN) != 0);
  uint64_t count = 0;
  CHECK(read(event_fd, &count, sizeof(count)) == sizeof(count));
  CHECK(count == 1);
  close(event_fd);
  close(fds[0]);
  close(fds[1]);
}
