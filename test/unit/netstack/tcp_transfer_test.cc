// Two stacks, one wire that loses, repeats, reorders and damages: what arrives is what was sent.

#include <random>

#include "catch2/catch.hpp"
#include "netstack/tcp/connection.h"
#include "netstack/tcp/listener.h"
#include "netstack/tcp/table.h"
#include "test/unit/netstack/simulator.h"

namespace {

using namespace netstack;
using tcp::Connection;
using tcp::Listener;

uint64_t Hash(uint64_t hash, std::span<const uint8_t> bytes) {
  for (const uint8_t byte : bytes) hash = (hash ^ byte) * 0x100000001b3;
  return hash;
}

// Writes `total` pseudo-random bytes, as room comes, and hashes them.
struct Writer {
  Connection& connection;
  size_t left;
  std::mt19937 generator{7};
  uint64_t hash = 0;
  bool shut = false;
  void Go() {
    while (left > 0) {
      const size_t room = std::min({connection.SendRoom(), left, size_t{32768}});
      if (room == 0) return;
      std::vector<uint8_t> bytes(room);
      for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator());
      hash = Hash(hash, bytes);
      if (!connection.Send(Slice::Copy(bytes), true).ok()) return;
      left -= room;
    }
    if (!std::exchange(shut, true)) connection.ShutdownWrite();
  }
};

struct Reader {
  Connection& connection;
  uint64_t hash = 0;
  size_t total = 0;
  void Go() {
    while (true) {
      Slices slices;
      const size_t count = connection.Peek(0, 65536, slices);
      if (count == 0) return;
      for (const Slice& slice : slices) hash = Hash(hash, slice.bytes());
      total += count;
      connection.Consume(count);
    }
  }
  bool Done() { return connection.GetStatus().peer_finished && connection.Readable() == 0; }
};

struct Pair {
  std::shared_ptr<Listener> listener;
  std::shared_ptr<Connection> client, server;
};

Pair Establish(test::Simulator& net, bool v4 = true, const tcp::Settings& settings = {}) {
  Pair pair;
  pair.listener =
      Listener::Open(net.b.stack, {.local = IpAddress::Any(v4), .port = 80, .settings = settings},
                     16, nullptr)
          .value();
  pair.client = Connection::Connect(net.a.stack,
                                    {.flow = {.local = IpAddress::Any(v4),
                                              .remote = v4 ? net.b.v4 : net.b.v6,
                                              .local_port = 40000,
                                              .remote_port = 80},
                                     .settings = settings},
                                    nullptr)
                    .value();
  REQUIRE(net.RunUntil([&] {
    if (pair.server != nullptr) return true;
    auto accepted = pair.listener->Accept();
    if (accepted.ok()) pair.server = accepted.value();
    return pair.server != nullptr;
  }));
  REQUIRE(net.RunUntil([&] { return pair.client->GetStatus().state == tcp::State::kEstablished; }));
  return pair;
}

// For a failure's message.
std::string Describe(Connection& connection) {
  const auto info = connection.GetInfo();
  const auto status = connection.GetStatus();
  std::string text;
  const auto add = [&](const char* name, int64_t value) {
    text += std::string(name) + " " + std::to_string(value) + " ";
  };
  add("state", static_cast<int>(info.state));
  add("error", status.error);
  add("repair", info.congestion_state);
  add("in-flight", info.send_next - info.send_unacknowledged);
  add("queued", info.send_queued);
  add("unread", info.receive_queued);
  add("cwnd", info.cwnd);
  add("window", info.send_window);
  add("own-window", info.receive_window);
  add("lost", info.lost_segments);
  add("sacked", info.sacked_segments);
  add("retries", info.retransmits);
  add("rto-ms", info.rto_ns / 1'000'000);
  add("retransmitted", info.total_retransmits);
  return text;
}

// Both directions at once; returns the simulated seconds.
double Transfer(test::Simulator& net, Pair& pair, size_t bytes) {
  Writer up{*pair.client, bytes};
  Reader up_end{*pair.server};
  Writer down{*pair.server, bytes / 2};
  Reader down_end{*pair.client};
  const int64_t start = net.clock.now_ns;
  const bool done = net.RunUntil(
      [&] {
        up.Go();
        down.Go();
        up_end.Go();
        down_end.Go();
        return up_end.Done() && down_end.Done();
      },
      int64_t{3600} * kNsPerSecond);
  CAPTURE(up_end.total, down_end.total, up.left, down.left, Describe(*pair.client),
          Describe(*pair.server));
  REQUIRE(done);
  CHECK(up_end.total == bytes);
  CHECK(up_end.hash == up.hash);
  CHECK(down_end.hash == down.hash);
  return static_cast<double>(net.clock.now_ns - start) / 1e9;
}

TEST_CASE("a transfer over a clean wire arrives whole and fast", "[netstack][tcp]") {
  const bool v4 = GENERATE(true, false);
  test::Simulator net;
  Pair pair = Establish(net, v4);
  const double seconds = Transfer(net, pair, 20 << 20);
  CHECK(seconds < 1.0);
  CHECK(net.a.stack.counters().tcp.retransmitted_segments == 0);
  // The client closed first or both did: nobody is left but in TIME-WAIT.
  net.Run(kNsPerSecond);
  CHECK(net.a.stack.tcp().Connections().empty());
  CHECK(net.b.stack.tcp().Connections().empty());
  CHECK(net.a.stack.tcp().TimeWaits() + net.b.stack.tcp().TimeWaits() >= 1);
  net.Run(120 * kNsPerSecond);
  CHECK(net.a.stack.tcp().TimeWaits() + net.b.stack.tcp().TimeWaits() == 0);
}

TEST_CASE("a transfer in super-packets arrives whole", "[netstack][tcp]") {
  test::Simulator net(1, {.completes_checksums = true, .splits_segments = true});
  Pair pair = Establish(net);
  Transfer(net, pair, 20 << 20);
  CHECK(net.packets < 4000);
}

TEST_CASE("a transfer survives what wires do", "[netstack][tcp]") {
  struct Trouble {
    const char* name;
    test::Wire wire;
    double seconds_max;
  };
  const Trouble trouble =
      GENERATE(Trouble{"1 % loss", {.delay_ns = 5'000'000, .loss = 0.01}, 60},
               Trouble{"10 % loss", {.delay_ns = 5'000'000, .loss = 0.1}, 600},
               Trouble{"duplicates", {.delay_ns = 5'000'000, .duplicate = 0.2}, 10},
               Trouble{"disorder", {.delay_ns = 5'000'000, .reorder = 0.3}, 60},
               Trouble{"damage", {.delay_ns = 5'000'000, .corrupt = 0.02}, 120},
               Trouble{"everything",
                       {.delay_ns = 20'000'000,
                        .loss = 0.03,
                        .duplicate = 0.05,
                        .reorder = 0.1,
                        .corrupt = 0.02},
                       600});
  const bool super = GENERATE(false, true);
  const uint32_t seed = GENERATE(1u, 2u);
  CAPTURE(trouble.name, super, seed);
  test::Simulator net(seed, {.completes_checksums = false, .splits_segments = super});
  Pair pair = Establish(net);
  net.wire = trouble.wire;
  const double seconds = Transfer(net, pair, 2 << 20);
  CAPTURE(seconds);
  CHECK(seconds < trouble.seconds_max);
}

TEST_CASE("Reno and small windows carry a transfer, too", "[netstack][tcp]") {
  test::Simulator net(3);
  net.wire.loss = 0.02;
  tcp::Settings settings;
  settings.congestion = tcp::CongestionKind::kReno;
  settings.receive_buffer = 3000;
  settings.send_buffer = 5000;
  Pair pair = Establish(net, true, settings);
  Transfer(net, pair, 1 << 20);
}

TEST_CASE("a reader that sleeps shuts the window and opens it again", "[netstack][tcp]") {
  test::Simulator net;
  Pair pair = Establish(net);
  Writer writer{*pair.client, 3 << 20};
  net.RunUntil(
      [&] {
        writer.Go();
        return false;
      },
      30 * kNsPerSecond);
  CHECK(writer.left > 0);
  const auto info = pair.client->GetInfo();
  CHECK(info.send_window < 3000);
  const uint64_t before = net.packets;
  net.Run(60 * kNsPerSecond);
  CHECK(net.packets - before < 40);  // Probes, ever rarer.
  Reader reader{*pair.server};
  REQUIRE(net.RunUntil([&] {
    writer.Go();
    reader.Go();
    return reader.Done();
  }));
  CHECK(reader.hash == writer.hash);
}

TEST_CASE("a wire that is cut ends the connection in time", "[netstack][tcp]") {
  test::Simulator net;
  tcp::Settings settings;
  settings.user_timeout_ns = 10 * kNsPerSecond;
  Pair pair = Establish(net, true, settings);
  net.wire.loss = 1;
  REQUIRE(pair.client->Send(Slice::Copy(std::vector<uint8_t>(100)), true).ok());
  net.Run(60 * kNsPerSecond);
  CHECK(pair.client->GetStatus().state == tcp::State::kClosed);
  CHECK(pair.client->TakeError() == ETIMEDOUT);
}

TEST_CASE("loopback carries a transfer inside one stack", "[netstack][tcp]") {
  test::Simulator net;
  const auto listener =
      Listener::Open(net.a.stack, {.local = IpAddress::V4(0), .port = 80}, 16, nullptr).value();
  const auto client = Connection::Connect(net.a.stack,
                                          {.flow = {.local = IpAddress::V4(0),
                                                    .remote = MustParseAddress("127.0.0.1"),
                                                    .local_port = 40000,
                                                    .remote_port = 80}},
                                          nullptr)
                          .value();
  CHECK(client->GetStatus().state == tcp::State::kEstablished);
  Pair pair{listener, client, listener->Accept().value()};
  Transfer(net, pair, 8 << 20);
  CHECK(net.packets == 0);
}

TEST_CASE("a flood of SYNs costs bounded memory and leaves a way in", "[netstack][tcp]") {
  test::Simulator net;
  Pair pair = Establish(net);
  for (uint32_t i = 0; i < 20000; ++i) {
    const FlowKey flow{net.a.v4, net.b.v4, static_cast<uint16_t>(1024 + i % 60000), 80};
    tcp::Options options;
    options.mss = 1460;
    net.a.stack.tcp().SendSegment(flow, nullptr,
                                  {.source_port = flow.local_port,
                                   .destination_port = 80,
                                   .sequence = i,
                                   .flags = tcp::kSyn,
                                   .window = 1000},
                                  options);
    // The answers of the flooder's stack would reset them.
    while (PacketPtr packet = net.a.link->Take())
      net.b.stack.Receive(*net.b.interface, std::move(packet));
    while (net.b.link->Take() != nullptr) {
    }
  }
  CHECK(pair.listener->HalfOpen() <= 16);
  CHECK(net.b.stack.counters().tcp.syn_cookies_sent > 10000);
  // A new client gets through by its cookie, with all options.
  const auto v4_client = Connection::Connect(net.a.stack,
                                             {.flow = {.local = IpAddress::V4(0),
                                                       .remote = net.b.v4,
                                                       .local_port = 65001,
                                                       .remote_port = 80}},
                                             nullptr)
                             .value();
  Pair late{pair.listener, v4_client, nullptr};
  REQUIRE(net.RunUntil([&] {
    auto accepted = pair.listener->Accept();
    if (accepted.ok() && accepted.value()->flow().remote_port == 65001)
      late.server = accepted.value();
    return late.server != nullptr;
  }));
  CHECK(net.b.stack.counters().tcp.syn_cookies_received >= 1);
  CHECK(late.server->GetInfo().sack);
  CHECK(late.server->GetInfo().send_scale != 0);
  Transfer(net, late, 1 << 20);
  Transfer(net, pair, 1 << 20);  // The one that was there before goes on.
}

}  // namespace
