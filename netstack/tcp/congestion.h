#pragma once

// How much may be in flight: CUBIC (RFC 9438) with HyStart++ (RFC 9406), and Reno (RFC 5681). In
// bytes; knows nothing of segments but their size.

#include <cstdint>

#include "netstack/stack/clock.h"

namespace netstack::tcp {

enum class CongestionKind : uint8_t { kCubic, kReno };

class Congestion {
 public:
  static constexpr uint32_t kInitialSegments = 10;  // RFC 6928
  static constexpr uint32_t kInfinite = 0x7fffffff;

  Congestion(CongestionKind kind, uint32_t mss)
      : kind_(kind), mss_(mss), cwnd_(kInitialSegments * mss) {}

  void set_kind(CongestionKind kind) { kind_ = kind; }
  CongestionKind kind() const { return kind_; }
  // The segment size is known or has changed. `initial`: nothing has been sent yet.
  void SetMss(uint32_t mss, bool initial);
  uint32_t cwnd() const { return cwnd_; }
  uint32_t ssthresh() const { return ssthresh_; }
  bool in_slow_start() const { return cwnd_ < ssthresh_; }

  // New data was acknowledged while nothing is being repaired and the window was the limit.
  void OnAck(uint32_t bytes, int64_t now_ns, int64_t srtt_ns);
  // Feeds HyStart++: a round ends when `acknowledged` passes what was sent when it began.
  void OnRttSample(int64_t rtt_ns, uint32_t acknowledged, uint32_t next_sequence);
  // Loss: what ssthresh is to be. The window itself is moved by proportional rate reduction.
  void EnterRecovery(int64_t now_ns);
  void OnTimeout(int64_t now_ns, bool first);
  void SetWindow(uint32_t bytes) { cwnd_ = bytes; }
  void ExitRecovery();
  // The loss was none.
  void Undo();
  // RFC 5681 4.1, after `idle_ns` without sending.
  void OnIdle(int64_t idle_ns, int64_t rto_ns);

 private:
  void Reduce(int64_t now_ns);
  void GrowCubic(uint32_t bytes, int64_t now_ns, int64_t srtt_ns);

  CongestionKind kind_;
  uint32_t mss_;
  uint32_t cwnd_;
  uint32_t ssthresh_ = kInfinite;
  uint32_t prior_cwnd_ = 0;  // Before the last reduction, for Undo.
  uint32_t prior_ssthresh_ = 0;
  uint64_t acked_ = 0;  // Not yet turned into window.
  // CUBIC.
  double w_max_ = 0;      // Segments.
  double k_ = 0;          // Seconds.
  double w_est_ = 0;      // What Reno would have.
  int64_t epoch_ns_ = 0;  // 0: not begun.
  // HyStart++.
  static constexpr int kSamplesMin = 8;
  static constexpr int kConservativeRounds = 5;
  uint32_t round_end_ = 0;
  bool round_open_ = false;
  int64_t last_round_rtt_ns_ = kNever;
  int64_t round_rtt_ns_ = kNever;
  int64_t baseline_rtt_ns_ = kNever;
  int samples_ = 0;
  int conservative_rounds_ = 0;  // > 0: conservative slow start, and how many rounds are left.
};

}  // namespace netstack::tcp
