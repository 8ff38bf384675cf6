#include "sentry/fs/pipe/pipe.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/syscall.h>

#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>

#include "catch2/catch.hpp"
#include "sentry/kernel/task.h"
#include "test/support/test_task.h"

namespace {

using Fds = std::array<int32_t, 2>;
using sentry::IoBuffer;
using sentry::Pipe;
using test::TestTask;

base::Result<size_t> Write(Pipe& pipe, std::string_view text, bool partial = true,
                           bool packets = false) {
  IoBuffer from(std::as_bytes(std::span(text)));
  return pipe.Write(from, packets, partial);
}
std::string Read(Pipe& pipe, size_t bytes = 100'000) {
  std::string text(bytes, '\0');
  IoBuffer to(std::as_writable_bytes(std::span(text)));
  const base::Result<size_t> count = pipe.Read(to);
  text.resize(count.ok() ? count.value() : 0);
  return text;
}
struct OpenPipe : Pipe {
  OpenPipe() { Open(true, true); }
  ~OpenPipe() { Close(true, true); }
};

TEST_CASE("pipe2 writes the lowest two free descriptors", "[syscalls][pipe]") {
  TestTask task;
  REQUIRE(task.Call(SYS_pipe2, TestTask::kPage, O_CLOEXEC) == 0);
  CHECK(task.Peek<Fds>(TestTask::kPage) == Fds{0, 1});
}

TEST_CASE("pipe2 refuses every flag it does not know", "[syscalls][pipe]") {
  const int flag = GENERATE(O_APPEND, O_TRUNC, O_PATH, 1 << 30);
  CAPTURE(flag);
  TestTask task;
  CHECK(task.Call(SYS_pipe2, TestTask::kPage, flag) == -EINVAL);
  CHECK(task.Call(SYS_pipe2, TestTask::kPage, O_EXCL) == -ENOPKG);
  CHECK(task.fds().Numbers().empty());
}

// The eight bytes straddle the end of the mapped page at every offset, so a partial write
// that installed one descriptor would be seen.
TEST_CASE("pipe2 leaves no descriptor behind when the guest faults", "[syscalls][pipe][efault]") {
  const uint64_t short_by = GENERATE(range(1, 9));
  TestTask task;
  CHECK(task.Call(SYS_pipe2, TestTask::kPageEnd - 8 + short_by, 0) == -EFAULT);
  CHECK(task.fds().Numbers().empty());
}

TEST_CASE("a pipe counts pages, and appends small writes to the last", "[pipe]") {
  OpenPipe pipe;
  for (size_t i = 0; i < 65536; ++i) REQUIRE(Write(pipe, "x").value() == 1);
  CHECK(Write(pipe, "x").error() == EAGAIN);
  CHECK(Read(pipe, 4095).size() == 4095);
  CHECK(Write(pipe, "x").error() == EAGAIN);
  CHECK(Read(pipe, 1).size() == 1);
  CHECK(pipe.Poll(false, true, ~0ULL) == sentry::kPollWritable);
  CHECK(Write(pipe, std::string(4096, 'y')).value() == 4096);
}

TEST_CASE("a write that must be whole goes on where it stopped", "[pipe]") {
  OpenPipe pipe;
  const std::string text(100'000, 'z');
  IoBuffer from(std::as_bytes(std::span(text)));
  CHECK(pipe.Write(from, false, false).error() == EAGAIN);
  CHECK(from.done() == 65536);
  CHECK(Read(pipe).size() == 65536);
  CHECK(pipe.Write(from, false, false).ok());
  CHECK(from.done() == 100'000);
  CHECK(Read(pipe).size() == 100'000 - 65536);
}

TEST_CASE("packets are read one at a time and cut", "[pipe]") {
  OpenPipe pipe;
  REQUIRE(Write(pipe, "first", true, true).ok());
  REQUIRE(Write(pipe, "second", true, true).ok());
  CHECK(Read(pipe, 3) == "fir");
  CHECK(Read(pipe) == "second");
}

TEST_CASE("the content goes with the last end", "[pipe]") {
  Pipe pipe;
  pipe.Open(true, true);
  REQUIRE(Write(pipe, "lost").ok());
  pipe.Close(true, true);
  CHECK(pipe.bytes() == 0);
}

TEST_CASE("hang-up is told to those who have seen a writer", "[pipe]") {
  Pipe pipe;
  pipe.Open(true, false);
  CHECK(pipe.Poll(true, false, 0) == 0);
  pipe.Open(false, true);
  pipe.Close(false, true);
  CHECK(pipe.Poll(true, false, 0) == POLLHUP);
  pipe.Close(true, false);
  pipe.Open(false, true);
  CHECK((pipe.Poll(false, true, 0) & POLLERR) != 0);
  CHECK(Write(pipe, "x").error() == EPIPE);
  pipe.Close(false, true);
}

TEST_CASE("capacities are powers of two within limits", "[pipe][limits]") {
  OpenPipe pipe;
  CHECK(pipe.SetCapacity(0, false).value() == 4096);
  CHECK(pipe.SetCapacity(4097, false).value() == 8192);
  CHECK(pipe.SetCapacity(Pipe::kBytesMax, false).value() == Pipe::kBytesMax);
  CHECK(pipe.SetCapacity(Pipe::kBytesMax + 1, false).error() == EPERM);
  CHECK(pipe.SetCapacity(Pipe::kBytesMax + 1, true).value() == 2 * Pipe::kBytesMax);
  CHECK(pipe.SetCapacity(Pipe::kPrivilegedBytesMax + 1, true).error() == EINVAL);
  REQUIRE(Write(pipe, std::string(8192, 'x')).ok());
  CHECK(pipe.SetCapacity(4096, false).error() == EBUSY);
}

TEST_CASE("bytes move between pipes, or are copied", "[pipe]") {
  OpenPipe from, to;
  REQUIRE(Write(from, std::string(5000, 'a')).ok());
  bool from_empty = false;
  CHECK(Pipe::Move(from, to, 4999, /*keep=*/true, &from_empty).value() == 4999);
  CHECK(from.bytes() == 5000);
  CHECK(Pipe::Move(from, to, 4999, /*keep=*/false, &from_empty).value() == 4999);
  CHECK(from.bytes() == 1);
  CHECK(to.bytes() == 9998);
  CHECK(Read(from).size() == 1);
  CHECK(Pipe::Move(from, to, 1, false, &from_empty).error() == EAGAIN);
  CHECK(from_empty);
}

TEST_CASE("a sink that takes less leaves the rest", "[pipe]") {
  OpenPipe pipe;
  REQUIRE(Write(pipe, "0123456789").ok());
  std::string got;
  const Pipe::Sink sink = [&](std::span<const std::byte> bytes) -> base::Result<size_t> {
    const size_t taken = std::min<size_t>(bytes.size(), 3);
    got.append(reinterpret_cast<const char*>(bytes.data()), taken);
    return taken;
  };
  CHECK(pipe.SpliceOut(10, sink).value() == 3);
  CHECK(got == "012");
  CHECK(Read(pipe) == "3456789");
}

}  // namespace
