#include "netstack/tcp/listener.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "netstack/tcp/table.h"

namespace netstack::tcp {
namespace {

using base::Errno;
using base::Result;

// What three bits of a cookie can say about the peer's segment size.
constexpr std::array<uint16_t, 8> kCookieMss = {536, 1220, 1300, 1400, 1440, 1460, 4312, 8960};
// Six bits of the timestamp carry the other options: scale (15: none) and SACK.
constexpr uint32_t kCookieTimestampBits = 63;
constexpr uint32_t kNoScale = 15;

uint32_t OfferedWindow(const Settings& settings) {
  const uint32_t buffer =
      settings.receive_buffer != 0 ? settings.receive_buffer : ControlBlock::kReceiveBufferDefault;
  return std::min<uint32_t>(buffer, 65535);
}

}  // namespace

Listener::Listener(Stack& stack, const Options& options, int backlog,
                   std::shared_ptr<Observer> observer)
    : stack_(stack),
      options_(options),
      observer_(std::move(observer)),
      settings_(options.settings),
      backlog_(0) {
  SetBacklog(backlog);
}

Result<std::shared_ptr<Listener>> Listener::Open(Stack& stack, const Options& options, int backlog,
                                                 std::shared_ptr<Observer> observer) {
  auto listener = std::make_shared<Listener>(stack, options, backlog, std::move(observer));
  TRY(stack.tcp().AddListener(listener));
  return listener;
}

void Listener::SetBacklog(int backlog) {
  const absl::MutexLock lock(&mu_);
  // As an unsigned number, and one more than asked for may wait: as Linux has both.
  backlog_ = std::min<size_t>(static_cast<unsigned>(backlog), kBacklogMax);
}

Result<std::shared_ptr<Connection>> Listener::Accept() {
  const absl::MutexLock lock(&mu_);
  if (accepted_.empty()) return Errno(EAGAIN);
  auto connection = std::move(accepted_.front());
  accepted_.pop_front();
  return connection;
}

size_t Listener::Waiting() const {
  const absl::MutexLock lock(&mu_);
  return accepted_.size();
}

size_t Listener::HalfOpen() const {
  const absl::MutexLock lock(&mu_);
  return half_open_.size();
}

void Listener::Close() {
  stack_.tcp().RemoveListener(this);
  std::deque<std::shared_ptr<Connection>> orphans;
  {
    const absl::MutexLock lock(&mu_);
    closed_ = true;
    half_open_.clear();
    orphans.swap(accepted_);
  }
  for (const auto& connection : orphans) connection->Close(true);
}

uint8_t Listener::OurScale() const {
  const absl::MutexLock lock(&mu_);
  return ControlBlock::WindowScaleFor(
      std::max(ControlBlock::kReceiveBufferMax, settings_.receive_buffer));
}

uint32_t Listener::Timestamp(const FlowKey& flow) const {
  return static_cast<uint32_t>(stack_.clock().NowNs() / kNsPerMs) +
         stack_.tcp().TimestampOffset(flow);
}

uint32_t Listener::CookiePeriod() const {
  return static_cast<uint32_t>(stack_.clock().NowNs() / kNsPerSecond / kCookiePeriodSeconds);
}

uint32_t Listener::MakeCookie(const FlowKey& flow, uint32_t irs, uint16_t mss) const {
  uint32_t index = 0;
  while (index + 1 < kCookieMss.size() && kCookieMss[index + 1] <= mss) ++index;
  const uint32_t top = ((CookiePeriod() & 31) << 3) | index;
  return (top << 24) | (stack_.tcp().CookieHash(flow, irs, top) & 0xffffff);
}

std::optional<Listener::Half> Listener::CheckCookie(const FlowKey& flow,
                                                    const Segment& segment) const {
  const uint32_t cookie = segment.header.acknowledgment - 1;
  const uint32_t irs = segment.header.sequence - 1;
  const uint32_t top = cookie >> 24;
  const uint32_t age = (CookiePeriod() - (top >> 3)) & 31;
  if (age >= kCookiePeriods) return std::nullopt;
  if ((stack_.tcp().CookieHash(flow, irs, top) & 0xffffff) != (cookie & 0xffffff))
    return std::nullopt;
  Half half;
  half.iss = cookie;
  half.irs = irs;
  half.peer.mss = kCookieMss[top & 7];
  if (segment.options.has_timestamp) {
    const uint32_t bits = segment.options.timestamp_echo & kCookieTimestampBits;
    half.peer.has_timestamp = true;
    half.peer.timestamp = segment.options.timestamp;
    half.peer.sack_permitted = (bits & 16) != 0;
    if ((bits & kNoScale) != kNoScale)
      half.peer.window_scale = static_cast<uint8_t>(bits & kNoScale);
  }
  half.scale = half.peer.window_scale ? OurScale() : 0;
  return half;
}

void Listener::SendSynAck(const FlowKey& flow, const Half& half, uint32_t timestamp) {
  auto path = stack_.FindPath(flow.remote, flow.local, options_.interface_index);
  if (!path.ok()) return;
  uint32_t window = 0;
  uint16_t mss_max = 0;
  {
    const absl::MutexLock lock(&mu_);
    window = OfferedWindow(settings_);
    mss_max = settings_.mss_max;
  }
  netstack::tcp::Options options;
  options.mss = static_cast<uint16_t>(LinkMss(path.value(), flow.remote.is_v4()));
  if (mss_max != 0) options.mss = std::min(*options.mss, mss_max);
  options.sack_permitted = half.peer.sack_permitted;
  if (half.peer.window_scale) options.window_scale = half.scale;
  if (half.peer.has_timestamp) {
    options.has_timestamp = true;
    options.timestamp = timestamp;
    options.timestamp_echo = half.peer.timestamp;
  }
  stack_.tcp().SendSegment(flow, &path.value(),
                           {.source_port = flow.local_port,
                            .destination_port = flow.remote_port,
                            .sequence = half.iss,
                            .acknowledgment = half.irs + 1,
                            .flags = kSyn | kAck,
                            .window = static_cast<uint16_t>(window)},
                           options);
}

void Listener::OnSegment(const FlowKey& flow, Segment segment, std::optional<uint32_t> reuse) {
  // RFC 9293 3.10.7.2.
  const uint8_t flags = segment.header.flags;
  if ((flags & kRst) != 0) {
    const absl::MutexLock lock(&mu_);
    const auto found = half_open_.find(flow);
    // RFC 5961 3.2: exactly the next number.
    if (found != half_open_.end() && segment.header.sequence == found->second.irs + 1)
      half_open_.erase(found);
    return;
  }
  if ((flags & kAck) != 0 && (flags & kSyn) == 0) {
    OnAck(flow, std::move(segment));
  } else if ((flags & (kSyn | kAck | kFin)) == kSyn) {
    OnSyn(flow, segment, reuse);
  } else if ((flags & kAck) != 0) {
    stack_.tcp().SendResetFor(flow, segment);
  }
}

void Listener::OnSyn(const FlowKey& flow, const Segment& segment, std::optional<uint32_t> reuse) {
  const int64_t now = stack_.clock().NowNs();
  auto& counters = stack_.counters().tcp;
  Half half;
  half.irs = segment.header.sequence;
  half.peer = segment.options;
  half.peer_window = segment.header.window;
  half.scale = half.peer.window_scale ? OurScale() : 0;
  half.iss = stack_.tcp().InitialSequence(flow);
  if (reuse) half.iss = MaxSeq(half.iss, *reuse);
  half.sent = 1;
  half.sent_ns = now;
  half.due_ns = now + ControlBlock::kRtoInitial;
  uint32_t timestamp = Timestamp(flow);
  bool cookie = false;
  {
    const absl::MutexLock lock(&mu_);
    if (closed_) return;
    const auto found = half_open_.find(flow);
    if (found != half_open_.end()) {
      // The same SYN again: the same answer. Another one: RFC 9293 3.10.7.4 would challenge it; the
      // entry that is right will be acknowledged.
      if (found->second.irs != half.irs) return;
      half = found->second;
    } else if (FullLocked()) {
      Count(counters.listen_overflows);
      Count(counters.listen_drops);
      return;
    } else if (half_open_.size() >= std::max<size_t>(backlog_, 16)) {
      cookie = true;
    } else {
      half_open_.emplace(flow, half);
    }
  }
  if (cookie) {
    Count(counters.syn_cookies_sent);
    half.iss = MakeCookie(flow, half.irs, half.peer.mss.value_or(ControlBlock::kMssDefault));
    if (half.peer.has_timestamp) {
      const uint32_t scale = half.peer.window_scale.value_or(kNoScale);
      const uint32_t bits = (scale & kNoScale) | (half.peer.sack_permitted ? 16u : 0u);
      timestamp = ((timestamp - kCookieTimestampBits - 1) & ~kCookieTimestampBits) | bits;
    } else {
      // Nowhere to remember them.
      half.peer.sack_permitted = false;
      half.peer.window_scale.reset();
    }
  } else {
    stack_.timers().Arm(*this, half.due_ns);
  }
  SendSynAck(flow, half, timestamp);
}

void Listener::OnAck(const FlowKey& flow, Segment segment) {
  auto& counters = stack_.counters().tcp;
  std::optional<Half> half;
  Settings settings;
  bool from_cookie = false;
  {
    const absl::MutexLock lock(&mu_);
    settings = settings_;
    const auto found = half_open_.find(flow);
    if (found != half_open_.end()) {
      half = found->second;
      const uint32_t start = half->irs + 1;
      const bool in_window = !Before(segment.header.sequence, start) &&
                             Before(segment.header.sequence, start + OfferedWindow(settings));
      const bool stale =
          half->peer.has_timestamp && (!segment.options.has_timestamp ||
                                       Before(segment.options.timestamp, half->peer.timestamp));
      if (!in_window || stale) return;
      if (segment.header.acknowledgment != half->iss + 1) {
        half.reset();
      } else if (FullLocked()) {
        // It stays half open: the SYN-ACK is sent again, and the peer acknowledges again.
        Count(counters.listen_overflows);
        Count(counters.listen_drops);
        return;
      } else {
        half_open_.erase(found);
      }
    } else if (FullLocked()) {
      Count(counters.listen_overflows);
      return;
    }
  }
  if (!half) {
    half = CheckCookie(flow, segment);
    from_cookie = true;
    if (!half) {
      Count(counters.syn_cookies_failed);
      stack_.tcp().SendResetFor(flow, segment);
      return;
    }
    Count(counters.syn_cookies_received);
  }
  auto path = stack_.FindPath(flow.remote, flow.local, options_.interface_index);
  if (!path.ok()) return;
  const ControlBlock::Handshake handshake{
      .initial_sent = half->iss,
      .initial_received = half->irs,
      .peer_window = from_cookie ? uint32_t{segment.header.window} : uint32_t{half->peer_window},
      .peer = half->peer,
      .our_window_scale = half->scale,
      .our_window = OfferedWindow(settings),
      .syn_ack_sent_ns = from_cookie || half->sent > 1 ? 0 : half->sent_ns};
  const auto connection = Connection::Accept(stack_,
                                             {.flow = flow,
                                              .interface_index = options_.interface_index,
                                              .hop_limit = options_.hop_limit,
                                              .traffic_class = 0,
                                              .settings = settings},
                                             path.value(), handshake);
  if (connection == nullptr) return;
  connection->OnSegment(std::move(segment));
  bool refused = false;
  {
    const absl::MutexLock lock(&mu_);
    refused = closed_;
    if (!refused) accepted_.push_back(connection);
  }
  if (refused) {
    connection->Close(true);
  } else if (observer_ != nullptr) {
    observer_->OnEvents(kReadable);
  }
}

void Listener::OnTimer() {
  const int64_t now = stack_.clock().NowNs();
  std::vector<std::pair<FlowKey, Half>> again;
  int64_t next = kNever;
  {
    const absl::MutexLock lock(&mu_);
    for (auto it = half_open_.begin(); it != half_open_.end();) {
      const auto current = it++;
      Half& half = current->second;
      if (half.due_ns <= now) {
        if (half.sent > kSynAckRetries) {
          Count(stack_.counters().tcp.attempt_fails);
          half_open_.erase(current);
          continue;
        }
        half.due_ns = now + (ControlBlock::kRtoInitial << half.sent);
        ++half.sent;
        again.emplace_back(current->first, half);
      }
      next = std::min(next, half.due_ns);
    }
  }
  stack_.timers().Arm(*this, next);
  for (const auto& [flow, half] : again) {
    Count(stack_.counters().tcp.retransmitted_segments);
    SendSynAck(flow, half, Timestamp(flow));
  }
}

}  // namespace netstack::tcp
