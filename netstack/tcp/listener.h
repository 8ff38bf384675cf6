#pragma once

// A listening port: handshakes that are not done (small entries, not connections), SYN cookies when
// there are too many of them (RFC 4987 3.6), connections that wait to be accepted.

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>

#include "absl/container/flat_hash_map.h"
#include "absl/synchronization/mutex.h"
#include "netstack/stack/stack.h"
#include "netstack/stack/timer.h"
#include "netstack/tcp/connection.h"
#include "platform/base/result.h"

namespace netstack::tcp {

class Listener final : public TimerTarget {
 public:
  static constexpr size_t kBacklogMax = 4096;  // net.core.somaxconn
  static constexpr int kSynAckRetries = 5;     // net.ipv4.tcp_synack_retries
  static constexpr uint32_t kCookiePeriodSeconds = 64;
  static constexpr uint32_t kCookiePeriods = 2;  // How many are honoured.

  struct Options {
    IpAddress local = {};  // Any: all of the family; V6Any takes IPv4, too, unless v6_only.
    uint16_t port = 0;
    bool v6_only = false;
    bool shares = false;  // SO_REUSEPORT
    int interface_index = 0;
    uint8_t hop_limit = 64;
    Settings settings = {};
  };
  // EADDRINUSE.
  static base::Result<std::shared_ptr<Listener>> Open(Stack& stack, const Options& options,
                                                      int backlog,
                                                      std::shared_ptr<Observer> observer);
  Listener(Stack& stack, const Options& options, int backlog, std::shared_ptr<Observer> observer);

  const Options& options() const { return options_; }
  void SetBacklog(int backlog) ABSL_LOCKS_EXCLUDED(mu_);
  template <typename Change>
  void ChangeSettings(Change change) ABSL_LOCKS_EXCLUDED(mu_) {
    const absl::MutexLock lock(&mu_);
    change(settings_);
  }
  // EAGAIN. The connection has no observer yet.
  base::Result<std::shared_ptr<Connection>> Accept() ABSL_LOCKS_EXCLUDED(mu_);
  size_t Waiting() const ABSL_LOCKS_EXCLUDED(mu_);
  size_t HalfOpen() const ABSL_LOCKS_EXCLUDED(mu_);
  // Connections that nobody accepted are reset.
  void Close() ABSL_LOCKS_EXCLUDED(mu_);

  // A segment for this port that belongs to no connection. `reuse`: see Table.
  void OnSegment(const FlowKey& flow, Segment segment, std::optional<uint32_t> reuse)
      ABSL_LOCKS_EXCLUDED(mu_);
  void OnTimer() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Half {
    uint32_t iss = 0, irs = 0;
    netstack::tcp::Options peer;
    uint16_t peer_window = 0;
    uint8_t scale = 0;
    int sent = 0;
    int64_t sent_ns = 0, due_ns = 0;
  };
  void OnSyn(const FlowKey& flow, const Segment& segment, std::optional<uint32_t> reuse);
  void OnAck(const FlowKey& flow, Segment segment);
  void SendSynAck(const FlowKey& flow, const Half& half, uint32_t timestamp);
  uint32_t MakeCookie(const FlowKey& flow, uint32_t irs, uint16_t mss) const;
  // The handshake that the cookie in `segment`'s acknowledgment was about.
  std::optional<Half> CheckCookie(const FlowKey& flow, const Segment& segment) const;
  uint32_t CookiePeriod() const;
  uint8_t OurScale() const ABSL_LOCKS_EXCLUDED(mu_);
  uint32_t Timestamp(const FlowKey& flow) const;
  bool FullLocked() const ABSL_SHARED_LOCKS_REQUIRED(mu_) { return accepted_.size() > backlog_; }

  Stack& stack_;
  const Options options_;
  const std::shared_ptr<Observer> observer_;
  mutable absl::Mutex mu_;
  Settings settings_ ABSL_GUARDED_BY(mu_);
  size_t backlog_ ABSL_GUARDED_BY(mu_);
  bool closed_ ABSL_GUARDED_BY(mu_) = false;
  absl::flat_hash_map<FlowKey, Half> half_open_ ABSL_GUARDED_BY(mu_);
  std::deque<std::shared_ptr<Connection>> accepted_ ABSL_GUARDED_BY(mu_);
};

}  // namespace netstack::tcp
