// TCP by its rules, one at a time: the test is the peer.

#include "test/unit/netstack/script.h"

namespace {

using namespace netstack;
using netstack::tcp::kAck;
using netstack::tcp::kFin;
using netstack::tcp::kRst;
using netstack::tcp::kSyn;
using netstack::tcp::kUrg;
using netstack::tcp::State;
using test::Script;

constexpr uint32_t kPeer = Script::kPeerStart + 1;  // The peer's first byte.

tcp::Options Sack(uint32_t start, uint32_t end) {
  tcp::Options options;
  options.sack_count = 1;
  options.sacks[0] = {start, end};
  return options;
}

TEST_CASE("a SYN is answered with the options that it offered", "[netstack][tcp]") {
  Script script;
  tcp::Options options = Script::UsualOptions();
  options.window_scale = 3;
  options.has_timestamp = true;
  const auto connection = script.Open(options);
  CHECK(connection->GetInfo().sack);
  CHECK(connection->GetInfo().timestamps);
  CHECK(connection->GetInfo().send_scale == 3);
  CHECK(connection->GetInfo().send_mss == 1000 - 12);
}

TEST_CASE("a SYN without options gets none back but the segment size", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  CHECK(!connection->GetInfo().sack);
  CHECK(!connection->GetInfo().timestamps);
  CHECK(connection->GetInfo().receive_scale == 0);
  CHECK(connection->GetInfo().send_mss == 536);
}

TEST_CASE("a segment to nobody is answered with RST", "[netstack][tcp]") {
  Script script;
  script.Send(kSyn, 5, 0);
  test::Sent reset = script.Expect();
  CHECK(reset.Is(kRst | kAck));
  CHECK(reset.header.acknowledgment == 6);
  script.Send(kAck, 5, 77, 10);
  reset = script.Expect();
  CHECK(reset.Is(kRst));
  CHECK(reset.header.sequence == 77);
  script.Send(kRst, 5, 0);
  script.ExpectNothing();
}

TEST_CASE("a SYN-ACK is repeated five times and then forgotten", "[netstack][tcp]") {
  Script script;
  const auto listener =
      tcp::Listener::Open(script.stack(), {.local = IpAddress::V4(0), .port = 80}, 8, nullptr)
          .value();
  script.Send(kSyn, 5, 0);
  script.Advance(200'000);
  CHECK(script.All().size() == 6);
  CHECK(listener->HalfOpen() == 0);
}

TEST_CASE("the initial window is ten segments", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 60000);
  CHECK(script.All().size() == 10);
}

TEST_CASE("data is acknowledged at once at first, and every second segment later",
          "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  uint32_t sequence = kPeer;
  for (int i = 0; i < 16; ++i) {
    script.Send(kAck, sequence, script.iss + 1, 100);
    sequence += 100;
    CHECK(script.Expect().header.acknowledgment == sequence);
  }
  script.Send(kAck, sequence, script.iss + 1, 100);
  script.ExpectNothing();
  script.Advance(39);
  script.ExpectNothing();
  script.Advance(2);
  CHECK(script.Expect().header.acknowledgment == sequence + 100);
}

TEST_CASE("out of order data is kept, named in SACK, and delivered in order", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Send(kAck, kPeer + 1000, script.iss + 1, 1000);
  test::Sent ack = script.Expect();
  CHECK(ack.header.acknowledgment == kPeer);
  REQUIRE(ack.options.sack_count == 1);
  CHECK(ack.options.sacks[0] == tcp::SackBlock{kPeer + 1000, kPeer + 2000});
  script.Send(kAck, kPeer + 3000, script.iss + 1, 1000);
  ack = script.Expect();
  REQUIRE(ack.options.sack_count == 2);
  CHECK(ack.options.sacks[0] == tcp::SackBlock{kPeer + 3000, kPeer + 4000});
  CHECK(connection->Readable() == 0);
  script.Send(kAck, kPeer, script.iss + 1, 1000);
  CHECK(script.Expect().header.acknowledgment == kPeer + 2000);
  CHECK(connection->Readable() == 2000);
  script.Send(kAck, kPeer + 1500, script.iss + 1, 2000);  // Overlaps on both sides.
  CHECK(script.Expect().header.acknowledgment == kPeer + 4000);
  CHECK(connection->Readable() == 4000);
}

TEST_CASE("what came twice is named in a DSACK", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Send(kAck, kPeer, script.iss + 1, 1000);
  script.Expect();
  script.Send(kAck, kPeer, script.iss + 1, 1000);
  const test::Sent ack = script.Expect();
  REQUIRE(ack.options.sack_count == 1);
  CHECK(ack.options.sacks[0] == tcp::SackBlock{kPeer, kPeer + 1000});
}

TEST_CASE("only the exact RST ends a connection; others are challenged", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  script.Send(kRst, kPeer + 10, 0);
  CHECK(script.Expect().Is(kAck));
  CHECK(connection->GetStatus().state == State::kEstablished);
  script.Send(kRst, kPeer + 5'000'000, 0);
  script.ExpectNothing();
  script.Send(kRst, kPeer, 0);
  CHECK(connection->GetStatus().state == State::kClosed);
  CHECK(connection->TakeError() == ECONNRESET);
}

TEST_CASE("a SYN in a connection is challenged", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  script.Send(kSyn, kPeer, 0);
  CHECK(script.Expect().Is(kAck));
  CHECK(connection->GetStatus().state == State::kEstablished);
}

TEST_CASE("challenges are limited to ten in a second", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  for (int i = 0; i < 50; ++i) script.Send(kRst, kPeer + 10, 0);
  CHECK(script.All().size() == 10);
  script.Advance(1001);
  script.Send(kRst, kPeer + 10, 0);
  CHECK(script.All().size() == 1);
}

TEST_CASE("an acknowledgment of what was never sent is challenged", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  script.Send(kAck, kPeer, script.iss + 5000, 10);
  CHECK(script.Expect().header.acknowledgment == kPeer);
  CHECK(connection->Readable() == 0);
}

TEST_CASE("an old timestamp is refused (PAWS)", "[netstack][tcp]") {
  Script script;
  tcp::Options options = Script::UsualOptions();
  options.has_timestamp = true;
  const auto connection = script.Open(options);
  script.timestamp = 200;
  script.Send(kAck, kPeer, script.iss + 1, 10);
  script.Expect();
  script.timestamp = 150;
  script.Send(kAck, kPeer + 10, script.iss + 1, 10);
  CHECK(script.Expect().header.acknowledgment == kPeer + 10);
  CHECK(connection->Readable() == 10);
  script.timestamps = false;
  script.Send(kAck, kPeer + 10, script.iss + 1, 10);
  CHECK(connection->Readable() == 10);
}

TEST_CASE("what lies beyond the window is cut off", "[netstack][tcp]") {
  tcp::Settings settings;
  settings.receive_buffer = 3000;
  Script script;
  const auto connection = script.Open(Script::UsualOptions(), settings);
  script.Send(kAck, kPeer, script.iss + 1, 1400);
  script.Send(kAck, kPeer + 1400, script.iss + 1, 1400);
  script.Send(kAck, kPeer + 2800, script.iss + 1, 1400);
  CHECK(connection->Readable() == 3000);
  const auto all = script.All();
  CHECK(all.back().header.acknowledgment == kPeer + 3000);
  CHECK(all.back().header.window == 0);
  // Room is told when it is worth it.
  connection->Consume(500);
  script.ExpectNothing();
  connection->Consume(2500);
  CHECK(script.Expect().header.window == 3000);
}

TEST_CASE("a window that is shut is probed, at growing intervals, for ever", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 500);
  script.All();
  script.Send(kAck, kPeer, script.iss + 501, 0, 0);
  script.Write(*connection, 500);
  script.ExpectNothing();
  for (int i = 0; i < 30; ++i) {
    script.Advance(130'000);
    const auto probes = script.All();
    REQUIRE(!probes.empty());
    CHECK(probes.back().header.sequence == script.iss + 500);
    CHECK(probes.back().payload.empty());
    script.Send(kAck, kPeer, script.iss + 501, 0, 0);
  }
  CHECK(connection->GetStatus().state == State::kEstablished);
  script.Send(kAck, kPeer, script.iss + 501, 0, 2000);
  CHECK(script.Expect().payload.size() == 500);
}

TEST_CASE("Nagle holds a small segment while another is unacknowledged", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 10);
  CHECK(script.Expect().payload.size() == 10);
  script.Write(*connection, 10);
  script.Write(*connection, 10);
  script.ExpectNothing();
  script.Send(kAck, kPeer, script.iss + 11);
  CHECK(script.Expect().payload.size() == 20);
}

TEST_CASE("TCP_NODELAY sends small segments at once", "[netstack][tcp]") {
  tcp::Settings settings;
  settings.no_delay = true;
  Script script;
  const auto connection = script.Open(Script::UsualOptions(), settings);
  script.Write(*connection, 10);
  script.Write(*connection, 10);
  CHECK(script.All().size() == 2);
}

TEST_CASE("a corked writer waits for a full segment, or 200 ms", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 100, false);
  script.ExpectNothing();
  script.Write(*connection, 950, false);
  CHECK(script.Expect().payload.size() == 1000);
  script.ExpectNothing();
  script.Send(kAck, kPeer, script.iss + 1001);
  script.ExpectNothing();
  script.Advance(201);
  CHECK(script.Expect().payload.size() == 50);
}

TEST_CASE("a lost tail is probed before the timeout (TLP)", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 1000);
  script.Advance(20);
  script.Send(kAck, kPeer, script.iss + 1001);
  script.Write(*connection, 3000);
  script.All();
  script.Advance(60);
  const auto probe = script.All();
  REQUIRE(probe.size() == 1);
  CHECK(probe[0].header.sequence == script.iss + 1 + 3000);
  CHECK(connection->GetInfo().congestion_state == 0);
}

TEST_CASE("a hole in the SACKs is sent again, and the window shrinks once", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 10000);
  CHECK(script.All().size() == 10);
  script.Advance(10);
  script.Send(kAck, kPeer, script.iss + 1, 0, 65535, Sack(script.iss + 1001, script.iss + 2001));
  script.ExpectNothing();
  script.Send(kAck, kPeer, script.iss + 1, 0, 65535, Sack(script.iss + 1001, script.iss + 4001));
  const auto again = script.All();
  REQUIRE(!again.empty());
  CHECK(again[0].header.sequence == script.iss + 1);
  CHECK(connection->GetInfo().congestion_state == 3);
  CHECK(connection->GetInfo().ssthresh == 7000);
  script.Advance(10);
  script.Send(kAck, kPeer, script.iss + 10001);
  CHECK(connection->GetInfo().congestion_state == 0);
  CHECK(connection->GetInfo().cwnd == 7000);
  CHECK(connection->GetInfo().total_retransmits == 1);
}

TEST_CASE("a peer without SACK gets a fast retransmission after three duplicates",
          "[netstack][tcp]") {
  Script script;
  tcp::Options options;
  options.mss = 1000;
  const auto connection = script.Open(options);
  script.Write(*connection, 10000);
  script.All();
  for (int i = 0; i < 2; ++i) script.Send(kAck, kPeer, script.iss + 1);
  script.ExpectNothing();
  script.Send(kAck, kPeer, script.iss + 1);
  const auto again = script.All();
  REQUIRE(!again.empty());
  CHECK(again[0].header.sequence == script.iss + 1);
  // A partial acknowledgment shows the next hole (RFC 6582).
  script.Send(kAck, kPeer, script.iss + 3001);
  const auto next = script.All();
  REQUIRE(!next.empty());
  CHECK(next[0].header.sequence == script.iss + 3001);
}

TEST_CASE("a timeout doubles, starts over slowly, and gives up in the end", "[netstack][tcp]") {
  Script script;
  tcp::Options options;
  options.mss = 1000;
  const auto connection = script.Open(options);
  script.Write(*connection, 5000);
  script.All();
  script.Advance(300);
  const auto first = script.All();
  REQUIRE(first.size() == 1);
  CHECK(first[0].header.sequence == script.iss + 1);
  CHECK(connection->GetInfo().cwnd == 1000);
  CHECK(connection->GetInfo().backoff == 1);
  script.Advance(1'500'000);
  CHECK(script.All().size() == 14);
  CHECK(connection->GetStatus().state == State::kClosed);
  CHECK(connection->TakeError() == ETIMEDOUT);
}

TEST_CASE("a timeout that was none is undone (Eifel)", "[netstack][tcp]") {
  Script script;
  tcp::Options options = Script::UsualOptions();
  options.has_timestamp = true;
  const auto connection = script.Open(options);
  script.Write(*connection, 9880);
  const auto sent = script.All();
  REQUIRE(sent.size() == 10);
  const uint32_t echo = sent[0].options.timestamp;
  const uint32_t cwnd = connection->GetInfo().cwnd;
  script.Advance(1500);
  CHECK(!script.All().empty());
  CHECK(connection->GetInfo().congestion_state == 4);
  script.echo = echo;  // The answer to the original.
  script.Send(kAck, kPeer, script.iss + 1 + 988);
  CHECK(connection->GetInfo().congestion_state == 0);
  CHECK(connection->GetInfo().cwnd >= cwnd);
}

TEST_CASE("closing goes through the states on either side", "[netstack][tcp]") {
  Script script;
  auto connection = script.Open();
  SECTION("we first") {
    connection->ShutdownWrite();
    CHECK(script.Expect().Is(kFin | kAck));
    CHECK(connection->GetStatus().state == State::kFinWait1);
    script.Send(kAck, kPeer, script.iss + 2);
    CHECK(connection->GetStatus().state == State::kFinWait2);
    script.Send(kFin | kAck, kPeer, script.iss + 2);
    CHECK(script.Expect().header.acknowledgment == kPeer + 1);
    CHECK(connection->GetStatus().state == State::kTimeWait);
    CHECK(script.stack().tcp().TimeWaits() == 1);
    // Its FIN again: our answer was lost.
    script.Send(kFin | kAck, kPeer, script.iss + 2);
    CHECK(script.Expect().header.acknowledgment == kPeer + 1);
    // A RST does not end TIME-WAIT (RFC 1337); a newer SYN does (RFC 6191).
    script.Send(kRst, kPeer + 1, 0);
    CHECK(script.stack().tcp().TimeWaits() == 1);
    script.Send(kSyn, kPeer + 100'000, 0);
    const auto answer = script.Expect();
    CHECK(answer.Is(kSyn | kAck));
    CHECK(tcp::After(answer.header.sequence, script.iss + 2));
  }
  SECTION("the peer first") {
    script.Send(kFin | kAck, kPeer, script.iss + 1);
    CHECK(script.Expect().header.acknowledgment == kPeer + 1);
    CHECK(connection->GetStatus().state == State::kCloseWait);
    connection->ShutdownWrite();
    CHECK(script.Expect().Is(kFin | kAck));
    CHECK(connection->GetStatus().state == State::kLastAck);
    script.Send(kAck, kPeer + 1, script.iss + 2);
    CHECK(connection->GetStatus().state == State::kClosed);
    CHECK(script.stack().tcp().Connections().empty());
  }
  SECTION("both at once") {
    connection->ShutdownWrite();
    script.Expect();
    script.Send(kFin | kAck, kPeer, script.iss + 1);
    script.Expect();
    CHECK(connection->GetStatus().state == State::kClosing);
    script.Send(kAck, kPeer + 1, script.iss + 2);
    CHECK(connection->GetStatus().state == State::kTimeWait);
  }
}

TEST_CASE("an orphan does not stay in FIN-WAIT-2", "[netstack][tcp]") {
  Script script;
  auto connection = script.Open();
  connection->Close(false);
  script.Expect();
  script.Send(kAck, kPeer, script.iss + 2);
  CHECK(connection->GetStatus().state == State::kFinWait2);
  script.Advance(61'000);
  CHECK(connection->GetStatus().state == State::kClosed);
}

TEST_CASE("closing with unread data resets", "[netstack][tcp]") {
  Script script;
  auto connection = script.Open();
  script.Send(kAck, kPeer, script.iss + 1, 10);
  script.All();
  connection->Close(false);
  CHECK(script.Expect().Is(kRst | kAck));
}

TEST_CASE("data for somebody who has closed resets", "[netstack][tcp]") {
  Script script;
  auto connection = script.Open();
  connection->Close(false);
  script.All();
  script.Send(kAck, kPeer, script.iss + 2, 10);
  CHECK(script.Expect().Is(kRst | kAck));
}

TEST_CASE("a FIN that comes before its data waits for it", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Send(kFin | kAck, kPeer + 100, script.iss + 1, 100);
  CHECK(!connection->GetStatus().peer_finished);
  script.Send(kAck, kPeer, script.iss + 1, 100);
  CHECK(connection->GetStatus().peer_finished);
  CHECK(connection->Readable() == 200);
  CHECK(script.All().back().header.acknowledgment == kPeer + 201);
}

TEST_CASE("connecting: SYN, answer, acknowledgment; a RST refuses", "[netstack][tcp]") {
  Script script;
  const auto connect = [&] {
    return tcp::Connection::Connect(script.stack(),
                                    {.flow = {.local = IpAddress::V4(0),
                                              .remote = script.peer(),
                                              .local_port = Script::kPort,
                                              .remote_port = Script::kPeerPort}},
                                    nullptr)
        .value();
  };
  auto connection = connect();
  const test::Sent syn = script.Expect();
  REQUIRE(syn.Is(kSyn));
  CHECK(syn.options.mss == 1460);
  CHECK(syn.options.window_scale == 7);
  const uint32_t iss = syn.header.sequence;
  SECTION("accepted") {
    script.Send(kSyn | kAck, 500, iss + 1);
    CHECK(script.Expect().header.acknowledgment == 501);
    CHECK(connection->GetStatus().state == State::kEstablished);
  }
  SECTION("refused") {
    script.Send(kRst | kAck, 0, iss + 1);
    CHECK(connection->GetStatus().state == State::kClosed);
    CHECK(connection->TakeError() == ECONNREFUSED);
  }
  SECTION("a blind RST is ignored") {
    script.Send(kRst | kAck, 0, iss + 7);
    script.Send(kRst, 0, 0);
    CHECK(connection->GetStatus().state == State::kSynSent);
  }
  SECTION("a wrong acknowledgment is reset") {
    script.Send(kSyn | kAck, 500, iss + 7);
    const test::Sent reset = script.Expect();
    CHECK(reset.Is(kRst));
    CHECK(reset.header.sequence == iss + 7);
    CHECK(connection->GetStatus().state == State::kSynSent);
  }
  SECTION("simultaneous open") {
    script.Send(kSyn, 500, 0);
    CHECK(script.Expect().Is(kSyn | kAck));
    CHECK(connection->GetStatus().state == State::kSynReceived);
    script.Send(kAck, 501, iss + 1);
    CHECK(connection->GetStatus().state == State::kEstablished);
  }
  SECTION("nobody answers") {
    script.Advance(400'000);
    CHECK(script.All().size() == 6);
    CHECK(connection->TakeError() == ETIMEDOUT);
  }
}

TEST_CASE("keepalive asks an idle peer, and resets one that is dead", "[netstack][tcp]") {
  tcp::Settings settings;
  settings.keep_alive = true;
  settings.keep_idle_ns = 10 * kNsPerSecond;
  settings.keep_interval_ns = kNsPerSecond;
  settings.keep_probes = 3;
  Script script;
  const auto connection = script.Open({}, settings);
  script.Advance(10'100);
  test::Sent probe = script.Expect();
  CHECK(probe.header.sequence == script.iss);
  CHECK(probe.payload.empty());
  script.Send(kAck, kPeer, script.iss + 1);
  script.Advance(9'000);
  script.ExpectNothing();
  script.Advance(10'000);
  const auto rest = script.All();
  REQUIRE(rest.size() == 4);
  CHECK(rest.back().Is(kRst | kAck));
  CHECK(connection->TakeError() == ETIMEDOUT);
}

TEST_CASE("the urgent byte is taken out of the stream, and marked", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open();
  script.Send(kAck | kUrg, kPeer, script.iss + 1, 10, 65535, {}, 5);
  CHECK(connection->Readable() == 9);
  CHECK(connection->GetStatus().bytes_to_mark == 4);
  CHECK(connection->TakeUrgent(false) == 'x');
  CHECK(!connection->TakeUrgent(false));
  script.All();
  script.Write(*connection, 3, true, true);
  const test::Sent sent = script.Expect();
  CHECK((sent.header.flags & kUrg) != 0);
  CHECK(sent.header.urgent == 3);
}

TEST_CASE("a tiny segment size does not make tiny segments", "[netstack][tcp]") {
  Script script;
  tcp::Options options;
  options.mss = 1;
  const auto connection = script.Open(options);
  CHECK(connection->GetInfo().send_mss >= 48);
}

TEST_CASE("a lower path MTU, told by a router, is obeyed", "[netstack][tcp]") {
  Script script;
  tcp::Options options;
  options.mss = 1460;
  const auto connection = script.Open(options);
  script.Write(*connection, 1460);
  const test::Sent big = script.Expect();
  const auto report = [&](uint32_t sequence, uint16_t mtu) {
    std::vector<uint8_t> icmp(8 + 28, 0);
    icmp[0] = 3;
    icmp[1] = 4;
    StoreBe16(&icmp[6], mtu);
    icmp[8] = 0x45;
    StoreBe16(&icmp[10], 1500);
    icmp[8 + 9] = 6;
    std::memcpy(&icmp[8 + 12], script.address().Packed().data(), 4);
    std::memcpy(&icmp[8 + 16], script.peer().Packed().data(), 4);
    StoreBe16(&icmp[28], Script::kPort);
    StoreBe16(&icmp[30], Script::kPeerPort);
    StoreBe32(&icmp[32], sequence);
    Checksum sum;
    sum.Add(icmp);
    StoreBe16(&icmp[2], sum.Value());
    script.Inject(kProtocolIcmp, Packet::FromBytes(icmp));
  };
  report(big.header.sequence + 1'000'000, 1200);  // About nothing that we sent.
  script.ExpectNothing();
  CHECK(connection->GetInfo().send_mss == 1460);
  report(big.header.sequence, 1200);
  CHECK(connection->GetInfo().send_mss == 1160);
  const auto again = script.All();
  REQUIRE(!again.empty());
  CHECK(again[0].payload.size() == 1160);
  report(big.header.sequence, 68);  // An attack: the floor is 552.
  CHECK(connection->GetInfo().send_mss >= 512);
}

TEST_CASE("SACK blocks that lie change nothing", "[netstack][tcp]") {
  Script script;
  const auto connection = script.Open(Script::UsualOptions());
  script.Write(*connection, 5000);
  script.All();
  for (const auto& block : {tcp::SackBlock{script.iss + 5000, script.iss + 90000},
                            tcp::SackBlock{script.iss + 3000, script.iss + 2000},
                            tcp::SackBlock{script.iss - 5000, script.iss + 0x7fffffff}}) {
    tcp::Options options;
    options.sack_count = 1;
    options.sacks[0] = block;
    script.Send(kAck, kPeer, script.iss + 1, 0, 65535, options);
  }
  CHECK(connection->GetInfo().sacked_segments == 0);
  // One byte at a time makes no entries.
  for (uint32_t i = 2; i < 900; ++i)
    script.Send(kAck, kPeer, script.iss + 1, 0, 65535, Sack(script.iss + i, script.iss + i + 1));
  CHECK(connection->GetInfo().sacked_segments == 0);
}

TEST_CASE("initial sequence numbers differ by flow and grow with time", "[netstack][tcp]") {
  Script script;
  const FlowKey one{script.address(), script.peer(), 1, 2};
  const FlowKey two{script.address(), script.peer(), 1, 3};
  const uint32_t first = script.stack().tcp().InitialSequence(one);
  CHECK(first != script.stack().tcp().InitialSequence(two));
  script.Advance(4);
  CHECK(script.stack().tcp().InitialSequence(one) - first == 1000);
}

}  // namespace
