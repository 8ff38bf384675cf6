#pragma once

// One TCP connection as a state machine (RFC 9293): segments, calls of the user and time go in,
// segments and events come out. Has no lock and knows no stack: its Connection holds a lock around
// every call and puts what is sent on the wire. So each rule can be tested with a fake clock.
//
// input.cc: segments that arrive; receive.cc: data for the reader, windows, acknowledgements;
// output.cc: what is sent when; recovery.cc: round trip times, loss, timers.

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <vector>

#include "netstack/header/tcp.h"
#include "netstack/stack/clock.h"
#include "netstack/stack/counters.h"
#include "netstack/stack/packet.h"
#include "netstack/tcp/byte_queue.h"
#include "netstack/tcp/congestion.h"

namespace netstack::tcp {

// By Linux's numbers (include/net/tcp_states.h), which TCP_INFO and /proc/net/tcp show.
enum class State : uint8_t {
  kEstablished = 1,
  kSynSent = 2,
  kSynReceived = 3,
  kFinWait1 = 4,
  kFinWait2 = 5,
  kTimeWait = 6,
  kClosed = 7,
  kCloseWait = 8,
  kLastAck = 9,
  kListen = 10,
  kClosing = 11,
};

// A segment that has arrived.
struct Segment {
  Header header;
  Options options;
  PacketPtr payload;  // Without headers; may be null.
  uint32_t size = 0;  // Of the payload.
  uint16_t segment_count = 1;
  // Sequence numbers it takes.
  uint32_t length() const {
    return size + ((header.flags & kSyn) != 0) + ((header.flags & kFin) != 0);
  }
};

// A segment to be sent.
struct Outgoing {
  uint32_t sequence = 0;
  uint32_t acknowledgment = 0;
  uint8_t flags = 0;
  uint16_t window = 0;
  uint16_t urgent = 0;
  Options options;
  Slices payload;
  uint32_t size = 0;
  uint32_t mss = 0;  // Larger payloads are super-packets of such segments.
};

struct Settings {
  CongestionKind congestion = CongestionKind::kCubic;
  uint32_t send_buffer = 0;     // 0: autotuned between the three values of tcp_wmem.
  uint32_t receive_buffer = 0;  // 0: autotuned, tcp_rmem.
  bool no_delay = false;
  bool cork = false;
  bool quick_ack = true;  // TCP_QUICKACK: 0 asks for delays from now on.
  bool keep_alive = false;
  bool urgent_inline = false;
  int64_t keep_idle_ns = 7200 * kNsPerSecond;
  int64_t keep_interval_ns = 75 * kNsPerSecond;
  int keep_probes = 9;
  int64_t user_timeout_ns = 0;              // 0: by the number of retransmissions.
  int64_t fin_wait_ns = 60 * kNsPerSecond;  // TCP_LINGER2
  int syn_retries = 6;
  uint16_t mss_max = 0;  // TCP_MAXSEG; 0: the path's.
  uint32_t window_clamp = 0;
};

// What Wait on a connection may be about.
enum Event : uint32_t {
  kReadable = 1,
  kWritable = 2,
  kConnected = 4,
  kFailed = 8,  // error() says why.
  kPeerClosed = 16,
  kClosedAll = 32,
  kUrgent = 64,
};

class ControlBlock {
 public:
  static constexpr uint32_t kSendBufferMin = 4096, kSendBufferDefault = 87380;
  static constexpr uint32_t kSendBufferMax = 4 << 20;
  static constexpr uint32_t kReceiveBufferDefault = 131072, kReceiveBufferMax = 6 << 20;
  static constexpr uint16_t kMssDefault = 536;  // RFC 9293 3.7.1
  static constexpr uint32_t kMssMin =
      48;  // Against segments of a few bytes (Linux tcp_min_snd_mss)
  static constexpr int64_t kRtoMin = 200 * kNsPerMs;
  static constexpr int64_t kRtoInitial = kNsPerSecond;  // RFC 6298 2.1
  static constexpr int64_t kRtoMax = 120 * kNsPerSecond;
  static constexpr int64_t kDelayedAck = 40 * kNsPerMs;
  static constexpr int64_t kCorkNs = 200 * kNsPerMs;
  static constexpr uint32_t kCopiedStart =
      10;                                 // Segments per round trip that need no larger buffer.
  static constexpr int kRetriesMax = 15;  // tcp_retries2
  static constexpr int kOrphanRetriesMax = 8;
  static constexpr uint32_t kSackRoom = 4 + 8 * Options::kSackBlocksMax;
  static constexpr size_t kOutOfOrderNodesMax = 4096;
  static constexpr uint32_t kSuperPacketMax = 65535 - 128;

  // Who puts segments on the wire.
  class Wire {
   public:
    virtual ~Wire() = default;
    virtual void Transmit(const Outgoing& segment) = 0;
    virtual int64_t NowNs() const = 0;
  };

  // `link_mss`: the payload that a segment without options may have on the path.
  ControlBlock(Wire& wire, Counters& counters, const Settings& settings, uint32_t link_mss,
               uint32_t super_packet_max, uint32_t timestamp_offset);

  // --- Opening.
  void Connect(uint32_t initial_sequence);
  // What a listener has agreed on in a handshake that it did without us: Established.
  struct Handshake {
    uint32_t initial_sent = 0;      // ISS
    uint32_t initial_received = 0;  // IRS
    uint32_t peer_window = 0;
    Options peer;  // Of the SYN; has_timestamp, sack, scale as agreed.
    uint8_t our_window_scale = 0;
    uint32_t our_window = 0;      // What the SYN-ACK offered.
    int64_t syn_ack_sent_ns = 0;  // 0: not known, no round-trip time.
  };
  void Accept(const Handshake& handshake);

  // --- Segments and time.
  void Input(Segment segment);
  void OnTimer();
  int64_t NextDeadlineNs() const;
  void OnIcmpError(int error, bool hard, uint32_t sequence);
  void OnMtu(uint32_t link_mss, uint32_t sequence, bool check_sequence);

  // --- The user.
  size_t SendRoom() const;
  // Takes the slice whatever the room; `push`: nothing follows at once.
  void Send(Slice slice, bool push, bool urgent);
  size_t readable() const;
  void Peek(size_t from, size_t count, Slices& out) const { receive_queue_.Get(from, count, out); }
  void Consume(size_t count);
  std::optional<uint8_t> TakeUrgent(bool peek);
  bool has_urgent() const { return urgent_byte_.has_value(); }
  // Bytes in front of the urgent mark; SIZE_MAX if there is none ahead.
  size_t BytesToMark() const;
  void ShutdownWrite();
  void ShutdownRead();
  // The user is gone. Unread data or `reset`: RST (RFC 9293 3.10.4, RFC 2525 2.17).
  void Close(bool reset);
  void SettingsChanged();
  Settings& settings() { return settings_; }
  // Sends what Nagle, cork or delays held back.
  void Push();

  // --- What it has come to.
  State state() const { return state_; }
  uint32_t TakeEvents() { return std::exchange(events_, 0); }
  int error() const { return error_; }
  int TakeError() { return std::exchange(error_, 0); }
  int TakeSoftError() { return std::exchange(soft_error_, 0); }
  bool peer_finished() const { return peer_finished_; }
  bool write_finished() const { return fin_queued_; }
  bool read_shut() const { return read_shut_; }
  bool made_progress() { return std::exchange(progress_, false); }

  // For the entry that stays in TIME-WAIT, and for TCP_INFO.
  struct Info {
    State state;
    uint32_t send_next, send_unacknowledged, receive_next;
    uint32_t send_queued, receive_queued;
    uint32_t send_mss, receive_mss, cwnd, ssthresh, send_window, receive_window;
    uint8_t send_scale, receive_scale;
    bool timestamps, sack;
    uint32_t timestamp_recent, timestamp_offset;
    int64_t srtt_ns, rttvar_ns, rto_ns, min_rtt_ns, receive_rtt_ns;
    uint32_t retransmits, total_retransmits, unacked_segments, lost_segments, sacked_segments;
    uint64_t bytes_acked, bytes_received, bytes_sent, bytes_retransmitted;
    uint64_t segments_in, segments_out;
    int64_t last_sent_ns, last_received_ns, last_ack_ns;
    uint8_t congestion_state, backoff;
    uint32_t reordering_seen;
  };
  Info GetInfo() const;
  static uint8_t WindowScaleFor(uint32_t buffer_max);

 private:
  friend class ControlBlockProbe;  // Tests.
  struct Sent {
    uint32_t start = 0, end = 0;
    int64_t sent_ns = 0;
    bool sacked = false, lost = false,
         retransmitted = false;  // retransmitted: now in flight again.
    bool ever_retransmitted = false;
    uint32_t size() const { return end - start; }
  };
  enum class Repair : uint8_t { kOpen, kDisorder, kRecovery = 3, kLoss = 4 };  // tcp_ca_state
  enum class TimerKind : uint8_t { kNone, kRetransmit, kReorder, kProbe, kPersist };

  // --- input.cc
  void InputSynSent(Segment& segment);
  bool CheckSequence(const Segment& segment);
  bool CheckResetAndSyn(const Segment& segment);
  bool InputAck(const Segment& segment);
  void InputAckInSynReceived(const Segment& segment);
  void AfterFinAcknowledged();
  void InputUrgent(const Segment& segment);
  void InputFin();
  void TakePeerOptions(const Options& options);
  void Establish();
  void ChallengeAck();
  void Fail(int error);
  void SetState(State state);
  void EnterTimeWait();

  // --- receive.cc
  void InputData(Segment& segment);
  void TakeInOrder(Slices& slices, uint32_t size);
  void TakeOutOfOrder(uint32_t sequence, Slices& slices, uint32_t size);
  void MergeOutOfOrder();
  void ScheduleAck(const Segment& segment, bool in_order);
  uint32_t ReceiveBuffer() const;
  uint32_t SelectWindow();
  void FillSacks(Options& options);
  void TuneReceiveBuffer();
  void MeasureReceiveRtt(const Segment& segment);

  // --- output.cc
  void Output();
  bool SendNew(uint32_t window_room, uint32_t congestion_room, bool forced);
  uint32_t RetransmitLost(uint32_t room);
  void Retransmit(Sent& sent, uint32_t size_max);
  void Emit(uint32_t sequence, uint8_t flags, uint32_t size);
  void SendSyn();
  void SendAck();
  void SendReset(uint32_t sequence, bool with_ack);
  void SendProbe(uint32_t sequence);
  uint32_t DataEnd() const { return send_data_start_ + static_cast<uint32_t>(send_queue_.size()); }
  uint32_t SendBuffer() const;
  bool MaySendData() const;
  uint32_t SegmentBytes() const;
  Options DataOptions();

  // --- recovery.cc
  struct AckResult {
    uint32_t acked = 0;      // New cumulative bytes.
    uint32_t delivered = 0;  // Cumulative and selective.
    bool sacked_new = false;
    bool duplicate_sack = false;
    int64_t rtt_ns = -1;
    bool acked_retransmitted = false;
    bool fin_acked = false;
  };
  void ProcessSacks(const Segment& segment, AckResult& result);
  void MarkSacked(const SackBlock& block, AckResult& result);
  void CleanSent(uint32_t ack, AckResult& result);
  void Split(size_t index, uint32_t at);
  void UpdateRack(const Sent& sent);
  void DetectLoss();
  void UpdateRecovery(const Segment& segment, AckResult& result, bool duplicate);
  void EnterRecovery();
  void ProportionalReduction(uint32_t delivered, bool made_progress);
  bool IsSpurious(const Segment& segment, const AckResult& result) const;
  void UndoRecovery();
  void SampleRtt(int64_t rtt_ns);
  uint32_t InFlight() const {
    return send_next_ - send_unacked_ - sacked_bytes_ - lost_bytes_ + retransmitted_bytes_;
  }
  void ArmRetransmit();
  void ArmProbe();
  void OnRetransmitTimeout();
  void OnLossProbe();
  void OnPersist();
  void OnKeepAlive();
  void ArmKeepAlive();
  bool GaveUp(int retries) const;
  int64_t Rto() const;
  uint32_t TimestampNow() const {
    return static_cast<uint32_t>(wire_.NowNs() / kNsPerMs) + timestamp_offset_;
  }

  Wire& wire_;
  Counters& counters_;
  Settings settings_;
  State state_ = State::kClosed;
  uint32_t events_ = 0;
  int error_ = 0;
  int soft_error_ = 0;
  bool progress_ = false;
  bool detached_ = false;  // The user is gone.

  // Send sequence variables (RFC 9293 3.3.1).
  uint32_t initial_sent_ = 0;
  uint32_t send_unacked_ = 0, send_next_ = 0;
  uint32_t send_window_ = 0, send_window_max_ = 0;
  uint32_t send_wl1_ = 0, send_wl2_ = 0;
  uint32_t send_urgent_ = 0;
  bool send_urgent_set_ = false;
  uint32_t send_data_start_ = 0;  // Sequence number of send_queue_'s first byte.
  ByteQueue send_queue_;
  bool fin_queued_ = false, fin_sent_ = false;
  uint32_t push_end_ = 0;  // Data up to here was pushed by the user.
  uint32_t link_mss_, super_packet_max_;
  uint32_t send_mss_ = kMssDefault;  // Payload, options taken off.
  uint32_t peer_mss_ = kMssDefault;
  uint8_t send_scale_ = 0, receive_scale_ = 0;
  bool use_timestamps_ = false, use_sack_ = false;
  uint32_t timestamp_offset_, timestamp_recent_ = 0;
  int64_t timestamp_recent_ns_ = 0;

  // Receive.
  uint32_t initial_received_ = 0;
  uint32_t receive_next_ = 0, receive_advertised_ = 0;  // Right edge of the offered window.
  uint32_t receive_acked_ = 0;                          // Last acknowledgment sent.
  ByteQueue receive_queue_;
  uint64_t receive_base_ = 0;  // receive_next_ without wrapping, for the keys below.
  struct OutOfOrder {
    uint64_t end = 0;
    Slices slices;
  };
  std::map<uint64_t, OutOfOrder> out_of_order_;
  size_t out_of_order_memory_ = 0;
  std::vector<uint64_t> recent_blocks_;  // Most recent first.
  std::optional<SackBlock> duplicate_;   // RFC 2883
  uint32_t receive_buffer_ = kReceiveBufferDefault;
  bool peer_finished_ = false, read_shut_ = false;
  std::optional<uint32_t> fin_at_;
  std::optional<uint32_t> urgent_mark_;  // Sequence number of the urgent byte.
  std::optional<uint8_t> urgent_byte_;
  std::optional<size_t> mark_at_;       // Bytes of receive_queue_ in front of it.
  uint32_t receive_mss_ = kMssDefault;  // What the peer's segments look like.
  uint32_t unacked_in_ = 0;             // Bytes received since the last acknowledgment.
  int quick_acks_ = 16;
  bool ack_now_ = false;
  bool interactive_ = false;
  int64_t delayed_ack_at_ = kNever;
  // Dynamic right-sizing.
  uint32_t copied_ = 0, copied_space_ = 0;
  uint32_t measure_sequence_ = 0;
  int64_t measure_start_ns_ = 0, copied_start_ns_ = 0, receive_rtt_ns_ = 0;

  // Repair.
  std::deque<Sent> sent_;
  uint32_t sacked_bytes_ = 0, lost_bytes_ = 0, retransmitted_bytes_ = 0;
  Repair repair_ = Repair::kOpen;
  uint32_t recovery_end_ = 0;  // SND.NXT when it began.
  uint32_t recovery_prior_flight_ = 0, recovery_delivered_ = 0, recovery_sent_ = 0;
  uint32_t duplicate_acks_ = 0;
  std::optional<uint32_t> retransmit_stamp_;  // Timestamp of the first retransmission.
  int64_t undo_pending_bytes_ = 0;            // Retransmitted, no DSACK for them yet.
  bool undo_possible_ = false;
  Congestion congestion_;
  bool window_limited_ = false;
  uint32_t max_in_flight_ = 0;
  std::optional<uint32_t> echo_;  // Of the acknowledgment that is being looked at.
  // RACK (RFC 8985 5.2).
  int64_t rack_sent_ns_ = 0, rack_rtt_ns_ = 0;
  uint32_t rack_end_ = 0;
  uint32_t highest_sacked_ = 0;
  bool reordering_seen_ = false;
  int reorder_steps_ = 1, reorder_persist_ = 0;
  uint32_t reorder_round_ = 0;
  // TLP (RFC 8985 7).
  bool probe_out_ = false, probe_was_retransmission_ = false;
  uint32_t probe_end_ = 0;
  // Round-trip times (RFC 6298).
  int64_t srtt_ns_ = 0, rttvar_ns_ = 0, min_rtt_ns_ = kNever, min_rtt_at_ns_ = 0;
  int64_t rto_ns_ = kRtoInitial;
  int backoff_ = 0;
  int retries_ = 0;
  int64_t retries_since_ns_ = 0;
  // Timers.
  TimerKind timer_kind_ = TimerKind::kNone;
  int64_t timer_at_ = kNever;
  int64_t cork_at_ = kNever;
  int64_t keep_at_ = kNever;
  int64_t close_at_ = kNever;  // FIN-WAIT-2 of an orphan.
  int keep_sent_ = 0;
  int64_t last_sent_ns_ = 0, last_received_ns_ = 0, last_ack_ns_ = 0;
  int64_t challenge_window_ns_ = 0;
  int challenges_ = 0;
  int64_t last_oow_ack_ns_ = 0;
  // Counts for TCP_INFO.
  uint32_t total_retransmits_ = 0;
  uint64_t bytes_acked_ = 0, bytes_received_ = 0, bytes_sent_ = 0, bytes_retransmitted_ = 0;
  uint64_t segments_in_ = 0, segments_out_ = 0;
};

}  // namespace netstack::tcp
