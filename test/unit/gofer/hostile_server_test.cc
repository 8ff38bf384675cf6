// A server that lies or dies: the client's calls fail with EIO, all of them, and nothing hangs.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "gofer/protocol/channel.h"
#include "gofer/protocol/client.h"
#include "gofer/protocol/donation.h"
#include "gofer/protocol/wire.h"

namespace {

using gofer::Channel;
using gofer::Request;
using gofer::Response;

// A client whose server is a function from requests to responses.
class BareServer {
 public:
  using Answer = std::function<Response(Channel&, const Request&)>;
  explicit BareServer(Answer answer) : answer_(std::move(answer)) {
    auto ends = gofer::CreateChannel();
    REQUIRE(ends.ok());
    auto channel = Channel::Map(base::Fd(dup(ends->memory.get())), std::move(ends->server_socket));
    REQUIRE(channel.ok());
    channel_ = std::make_unique<Channel>(*std::move(channel));
    auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
    REQUIRE(client.ok());
    client_ = *std::move(client);
    thread_ = std::thread([this] { Run(); });
  }
  ~BareServer() {
    client_.reset();
    thread_.join();
  }
  gofer::Client& client() { return *client_; }

 private:
  void Run() {
    gofer::WireBuffer arrived(gofer::kMessageBytesMax);
    gofer::WireBuffer scratch(gofer::kMessageBytesMax);
    while (true) {
      const auto slots = channel_->WaitForRequests();
      if (!slots.ok()) return;
      for (size_t slot = 0; slot < gofer::kSlots; ++slot) {
        if ((slots.value() >> slot & 1) == 0) continue;
        const size_t got = channel_->TakeRequest(slot, arrived.bytes()).value();
        const Request request = gofer::DecodeRequest(arrived.bytes().first(got)).value();
        const Response response = answer_(*channel_, request);
        const size_t bytes =
            gofer::EncodeResponse(response, scratch, channel_->ResponseArea(slot)).value();
        channel_->Respond(slot, bytes);
      }
    }
  }

  Answer answer_;
  std::unique_ptr<Channel> channel_;
  std::unique_ptr<gofer::Client> client_;
  std::thread thread_;
};

Response Ok(const Request& request, gofer::ResponseBody body) {
  return {request.id, 0, false, std::move(body)};
}

TEST_CASE("an answer to another request ends the connection", "[gofer][hostile]") {
  BareServer server([](Channel&, const Request& request) {
    return Response{request.id + 1, 0, false, gofer::Attributes{}};
  });
  CHECK(server.client().GetAttr(1).error() == EIO);
  CHECK(server.client().dead());
  CHECK(server.client().GetAttr(1).error() == EIO);
}

TEST_CASE("an answer of another kind ends the connection", "[gofer][hostile]") {
  BareServer server([](Channel&, const Request& request) { return Ok(request, std::string("x")); });
  CHECK(server.client().GetAttr(1).error() == EIO);
  CHECK(server.client().dead());
}

TEST_CASE("a walk that contradicts itself ends the connection", "[gofer][hostile]") {
  gofer::WalkReply reply;
  SECTION("more steps than asked for") { reply.steps.resize(3); }
  SECTION("fewer, without a reason") { reply.steps.resize(1); }
  SECTION("all of them, with a reason to stop") {
    reply.steps.resize(2);
    reply.stop_error = ENOENT;
  }
  BareServer server([reply](Channel&, const Request& request) { return Ok(request, reply); });
  CHECK(server.client().Walk({1, {{"a", 0}, {"b", 0}}}).error() == EIO);
  CHECK(server.client().dead());
}

TEST_CASE("directory entries with impossible names end the connection", "[gofer][hostile]") {
  const std::string name = GENERATE(std::string("a/b"), std::string(".."), std::string(""));
  gofer::DirReply reply;
  reply.entries.resize(1);
  reply.entries[0].name = name;
  BareServer server([reply](Channel&, const Request& request) { return Ok(request, reply); });
  CHECK(server.client().ReadDir({1, 0, 10, false}).error() == EIO);
}

TEST_CASE("a listing by path says which directory it is of", "[gofer][hostile]") {
  gofer::DirReply reply;
  reply.end = true;
  SECTION("of none") {}
  SECTION("of a file") { reply.attributes.mode = S_IFREG | 0644; }
  BareServer server([reply](Channel&, const Request& request) { return Ok(request, reply); });
  CHECK(server.client().ReadDir({1, 0, 10, false, {"a"}, 2}).error() == EIO);
}

TEST_CASE("a directory that never ends is refused", "[gofer][hostile]") {
  BareServer server(
      [](Channel&, const Request& request) { return Ok(request, gofer::DirReply{}); });
  CHECK(server.client().ReadDir({1, 0, 10, false}).error() == EIO);
}

TEST_CASE("a promised descriptor that does not come ends the connection", "[gofer][hostile]") {
  BareServer server(
      [](Channel&, const Request& request) { return Response{request.id, 0, true, {}}; });
  CHECK(server.client().Open(1, O_RDONLY).error() == EIO);
  CHECK(server.client().dead());
}

TEST_CASE("an open without a descriptor ends the connection", "[gofer][hostile]") {
  BareServer server([](Channel&, const Request& request) { return Ok(request, {}); });
  CHECK(server.client().Open(1, O_RDONLY).error() == EIO);
}

TEST_CASE("descriptors with foreign tags are not taken for one's own", "[gofer][hostile]") {
  BareServer server([](Channel& channel, const Request& request) {
    for (uint32_t i = 1; i <= 40; ++i) {
      (void)gofer::SendDonation(channel.socket(), request.id + i, STDERR_FILENO);
    }
    return Response{request.id, 0, true, {}};
  });
  CHECK(server.client().Open(1, O_RDONLY).error() == EIO);
}

TEST_CASE("noise in the socket is not taken for a descriptor", "[gofer][hostile]") {
  const size_t size = GENERATE(1, 4, 100);
  BareServer server([size](Channel& channel, const Request& request) {
    const std::string noise(size, 'n');
    (void)send(channel.socket(), noise.data(), noise.size(), MSG_DONTWAIT);
    return Response{request.id, 0, true, {}};
  });
  CHECK(server.client().Open(1, O_RDONLY).error() == EIO);
}

TEST_CASE("errors travel as they are", "[gofer]") {
  BareServer server(
      [](Channel&, const Request& request) { return Response{request.id, ESTALE, false, {}}; });
  CHECK(server.client().GetAttr(1).error() == ESTALE);
  CHECK(!server.client().dead());
}

TEST_CASE("every caller learns that the server has died", "[gofer][hostile]") {
  auto ends = gofer::CreateChannel();
  REQUIRE(ends.ok());
  auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
  REQUIRE(client.ok());
  std::vector<std::thread> callers;
  std::atomic<int> failed = 0;
  for (int i = 0; i < 40; ++i) {
    callers.emplace_back([&] {
      if (!(*client)->GetAttr(1).ok()) ++failed;
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  ends->server_socket.Reset();
  for (std::thread& caller : callers) caller.join();
  CHECK(failed == 40);
  CHECK((*client)->dead());
}

}  // namespace
