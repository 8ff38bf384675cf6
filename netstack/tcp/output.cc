// What is sent, and when: Nagle (RFC 9293 3.7.4), silly windows (RFC 9293 3.8.6.2.1),
// retransmission before new data (RFC 6675 5 (C)), super-packets.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netstack/tcp/control_block.h"

namespace netstack::tcp {

uint32_t ControlBlock::SegmentBytes() const {
  uint32_t mss = std::min(link_mss_, peer_mss_);
  if (settings_.mss_max != 0) mss = std::min<uint32_t>(mss, settings_.mss_max);
  mss = std::max(mss, kMssMin);
  return use_timestamps_ ? mss - 12 : mss;
}

// Autotuned: twice what may be in flight, so that the writer is never what the network waits for.
uint32_t ControlBlock::SendBuffer() const {
  if (settings_.send_buffer != 0) return settings_.send_buffer;
  return std::clamp(2 * std::min(congestion_.cwnd(), kSendBufferMax / 2), kSendBufferDefault,
                    kSendBufferMax);
}

size_t ControlBlock::SendRoom() const {
  const uint32_t buffer = SendBuffer();
  return send_queue_.size() >= buffer ? 0 : buffer - send_queue_.size();
}

bool ControlBlock::MaySendData() const {
  switch (state_) {
    case State::kEstablished:
    case State::kCloseWait:
    case State::kFinWait1:
    case State::kClosing:
    case State::kLastAck:
      return true;
    default:
      return false;
  }
}

Options ControlBlock::DataOptions() {
  Options options;
  if (use_timestamps_) {
    options.has_timestamp = true;
    options.timestamp = TimestampNow();
    options.timestamp_echo = timestamp_recent_;
  }
  return options;
}

void ControlBlock::Emit(uint32_t sequence, uint8_t flags, uint32_t size) {
  const int64_t now = wire_.NowNs();
  Outgoing out;
  out.sequence = sequence;
  out.acknowledgment = receive_next_;
  out.flags = flags | kAck;
  out.options = DataOptions();
  // A full segment has no room for blocks: the acknowledgment with them goes by itself.
  const bool wants_sacks = use_sack_ && (!out_of_order_.empty() || duplicate_);
  const bool has_sacks = wants_sacks && size + kSackRoom <= send_mss_;
  if (has_sacks) FillSacks(out.options);
  out.window = static_cast<uint16_t>(std::min(SelectWindow() >> receive_scale_, 65535u));
  out.mss = send_mss_;
  out.size = size;
  if (size != 0) send_queue_.Get(sequence - send_data_start_, size, out.payload);
  if (send_urgent_set_ && After(send_urgent_, sequence)) {
    // RFC 9293 3.8.5: the pointer says how far; beyond its reach it comes with a later segment.
    const uint32_t distance = send_urgent_ - sequence;
    if (distance <= 65535) {
      out.flags |= kUrg;
      out.urgent = static_cast<uint16_t>(distance);
    }
  }
  if (size != 0) {
    bytes_sent_ += size;
    last_sent_ns_ = now;
    // Request and response: our data will carry the acknowledgments.
    if (now - last_received_ns_ < kDelayedAck) interactive_ = true;
  }
  segments_out_ += size > send_mss_ ? (size + send_mss_ - 1) / send_mss_ : 1;
  receive_acked_ = receive_next_;
  unacked_in_ = 0;
  ack_now_ = ack_now_ && wants_sacks && !has_sacks;
  delayed_ack_at_ = kNever;
  wire_.Transmit(out);
}

void ControlBlock::SendAck() { Emit(send_next_, 0, 0); }

// An acknowledgment that its peer has to answer: its sequence number is behind the window.
void ControlBlock::SendProbe(uint32_t sequence) { Emit(sequence, 0, 0); }

void ControlBlock::SendSyn() {
  Outgoing out;
  out.sequence = initial_sent_;
  out.flags = kSyn;
  out.options.mss = static_cast<uint16_t>(std::min<uint32_t>(link_mss_, 65535));
  if (settings_.mss_max != 0)
    out.options.mss = std::min<uint16_t>(*out.options.mss, settings_.mss_max);
  out.options.has_timestamp = use_timestamps_;
  out.options.timestamp = TimestampNow();
  out.options.sack_permitted = use_sack_;
  const bool answer = state_ == State::kSynReceived;
  if (answer) {
    out.flags |= kAck;
    out.acknowledgment = receive_next_;
    out.options.timestamp_echo = timestamp_recent_;
  }
  if (!answer || receive_scale_ != 0 || send_scale_ != 0) out.options.window_scale = receive_scale_;
  out.window = static_cast<uint16_t>(std::min<uint32_t>(ReceiveBuffer(), 65535));
  out.mss = link_mss_;
  last_sent_ns_ = wire_.NowNs();
  ++segments_out_;
  wire_.Transmit(out);
}

void ControlBlock::SendReset(uint32_t sequence, bool with_ack) {
  Outgoing out;
  out.sequence = sequence;
  out.flags = kRst;
  if (with_ack) {
    out.flags |= kAck;
    out.acknowledgment = receive_next_;
  }
  out.mss = link_mss_;
  Count(counters_.tcp.out_resets);
  wire_.Transmit(out);
}

// --- The user.

void ControlBlock::Send(Slice slice, bool push, bool urgent) {
  if (fin_queued_ || state_ == State::kClosed) return;
  send_queue_.Append(std::move(slice));
  push = push && !settings_.cork;
  if (push) push_end_ = DataEnd();
  if (urgent) {
    send_urgent_ = DataEnd();
    send_urgent_set_ = true;
  }
  if (!push && cork_at_ == kNever) cork_at_ = wire_.NowNs() + kCorkNs;
  Output();
}

void ControlBlock::Push() {
  push_end_ = DataEnd();
  cork_at_ = kNever;
  Output();
}

void ControlBlock::SettingsChanged() {
  if (settings_.quick_ack) {
    quick_acks_ = std::max(quick_acks_, 1);
    interactive_ = false;
    if (delayed_ack_at_ != kNever) SendAck();
  } else {
    interactive_ = true;
  }
  congestion_.set_kind(settings_.congestion);
  if (state_ == State::kEstablished || state_ == State::kCloseWait) {
    send_mss_ = SegmentBytes();
    ArmKeepAlive();
    if (settings_.no_delay || !settings_.cork) Push();
  }
  events_ |= kWritable;
}

void ControlBlock::ShutdownWrite() {
  if (fin_queued_) return;
  switch (state_) {
    case State::kSynSent:
      SetState(State::kClosed);
      return;
    case State::kSynReceived:
      fin_queued_ = true;
      return;
    case State::kEstablished:
      SetState(State::kFinWait1);
      break;
    case State::kCloseWait:
      SetState(State::kLastAck);
      break;
    default:
      return;
  }
  fin_queued_ = true;
  Push();
}

void ControlBlock::ShutdownRead() {
  read_shut_ = true;
  events_ |= kReadable;
}

void ControlBlock::Close(bool reset) {
  detached_ = true;
  if (state_ == State::kClosed || state_ == State::kTimeWait) return;
  if (state_ == State::kSynSent) {
    SetState(State::kClosed);
    return;
  }
  if (reset || !receive_queue_.empty()) {
    SendReset(send_next_, true);
    error_ = ECONNRESET;
    SetState(State::kClosed);
    return;
  }
  ShutdownWrite();
  if (state_ == State::kFinWait2) close_at_ = wire_.NowNs() + settings_.fin_wait_ns;
}

// --- Segments.

void ControlBlock::Output() {
  if (!MaySendData()) return;
  const int64_t now = wire_.NowNs();
  if (sent_.empty() && last_sent_ns_ != 0 && now - last_sent_ns_ > Rto() &&
      After(DataEnd(), send_next_))
    congestion_.OnIdle(now - last_sent_ns_, Rto());
  window_limited_ = false;
  bool sent_any = false;
  for (int guard = 0; guard < 1024; ++guard) {
    const uint32_t flight = InFlight();
    const uint32_t cwnd = congestion_.cwnd();
    const uint32_t room = cwnd > flight ? cwnd - flight : 0;
    if (lost_bytes_ > retransmitted_bytes_) {
      const uint32_t repaired = RetransmitLost(room);
      if (repaired != 0) {
        sent_any = true;
        continue;
      }
      window_limited_ = true;
      if (repair_ != Repair::kOpen) break;
    }
    const uint32_t edge = send_unacked_ + send_window_;
    if (!SendNew(After(edge, send_next_) ? edge - send_next_ : 0, room, false)) break;
    sent_any = true;
  }
  max_in_flight_ = std::max(max_in_flight_, InFlight());
  if (sent_any) {
    ArmRetransmit();
  } else if (sent_.empty() && timer_kind_ == TimerKind::kNone &&
             (After(DataEnd(), send_next_) || (fin_queued_ && !fin_sent_))) {
    ArmProbe();
  }
}

// True if a segment went out and another may follow. `forced`: Nagle does not hold it, nor the
// window's size.
bool ControlBlock::SendNew(uint32_t window_room, uint32_t congestion_room, bool forced) {
  if (fin_sent_) return false;
  const uint32_t available = DataEnd() - send_next_;
  if (available == 0) {
    if (!fin_queued_ || window_room == 0) return false;
    Emit(send_next_, kFin, 0);
    sent_.push_back({.start = send_next_, .end = send_next_ + 1, .sent_ns = wire_.NowNs()});
    ++send_next_;
    fin_sent_ = true;
    return false;
  }
  const uint32_t mss = send_mss_;
  const bool idle = sent_.empty();
  uint32_t size = std::min({available, window_room, congestion_room});
  if (congestion_room < std::min(available, mss) && window_room >= std::min(available, mss)) {
    window_limited_ = true;
    if (!idle && !forced) return false;
    size = std::min({available, window_room, mss});
  }
  if (size == 0) return false;
  if (super_packet_max_ >= 2 * mss) {
    size = std::min(size, super_packet_max_ / mss * mss);
  } else {
    size = std::min(size, mss);
  }
  const bool tail = size == available;
  const bool last = tail && fin_queued_;
  if (size < mss && !forced) {
    if (!tail) {
      // The window is small: worth it if it is half of the largest ever seen.
      if (size < send_window_max_ / 2) return false;
    } else if (!last && !settings_.no_delay) {
      // RFC 9293 3.7.4 with Minshall's change left out: something is unacknowledged.
      if (!idle) return false;
    }
    if (tail && !last && Before(push_end_, DataEnd()) && cork_at_ != kNever) return false;
  } else if (size > mss && size % mss != 0 && !(tail && (settings_.no_delay || last))) {
    size -= size % mss;
  }
  uint8_t flags = 0;
  if (send_next_ + size == DataEnd()) {
    flags |= kPsh;
    cork_at_ = kNever;
    if (fin_queued_) flags |= kFin;
  }
  const uint32_t length = size + ((flags & kFin) != 0);
  Emit(send_next_, flags, size);
  sent_.push_back({.start = send_next_, .end = send_next_ + length, .sent_ns = wire_.NowNs()});
  if (repair_ == Repair::kRecovery) recovery_sent_ += length;
  send_next_ += length;
  if ((flags & kFin) != 0) fin_sent_ = true;
  return true;
}

uint32_t ControlBlock::RetransmitLost(uint32_t room) {
  const uint32_t mss = send_mss_;
  // One segment goes out even into a full window, when nothing else is in flight.
  if (room < mss && InFlight() != 0) return 0;
  room = std::max(room, mss);
  for (size_t i = 0; i < sent_.size(); ++i) {
    if (!sent_[i].lost || sent_[i].retransmitted) continue;
    uint32_t most = std::min(room / mss * mss, std::max(super_packet_max_ / mss * mss, mss));
    if (sent_[i].size() > most) Split(i, sent_[i].start + most);
    Sent& sent = sent_[i];
    Retransmit(sent, most);
    return sent.size();
  }
  return 0;
}

void ControlBlock::Retransmit(Sent& sent, uint32_t) {
  const int64_t now = wire_.NowNs();
  uint32_t size = sent.size();
  uint8_t flags = 0;
  if (fin_sent_ && sent.end == DataEnd() + 1) {
    flags |= kFin;
    --size;
  }
  if (!retransmit_stamp_) retransmit_stamp_ = TimestampNow();
  if (undo_possible_) undo_pending_bytes_ += sent.size();
  Emit(sent.start, flags, size);
  const uint32_t segments = (std::max(size, 1u) + send_mss_ - 1) / send_mss_;
  Count(counters_.tcp.retransmitted_segments, segments);
  total_retransmits_ += segments;
  bytes_retransmitted_ += size;
  sent.sent_ns = now;
  sent.ever_retransmitted = true;
  if (sent.lost && !sent.retransmitted) {
    sent.retransmitted = true;
    retransmitted_bytes_ += sent.size();
  }
  if (repair_ == Repair::kRecovery) recovery_sent_ += sent.size();
}

}  // namespace netstack::tcp
