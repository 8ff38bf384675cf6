#pragma once

// Which connection a segment belongs to (sharded by flow), what stays in TIME-WAIT, who listens;
// sequence numbers (RFC 6528), timestamp offsets and cookies, which hang on secrets of the stack;
// answers to segments that belong to nobody (RFC 9293 3.10.7.1).

#include <array>
#include <deque>
#include <memory>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/header/tcp.h"
#include "netstack/stack/timer.h"
#include "netstack/stack/transport.h"
#include "netstack/tcp/control_block.h"
#include "platform/base/result.h"

namespace netstack {
class Stack;
}

namespace netstack::tcp {

class Connection;
class Listener;

class Table {
 public:
  static constexpr size_t kShards = 32;
  static constexpr size_t kTimeWaitsMax = 65536;  // Of all; the oldest goes.
  static constexpr int64_t kTimeWaitNs = 60 * kNsPerSecond;

  explicit Table(Stack& stack);
  ~Table();

  // --- Connections. Add returns the initial sequence number; EADDRINUSE.
  base::Result<uint32_t> Add(const std::shared_ptr<Connection>& connection);
  void Remove(const FlowKey& flow, const Connection* connection);
  void EnterTimeWait(const FlowKey& flow, const Connection* connection,
                     const ControlBlock::Info& info);
  // Whether a connection may be made: nobody has the flow.
  bool IsFree(const FlowKey& flow);
  std::vector<std::shared_ptr<Connection>> Connections();
  size_t TimeWaits();

  // --- Listeners.
  base::Result<void> AddListener(const std::shared_ptr<Listener>& listener)
      ABSL_LOCKS_EXCLUDED(listeners_mu_);
  void RemoveListener(const Listener* listener) ABSL_LOCKS_EXCLUDED(listeners_mu_);

  // --- Packets.
  void Receive(Received received);
  void OnError(const TransportError& error);
  // A segment without a connection. `path` null: looked up.
  void SendSegment(const FlowKey& flow, const Path* path, const Header& header,
                   const Options& options);
  void SendResetFor(const FlowKey& flow, const Segment& segment);
  // Puts header, options and the partial checksum in front of the payload.
  static void Finish(Packet& packet, const FlowKey& flow, const Header& header,
                     const Options& options);

  // --- Secrets.
  uint32_t InitialSequence(const FlowKey& flow) const;
  uint32_t TimestampOffset(const FlowKey& flow) const;
  uint32_t CookieHash(const FlowKey& flow, uint32_t irs, uint32_t period_and_mss) const;

 private:
  struct TimeWait {
    uint32_t send_next = 0, receive_next = 0, receive_window = 0;
    bool timestamps = false;
    uint32_t timestamp_recent = 0, timestamp_offset = 0;
    int64_t entered_ns = 0, expires_ns = 0;
    int64_t answered_ns = 0;
  };
  struct Shard {
    absl::Mutex mu;
    absl::flat_hash_map<FlowKey, std::shared_ptr<Connection>> connections ABSL_GUARDED_BY(mu);
    absl::flat_hash_map<FlowKey, TimeWait> time_waits ABSL_GUARDED_BY(mu);
    std::deque<std::pair<int64_t, FlowKey>> expiries ABSL_GUARDED_BY(mu);  // Ascending.
  };
  class Reaper;
  Shard& ShardOf(const FlowKey& flow);
  // True: it was for a connection that has gone, and is dealt with. False with `reuse` set to a
  // sequence number to start beyond: a new connection takes its place.
  bool InputTimeWait(const FlowKey& flow, const Segment& segment, std::optional<uint32_t>& reuse);
  std::shared_ptr<Listener> FindListener(const Received& received, const FlowKey& flow)
      ABSL_LOCKS_EXCLUDED(listeners_mu_);
  int64_t ExpireTimeWaits();

  Stack& stack_;
  std::array<uint64_t, 2> sequence_key_, timestamp_key_, cookie_key_;
  std::array<Shard, kShards> shards_;
  std::shared_ptr<Reaper> reaper_;
  absl::Mutex listeners_mu_;
  absl::flat_hash_map<uint16_t, std::vector<std::shared_ptr<Listener>>> listeners_
      ABSL_GUARDED_BY(listeners_mu_);
};

}  // namespace netstack::tcp
