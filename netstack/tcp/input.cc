// Segments that arrive: RFC 9293 3.10.7 in its order of checks, with the stricter ones of RFC 5961
// and RFC 7323.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netstack/tcp/control_block.h"

namespace netstack::tcp {

ControlBlock::ControlBlock(Wire& wire, Counters& counters, const Settings& settings,
                           uint32_t link_mss, uint32_t super_packet_max, uint32_t timestamp_offset)
    : wire_(wire),
      counters_(counters),
      settings_(settings),
      link_mss_(std::max(link_mss, kMssMin)),
      super_packet_max_(std::min(super_packet_max, kSuperPacketMax)),
      timestamp_offset_(timestamp_offset),
      congestion_(settings.congestion, kMssDefault) {}

void ControlBlock::SetState(State state) {
  if (state == state_) return;
  if (state == State::kEstablished) Count(counters_.tcp.current_established);
  const bool was_open = state_ == State::kEstablished || state_ == State::kCloseWait;
  const bool is_open = state == State::kEstablished || state == State::kCloseWait;
  if (was_open && !is_open) counters_.tcp.current_established.fetch_sub(1);
  state_ = state;
  if (state == State::kClosed || state == State::kTimeWait) {
    timer_kind_ = TimerKind::kNone;
    timer_at_ = delayed_ack_at_ = cork_at_ = keep_at_ = close_at_ = kNever;
    events_ |= kClosedAll;
  }
}

uint8_t ControlBlock::WindowScaleFor(uint32_t buffer_max) {
  uint8_t scale = 0;
  while (scale < 14 && (buffer_max >> scale) > 65535) ++scale;
  return scale;
}

void ControlBlock::Connect(uint32_t initial_sequence) {
  initial_sent_ = send_unacked_ = send_next_ = initial_sequence;
  send_data_start_ = push_end_ = initial_sequence + 1;
  receive_scale_ = WindowScaleFor(std::max(kReceiveBufferMax, settings_.receive_buffer));
  use_timestamps_ = use_sack_ = true;  // Offered; what the peer answers decides.
  if (settings_.receive_buffer != 0) receive_buffer_ = settings_.receive_buffer;
  SetState(State::kSynSent);
  Count(counters_.tcp.active_opens);
  SendSyn();
  send_next_ = initial_sequence + 1;
  timer_kind_ = TimerKind::kRetransmit;
  timer_at_ = wire_.NowNs() + rto_ns_;
}

void ControlBlock::TakePeerOptions(const Options& options) {
  peer_mss_ = std::max<uint32_t>(options.mss.value_or(kMssDefault), kMssMin);
  use_timestamps_ = use_timestamps_ && options.has_timestamp;
  use_sack_ = use_sack_ && options.sack_permitted;
  if (options.window_scale) {
    send_scale_ = *options.window_scale;
  } else {
    send_scale_ = receive_scale_ = 0;
  }
  if (use_timestamps_) {
    timestamp_recent_ = options.timestamp;
    timestamp_recent_ns_ = wire_.NowNs();
  }
  send_mss_ = SegmentBytes();
  receive_mss_ = std::min<uint32_t>(kMssDefault, send_mss_);
  congestion_.SetMss(send_mss_, true);
}

void ControlBlock::Accept(const Handshake& handshake) {
  initial_sent_ = handshake.initial_sent;
  send_unacked_ = send_next_ = send_data_start_ = push_end_ = initial_sent_ + 1;
  initial_received_ = handshake.initial_received;
  receive_next_ = receive_acked_ = initial_received_ + 1;
  receive_advertised_ = receive_next_ + handshake.our_window;
  receive_scale_ = handshake.our_window_scale;
  use_timestamps_ = use_sack_ = true;
  if (settings_.receive_buffer != 0) receive_buffer_ = settings_.receive_buffer;
  TakePeerOptions(handshake.peer);
  send_window_ = send_window_max_ = handshake.peer_window;
  send_wl1_ = initial_received_;
  send_wl2_ = initial_sent_ + 1;
  Count(counters_.tcp.passive_opens);
  if (handshake.syn_ack_sent_ns != 0) SampleRtt(wire_.NowNs() - handshake.syn_ack_sent_ns);
  Establish();
}

void ControlBlock::Establish() {
  const int64_t now = wire_.NowNs();
  SetState(State::kEstablished);
  timer_kind_ = TimerKind::kNone;
  timer_at_ = kNever;
  retries_ = backoff_ = 0;
  last_received_ns_ = last_ack_ns_ = now;
  last_sent_ns_ = now;
  measure_start_ns_ = copied_start_ns_ = now;
  measure_sequence_ = receive_next_ + receive_mss_;
  copied_space_ = kCopiedStart * send_mss_;
  reorder_round_ = rack_end_ = highest_sacked_ = send_unacked_;
  events_ |= kConnected | kWritable;
  ArmKeepAlive();
}

void ControlBlock::Fail(int error) {
  if (state_ == State::kClosed) return;
  error_ = error;
  events_ |= kFailed | kReadable | kWritable;
  if (state_ == State::kSynSent || state_ == State::kSynReceived) {
    Count(counters_.tcp.attempt_fails);
  } else {
    Count(counters_.tcp.established_resets);
  }
  send_queue_.Clear();
  sent_.clear();
  SetState(State::kClosed);
}

// RFC 5961 7: at most so many in a second, so that guesses cannot make us flood.
void ControlBlock::ChallengeAck() {
  constexpr int kPerSecond = 10;
  const int64_t now = wire_.NowNs();
  if (now - challenge_window_ns_ >= kNsPerSecond) {
    challenge_window_ns_ = now;
    challenges_ = 0;
  }
  if (++challenges_ > kPerSecond) return;
  Count(counters_.tcp.challenge_acks);
  SendAck();
}

void ControlBlock::Input(Segment segment) {
  if (state_ == State::kClosed || state_ == State::kTimeWait) return;
  segments_in_ += segment.segment_count;
  last_received_ns_ = wire_.NowNs();
  keep_sent_ = 0;
  if (state_ == State::kSynSent) {
    InputSynSent(segment);
    return;
  }
  if (!CheckSequence(segment) || !CheckResetAndSyn(segment)) return;
  if ((segment.header.flags & kAck) == 0) return;
  if (state_ == State::kSynReceived) {
    InputAckInSynReceived(segment);
    if (state_ == State::kClosed || state_ == State::kSynReceived) return;
  }
  if (!InputAck(segment)) return;
  if (state_ == State::kClosed || state_ == State::kTimeWait) return;
  InputUrgent(segment);
  InputData(segment);
  if (state_ == State::kClosed) return;
  if (state_ != State::kTimeWait) Output();
  if (ack_now_) SendAck();
}

void ControlBlock::InputSynSent(Segment& segment) {
  const Header& header = segment.header;
  const bool ack = (header.flags & kAck) != 0;
  if (ack && header.acknowledgment != initial_sent_ + 1) {
    if ((header.flags & kRst) == 0) SendReset(header.acknowledgment, false);
    return;
  }
  // RFC 7323 3.2: an echo that we have not sent.
  const bool stale = ack && segment.options.has_timestamp && segment.options.timestamp_echo != 0 &&
                     After(segment.options.timestamp_echo, TimestampNow());
  if (stale) {
    if ((header.flags & kRst) == 0) SendReset(header.acknowledgment, false);
    return;
  }
  if ((header.flags & kRst) != 0) {
    if (ack) Fail(ECONNREFUSED);
    return;
  }
  if ((header.flags & kSyn) == 0) return;
  initial_received_ = header.sequence;
  receive_next_ = receive_acked_ = initial_received_ + 1;
  receive_advertised_ = receive_next_ + std::min<uint32_t>(ReceiveBuffer(), 65535);
  TakePeerOptions(segment.options);
  send_window_ = send_window_max_ = header.window;  // Never scaled in a SYN.
  send_wl1_ = header.sequence;
  if (!ack) {
    // Simultaneous open (RFC 9293 figure 7).
    SetState(State::kSynReceived);
    SendSyn();
    return;
  }
  send_wl2_ = header.acknowledgment;
  send_unacked_ = header.acknowledgment;
  if (retries_ == 0) SampleRtt(wire_.NowNs() - last_sent_ns_);
  Establish();
  // Data and FIN that came along (RFC 9293 3.10.7.3, fifth).
  ++segment.header.sequence;
  segment.header.flags &= static_cast<uint8_t>(~kSyn);
  ack_now_ = true;
  InputUrgent(segment);
  InputData(segment);
  Output();
  if (ack_now_) SendAck();
}

// PAWS (RFC 7323 5.3) and the window (RFC 9293 3.10.7.4, first). As Linux does, a segment that only
// touches the window is taken, and trimmed later.
bool ControlBlock::CheckSequence(const Segment& segment) {
  const Header& header = segment.header;
  const int64_t now = wire_.NowNs();
  const bool reset = (header.flags & kRst) != 0;
  bool good = true;
  if (use_timestamps_ && !reset) {
    if (!segment.options.has_timestamp) {
      Count(counters_.tcp.paws_drops);
      return false;
    }
    constexpr int64_t kTooOldNs = 24LL * 86400 * kNsPerSecond;
    if (Before(segment.options.timestamp, timestamp_recent_) &&
        now - timestamp_recent_ns_ < kTooOldNs) {
      Count(counters_.tcp.paws_drops);
      good = false;
    }
  }
  const uint32_t window = receive_advertised_ - receive_next_;
  if (good && (Before(header.sequence + segment.length(), receive_acked_) ||
               After(header.sequence, receive_next_ + window))) {
    Count(counters_.tcp.out_of_window);
    good = false;
  }
  if (good) return true;
  if (reset) return false;
  // Answered, but not without limit when it carries nothing.
  if (segment.size == 0) {
    constexpr int64_t kIntervalNs = 500 * kNsPerMs;
    if (last_oow_ack_ns_ != 0 && now - last_oow_ack_ns_ < kIntervalNs) return false;
    last_oow_ack_ns_ = now;
  } else if (use_sack_ && Before(header.sequence, receive_next_)) {
    duplicate_ = SackBlock{header.sequence, MinSeq(header.sequence + segment.size, receive_next_)};
  }
  if (state_ == State::kSynReceived && (header.flags & kSyn) != 0) {
    SendSyn();  // Our SYN-ACK was lost.
  } else {
    SendAck();
  }
  return false;
}

bool ControlBlock::CheckResetAndSyn(const Segment& segment) {
  const Header& header = segment.header;
  if ((header.flags & kRst) != 0) {
    if (header.sequence != receive_next_) {
      // RFC 5961 3.2: in the window, but not the one number that a peer would use.
      ChallengeAck();
      return false;
    }
    switch (state_) {
      case State::kSynReceived:
        Fail(ECONNREFUSED);
        break;
      case State::kCloseWait:
        Fail(EPIPE);
        break;
      default:
        Fail(ECONNRESET);
        break;
    }
    return false;
  }
  if ((header.flags & kSyn) == 0) return true;
  // RFC 5961 4.2; a SYN-ACK that crosses ours in a simultaneous open is expected.
  if (state_ == State::kSynReceived && header.sequence == initial_received_) {
    if ((header.flags & kAck) != 0) return true;
    SendSyn();
    return false;
  }
  ChallengeAck();
  return false;
}

void ControlBlock::InputAckInSynReceived(const Segment& segment) {
  const uint32_t ack = segment.header.acknowledgment;
  if (ack != initial_sent_ + 1) {
    SendReset(ack, false);
    return;
  }
  send_unacked_ = ack;
  send_window_ = uint32_t{segment.header.window}
                 << ((segment.header.flags & kSyn) != 0 ? 0 : send_scale_);
  send_window_max_ = std::max(send_window_max_, send_window_);
  send_wl1_ = segment.header.sequence;
  send_wl2_ = ack;
  Establish();
  if (fin_queued_) SetState(State::kFinWait1);
}

// RFC 9293 3.10.7.4, fifth. False: the segment goes no further.
bool ControlBlock::InputAck(const Segment& segment) {
  const Header& header = segment.header;
  const uint32_t ack = header.acknowledgment;
  const int64_t now = wire_.NowNs();
  // RFC 5961 5.2.
  if (After(ack, send_next_) || Before(ack, send_unacked_ - std::max(send_window_max_, 1u))) {
    ChallengeAck();
    return false;
  }
  // RFC 7323 4.3 (2), (3): the timestamp of the segment that spans what was last acknowledged.
  if (use_timestamps_ && segment.options.has_timestamp && AtMost(header.sequence, receive_acked_) &&
      !Before(segment.options.timestamp, timestamp_recent_)) {
    timestamp_recent_ = segment.options.timestamp;
    timestamp_recent_ns_ = now;
  }
  echo_.reset();
  if (use_timestamps_ && segment.options.timestamp_echo != 0)
    echo_ = segment.options.timestamp_echo;
  AckResult result;
  if (use_sack_ && segment.options.sack_count != 0) ProcessSacks(segment, result);
  if (Before(ack, send_unacked_)) {
    // Old; its SACK blocks may still be news.
    if (result.sacked_new) UpdateRecovery(segment, result, false);
    return true;
  }
  const uint32_t window = uint32_t{header.window} << send_scale_;
  const bool duplicate =
      ack == send_unacked_ && segment.length() == 0 && window == send_window_ && !sent_.empty();
  last_ack_ns_ = now;
  if (timer_kind_ == TimerKind::kPersist) retries_ = 0;
  if (After(ack, send_unacked_)) {
    CleanSent(ack, result);
    retries_ = 0;
    backoff_ = 0;
    soft_error_ = 0;
    progress_ = true;
    events_ |= kWritable;
  }
  if (Before(send_wl1_, header.sequence) ||
      (send_wl1_ == header.sequence && AtMost(send_wl2_, ack))) {
    send_window_ = window;
    send_window_max_ = std::max(send_window_max_, window);
    send_wl1_ = header.sequence;
    send_wl2_ = ack;
  }
  UpdateRecovery(segment, result, duplicate);
  if (result.acked != 0 || timer_kind_ == TimerKind::kPersist) ArmRetransmit();
  if (result.fin_acked) AfterFinAcknowledged();
  return state_ != State::kClosed;
}

void ControlBlock::AfterFinAcknowledged() {
  switch (state_) {
    case State::kFinWait1:
      SetState(State::kFinWait2);
      if (detached_) close_at_ = wire_.NowNs() + settings_.fin_wait_ns;
      break;
    case State::kClosing:
      EnterTimeWait();
      break;
    case State::kLastAck:
      SetState(State::kClosed);
      break;
    default:
      break;
  }
}

void ControlBlock::EnterTimeWait() {
  if (ack_now_ || delayed_ack_at_ != kNever) SendAck();
  SetState(State::kTimeWait);
}

// RFC 9293 3.10.7.4, sixth; RFC 6093: the pointer is to the byte after the urgent one.
void ControlBlock::InputUrgent(const Segment& segment) {
  if ((segment.header.flags & kUrg) == 0 || segment.header.urgent == 0 || peer_finished_) return;
  const uint32_t mark = segment.header.sequence + segment.header.urgent - 1;
  if (Before(mark, receive_next_) || (urgent_mark_ && !After(mark, *urgent_mark_))) return;
  urgent_mark_ = mark;
  urgent_byte_.reset();
  events_ |= kUrgent;
}

void ControlBlock::InputFin() {
  ++receive_next_;
  ++receive_base_;
  peer_finished_ = true;
  fin_at_.reset();
  out_of_order_.clear();
  out_of_order_memory_ = 0;
  ack_now_ = true;
  events_ |= kReadable | kPeerClosed;
  switch (state_) {
    case State::kSynReceived:
    case State::kEstablished:
      SetState(State::kCloseWait);
      break;
    case State::kFinWait1:
      SetState(State::kClosing);
      break;
    case State::kFinWait2:
      EnterTimeWait();
      break;
    default:
      break;
  }
}

void ControlBlock::OnIcmpError(int error, bool hard, uint32_t sequence) {
  // Only about something that is in flight (RFC 5927 4.1).
  if (Before(sequence, send_unacked_) || After(sequence, send_next_)) return;
  if (state_ == State::kSynSent || state_ == State::kSynReceived) {
    if (hard || error == EHOSTUNREACH || error == ENETUNREACH) Fail(error);
    return;
  }
  // RFC 5927 6: an established connection is not torn down by ICMP.
  soft_error_ = error;
}

void ControlBlock::OnMtu(uint32_t link_mss, uint32_t sequence, bool check_sequence) {
  if (check_sequence && (Before(sequence, send_unacked_) || After(sequence, send_next_))) return;
  link_mss = std::max(link_mss, kMssMin);
  if (link_mss >= link_mss_) return;
  link_mss_ = link_mss;
  if (state_ == State::kSynSent || state_ == State::kSynReceived) return;
  const uint32_t before = send_mss_;
  send_mss_ = SegmentBytes();
  if (send_mss_ >= before) return;
  congestion_.SetMss(send_mss_, false);
  if (!check_sequence) return;
  // RFC 1191 6.5: what was too big is gone; not a sign of congestion.
  for (Sent& sent : sent_) {
    if (sent.sacked || sent.lost || sent.size() <= send_mss_) continue;
    sent.lost = true;
    lost_bytes_ += sent.size();
    if (std::exchange(sent.retransmitted, false)) retransmitted_bytes_ -= sent.size();
  }
  Output();
}

}  // namespace netstack::tcp
