// A client that lies: the server ends the connection with a reason and does not crash.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <thread>

#include "catch2/catch.hpp"
#include "gofer/protocol/channel.h"
#include "gofer/protocol/donation.h"
#include "gofer/protocol/wire.h"
#include "gofer/server/host.h"
#include "gofer/server/server.h"
#include "test/unit/gofer/fixture.h"

namespace {

using gofer::Channel;

// A server on one end, a bare channel on the other.
class BareClient {
 public:
  BareClient() {
    auto ends = gofer::CreateChannel();
    REQUIRE(ends.ok());
    gofer::Server::Options options;
    options.memory = base::Fd(dup(ends->memory.get()));
    options.socket = std::move(ends->server_socket);
    options.attach_points = test::AttachPointsFor(dir_.path());
    options.proc_self_fd = *gofer::host::OpenProcSelfFd();
    auto server = gofer::Server::Create(std::move(options));
    REQUIRE(server.ok());
    server_ = *std::move(server);
    auto channel = Channel::Map(std::move(ends->memory), std::move(ends->client_socket));
    REQUIRE(channel.ok());
    channel_ = std::make_unique<Channel>(*std::move(channel));
    thread_ = std::thread([this] {
      verdict_ = server_->Run();
      server_.reset();
    });
  }
  ~BareClient() {
    channel_.reset();
    if (thread_.joinable()) thread_.join();
  }
  Channel& channel() { return *channel_; }
  const test::TempDir& dir() const { return dir_; }

  base::Result<gofer::Response> Call(const gofer::Request& request) {
    const size_t bytes = TRY(gofer::EncodeRequest(request, scratch_, channel_->RequestArea(0)));
    channel_->Submit(0, bytes);
    const size_t got = TRY(channel_->Await(0, arrived_.bytes()));
    return gofer::DecodeResponse(arrived_.bytes().first(got));
  }
  absl::Status Verdict() {
    thread_.join();
    return verdict_;
  }

 private:
  test::TempDir dir_;
  std::unique_ptr<gofer::Server> server_;
  std::unique_ptr<Channel> channel_;
  gofer::WireBuffer scratch_{gofer::kMessageBytesMax};
  gofer::WireBuffer arrived_{gofer::kMessageBytesMax};
  absl::Status verdict_;
  std::thread thread_;
};

TEST_CASE("a request length beyond the area ends the connection", "[gofer][hostile]") {
  const size_t bytes = GENERATE(gofer::kMessageBytesMax + 1, size_t{0xffffffff});
  BareClient client;
  client.channel().Submit(0, bytes);
  CHECK(client.channel().Await(0, client.channel().RequestArea(1)).error() == EPIPE);
  CHECK(client.Verdict().message().find("impossible length") != absl::string_view::npos);
}

TEST_CASE("bytes that are no message end the connection", "[gofer][hostile]") {
  const size_t bytes =
      GENERATE(size_t{0}, size_t{1}, size_t{8}, size_t{4096}, gofer::kMessageBytesMax);
  const int fill = GENERATE(0x00, 0x01, 0xff);
  BareClient client;
  std::memset(client.channel().RequestArea(3).data(), fill, bytes);
  client.channel().Submit(3, bytes);
  CHECK(client.channel().Await(3, client.channel().RequestArea(1)).error() == EPIPE);
  CHECK(!client.Verdict().ok());
}

TEST_CASE("a request about an unknown fid ends the connection", "[gofer][hostile]") {
  BareClient client;
  CHECK(client.Call({1, gofer::GetAttrRequest{5}}).error() == EPIPE);
  CHECK(client.Verdict().message() == "the client sent a request about an unknown fid");
}

TEST_CASE("binding a fid twice ends the connection", "[gofer][hostile]") {
  BareClient client;
  REQUIRE(client.Call({1, gofer::AttachRequest{"root", 1}}).value().error == 0);
  CHECK(client.Call({2, gofer::AttachRequest{"root", 1}}).error() == EPIPE);
  CHECK(!client.Verdict().ok());
}

TEST_CASE("bells without requests are harmless", "[gofer][hostile]") {
  BareClient client;
  std::string noise(300, 'b');
  for (int i = 0; i < 1000; ++i) {
    (void)send(client.channel().socket(), noise.data(), noise.size(), MSG_DONTWAIT);
  }
  CHECK(client.Call({1, gofer::AttachRequest{"root", 1}}).value().error == 0);
}

TEST_CASE("a client that does not collect its descriptors is cut off", "[gofer][hostile]") {
  BareClient client;
  test::WriteFile(client.dir() / "file", "x");
  REQUIRE(client.Call({1, gofer::AttachRequest{"root", 1}}).value().error == 0);
  int opened = 0;
  while (opened < 10'000) {
    const auto response =
        client.Call({2, gofer::WalkRequest{1, {{"file", gofer::kNoFid}}, true, O_RDONLY}});
    // Without CAP_SYS_RESOURCE the host's limit on descriptors in flight may come first.
    if (!response.ok() || response.value().error != 0) break;
    ++opened;
  }
  CHECK(opened < 10'000);
}

TEST_CASE("all slots at once, again and again, are all answered", "[gofer][hostile]") {
  BareClient client;
  REQUIRE(client.Call({1, gofer::AttachRequest{"root", 1}}).value().error == 0);
  gofer::WireBuffer scratch(gofer::kMessageBytesMax);
  gofer::WireBuffer arrived(gofer::kMessageBytesMax);
  for (int round = 0; round < 200; ++round) {
    for (size_t slot = 0; slot < gofer::kSlots; ++slot) {
      const auto id = static_cast<uint32_t>(slot);
      const size_t bytes = gofer::EncodeRequest({id, gofer::GetAttrRequest{1}}, scratch,
                                                client.channel().RequestArea(slot))
                               .value();
      client.channel().Submit(slot, bytes);
    }
    for (size_t slot = 0; slot < gofer::kSlots; ++slot) {
      const size_t got = client.channel().Await(slot, arrived.bytes()).value();
      REQUIRE(gofer::DecodeResponse(arrived.bytes().first(got)).value().id == slot);
    }
  }
}

TEST_CASE("the memory must be sealed and of the right size", "[gofer][hostile]") {
  base::Fd memory(memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  CHECK(!Channel::Map(base::Fd(dup(memory.get())), {}).ok());
  auto ends = gofer::CreateChannel();
  struct stat status{};
  REQUIRE(fstat(ends->memory.get(), &status) == 0);
  REQUIRE(ftruncate(memory.get(), status.st_size) == 0);
  CHECK(!Channel::Map(base::Fd(dup(memory.get())), {}).ok());
  CHECK(ftruncate(ends->memory.get(), 4096) == -1);
}

TEST_CASE("the server notices that its client has gone", "[gofer][hostile]") {
  test::GoferFixture fixture;
  CHECK(fixture.Finish().ok());
}

}  // namespace
