#include "netstack/tcp/congestion.h"

#include <algorithm>
#include <cmath>

namespace netstack::tcp {
namespace {

constexpr double kCubicC = 0.4;
constexpr double kCubicBeta = 0.7;

}  // namespace

void Congestion::SetMss(uint32_t mss, bool initial) {
  mss_ = mss;
  if (initial) cwnd_ = kInitialSegments * mss;
  cwnd_ = std::max(cwnd_, mss);
}

void Congestion::OnAck(uint32_t bytes, int64_t now_ns, int64_t srtt_ns) {
  if (in_slow_start()) {
    uint32_t growth = bytes;
    if (conservative_rounds_ > 0) growth = bytes / 4;  // CSS_GROWTH_DIVISOR
    const uint32_t room = ssthresh_ - cwnd_;
    cwnd_ += std::min(growth, room);
    cwnd_ = std::min(cwnd_, kInfinite / 2);
    return;
  }
  if (kind_ == CongestionKind::kCubic) {
    GrowCubic(bytes, now_ns, srtt_ns);
    return;
  }
  acked_ += bytes;
  if (acked_ >= cwnd_) {
    acked_ -= cwnd_;
    cwnd_ = std::min(cwnd_ + mss_, kInfinite / 2);
  }
}

void Congestion::GrowCubic(uint32_t bytes, int64_t now_ns, int64_t srtt_ns) {
  const double segments = static_cast<double>(cwnd_) / mss_;
  if (epoch_ns_ == 0) {
    epoch_ns_ = now_ns;
    if (w_max_ < segments) {
      w_max_ = segments;
      k_ = 0;
    } else {
      k_ = std::cbrt((w_max_ - segments) / kCubicC);
    }
    w_est_ = segments;
    acked_ = 0;
  }
  const double acked = static_cast<double>(bytes) / mss_;
  // RFC 9438 4.3: alpha until the window of the last loss is reached again, 1 then.
  const double alpha = w_est_ >= w_max_ ? 1.0 : 3.0 * (1.0 - kCubicBeta) / (1.0 + kCubicBeta);
  w_est_ += alpha * acked / segments;
  const double t = static_cast<double>(now_ns - epoch_ns_ + srtt_ns) / 1e9;
  const double offset = t - k_;
  double target = kCubicC * offset * offset * offset + w_max_;
  target = std::clamp(target, segments, 1.5 * segments);
  double next = segments + (target - segments) / segments * acked;
  if (next < w_est_) next = w_est_;
  const double limit = static_cast<double>(kInfinite) / 2;
  cwnd_ = static_cast<uint32_t>(std::min(next * mss_, limit));
}

void Congestion::OnRttSample(int64_t rtt_ns, uint32_t acknowledged, uint32_t next_sequence) {
  if (!in_slow_start()) return;
  if (!round_open_ || static_cast<int32_t>(acknowledged - round_end_) >= 0) {
    round_open_ = true;
    round_end_ = next_sequence;
    last_round_rtt_ns_ = round_rtt_ns_;
    round_rtt_ns_ = kNever;
    samples_ = 0;
    if (conservative_rounds_ > 0 && --conservative_rounds_ == 0) ssthresh_ = cwnd_;
  }
  round_rtt_ns_ = std::min(round_rtt_ns_, rtt_ns);
  ++samples_;
  if (samples_ < kSamplesMin || round_rtt_ns_ == kNever) return;
  if (conservative_rounds_ > 0) {
    // The rise was none: back to slow start.
    if (round_rtt_ns_ < baseline_rtt_ns_) conservative_rounds_ = 0;
    return;
  }
  if (last_round_rtt_ns_ == kNever) return;
  const int64_t threshold =
      std::clamp<int64_t>(last_round_rtt_ns_ / 8, 4 * kNsPerMs, 16 * kNsPerMs);
  if (round_rtt_ns_ >= last_round_rtt_ns_ + threshold) {
    baseline_rtt_ns_ = round_rtt_ns_;
    conservative_rounds_ = kConservativeRounds;
  }
}

void Congestion::Reduce(int64_t) {
  prior_cwnd_ = cwnd_;
  prior_ssthresh_ = ssthresh_;
  const double segments = static_cast<double>(cwnd_) / mss_;
  if (kind_ == CongestionKind::kCubic) {
    // RFC 9438 4.7: fast convergence.
    w_max_ = segments < w_max_ ? segments * (1.0 + kCubicBeta) / 2.0 : segments;
    ssthresh_ = static_cast<uint32_t>(cwnd_ * kCubicBeta);
  } else {
    ssthresh_ = cwnd_ / 2;
  }
  ssthresh_ = std::max(ssthresh_, 2 * mss_);
  epoch_ns_ = 0;
  acked_ = 0;
  conservative_rounds_ = 0;
}

void Congestion::EnterRecovery(int64_t now_ns) { Reduce(now_ns); }

void Congestion::OnTimeout(int64_t now_ns, bool first) {
  if (first) Reduce(now_ns);
  cwnd_ = mss_;
}

void Congestion::ExitRecovery() { cwnd_ = std::max(ssthresh_, 2 * mss_); }

void Congestion::Undo() {
  cwnd_ = std::max(cwnd_, prior_cwnd_);
  ssthresh_ = std::max(ssthresh_, prior_ssthresh_);
}

void Congestion::OnIdle(int64_t idle_ns, int64_t rto_ns) {
  const uint32_t restart = std::min(kInitialSegments * mss_, cwnd_);
  ssthresh_ = std::max(ssthresh_, cwnd_ / 4 * 3);
  while (idle_ns > rto_ns && cwnd_ > restart) {
    idle_ns -= rto_ns;
    cwnd_ = std::max(cwnd_ / 2, restart);
  }
  epoch_ns_ = 0;
}

}  // namespace netstack::tcp
