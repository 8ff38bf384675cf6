// Round-trip times (RFC 6298), selective acknowledgments (RFC 2018, 2883), loss by time (RACK-TLP,
// RFC 8985), repair at the rate of delivery (RFC 6937), and undoing what was no loss (RFC 3522).
// RACK with its initial window of nothing after three segments subsumes RFC 6675's threshold. Peers
// without SACK get NewReno (RFC 6582).

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netstack/tcp/control_block.h"

namespace netstack::tcp {

void ControlBlock::SampleRtt(int64_t rtt_ns) {
  if (rtt_ns < 0) return;
  rtt_ns = std::max<int64_t>(rtt_ns, 1);
  const int64_t now = wire_.NowNs();
  constexpr int64_t kMinRttWindowNs = 300 * kNsPerSecond;
  if (rtt_ns <= min_rtt_ns_ || now - min_rtt_at_ns_ > kMinRttWindowNs) {
    min_rtt_ns_ = rtt_ns;
    min_rtt_at_ns_ = now;
  }
  if (srtt_ns_ == 0) {
    srtt_ns_ = rtt_ns;
    rttvar_ns_ = rtt_ns / 2;
  } else {
    rttvar_ns_ += (std::abs(srtt_ns_ - rtt_ns) - rttvar_ns_) / 4;
    srtt_ns_ += (rtt_ns - srtt_ns_) / 8;
  }
  // As Linux, the lower bound is on the variance term, not on the sum.
  rto_ns_ = std::min(srtt_ns_ + std::max(4 * rttvar_ns_, kRtoMin), kRtoMax);
}

int64_t ControlBlock::Rto() const {
  int64_t rto = rto_ns_;
  for (int i = 0; i < backoff_ && rto < kRtoMax; ++i) rto *= 2;
  return std::min(rto, kRtoMax);
}

// --- What the peer has.

void ControlBlock::Split(size_t index, uint32_t at) {
  Sent second = sent_[index];
  sent_[index].end = at;
  second.start = at;
  sent_.insert(sent_.begin() + static_cast<ptrdiff_t>(index) + 1, second);
}

void ControlBlock::UpdateRack(const Sent& sent) {
  const int64_t rtt = wire_.NowNs() - sent.sent_ns;
  // RFC 8985 6.2 step 2: an acknowledgment of the original, not of the retransmission.
  const uint32_t stamp = static_cast<uint32_t>(sent.sent_ns / kNsPerMs) + timestamp_offset_;
  if (sent.ever_retransmitted && echo_ && Before(*echo_, stamp)) return;
  if (sent.ever_retransmitted && min_rtt_ns_ != kNever && rtt < min_rtt_ns_) return;
  rack_rtt_ns_ = rtt;
  if (sent.sent_ns > rack_sent_ns_ ||
      (sent.sent_ns == rack_sent_ns_ && After(sent.end, rack_end_))) {
    rack_sent_ns_ = sent.sent_ns;
    rack_end_ = sent.end;
  }
}

void ControlBlock::MarkSacked(const SackBlock& block, AckResult& result) {
  const auto first = std::upper_bound(
      sent_.begin(), sent_.end(), block.start,
      [](uint32_t sequence, const Sent& sent) { return Before(sequence, sent.end); });
  for (auto i = static_cast<size_t>(first - sent_.begin());
       i < sent_.size() && Before(sent_[i].start, block.end); ++i) {
    if (sent_[i].sacked) continue;
    // Super-packets are cut where the peer's segments ended; nothing smaller, or a liar could make
    // us keep an entry for each byte.
    if (Before(sent_[i].start, block.start)) {
      const uint32_t units = (block.start - sent_[i].start + send_mss_ - 1) / send_mss_;
      const uint32_t at = sent_[i].start + units * send_mss_;
      if (!Before(at, sent_[i].end) || !Before(at, block.end)) continue;
      Split(i, at);
      continue;
    }
    if (After(sent_[i].end, block.end)) {
      const uint32_t units = (block.end - sent_[i].start) / send_mss_;
      if (units == 0) continue;
      Split(i, sent_[i].start + units * send_mss_);
    }
    Sent& sent = sent_[i];
    if (std::exchange(sent.lost, false)) lost_bytes_ -= sent.size();
    if (std::exchange(sent.retransmitted, false)) retransmitted_bytes_ -= sent.size();
    sent.sacked = true;
    sacked_bytes_ += sent.size();
    result.delivered += sent.size();
    result.sacked_new = true;
    // RFC 8985 6.2 step 3: something sent earlier arrives after something later.
    if (!sent.ever_retransmitted && Before(sent.end, highest_sacked_)) reordering_seen_ = true;
    highest_sacked_ = MaxSeq(highest_sacked_, sent.end);
    UpdateRack(sent);
  }
}

void ControlBlock::ProcessSacks(const Segment& segment, AckResult& result) {
  const Options& options = segment.options;
  const uint32_t ack = segment.header.acknowledgment;
  if (AtMost(highest_sacked_, send_unacked_)) highest_sacked_ = send_unacked_;
  for (size_t i = 0; i < options.sack_count; ++i) {
    const SackBlock& block = options.sacks[i];
    if (!Before(block.start, block.end) || After(block.end, send_next_)) continue;
    const bool duplicate =
        i == 0 && (AtMost(block.end, ack) ||
                   (options.sack_count > 1 && !Before(block.start, options.sacks[1].start) &&
                    AtMost(block.end, options.sacks[1].end)));
    if (duplicate) {
      result.duplicate_sack = true;
      if (undo_possible_) undo_pending_bytes_ -= block.end - block.start;
      // RFC 8985 6.2 step 4: our patience was too short; once a round trip.
      if (Before(reorder_round_, ack) || reorder_round_ == ack) {
        reorder_steps_ = std::min(reorder_steps_ + 1, 64);
        reorder_persist_ = 16;
        reorder_round_ = send_next_;
      }
      continue;
    }
    if (!After(block.end, send_unacked_)) continue;
    MarkSacked({MaxSeq(block.start, send_unacked_), block.end}, result);
  }
}

void ControlBlock::CleanSent(uint32_t ack, AckResult& result) {
  const int64_t now = wire_.NowNs();
  result.acked = ack - send_unacked_;
  while (!sent_.empty()) {
    if (!After(sent_.front().end, ack)) {
      Sent& sent = sent_.front();
      if (sent.sacked) {
        sacked_bytes_ -= std::min(sacked_bytes_, sent.size());
      } else {
        result.delivered += sent.size();
        if (sent.lost) lost_bytes_ -= sent.size();
        if (sent.retransmitted) retransmitted_bytes_ -= sent.size();
        if (sent.ever_retransmitted) {
          result.acked_retransmitted = true;
        } else {
          result.rtt_ns = now - sent.sent_ns;  // The last one's: least delayed.
          if (Before(sent.end, highest_sacked_)) reordering_seen_ = true;
        }
        UpdateRack(sent);
      }
      sent_.pop_front();
      continue;
    }
    if (!Before(sent_.front().start, ack)) break;
    Split(0, ack);
  }
  if (!use_sack_) sacked_bytes_ = 0;  // Guessed from duplicates.
  const uint32_t data_end = DataEnd();
  result.fin_acked = fin_sent_ && ack == data_end + 1;
  const uint32_t data_ack = MinSeq(ack, data_end);
  if (After(data_ack, send_data_start_)) {
    const uint32_t bytes = data_ack - send_data_start_;
    send_queue_.DropFront(bytes);
    send_data_start_ = data_ack;
    bytes_acked_ += bytes;
  }
  send_unacked_ = ack;
  if (send_urgent_set_ && !After(send_urgent_, ack)) send_urgent_set_ = false;
  if (use_timestamps_ && result.rtt_ns < 0) return;  // Karn; the echo has only milliseconds.
  if (result.rtt_ns >= 0) {
    SampleRtt(result.rtt_ns);
    congestion_.OnRttSample(result.rtt_ns, ack, send_next_);
  }
}

// --- What is lost.

void ControlBlock::DetectLoss() {
  if (!use_sack_ || rack_sent_ns_ == 0 || sent_.empty()) return;
  const int64_t now = wire_.NowNs();
  int64_t patience = 0;
  const bool repairing = repair_ == Repair::kRecovery || repair_ == Repair::kLoss;
  if (reordering_seen_ || (!repairing && sacked_bytes_ < 3 * send_mss_)) {
    const int64_t base = min_rtt_ns_ == kNever ? srtt_ns_ : min_rtt_ns_;
    patience = std::min(base / 4 * reorder_steps_, srtt_ns_);
  }
  int64_t wait = 0;
  for (Sent& sent : sent_) {
    if (sent.sacked || (sent.lost && !sent.retransmitted)) continue;
    const bool earlier = sent.sent_ns < rack_sent_ns_ ||
                         (sent.sent_ns == rack_sent_ns_ && Before(sent.end, rack_end_));
    if (!earlier) {
      // In the order of sending, but for retransmissions.
      if (!sent.ever_retransmitted && sent.sent_ns > rack_sent_ns_) break;
      continue;
    }
    const int64_t left = sent.sent_ns + rack_rtt_ns_ + patience - now;
    if (left > 0) {
      wait = std::max(wait, left);
      continue;
    }
    if (std::exchange(sent.retransmitted, false)) retransmitted_bytes_ -= sent.size();
    if (!std::exchange(sent.lost, true)) lost_bytes_ += sent.size();
  }
  if (wait > 0) {
    timer_kind_ = TimerKind::kReorder;
    timer_at_ = now + wait;
  }
}

void ControlBlock::EnterRecovery() {
  const int64_t now = wire_.NowNs();
  Count(counters_.tcp.fast_recoveries);
  repair_ = Repair::kRecovery;
  recovery_end_ = send_next_;
  recovery_prior_flight_ = std::max(InFlight() + lost_bytes_, send_mss_);
  recovery_delivered_ = recovery_sent_ = 0;
  retransmit_stamp_.reset();
  undo_possible_ = true;
  undo_pending_bytes_ = 0;
  probe_out_ = false;
  congestion_.EnterRecovery(now);
}

// RFC 6937 3.1.
void ControlBlock::ProportionalReduction(uint32_t delivered, bool made_progress) {
  if (delivered == 0) return;
  recovery_delivered_ += delivered;
  const uint32_t flight = InFlight();
  const uint32_t target = congestion_.ssthresh();
  int64_t send = 0;
  if (flight > target) {
    const uint64_t due = (uint64_t{recovery_delivered_} * target + recovery_prior_flight_ - 1) /
                         recovery_prior_flight_;
    send = static_cast<int64_t>(due) - recovery_sent_;
  } else {
    int64_t limit = std::max<int64_t>(int64_t{recovery_delivered_} - recovery_sent_, delivered);
    if (made_progress) limit += send_mss_;
    send = std::min<int64_t>(int64_t{target} - flight, limit);
  }
  if (recovery_sent_ == 0) send = std::max<int64_t>(send, send_mss_);
  congestion_.SetWindow(flight + static_cast<uint32_t>(std::max<int64_t>(send, 0)));
}

// Eifel (RFC 3522): the acknowledgment answers something sent before the first retransmission. Or
// all of what was retransmitted has come twice (RFC 3708).
bool ControlBlock::IsSpurious(const Segment& segment, const AckResult& result) const {
  if (!undo_possible_) return false;
  if (use_timestamps_ && result.acked != 0 && retransmit_stamp_ &&
      segment.options.timestamp_echo != 0 &&
      Before(segment.options.timestamp_echo, *retransmit_stamp_))
    return true;
  return result.duplicate_sack && total_retransmits_ != 0 && undo_pending_bytes_ <= 0 &&
         retransmit_stamp_.has_value();
}

void ControlBlock::UndoRecovery() {
  Count(counters_.tcp.spurious_recoveries);
  congestion_.Undo();
  for (Sent& sent : sent_) sent.lost = sent.retransmitted = false;
  lost_bytes_ = retransmitted_bytes_ = 0;
  repair_ = Repair::kOpen;
  undo_possible_ = false;
  retransmit_stamp_.reset();
  backoff_ = 0;
}

void ControlBlock::UpdateRecovery(const Segment& segment, AckResult& result, bool duplicate) {
  const uint32_t ack = segment.header.acknowledgment;
  if (probe_out_ && !Before(ack, probe_end_)) {
    probe_out_ = false;
    // RFC 8985 7.4.2: the probe repaired a loss, which is a sign of congestion.
    if (probe_was_retransmission_ && !result.duplicate_sack && After(ack, probe_end_)) {
      congestion_.EnterRecovery(wire_.NowNs());
      congestion_.ExitRecovery();
    }
  }
  if (IsSpurious(segment, result)) UndoRecovery();
  const bool repairing = repair_ == Repair::kRecovery || repair_ == Repair::kLoss;
  if (repairing && !Before(ack, recovery_end_) && result.acked != 0) {
    if (repair_ == Repair::kRecovery) congestion_.ExitRecovery();
    repair_ = Repair::kOpen;
    undo_possible_ = false;
    retransmit_stamp_.reset();
    duplicate_acks_ = 0;
    if (reorder_persist_ > 0 && --reorder_persist_ == 0) reorder_steps_ = 1;
  }
  if (use_sack_) {
    DetectLoss();
  } else if (!sent_.empty()) {
    // RFC 6582: three duplicates; then each partial acknowledgment shows the next hole.
    const bool partial = repair_ == Repair::kRecovery && result.acked != 0;
    if (result.acked != 0) duplicate_acks_ = 0;
    if (duplicate) {
      ++duplicate_acks_;
      const uint32_t outstanding = send_next_ - send_unacked_;
      const uint32_t most = outstanding > send_mss_ ? outstanding - send_mss_ : 0;
      sacked_bytes_ = std::min(sacked_bytes_ + send_mss_, most);
      result.delivered += send_mss_;
    }
    Sent& head = sent_.front();
    if ((duplicate_acks_ == 3 || partial) && !head.lost) {
      if (head.size() > send_mss_) Split(0, head.start + send_mss_);
      sent_.front().lost = true;
      lost_bytes_ += sent_.front().size();
      sacked_bytes_ = std::min(sacked_bytes_, send_next_ - send_unacked_ - lost_bytes_);
    }
  }
  if (lost_bytes_ != 0 && repair_ == Repair::kOpen) EnterRecovery();
  if (repair_ == Repair::kRecovery) {
    ProportionalReduction(result.delivered, result.acked != 0 && lost_bytes_ == 0);
  } else if (result.acked != 0) {
    const bool limited = window_limited_ || repair_ == Repair::kLoss ||
                         (congestion_.in_slow_start() && congestion_.cwnd() < 2 * max_in_flight_);
    if (limited) congestion_.OnAck(result.acked, wire_.NowNs(), srtt_ns_);
    if (sent_.empty()) max_in_flight_ = 0;
  }
}

// --- Timers.

int64_t ControlBlock::NextDeadlineNs() const {
  return std::min({timer_at_, delayed_ack_at_, cork_at_, keep_at_, close_at_});
}

void ControlBlock::ArmRetransmit() {
  if (sent_.empty()) {
    timer_kind_ = TimerKind::kNone;
    timer_at_ = kNever;
    if (MaySendData() && (After(DataEnd(), send_next_) || (fin_queued_ && !fin_sent_))) ArmProbe();
    return;
  }
  const int64_t now = wire_.NowNs();
  if (timer_kind_ == TimerKind::kReorder && timer_at_ > now) return;
  timer_kind_ = TimerKind::kRetransmit;
  timer_at_ = now + Rto();
  if (!use_sack_ || repair_ != Repair::kOpen || probe_out_ || sacked_bytes_ != 0) return;
  // RFC 8985 7.2: a probe in time, instead of a timeout.
  int64_t wait = srtt_ns_ != 0 ? 2 * srtt_ns_ : kNsPerSecond;
  if (send_next_ - send_unacked_ <= send_mss_) wait += kRtoMin;  // The peer may delay it.
  wait = std::max<int64_t>(wait, 2 * kNsPerMs);
  if (now + wait >= timer_at_) return;
  timer_kind_ = TimerKind::kProbe;
  timer_at_ = now + wait;
}

void ControlBlock::ArmProbe() {
  timer_kind_ = TimerKind::kPersist;
  timer_at_ = wire_.NowNs() + Rto();
}

void ControlBlock::ArmKeepAlive() {
  keep_at_ = settings_.keep_alive ? wire_.NowNs() + settings_.keep_idle_ns : kNever;
}

bool ControlBlock::GaveUp(int retries) const {
  if (settings_.user_timeout_ns != 0 && retries > 0)
    return wire_.NowNs() - retries_since_ns_ >= settings_.user_timeout_ns;  // RFC 5482
  if (state_ == State::kSynSent || state_ == State::kSynReceived)
    return retries >= settings_.syn_retries;
  return retries >= (detached_ ? kOrphanRetriesMax : kRetriesMax);
}

void ControlBlock::OnTimer() {
  const int64_t now = wire_.NowNs();
  if (timer_at_ <= now) {
    const TimerKind kind = timer_kind_;
    timer_at_ = kNever;
    timer_kind_ = TimerKind::kNone;
    switch (kind) {
      case TimerKind::kRetransmit:
        OnRetransmitTimeout();
        break;
      case TimerKind::kReorder:
        DetectLoss();
        if (lost_bytes_ != 0 && repair_ == Repair::kOpen) EnterRecovery();
        if (repair_ == Repair::kRecovery) ProportionalReduction(1, false);
        Output();
        if (timer_kind_ == TimerKind::kNone) ArmRetransmit();
        break;
      case TimerKind::kProbe:
        OnLossProbe();
        break;
      case TimerKind::kPersist:
        OnPersist();
        break;
      case TimerKind::kNone:
        break;
    }
  }
  if (cork_at_ <= now) Push();
  if (delayed_ack_at_ <= now) {
    Count(counters_.tcp.delayed_acks);
    SendAck();
  }
  if (keep_at_ <= now) OnKeepAlive();
  if (close_at_ <= now) SetState(State::kClosed);
}

void ControlBlock::OnRetransmitTimeout() {
  const int64_t now = wire_.NowNs();
  if (state_ == State::kClosed) return;
  if (retries_ == 0) retries_since_ns_ = last_sent_ns_;
  if (GaveUp(retries_)) {
    Fail(soft_error_ != 0 ? soft_error_ : ETIMEDOUT);
    return;
  }
  ++retries_;
  ++backoff_;
  Count(counters_.tcp.timeouts);
  if (state_ == State::kSynSent || state_ == State::kSynReceived) {
    Count(counters_.tcp.retransmitted_segments);
    ++total_retransmits_;
    SendSyn();
    timer_kind_ = TimerKind::kRetransmit;
    timer_at_ = now + Rto();
    return;
  }
  if (sent_.empty()) return;
  // RFC 2018 8: a receiver may take back what it has not acknowledged.
  if (sent_.front().sacked || !use_sack_) {
    for (Sent& sent : sent_) sent.sacked = false;
    sacked_bytes_ = 0;
  }
  const bool first = repair_ == Repair::kOpen || repair_ == Repair::kDisorder;
  congestion_.OnTimeout(now, first);
  congestion_.SetWindow(send_mss_);
  if (first) {
    retransmit_stamp_.reset();
    undo_possible_ = true;
    undo_pending_bytes_ = 0;
  }
  repair_ = Repair::kLoss;
  recovery_end_ = send_next_;
  probe_out_ = false;
  lost_bytes_ = retransmitted_bytes_ = sacked_bytes_ = 0;
  for (Sent& sent : sent_) {
    sent.retransmitted = false;
    sent.lost = !sent.sacked;
    (sent.lost ? lost_bytes_ : sacked_bytes_) += sent.size();
  }
  Output();
  timer_kind_ = TimerKind::kRetransmit;
  timer_at_ = now + Rto();
}

// RFC 8985 7.3.
void ControlBlock::OnLossProbe() {
  if (sent_.empty()) return;
  Count(counters_.tcp.loss_probes);
  probe_out_ = true;
  const uint32_t edge = send_unacked_ + send_window_;
  const uint32_t room = After(edge, send_next_) ? edge - send_next_ : 0;
  probe_was_retransmission_ = false;
  const uint32_t before = send_next_;
  if (room >= send_mss_ && After(DataEnd(), send_next_)) {
    const uint32_t super = std::exchange(super_packet_max_, send_mss_);
    SendNew(room, send_mss_, true);
    super_packet_max_ = super;
  }
  if (send_next_ == before && !sent_.back().lost && !sent_.back().sacked) {
    Sent* last = &sent_.back();
    if (last->size() > send_mss_ + 1) {
      const uint32_t tail = (last->size() - 1) % send_mss_ + 1;
      Split(sent_.size() - 1, last->end - tail);
      last = &sent_.back();
    }
    probe_was_retransmission_ = true;
    Retransmit(*last, send_mss_);
  }
  probe_end_ = send_next_;
  timer_kind_ = TimerKind::kRetransmit;
  timer_at_ = wire_.NowNs() + Rto();
}

// RFC 9293 3.8.6.1. A peer that answers may keep its window shut for as long as it likes.
void ControlBlock::OnPersist() {
  if (state_ == State::kClosed || !sent_.empty()) return;
  if (retries_ == 0) retries_since_ns_ = wire_.NowNs();
  if (GaveUp(retries_)) {
    Fail(ETIMEDOUT);
    return;
  }
  ++retries_;
  if (backoff_ < 16) ++backoff_;
  const uint32_t edge = send_unacked_ + send_window_;
  const bool open = After(edge, send_next_);
  if (open && After(DataEnd(), send_next_)) {
    // The window is merely small: what fits goes now.
    SendNew(edge - send_next_, send_mss_, true);
    ArmRetransmit();
    return;
  }
  SendProbe(send_unacked_ - 1);
  ArmProbe();
}

void ControlBlock::OnKeepAlive() {
  keep_at_ = kNever;
  if (!settings_.keep_alive || state_ == State::kClosed || state_ == State::kTimeWait) return;
  const int64_t now = wire_.NowNs();
  const int64_t quiet = now - std::max(last_received_ns_, last_sent_ns_);
  if (!sent_.empty() || After(DataEnd(), send_next_)) {
    keep_at_ = now + settings_.keep_idle_ns;  // Other timers watch.
    return;
  }
  if (keep_sent_ == 0 && quiet < settings_.keep_idle_ns) {
    keep_at_ = now + settings_.keep_idle_ns - quiet;
    return;
  }
  const bool dead = settings_.user_timeout_ns != 0
                        ? keep_sent_ > 0 && quiet >= settings_.user_timeout_ns
                        : keep_sent_ >= settings_.keep_probes;
  if (dead) {
    SendReset(send_next_, true);
    Fail(ETIMEDOUT);
    return;
  }
  ++keep_sent_;
  SendProbe(send_unacked_ - 1);
  keep_at_ = now + settings_.keep_interval_ns;
}

ControlBlock::Info ControlBlock::GetInfo() const {
  const auto segments = [&](uint32_t bytes) { return (bytes + send_mss_ - 1) / send_mss_; };
  return {.state = state_,
          .send_next = send_next_,
          .send_unacknowledged = send_unacked_,
          .receive_next = receive_next_,
          .send_queued = static_cast<uint32_t>(send_queue_.size()),
          .receive_queued = static_cast<uint32_t>(receive_queue_.size()),
          .send_mss = send_mss_,
          .receive_mss = receive_mss_,
          .cwnd = congestion_.cwnd(),
          .ssthresh = congestion_.ssthresh(),
          .send_window = send_window_,
          .receive_window = receive_advertised_ - receive_next_,
          .send_scale = send_scale_,
          .receive_scale = receive_scale_,
          .timestamps = use_timestamps_,
          .sack = use_sack_,
          .timestamp_recent = timestamp_recent_,
          .timestamp_offset = timestamp_offset_,
          .srtt_ns = srtt_ns_,
          .rttvar_ns = rttvar_ns_,
          .rto_ns = Rto(),
          .min_rtt_ns = min_rtt_ns_,
          .receive_rtt_ns = receive_rtt_ns_,
          .retransmits = static_cast<uint32_t>(retries_),
          .total_retransmits = total_retransmits_,
          .unacked_segments = segments(send_next_ - send_unacked_),
          .lost_segments = segments(lost_bytes_),
          .sacked_segments = segments(sacked_bytes_),
          .bytes_acked = bytes_acked_,
          .bytes_received = bytes_received_,
          .bytes_sent = bytes_sent_,
          .bytes_retransmitted = bytes_retransmitted_,
          .segments_in = segments_in_,
          .segments_out = segments_out_,
          .last_sent_ns = last_sent_ns_,
          .last_received_ns = last_received_ns_,
          .last_ack_ns = last_ack_ns_,
          .congestion_state = static_cast<uint8_t>(repair_),
          .backoff = static_cast<uint8_t>(backoff_),
          .reordering_seen = reordering_seen_ ? 1u : 0u};
}

}  // namespace netstack::tcp
