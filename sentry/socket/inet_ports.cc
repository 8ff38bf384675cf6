#include "sentry/socket/inet_ports.h"

#include <netinet/in.h>

#include <algorithm>
#include <utility>

#include "sentry/socket/inet_socket.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// Would a packet to one of the two addresses (of the same port) possibly be meant for the other?
bool Overlap(const InetAddress& a, bool a_v6_only, const InetAddress& b, bool b_v6_only) {
  if (a.is_v4() == b.is_v4()) return a.is_any() || b.is_any() || a.SameHost(b);
  // The IPv6 wildcard takes IPv4 too, unless IPV6_V6ONLY.
  const bool a_takes_b = !a.is_v4() && a.is_any() && !a_v6_only;
  const bool b_takes_a = !b.is_v4() && b.is_any() && !b_v6_only;
  return a_takes_b || b_takes_a;
}

// 0: does not take it; 2: by its exact address; 1: by a wildcard.
int Match(const InetAddress& bound, bool v6_only, const InetAddress& to) {
  if (bound.SameHost(to)) return 2;
  if (!bound.is_any()) return 0;
  if (bound.is_v4() == to.is_v4()) return 1;
  return !bound.is_v4() && !v6_only ? 1 : 0;
}

}  // namespace

bool InetPorts::ConflictsLocked(const InetSocket& socket, const InetAddress& address,
                                References& seen) {
  const auto found = ports_.find({socket.protocol(), address.port});
  if (found == ports_.end()) return false;
  for (const Entry& entry : found->second) {
    if (entry.identity == &socket) continue;
    const auto other = seen.emplace_back(entry.socket.lock());
    if (other == nullptr) continue;
    if (!Overlap(address, socket.v6_only(), entry.address, other->v6_only())) continue;
    if (socket.shares_port() && other->shares_port() && socket.owner_uid() == other->owner_uid())
      continue;
    const bool reuse = socket.reuses_address() && other->reuses_address();
    if (reuse && (socket.protocol() != IPPROTO_TCP || !other->listening())) continue;
    return true;
  }
  return false;
}

Result<uint16_t> InetPorts::Bind(const std::shared_ptr<InetSocket>& socket,
                                 const InetAddress& address) {
  References seen;
  const absl::MutexLock lock(&mu_);
  InetAddress wanted = address;
  if (wanted.port == 0) {
    constexpr uint32_t kCount = kEphemeralLast - kEphemeralFirst + 1;
    uint32_t tried = 0;
    for (; tried < kCount; ++tried) {
      next_ephemeral_ = next_ephemeral_ == kEphemeralLast
                            ? kEphemeralFirst
                            : static_cast<uint16_t>(next_ephemeral_ + 1);
      // A port that nobody has at all: sharing is for those who name it.
      if (!ports_.contains({socket->protocol(), next_ephemeral_})) break;
    }
    if (tried == kCount) return Errno(EADDRINUSE);
    wanted.port = next_ephemeral_;
  } else if (ConflictsLocked(*socket, wanted, seen)) {
    return Errno(EADDRINUSE);
  }
  ports_[{socket->protocol(), wanted.port}].push_back({socket.get(), socket, wanted});
  return wanted.port;
}

void InetPorts::Release(const InetSocket* socket, int protocol, uint16_t port) {
  const absl::MutexLock lock(&mu_);
  const auto found = ports_.find({protocol, port});
  if (found == ports_.end()) return;
  std::erase_if(found->second, [&](const Entry& entry) { return entry.identity == socket; });
  if (found->second.empty()) ports_.erase(found);
}

Result<void> InetPorts::CheckListen(const InetSocket& socket) {
  const InetAddress address = socket.local();
  References seen;
  const absl::MutexLock lock(&mu_);
  const auto found = ports_.find({socket.protocol(), address.port});
  if (found == ports_.end()) return {};
  for (const Entry& entry : found->second) {
    if (entry.identity == &socket) continue;
    const auto other = seen.emplace_back(entry.socket.lock());
    if (other == nullptr || !other->listening()) continue;
    if (!Overlap(address, socket.v6_only(), entry.address, other->v6_only())) continue;
    if (socket.shares_port() && other->shares_port()) continue;
    return Errno(EADDRINUSE);
  }
  return {};
}

std::shared_ptr<InetSocket> InetPorts::FindListener(const InetAddress& to) {
  References best;
  References others;
  const absl::MutexLock lock(&mu_);
  const auto found = ports_.find({IPPROTO_TCP, to.port});
  if (found == ports_.end()) return nullptr;
  int best_match = 0;
  for (const Entry& entry : found->second) {
    auto socket = entry.socket.lock();
    if (socket == nullptr) continue;
    const int match = socket->listening() ? Match(entry.address, socket->v6_only(), to) : 0;
    if (match > best_match) {
      std::move(best.begin(), best.end(), std::back_inserter(others));
      best.clear();
      best_match = match;
    }
    (match == best_match && match > 0 ? best : others).push_back(std::move(socket));
  }
  if (best.empty()) return nullptr;
  return best[turn_++ % best.size()];
}

std::shared_ptr<InetSocket> InetPorts::FindReceiver(int protocol, const InetAddress& to,
                                                    const InetAddress& from) {
  References seen;
  std::shared_ptr<InetSocket> best;
  const absl::MutexLock lock(&mu_);
  const auto found = ports_.find({protocol, to.port});
  if (found == ports_.end()) return nullptr;
  int best_score = 0;
  for (const Entry& entry : found->second) {
    auto socket = entry.socket.lock();
    if (socket == nullptr) continue;
    seen.push_back(socket);
    int score = Match(entry.address, socket->v6_only(), to);
    if (score == 0) continue;
    if (const auto peer = socket->connected_peer()) {
      if (*peer != from) continue;
      score += 4;
    }
    // The latest one wins among equals, as in Linux for SO_REUSEADDR.
    if (score >= best_score) {
      best_score = score;
      best = socket;
    }
  }
  return best;
}

void InetPorts::Register(InetSocket* socket) {
  const absl::MutexLock lock(&mu_);
  sockets_[socket->number()] = socket;
}

void InetPorts::Unregister(InetSocket* socket) {
  const absl::MutexLock lock(&mu_);
  sockets_.erase(socket->number());
}

std::vector<std::shared_ptr<InetSocket>> InetPorts::All() {
  const absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<InetSocket>> all;
  for (const auto& [number, socket] : sockets_) {
    if (auto file = std::static_pointer_cast<InetSocket>(socket->weak_from_this().lock()))
      all.push_back(std::move(file));
  }
  return all;
}

}  // namespace sentry
