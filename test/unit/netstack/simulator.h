#pragma once

// Hosts with stacks of their own on one simulated Ethernet, and a clock that jumps from event to
// event. What the wire does to packets (delay, loss, duplicates, disorder, damage) is decided by a
// seeded generator, so that each run is the same.

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "netstack/link/memory_link.h"
#include "netstack/stack/stack.h"

namespace test {

class SimulatedClock final : public netstack::Clock {
 public:
  int64_t NowNs() const override { return now_ns; }
  int64_t now_ns = 1'000'000'000'000;
};

class SeededRandom final : public netstack::Random {
 public:
  explicit SeededRandom(uint32_t seed) : generator_(seed) {}
  void Fill(std::span<uint8_t> bytes) override {
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(generator_());
  }

 private:
  std::mt19937 generator_;
};

struct Wire {
  int64_t delay_ns = 1'000'000;
  double loss = 0;
  double duplicate = 0;
  double reorder = 0;  // These are late by up to three delays.
  double corrupt = 0;
};

struct Host {
  Host(const netstack::Clock& clock, uint32_t number, const netstack::Link::Properties& base)
      : random(number), stack(clock, random) {
    netstack::Link::Properties properties = base;
    properties.address = {{2, 0, 0, 0, 0, static_cast<uint8_t>(number)}};
    auto owned = std::make_unique<netstack::MemoryLink>(properties);
    link = owned.get();
    interface = &stack.AddInterface("eth0", std::move(owned));
    v4 = netstack::IpAddress::V4(0x0a000000 + number);
    v6 = netstack::MustParseAddress(("fd00::" + std::to_string(number)).c_str());
    (void)stack.AddAddress(interface->index(), {.prefix = {v4, 24}});
    (void)stack.AddAddress(interface->index(), {.prefix = {v6, 64}});
    (void)stack.AddRoute({.destination = {netstack::MustParseAddress("10.0.0.0"), 24},
                          .gateway = std::nullopt,
                          .interface_index = interface->index(),
                          .preferred_source = std::nullopt});
    (void)stack.AddRoute({.destination = {netstack::MustParseAddress("fd00::"), 64},
                          .gateway = std::nullopt,
                          .interface_index = interface->index(),
                          .preferred_source = std::nullopt});
  }
  SeededRandom random;
  netstack::Stack stack;
  netstack::MemoryLink* link;
  netstack::Interface* interface;
  netstack::IpAddress v4, v6;
};

class Simulator {
 public:
  explicit Simulator(uint32_t seed = 1, const netstack::Link::Properties& properties = {})
      : a(clock, 1, properties), b(clock, 2, properties), generator_(seed) {}

  // Runs until `done` or for `limit_ns`; true if done.
  bool RunUntil(const std::function<bool()>& done, int64_t limit_ns = 600'000'000'000) {
    const int64_t end = clock.now_ns + limit_ns;
    while (true) {
      Collect(a);
      Collect(b);
      if (done()) return true;
      const int64_t due = flying_.empty() ? netstack::kNever : flying_.begin()->first;
      const int64_t next = std::min({due, a.stack.NextTimerNs(), b.stack.NextTimerNs()});
      if (next > end) {
        clock.now_ns = end;
        return done();
      }
      clock.now_ns = std::max(clock.now_ns, next);
      while (!flying_.empty() && flying_.begin()->first <= clock.now_ns) {
        auto [host, packet] = std::move(flying_.begin()->second);
        flying_.erase(flying_.begin());
        host->stack.Receive(*host->interface, std::move(packet));
      }
      a.stack.RunTimers();
      b.stack.RunTimers();
    }
  }
  void Run(int64_t ns) {
    RunUntil([] { return false; }, ns);
  }

  SimulatedClock clock;
  Wire wire;
  Host a, b;
  uint64_t packets = 0;
  // Sees each packet before its fate is decided; false loses it.
  std::function<bool(netstack::Packet&)> tap;

 private:
  bool Happens(double probability) {
    return probability > 0 && std::uniform_real_distribution<>(0, 1)(generator_) < probability;
  }
  void Collect(Host& from) {
    Host& to = &from == &a ? b : a;
    while (netstack::PacketPtr packet = from.link->Take()) {
      ++packets;
      if (tap && !tap(*packet)) continue;
      if (Happens(wire.loss)) continue;
      // On a wire there are bytes only, unless the link promised otherwise.
      std::vector<uint8_t> bytes(packet->size());
      packet->CopyTo(bytes);
      if (Happens(wire.corrupt)) {
        const size_t at = std::uniform_int_distribution<size_t>(0, bytes.size() - 1)(generator_);
        bytes[at] = static_cast<uint8_t>(bytes[at] ^ (1 + (generator_() % 255)));
      }
      const int copies = Happens(wire.duplicate) ? 2 : 1;
      for (int i = 0; i < copies; ++i) {
        int64_t delay = wire.delay_ns;
        if (Happens(wire.reorder))
          delay += std::uniform_int_distribution<int64_t>(0, 3 * wire.delay_ns)(generator_);
        netstack::PacketPtr copy = netstack::Packet::FromBytes(bytes);
        if (packet->checksum == netstack::ChecksumState::kPartial)
          copy->checksum = netstack::ChecksumState::kVerified;
        copy->segment_bytes = packet->segment_bytes;
        flying_.emplace(clock.now_ns + delay, std::make_pair(&to, std::move(copy)));
      }
    }
  }
  std::mt19937 generator_;
  std::multimap<int64_t, std::pair<Host*, netstack::PacketPtr>> flying_;
};

}  // namespace test
