#include "netstack/tcp/table.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "absl/hash/hash.h"
#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/header/siphash.h"
#include "netstack/stack/stack.h"
#include "netstack/tcp/connection.h"
#include "netstack/tcp/listener.h"

namespace netstack::tcp {

using base::Errno;
using base::Result;

class Table::Reaper final : public TimerTarget {
 public:
  explicit Reaper(Table& table) : table_(table) {}
  void OnTimer() override { table_.stack_.timers().Arm(*this, table_.ExpireTimeWaits()); }

 private:
  Table& table_;
};

Table::Table(Stack& stack) : stack_(stack), reaper_(std::make_shared<Reaper>(*this)) {
  for (auto* key : {&sequence_key_, &timestamp_key_, &cookie_key_})
    stack.random().Fill({reinterpret_cast<uint8_t*>(key->data()), sizeof(*key)});
}

Table::~Table() = default;

Table::Shard& Table::ShardOf(const FlowKey& flow) {
  return shards_[absl::Hash<FlowKey>()(flow) % kShards];
}

// --- Secrets.

uint32_t Table::InitialSequence(const FlowKey& flow) const {
  // RFC 6528 3: a clock of 4 us and a keyed hash.
  const auto ticks = static_cast<uint64_t>(stack_.clock().NowNs()) / 4000;
  const uint64_t ports = (uint64_t{flow.local_port} << 16) | flow.remote_port;
  const uint64_t hash =
      SipHash(sequence_key_).Add(flow.local.bytes).Add(flow.remote.bytes).Add(ports).Value();
  return static_cast<uint32_t>(ticks + hash);
}

uint32_t Table::TimestampOffset(const FlowKey& flow) const {
  // Per pair of hosts, so that it grows over connections that follow each other (RFC 7323 7.1).
  return static_cast<uint32_t>(
      SipHash(timestamp_key_).Add(flow.local.bytes).Add(flow.remote.bytes).Value());
}

uint32_t Table::CookieHash(const FlowKey& flow, uint32_t irs, uint32_t period_and_mss) const {
  const uint64_t ports = (uint64_t{flow.local_port} << 16) | flow.remote_port;
  return static_cast<uint32_t>(SipHash(cookie_key_)
                                   .Add(flow.local.bytes)
                                   .Add(flow.remote.bytes)
                                   .Add(ports)
                                   .Add((uint64_t{irs} << 32) | period_and_mss)
                                   .Value());
}

// --- Connections.

Result<uint32_t> Table::Add(const std::shared_ptr<Connection>& connection) {
  const FlowKey& flow = connection->flow();
  const int64_t now = stack_.clock().NowNs();
  uint32_t sequence = InitialSequence(flow);
  Shard& shard = ShardOf(flow);
  const absl::MutexLock lock(&shard.mu);
  const auto waiting = shard.time_waits.find(flow);
  if (waiting != shard.time_waits.end()) {
    // Linux's tcp_tw_reuse: timestamps tell old segments from new ones after a second.
    const TimeWait& old = waiting->second;
    const bool reusable =
        now >= old.expires_ns || (old.timestamps && now - old.entered_ns >= kNsPerSecond);
    if (!reusable) return Errno(EADDRINUSE);
    Count(stack_.counters().tcp.time_wait_reused);
    sequence = MaxSeq(sequence, old.send_next + 65535 + 2);
    shard.time_waits.erase(waiting);
  }
  if (!shard.connections.emplace(flow, connection).second) return Errno(EADDRINUSE);
  return sequence;
}

void Table::Remove(const FlowKey& flow, const Connection* connection) {
  std::shared_ptr<Connection> last;  // Dies after the lock is released.
  Shard& shard = ShardOf(flow);
  const absl::MutexLock lock(&shard.mu);
  const auto found = shard.connections.find(flow);
  if (found == shard.connections.end() || found->second.get() != connection) return;
  last = std::move(found->second);
  shard.connections.erase(found);
}

void Table::EnterTimeWait(const FlowKey& flow, const Connection* connection,
                          const ControlBlock::Info& info) {
  const int64_t now = stack_.clock().NowNs();
  std::shared_ptr<Connection> last;
  {
    Shard& shard = ShardOf(flow);
    const absl::MutexLock lock(&shard.mu);
    const auto found = shard.connections.find(flow);
    if (found == shard.connections.end() || found->second.get() != connection) return;
    last = std::move(found->second);
    shard.connections.erase(found);
    while (shard.time_waits.size() >= kTimeWaitsMax / kShards && !shard.expiries.empty()) {
      shard.time_waits.erase(shard.expiries.front().second);
      shard.expiries.pop_front();
    }
    shard.time_waits[flow] = {.send_next = info.send_next,
                              .receive_next = info.receive_next,
                              .receive_window = info.receive_window,
                              .timestamps = info.timestamps,
                              .timestamp_recent = info.timestamp_recent,
                              .timestamp_offset = info.timestamp_offset,
                              .entered_ns = now,
                              .expires_ns = now + kTimeWaitNs};
    shard.expiries.emplace_back(now + kTimeWaitNs, flow);
  }
  stack_.timers().Arm(*reaper_, now + kTimeWaitNs);
}

int64_t Table::ExpireTimeWaits() {
  const int64_t now = stack_.clock().NowNs();
  int64_t next = kNever;
  for (Shard& shard : shards_) {
    const absl::MutexLock lock(&shard.mu);
    while (!shard.expiries.empty() && shard.expiries.front().first <= now) {
      const auto found = shard.time_waits.find(shard.expiries.front().second);
      if (found != shard.time_waits.end()) {
        // Restarted by a FIN that came again: later.
        if (found->second.expires_ns > now) {
          shard.expiries.emplace_back(found->second.expires_ns, found->first);
        } else {
          shard.time_waits.erase(found);
        }
      }
      shard.expiries.pop_front();
    }
    if (!shard.expiries.empty()) next = std::min(next, shard.expiries.front().first);
  }
  return next;
}

bool Table::IsFree(const FlowKey& flow) {
  Shard& shard = ShardOf(flow);
  const absl::MutexLock lock(&shard.mu);
  return !shard.connections.contains(flow) && !shard.time_waits.contains(flow);
}

std::vector<std::shared_ptr<Connection>> Table::Connections() {
  std::vector<std::shared_ptr<Connection>> all;
  for (Shard& shard : shards_) {
    const absl::MutexLock lock(&shard.mu);
    for (const auto& [flow, connection] : shard.connections) all.push_back(connection);
  }
  return all;
}

size_t Table::TimeWaits() {
  size_t count = 0;
  for (Shard& shard : shards_) {
    const absl::MutexLock lock(&shard.mu);
    count += shard.time_waits.size();
  }
  return count;
}

// --- Listeners.

Result<void> Table::AddListener(const std::shared_ptr<Listener>& listener) {
  const absl::MutexLock lock(&listeners_mu_);
  auto& list = listeners_[listener->options().port];
  for (const auto& other : list) {
    const bool share = other->options().shares && listener->options().shares;
    if (other->options().local == listener->options().local && !share &&
        other->options().interface_index == listener->options().interface_index)
      return Errno(EADDRINUSE);
  }
  list.push_back(listener);
  return {};
}

void Table::RemoveListener(const Listener* listener) {
  std::shared_ptr<Listener> last;
  const absl::MutexLock lock(&listeners_mu_);
  const auto found = listeners_.find(listener->options().port);
  if (found == listeners_.end()) return;
  auto& list = found->second;
  for (auto it = list.begin(); it != list.end(); ++it) {
    if (it->get() != listener) continue;
    last = std::move(*it);
    list.erase(it);
    break;
  }
  if (list.empty()) listeners_.erase(found);
}

std::shared_ptr<Listener> Table::FindListener(const Received& received, const FlowKey& flow) {
  std::vector<const std::shared_ptr<Listener>*> best;
  int best_score = 0;
  const absl::ReaderMutexLock lock(&listeners_mu_);
  const auto found = listeners_.find(flow.local_port);
  if (found == listeners_.end()) return nullptr;
  for (const auto& listener : found->second) {
    const Listener::Options& options = listener->options();
    int score = 0;
    if (options.local.is_any()) {
      const bool same = options.local.is_v4() == flow.local.is_v4();
      if (!same && (options.local.is_v4() || options.v6_only)) continue;
      score = same ? 2 : 1;
    } else if (options.local == flow.local) {
      score = 4;
    } else {
      continue;
    }
    if (options.interface_index != 0) {
      if (options.interface_index != received.interface->index()) continue;
      score += 4;
    }
    if (score > best_score) best.clear();
    if (score >= best_score) best.push_back(&listener);
    best_score = std::max(best_score, score);
  }
  if (best.empty()) return nullptr;
  return *best[best.size() == 1 ? 0 : absl::Hash<FlowKey>()(flow) % best.size()];
}

// --- Packets.

void Table::Receive(Received received) {
  auto& counters = stack_.counters().tcp;
  Count(counters.in_segments);
  Packet& packet = *received.packet;
  const uint32_t offset = received.transport_offset;
  const uint8_t* p = packet.Pull(offset + kHeaderBytes);
  if (p == nullptr || received.to_group) {
    Count(counters.in_errors);
    return;
  }
  Segment segment;
  const size_t header = ReadHeader(p + offset, segment.header);
  p = header == 0 ? nullptr : packet.Pull(offset + header);
  if (p == nullptr) {
    Count(counters.in_errors);
    return;
  }
  if (packet.checksum == ChecksumState::kUnknown) {
    Checksum sum;
    AddPseudoHeader(sum, received.source, received.destination, kProtocolTcp,
                    packet.size() - offset);
    const PacketPtr whole = packet.Clone();
    whole->TrimFront(offset);
    whole->AddTo(sum);
    if (sum.Value() != 0) {
      Count(counters.in_checksum_errors);
      return;
    }
    p = packet.Pull(offset + header);
  }
  segment.options = ParseOptions({p + offset + kHeaderBytes, header - kHeaderBytes},
                                 (segment.header.flags & kSyn) != 0);
  packet.TrimFront(offset + header);
  segment.size = static_cast<uint32_t>(packet.size());
  segment.segment_count = std::max<uint16_t>(packet.segment_count, 1);
  if (packet.segment_bytes != 0)
    segment.segment_count =
        static_cast<uint16_t>((segment.size + packet.segment_bytes - 1) / packet.segment_bytes);
  segment.payload = std::move(received.packet);
  const FlowKey flow{received.destination, received.source, segment.header.destination_port,
                     segment.header.source_port};
  std::shared_ptr<Connection> connection;
  {
    Shard& shard = ShardOf(flow);
    const absl::MutexLock lock(&shard.mu);
    const auto found = shard.connections.find(flow);
    if (found != shard.connections.end()) connection = found->second;
  }
  if (connection != nullptr) {
    connection->OnSegment(std::move(segment));
    return;
  }
  std::optional<uint32_t> reuse;
  if (InputTimeWait(flow, segment, reuse)) return;
  if (const auto listener = FindListener(received, flow)) {
    listener->OnSegment(flow, std::move(segment), reuse);
  } else {
    SendResetFor(flow, segment);
  }
}

// RFC 9293 3.10.7.4 for TIME-WAIT, RFC 6191 for a new SYN, RFC 1337: a RST does not end it.
bool Table::InputTimeWait(const FlowKey& flow, const Segment& segment,
                          std::optional<uint32_t>& reuse) {
  const Header& header = segment.header;
  const int64_t now = stack_.clock().NowNs();
  TimeWait entry;
  {
    Shard& shard = ShardOf(flow);
    const absl::MutexLock lock(&shard.mu);
    const auto found = shard.time_waits.find(flow);
    if (found == shard.time_waits.end()) return false;
    entry = found->second;
    const bool syn = (header.flags & (kSyn | kRst | kAck)) == kSyn;
    const bool newer = entry.timestamps && segment.options.has_timestamp
                           ? After(segment.options.timestamp, entry.timestamp_recent)
                           : After(header.sequence, entry.receive_next);
    if (syn && newer) {
      reuse = entry.send_next + 65535 + 2;
      shard.time_waits.erase(found);
      return false;
    }
    if ((header.flags & kRst) != 0) return true;
    if ((header.flags & kFin) != 0) found->second.expires_ns = now + kTimeWaitNs;
    constexpr int64_t kIntervalNs = 500 * kNsPerMs;
    if (segment.length() == 0 || (entry.answered_ns != 0 && now - entry.answered_ns < kIntervalNs))
      return true;
    found->second.answered_ns = now;
  }
  Options options;
  if (entry.timestamps) {
    options.has_timestamp = true;
    options.timestamp = static_cast<uint32_t>(now / kNsPerMs) + entry.timestamp_offset;
    options.timestamp_echo = entry.timestamp_recent;
  }
  SendSegment(flow, nullptr,
              {.source_port = flow.local_port,
               .destination_port = flow.remote_port,
               .sequence = entry.send_next,
               .acknowledgment = entry.receive_next,
               .flags = kAck,
               .window = static_cast<uint16_t>(std::min(entry.receive_window, 65535u))},
              options);
  return true;
}

void Table::SendResetFor(const FlowKey& flow, const Segment& segment) {
  const Header& header = segment.header;
  if ((header.flags & kRst) != 0) return;
  Header reset{.source_port = flow.local_port, .destination_port = flow.remote_port, .flags = kRst};
  if ((header.flags & kAck) != 0) {
    reset.sequence = header.acknowledgment;
  } else {
    reset.flags |= kAck;
    reset.acknowledgment = header.sequence + segment.length();
  }
  Count(stack_.counters().tcp.out_resets);
  SendSegment(flow, nullptr, reset, {});
}

void Table::Finish(Packet& packet, const FlowKey& flow, const Header& header,
                   const Options& options) {
  uint8_t option_bytes[kHeaderBytesMax - kHeaderBytes];
  const size_t option_size = WriteOptions(options, option_bytes);
  uint8_t* p = packet.Prepend(kHeaderBytes + option_size);
  WriteHeader(header, kHeaderBytes + option_size, p);
  if (option_size != 0) std::memcpy(p + kHeaderBytes, option_bytes, option_size);
  Checksum sum;
  AddPseudoHeader(sum, flow.local, flow.remote, kProtocolTcp, packet.size());
  StoreBe16(p + 16, sum.Sum());
  packet.checksum = ChecksumState::kPartial;
  packet.checksum_field = 16;
  packet.transport_bytes = static_cast<uint32_t>(packet.size());
}

void Table::SendSegment(const FlowKey& flow, const Path* path, const Header& header,
                        const Options& options) {
  Path found;
  if (path == nullptr) {
    auto result = stack_.FindPath(flow.remote, flow.local);
    if (!result.ok()) return;
    found = result.value();
    path = &found;
  }
  PacketPtr packet = Packet::New();
  Finish(*packet, flow, header, options);
  Count(stack_.counters().tcp.out_segments);
  (void)stack_.Send(*path,
                    {.source = flow.local,
                     .destination = flow.remote,
                     .protocol = kProtocolTcp,
                     .dont_fragment = true},
                    std::move(packet));
}

void Table::OnError(const TransportError& error) {
  if (error.quoted.size() < 8) return;
  const FlowKey flow{error.local, error.remote, LoadBe16(error.quoted.data()),
                     LoadBe16(error.quoted.data() + 2)};
  std::shared_ptr<Connection> connection;
  {
    Shard& shard = ShardOf(flow);
    const absl::MutexLock lock(&shard.mu);
    const auto found = shard.connections.find(flow);
    if (found != shard.connections.end()) connection = found->second;
  }
  if (connection != nullptr) connection->OnError(error);
}

}  // namespace netstack::tcp
