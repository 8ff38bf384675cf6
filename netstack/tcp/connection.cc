#include "netstack/tcp/connection.h"

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netstack/header/bytes.h"
#include "netstack/header/ethernet.h"
#include "netstack/ip/ipv4.h"
#include "netstack/ip/ipv6.h"
#include "netstack/tcp/table.h"

namespace netstack::tcp {

using base::Errno;
using base::Result;

uint32_t LinkMss(const Path& path, bool v4) {
  const auto ip = static_cast<uint32_t>(v4 ? Ipv4::kHeaderBytes : Ipv6::kHeaderBytes);
  const uint32_t overhead = ip + static_cast<uint32_t>(kHeaderBytes);
  const uint32_t mtu = std::min<uint32_t>(path.mtu, 65535);
  return mtu > overhead + ControlBlock::kMssMin ? mtu - overhead : ControlBlock::kMssMin;
}

Connection::Connection(Stack& stack, const Options& options, const Path& path)
    : stack_(stack),
      flow_(options.flow),
      interface_index_(options.interface_index),
      hop_limit_(options.hop_limit),
      traffic_class_(options.traffic_class),
      path_(path),
      block_(
          *this, stack.counters(), options.settings, LinkMss(path, flow_.remote.is_v4()),
          path.interface->link().properties().splits_segments ? ControlBlock::kSuperPacketMax : 0,
          stack.tcp().TimestampOffset(flow_)) {}

Connection::~Connection() = default;

Result<std::shared_ptr<Connection>> Connection::Connect(Stack& stack, Options options,
                                                        std::shared_ptr<Observer> observer) {
  const Path path =
      TRY(stack.FindPath(options.flow.remote, options.flow.local, options.interface_index));
  if (options.flow.remote.is_multicast() ||
      stack.IsBroadcast(options.flow.remote, path.interface->index()))
    return Errno(ENETUNREACH);
  options.flow.local = path.source;
  auto connection = std::make_shared<Connection>(stack, options, path);
  connection->SetObserver(std::move(observer));
  const uint32_t sequence = TRY(stack.tcp().Add(connection));
  connection->Run([&](ControlBlock& block) { block.Connect(sequence); });
  return connection;
}

std::shared_ptr<Connection> Connection::Accept(Stack& stack, const Options& options,
                                               const Path& path,
                                               const ControlBlock::Handshake& handshake) {
  auto connection = std::make_shared<Connection>(stack, options, path);
  if (!stack.tcp().Add(connection).ok()) return nullptr;
  connection->Run([&](ControlBlock& block) { block.Accept(handshake); });
  return connection;
}

void Connection::SetObserver(std::shared_ptr<Observer> observer) {
  const absl::MutexLock lock(&mu_);
  observer_.swap(observer);
}

void Connection::SetHeaderFields(uint8_t hop_limit, uint8_t traffic_class) {
  hop_limit_ = hop_limit;
  traffic_class_ = traffic_class;
}

// --- Around each call.

void Connection::RefreshPathLocked() {
  if (stack_.IsCurrent(path_)) return;
  auto path = stack_.FindPath(flow_.remote, flow_.local, interface_index_);
  if (!path.ok()) {
    // No way at the moment: what is sent goes where it went, or is lost and sent again.
    path_.generation = 0;
    return;
  }
  path_ = path.value();
  block_.OnMtu(LinkMss(path_, flow_.remote.is_v4()), 0, false);
}

Connection::Aftermath Connection::CollectLocked() {
  Aftermath after;
  after.events = block_.TakeEvents();
  after.state = block_.state();
  if (after.events != 0) after.observer = observer_;
  const bool over = after.state == State::kClosed || after.state == State::kTimeWait;
  if (over && !left_) {
    left_ = true;
    after.info = block_.GetInfo();
  } else if (over) {
    after.state = State::kEstablished;  // Known already.
  }
  const int64_t deadline = block_.NextDeadlineNs();
  if (deadline < armed_ns_) armed_ns_ = after.deadline_ns = deadline;
  after.confirm = block_.made_progress();
  after.next_hop = path_.next_hop;
  after.interface = path_.interface;
  return after;
}

void Connection::Finish(const Aftermath& after) {
  if (after.deadline_ns != kNever) stack_.timers().Arm(*this, after.deadline_ns);
  if (after.confirm && after.interface->link().properties().kind == Link::Kind::kEthernet)
    after.interface->neighbors().Confirm(after.next_hop);
  if (after.state == State::kClosed) stack_.tcp().Remove(flow_, this);
  if (after.state == State::kTimeWait) stack_.tcp().EnterTimeWait(flow_, this, after.info);
  if (after.observer != nullptr) after.observer->OnEvents(after.events);
  stack_.Drain();
}

void Connection::Transmit(const Outgoing& segment) {
  PacketPtr packet = Packet::New();
  for (const Slice& slice : segment.payload) packet->Append(slice);
  if (segment.size > segment.mss) packet->segment_bytes = static_cast<uint16_t>(segment.mss);
  Table::Finish(*packet, flow_,
                {.source_port = flow_.local_port,
                 .destination_port = flow_.remote_port,
                 .sequence = segment.sequence,
                 .acknowledgment = segment.acknowledgment,
                 .flags = segment.flags,
                 .window = segment.window,
                 .urgent = segment.urgent},
                segment.options);
  Count(stack_.counters().tcp.out_segments);
  // What cannot be sent now is like what is lost on the way.
  (void)stack_.Send(path_,
                    {.source = flow_.local,
                     .destination = flow_.remote,
                     .protocol = kProtocolTcp,
                     .hop_limit = hop_limit_,
                     .traffic_class = traffic_class_,
                     .dont_fragment = true},
                    std::move(packet));
}

// --- The user.

size_t Connection::SendRoom() {
  const absl::MutexLock lock(&mu_);
  return block_.SendRoom();
}

Result<void> Connection::Send(Slice slice, bool push, bool urgent) {
  Result<void> result;
  Run([&](ControlBlock& block) {
    const State state = block.state();
    if (const int error = block.TakeError()) {
      result = Errno(error);
    } else if (block.write_finished() || state == State::kClosed || state == State::kTimeWait) {
      result = Errno(EPIPE);
    } else {
      block.Send(std::move(slice), push, urgent);
    }
  });
  return result;
}

size_t Connection::Readable() {
  const absl::MutexLock lock(&mu_);
  return block_.readable();
}

size_t Connection::Peek(size_t from, size_t count, Slices& out) {
  const absl::MutexLock lock(&mu_);
  const size_t size = block_.readable();
  if (from >= size) return 0;
  count = std::min(count, size - from);
  block_.Peek(from, count, out);
  return count;
}

void Connection::Consume(size_t count) {
  Run([&](ControlBlock& block) { block.Consume(std::min(count, block.readable())); });
}

std::optional<uint8_t> Connection::TakeUrgent(bool peek) {
  const absl::MutexLock lock(&mu_);
  return block_.TakeUrgent(peek);
}

void Connection::ShutdownWrite() {
  Run([](ControlBlock& block) { block.ShutdownWrite(); });
}

void Connection::ShutdownRead() {
  Run([](ControlBlock& block) { block.ShutdownRead(); });
}

void Connection::Close(bool reset) {
  SetObserver(nullptr);
  Run([&](ControlBlock& block) { block.Close(reset); });
}

Connection::Status Connection::GetStatus() {
  const absl::MutexLock lock(&mu_);
  return {.state = block_.state(),
          .error = block_.error(),
          .readable = block_.readable(),
          .send_room = block_.SendRoom(),
          .bytes_to_mark = block_.BytesToMark(),
          .peer_finished = block_.peer_finished(),
          .write_finished = block_.write_finished(),
          .read_shut = block_.read_shut(),
          .has_urgent = block_.has_urgent()};
}

ControlBlock::Info Connection::GetInfo() {
  const absl::MutexLock lock(&mu_);
  return block_.GetInfo();
}

int Connection::TakeError() {
  const absl::MutexLock lock(&mu_);
  const int error = block_.TakeError();
  return error != 0 ? error : block_.TakeSoftError();
}

// --- The stack.

void Connection::OnSegment(Segment segment) {
  Run([&](ControlBlock& block) { block.Input(std::move(segment)); });
}

void Connection::OnTimer() {
  {
    const absl::MutexLock lock(&mu_);
    armed_ns_ = kNever;
  }
  Run([](ControlBlock& block) { block.OnTimer(); });
}

void Connection::OnError(const TransportError& error) {
  const uint32_t sequence = LoadBe32(error.quoted.data() + 4);
  uint32_t mtu = 0;
  Run([&](ControlBlock& block) {
    if (error.error != EMSGSIZE) {
      block.OnIcmpError(error.error, error.hard, sequence);
      return;
    }
    const auto info = block.GetInfo();
    if (Before(sequence, info.send_unacknowledged) || After(sequence, info.send_next)) return;
    mu_.AssertHeld();  // By Run.
    mtu = std::max(error.mtu, flow_.remote.is_v4() ? 552u : Ipv6::kMtuMin);
    Path path = path_;
    path.mtu = mtu;
    block.OnMtu(LinkMss(path, flow_.remote.is_v4()), sequence, true);
  });
  if (mtu != 0) stack_.UpdatePathMtu(flow_.remote, mtu);
}

}  // namespace netstack::tcp
