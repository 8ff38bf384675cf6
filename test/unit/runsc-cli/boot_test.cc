#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>

#include "catch2/catch.hpp"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/control_socket.h"

namespace {

using namespace runsc;  // NOLINT

BootConfig Sample() {
  BootConfig config;
  config.attach_points = {{"root", "/", true, true}, {"volume1", "/mnt/x", false, false}};
  config.arguments = {"bash", "-c", "", std::string("a\0b", 3)};
  config.environment = {"PATH=/bin", "X="};
  config.cwd = "/work";
  config.host_name = "box";
  config.platform = "ptrace";
  config.uid = 1000;
  config.groups = {4, 24, 1000};
  config.strace = true;
  config.stdio_open = 5;
  config.limits[RLIMIT_NOFILE] = {64, 128};
  return config;
}

TEST_CASE("a start-up message arrives as it was sent", "[boot]") {
  const auto fd = WriteBootConfig(Sample());
  REQUIRE(fd.ok());
  const auto read = ReadBootConfig(fd->get());
  REQUIRE(read.ok());
  CHECK(EncodeBootConfig(*read) == EncodeBootConfig(Sample()));
  CHECK(read->arguments == Sample().arguments);
  CHECK(read->attach_points[1].guest_path == "/mnt/x");
  CHECK_FALSE(read->attach_points[1].is_directory);
  CHECK(read->limits[RLIMIT_NOFILE].rlim_max == 128);
}

TEST_CASE("the start-up message cannot be changed by its receivers", "[boot]") {
  const auto fd = WriteBootConfig(Sample());
  REQUIRE(fd.ok());
  CHECK(write(fd->get(), "x", 1) == -1);
  CHECK(ftruncate(fd->get(), 0) == -1);
}

TEST_CASE("a start-up message cut anywhere is refused", "[boot]") {
  const std::string whole = EncodeBootConfig(Sample());
  for (size_t size = 0; size < whole.size(); ++size) {
    CAPTURE(size);
    CHECK_FALSE(DecodeBootConfig(std::span(whole.data(), size)).ok());
  }
  CHECK_FALSE(DecodeBootConfig(whole + "x").ok());
}

TEST_CASE("a start-up message of another version or with a lying length is refused", "[boot]") {
  std::string bytes = EncodeBootConfig(Sample());
  bytes[4] ^= 1;
  CHECK_FALSE(DecodeBootConfig(bytes).ok());
  bytes = EncodeBootConfig(Sample());
  bytes[8] = bytes[9] = bytes[10] = bytes[11] = '\xff';
  CHECK_FALSE(DecodeBootConfig(bytes).ok());
}

TEST_CASE("frames carry kind, value and text", "[control]") {
  auto ends = CreateControlSocket();
  REQUIRE(ends.ok());
  REQUIRE(SendFrame(ends->sentry.get(), FrameKind::kFailed, 127, "no such program").ok());
  REQUIRE(SendFrame(ends->sentry.get(), FrameKind::kExited, -3).ok());
  const auto failed = ReceiveFrame(ends->runsc.get());
  REQUIRE(failed.ok());
  CHECK(failed.value().kind == FrameKind::kFailed);
  CHECK(failed.value().value == 127);
  CHECK(failed.value().text == "no such program");
  CHECK(ReceiveFrame(ends->runsc.get()).value().value == -3);
}

TEST_CASE("a frame's text is cut at its limit", "[control]") {
  auto ends = CreateControlSocket();
  REQUIRE(ends.ok());
  for (const size_t size : {kFrameTextMax, kFrameTextMax + 1}) {
    REQUIRE(SendFrame(ends->sentry.get(), FrameKind::kFailed, 1, std::string(size, 'x')).ok());
    CHECK(ReceiveFrame(ends->runsc.get()).value().text.size() == kFrameTextMax);
  }
}

TEST_CASE("what is no frame is refused, and an end is an end", "[control]") {
  auto ends = CreateControlSocket();
  REQUIRE(ends.ok());
  REQUIRE(write(ends->sentry.get(), "short", 5) == 5);
  CHECK(ReceiveFrame(ends->runsc.get()).error() == EBADMSG);
  const char lies[32] = {1, 0, 0, 0, 100};
  REQUIRE(write(ends->sentry.get(), lies, sizeof(lies)) == sizeof(lies));
  CHECK(ReceiveFrame(ends->runsc.get()).error() == EBADMSG);
  ends->sentry.Reset();
  CHECK(ReceiveFrame(ends->runsc.get()).error() == EPIPE);
  CHECK(SendFrame(ends->runsc.get(), FrameKind::kSignal, 15).error() == EPIPE);
}

TEST_CASE("a peer that reads nothing does not block the sender", "[control]") {
  auto ends = CreateControlSocket();
  REQUIRE(ends.ok());
  base::Result<void> sent;
  for (int i = 0; i < 100000 && sent.ok(); ++i)
    sent = SendFrame(ends->runsc.get(), FrameKind::kSignal, 15);
  CHECK(sent.error() == EAGAIN);
}

}  // namespace
