// Data for the reader: order, windows, acknowledgements.

#include <algorithm>
#include <cerrno>
#include <utility>

#include "netstack/tcp/control_block.h"

namespace netstack::tcp {
namespace {

// The part of `slices` from `from` on, `count` bytes.
Slices Part(const Slices& slices, size_t from, size_t count) {
  Slices part;
  for (const Slice& slice : slices) {
    if (count == 0) break;
    if (from >= slice.size) {
      from -= slice.size;
      continue;
    }
    const size_t take = std::min<size_t>(count, slice.size - from);
    part.push_back(slice.Sub(from, take));
    from = 0;
    count -= take;
  }
  return part;
}

size_t MemoryOf(const Slices& slices) {
  size_t bytes = 0;
  for (const Slice& slice : slices) bytes += slice.slab->capacity() + sizeof(Slab) + sizeof(Slice);
  return bytes;
}

}  // namespace

uint32_t ControlBlock::ReceiveBuffer() const {
  return settings_.receive_buffer != 0 ? settings_.receive_buffer : receive_buffer_;
}

size_t ControlBlock::readable() const { return receive_queue_.size(); }

// RFC 9293 3.10.7.4, seventh and eighth.
void ControlBlock::InputData(Segment& segment) {
  const bool fin = (segment.header.flags & kFin) != 0;
  if (segment.size == 0 && !fin) return;
  if (peer_finished_) {
    ack_now_ = true;  // Nothing can follow a FIN: an old segment again.
    return;
  }
  if (detached_ && segment.size != 0 &&
      After(segment.header.sequence + segment.size, receive_next_)) {
    // Nobody will read it (RFC 1122 4.2.2.13).
    SendReset(send_next_, true);
    Fail(ECONNRESET);
    return;
  }
  MeasureReceiveRtt(segment);
  uint32_t sequence = segment.header.sequence;
  uint32_t size = segment.size;
  bool fin_counts = fin;
  size_t skip = 0;
  if (Before(sequence, receive_next_)) {
    const uint32_t known = std::min(receive_next_ - sequence, size);
    if (known != 0) {
      if (use_sack_) duplicate_ = SackBlock{sequence, sequence + known};
      ack_now_ = true;
    }
    skip = known;
    sequence += known;
    size -= known;
  }
  const uint32_t room = After(receive_advertised_, sequence) ? receive_advertised_ - sequence : 0;
  if (size > room) {
    size = room;
    fin_counts = false;
    ack_now_ = true;
  }
  if (fin_counts) fin_at_ = segment.header.sequence + segment.size;
  if (size != 0) {
    Slices slices = segment.payload->TakeSlices();
    if (skip != 0 || size != segment.size - skip) slices = Part(slices, skip, size);
    const bool in_order = sequence == receive_next_;
    if (in_order) {
      TakeInOrder(slices, size);
      if (!out_of_order_.empty()) {
        MergeOutOfOrder();
        ack_now_ = true;  // RFC 5681 4.2: a gap was filled.
      }
    } else {
      TakeOutOfOrder(sequence, slices, size);
    }
    ScheduleAck(segment, in_order);
  }
  if (fin_at_ && *fin_at_ == receive_next_) InputFin();
  if (fin_at_ && Before(*fin_at_, receive_next_)) fin_at_.reset();
}

void ControlBlock::TakeInOrder(Slices& slices, uint32_t size) {
  const uint32_t start = receive_next_;
  receive_next_ += size;
  receive_base_ += size;
  bytes_received_ += size;
  events_ |= kReadable;
  progress_ = true;
  if (urgent_mark_ && !Before(*urgent_mark_, start) && Before(*urgent_mark_, receive_next_)) {
    const uint32_t at = *urgent_mark_ - start;
    const Slices byte = Part(slices, at, 1);
    urgent_byte_ = *byte[0].data();
    for (Slice& slice : Part(slices, 0, at)) receive_queue_.Append(std::move(slice));
    mark_at_ = receive_queue_.size();
    const size_t from = at + (settings_.urgent_inline ? 0 : 1);
    for (Slice& slice : Part(slices, from, size - from)) receive_queue_.Append(std::move(slice));
    urgent_mark_.reset();
    return;
  }
  for (Slice& slice : slices) receive_queue_.Append(std::move(slice));
}

void ControlBlock::TakeOutOfOrder(uint32_t sequence, Slices& slices, uint32_t size) {
  ack_now_ = true;
  const size_t memory = MemoryOf(slices);
  // What is kept is bounded by the window; what it is kept in, by twice that.
  if (out_of_order_memory_ + memory > 2u * ReceiveBuffer() + 131072 ||
      out_of_order_.size() >= kOutOfOrderNodesMax)
    return;
  const uint64_t first = receive_base_ + (sequence - receive_next_);
  uint64_t start = first;
  const uint64_t end = start + size;
  auto next = out_of_order_.upper_bound(start);
  if (next != out_of_order_.begin()) start = std::max(start, std::prev(next)->second.end);
  bool overlap = start != first;
  while (start < end) {
    next = out_of_order_.lower_bound(start);
    const uint64_t stop = next == out_of_order_.end() ? end : std::min(end, next->first);
    if (stop > start) {
      Slices part = Part(slices, start - first, stop - start);
      out_of_order_memory_ += MemoryOf(part);
      const auto previous = next == out_of_order_.begin() ? out_of_order_.end() : std::prev(next);
      if (previous != out_of_order_.end() && previous->second.end == start) {
        for (Slice& slice : part) previous->second.slices.push_back(std::move(slice));
        previous->second.end = stop;
      } else {
        out_of_order_.emplace_hint(next, start, OutOfOrder{stop, std::move(part)});
      }
    }
    if (next == out_of_order_.end() || next->first >= end) break;
    overlap = true;
    start = std::max(stop, next->second.end);
  }
  // Joins what is contiguous now.
  auto node = out_of_order_.upper_bound(first);
  if (node != out_of_order_.begin()) --node;
  for (auto after = std::next(node); after != out_of_order_.end() && node->first < end;
       after = std::next(node)) {
    if (node->second.end != after->first) {
      node = after;
      continue;
    }
    for (Slice& slice : after->second.slices) node->second.slices.push_back(std::move(slice));
    node->second.end = after->second.end;
    out_of_order_.erase(after);
  }
  if (overlap && use_sack_) duplicate_ = SackBlock{sequence, sequence + size};
  recent_blocks_.insert(recent_blocks_.begin(), first);
  if (recent_blocks_.size() > 8) recent_blocks_.pop_back();
}

void ControlBlock::MergeOutOfOrder() {
  while (!out_of_order_.empty()) {
    const auto node = out_of_order_.begin();
    if (node->first > receive_base_) break;
    out_of_order_memory_ -= std::min(out_of_order_memory_, MemoryOf(node->second.slices));
    if (node->second.end > receive_base_) {
      const auto skip = static_cast<size_t>(receive_base_ - node->first);
      const auto size = static_cast<uint32_t>(node->second.end - receive_base_);
      Slices slices =
          skip == 0 ? std::move(node->second.slices) : Part(node->second.slices, skip, size);
      out_of_order_.erase(node);
      TakeInOrder(slices, size);
    } else {
      out_of_order_.erase(node);
    }
  }
  if (out_of_order_.empty()) {
    out_of_order_memory_ = 0;
    recent_blocks_.clear();
  }
}

// RFC 2018 4: the block that the latest segment is in comes first; RFC 2883: a duplicate before it.
void ControlBlock::FillSacks(Options& options) {
  if (!use_sack_) return;
  if (duplicate_) options.sacks[options.sack_count++] = *std::exchange(duplicate_, std::nullopt);
  const size_t first = options.sack_count;
  for (const uint64_t key : recent_blocks_) {
    if (options.sack_count >= Options::kSackBlocksMax) break;
    auto node = out_of_order_.upper_bound(key);
    if (node == out_of_order_.begin()) continue;
    --node;
    if (key >= node->second.end || node->first < receive_base_) continue;
    const SackBlock block{receive_next_ + static_cast<uint32_t>(node->first - receive_base_),
                          receive_next_ + static_cast<uint32_t>(node->second.end - receive_base_)};
    const auto begin = options.sacks.begin() + static_cast<ptrdiff_t>(first);
    const auto end = options.sacks.begin() + static_cast<ptrdiff_t>(options.sack_count);
    if (std::find(begin, end, block) == end) options.sacks[options.sack_count++] = block;
  }
}

// RFC 1122 4.2.3.2, RFC 5681 4.2.
void ControlBlock::ScheduleAck(const Segment& segment, bool in_order) {
  const uint32_t per_segment = segment.size / std::max<uint32_t>(segment.segment_count, 1);
  if (per_segment > receive_mss_) receive_mss_ = std::min(per_segment, link_mss_);
  unacked_in_ += segment.size;
  if (!in_order) {
    // The peer may be in slow start after a loss.
    quick_acks_ = 16;
    return;
  }
  if (unacked_in_ >= 2 * receive_mss_) {
    ack_now_ = true;
  } else if (settings_.quick_ack && !interactive_ && quick_acks_ > 0) {
    --quick_acks_;
    ack_now_ = true;
  }
  if (!ack_now_ && delayed_ack_at_ == kNever) delayed_ack_at_ = wire_.NowNs() + kDelayedAck;
}

// The window to offer, in bytes. Its right edge never moves back (RFC 9293 3.8.6), and not forward
// by a little (RFC 9293 3.8.6.2.2).
uint32_t ControlBlock::SelectWindow() {
  const uint32_t buffer = ReceiveBuffer();
  const auto queued = static_cast<uint32_t>(std::min<size_t>(receive_queue_.size(), buffer));
  uint32_t free = buffer - queued;
  const uint32_t most = 65535u << receive_scale_;
  free = std::min(free, most);
  if (settings_.window_clamp != 0) free = std::min(free, settings_.window_clamp);
  const uint32_t current = receive_advertised_ - receive_next_;
  const uint32_t unit = 1u << receive_scale_;
  uint32_t window = free / unit * unit;
  if (window <= current || window - current < std::min(receive_mss_, buffer / 2))
    window = std::min((current + unit - 1) / unit * unit, most);
  receive_advertised_ = MaxSeq(receive_advertised_, receive_next_ + window);
  return window;
}

void ControlBlock::Consume(size_t count) {
  receive_queue_.DropFront(count);
  copied_ += static_cast<uint32_t>(count);
  if (mark_at_) {
    if (count > *mark_at_) {
      mark_at_.reset();
    } else {
      *mark_at_ -= count;
    }
  }
  if (state_ == State::kClosed || state_ == State::kTimeWait || peer_finished_) return;
  TuneReceiveBuffer();
  // As Linux: tells of room once the window would double.
  const uint32_t current = receive_advertised_ - receive_next_;
  const uint32_t buffer = ReceiveBuffer();
  const auto queued = static_cast<uint32_t>(std::min<size_t>(receive_queue_.size(), buffer));
  const uint32_t free = buffer - queued;
  const bool worth = free >= 2 * current && free - current >= std::min(receive_mss_, buffer / 2);
  const bool pending = delayed_ack_at_ != kNever && unacked_in_ > receive_mss_;
  if (worth || pending) SendAck();
}

std::optional<uint8_t> ControlBlock::TakeUrgent(bool peek) {
  const auto byte = urgent_byte_;
  if (!peek) urgent_byte_.reset();
  return byte;
}

size_t ControlBlock::BytesToMark() const { return mark_at_.value_or(SIZE_MAX); }

// How long the peer needs to answer what we acknowledge: by its echo of our timestamp, or by the
// time of a window.
void ControlBlock::MeasureReceiveRtt(const Segment& segment) {
  const int64_t now = wire_.NowNs();
  int64_t sample = 0;
  if (use_timestamps_ && segment.options.has_timestamp && segment.options.timestamp_echo != 0) {
    if (segment.size < receive_mss_) return;
    const uint32_t ms = TimestampNow() - segment.options.timestamp_echo;
    sample = std::max<int64_t>(ms, 1) * kNsPerMs;
    if (ms > 100000) return;
  } else {
    if (Before(receive_next_, measure_sequence_)) return;
    sample = std::max<int64_t>(now - measure_start_ns_, kNsPerMs);
    measure_start_ns_ = now;
    measure_sequence_ = receive_next_ + (receive_advertised_ - receive_next_);
  }
  // Readers that pause only make samples longer.
  if (receive_rtt_ns_ == 0 || sample < receive_rtt_ns_) {
    receive_rtt_ns_ = sample;
  } else {
    receive_rtt_ns_ += (sample - receive_rtt_ns_) / 8;
  }
}

// Dynamic right-sizing: twice what the reader took in a round trip, so that the window is never
// what the peer waits for.
void ControlBlock::TuneReceiveBuffer() {
  const int64_t now = wire_.NowNs();
  const int64_t rtt = receive_rtt_ns_ != 0 ? receive_rtt_ns_ : srtt_ns_;
  if (rtt == 0 || now - copied_start_ns_ < rtt) return;
  if (settings_.receive_buffer == 0 && copied_ > copied_space_) {
    const uint64_t grown = uint64_t{copied_} - copied_space_;
    uint64_t window = 2 * uint64_t{copied_} + 16 * receive_mss_;
    window += 2 * window * grown / std::max<uint32_t>(copied_space_, 1);
    receive_buffer_ =
        static_cast<uint32_t>(std::clamp<uint64_t>(window, receive_buffer_, kReceiveBufferMax));
    copied_space_ = copied_;
  }
  copied_ = 0;
  copied_start_ns_ = now;
}

}  // namespace netstack::tcp
