#include "netstack/stack/neighbor.h"

#include <algorithm>
#include <utility>

#include "netstack/stack/interface.h"
#include "netstack/stack/stack.h"

namespace netstack {

NeighborCache::Entry* NeighborCache::AddLocked(const IpAddress& address) {
  const auto found = entries_.find(address);
  if (found != entries_.end()) return &found->second;
  if (entries_.size() >= kEntriesMax) {
    // The one that was least recently used and is neither permanent nor asked for.
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      const NeighborState state = it->second.state;
      if (state == NeighborState::kPermanent || state == NeighborState::kIncomplete) continue;
      if (oldest == entries_.end() || it->second.used_ns < oldest->second.used_ns) oldest = it;
    }
    if (oldest == entries_.end()) return nullptr;
    entries_.erase(oldest);
  }
  Entry& entry = entries_[address];
  entry.used_ns = interface_.stack().clock().NowNs();
  return &entry;
}

void NeighborCache::SetReachableLocked(Entry& entry) {
  entry.state = NeighborState::kReachable;
  entry.probes = 0;
  // No timer: whoever sends next looks whether it is stale by now.
  entry.due_ns = interface_.stack().clock().NowNs() + kReachableNs;
}

void NeighborCache::Send(const IpAddress& next_hop, PacketPtr packet) {
  const int64_t now = interface_.stack().clock().NowNs();
  MacAddress mac;
  bool known = false;
  bool ask = false;
  int64_t due = kNever;
  {
    const absl::MutexLock lock(&mu_);
    Entry* entry = AddLocked(next_hop);
    if (entry == nullptr) return;
    entry->used_ns = now;
    if (entry->state == NeighborState::kReachable && now >= entry->due_ns)
      entry->state = NeighborState::kStale;
    if (entry->state == NeighborState::kStale) {
      entry->state = NeighborState::kDelay;
      entry->due_ns = now + kDelayFirstProbeNs;
      due = entry->due_ns;
    }
    known = HasMac(*entry);
    if (known) {
      mac = entry->mac;
    } else {
      // A failed one is asked for again; a new one for the first time.
      ask = entry->probes == 0 || entry->state == NeighborState::kFailed;
      if (ask) {
        entry->state = NeighborState::kIncomplete;
        entry->probes = 1;
        entry->due_ns = now + kRetransNs;
        due = entry->due_ns;
      }
      if (entry->waiting.size() >= kWaitingMax) entry->waiting.erase(entry->waiting.begin());
      entry->waiting.push_back(std::move(packet));
    }
  }
  interface_.stack().timers().Arm(*this, due);
  if (known) interface_.SendFrame(std::move(packet), mac);
  if (ask) interface_.Solicit(next_hop, std::nullopt);
}

void NeighborCache::OnAdvertised(const IpAddress& address, const std::optional<MacAddress>& mac,
                                 bool solicited, bool overrides, std::optional<bool> is_router) {
  std::vector<PacketPtr> ready;
  MacAddress to;
  {
    const absl::MutexLock lock(&mu_);
    const auto found = entries_.find(address);
    if (found == entries_.end() || found->second.state == NeighborState::kPermanent) return;
    Entry& entry = found->second;
    if (!HasMac(entry)) {
      if (!mac) return;
      entry.mac = *mac;
      entry.state = NeighborState::kStale;
      entry.due_ns = kNever;
      if (solicited) SetReachableLocked(entry);
    } else if (mac && *mac != entry.mac && !overrides) {
      if (entry.state == NeighborState::kReachable) entry.state = NeighborState::kStale;
      return;
    } else {
      const bool changed = mac && *mac != entry.mac;
      if (changed) entry.mac = *mac;
      if (solicited) {
        SetReachableLocked(entry);
      } else if (changed) {
        entry.state = NeighborState::kStale;
        entry.due_ns = kNever;
      }
    }
    if (is_router) entry.is_router = *is_router;
    to = entry.mac;
    ready.swap(entry.waiting);
  }
  for (PacketPtr& packet : ready) interface_.SendFrame(std::move(packet), to);
}

void NeighborCache::OnHeard(const IpAddress& address, const MacAddress& mac, bool create) {
  std::vector<PacketPtr> ready;
  {
    const absl::MutexLock lock(&mu_);
    auto found = entries_.find(address);
    if (found == entries_.end()) {
      if (!create || AddLocked(address) == nullptr) return;
      found = entries_.find(address);
    }
    Entry& entry = found->second;
    if (entry.state == NeighborState::kPermanent) return;
    if (HasMac(entry) && entry.mac == mac) return;
    entry.mac = mac;
    entry.state = NeighborState::kStale;
    entry.due_ns = kNever;
    entry.probes = 0;
    ready.swap(entry.waiting);
  }
  for (PacketPtr& packet : ready) interface_.SendFrame(std::move(packet), mac);
}

void NeighborCache::Confirm(const IpAddress& address) {
  const absl::MutexLock lock(&mu_);
  const auto found = entries_.find(address);
  if (found == entries_.end() || found->second.state == NeighborState::kPermanent) return;
  if (HasMac(found->second)) SetReachableLocked(found->second);
}

void NeighborCache::SetPermanent(const IpAddress& address, const MacAddress& mac) {
  const absl::MutexLock lock(&mu_);
  Entry* entry = AddLocked(address);
  if (entry == nullptr) return;
  entry->mac = mac;
  entry->state = NeighborState::kPermanent;
  entry->due_ns = kNever;
}

bool NeighborCache::Remove(const IpAddress& address) {
  const absl::MutexLock lock(&mu_);
  return entries_.erase(address) != 0;
}

std::vector<NeighborInfo> NeighborCache::All() const {
  const absl::MutexLock lock(&mu_);
  std::vector<NeighborInfo> all;
  for (const auto& [address, entry] : entries_)
    all.push_back({address, entry.mac, entry.state, entry.is_router});
  std::sort(all.begin(), all.end(),
            [](const auto& a, const auto& b) { return a.address < b.address; });
  return all;
}

void NeighborCache::OnTimer() {
  const int64_t now = interface_.stack().clock().NowNs();
  struct Question {
    IpAddress address;
    std::optional<MacAddress> to;
  };
  std::vector<Question> questions;
  std::vector<PacketPtr> undeliverable;
  int64_t next = kNever;
  {
    const absl::MutexLock lock(&mu_);
    for (auto& [address, entry] : entries_) {
      const bool probing = entry.state == NeighborState::kDelay ||
                           entry.state == NeighborState::kProbe ||
                           entry.state == NeighborState::kIncomplete;
      if (!probing) continue;
      if (entry.due_ns <= now) {
        if (entry.state == NeighborState::kDelay) {
          entry.state = NeighborState::kProbe;
          entry.probes = 0;
        }
        if (entry.probes >= kProbesMax) {
          entry.state = NeighborState::kFailed;
          entry.probes = 0;
          for (PacketPtr& packet : entry.waiting) undeliverable.push_back(std::move(packet));
          entry.waiting.clear();
          continue;
        }
        ++entry.probes;
        entry.due_ns = now + kRetransNs;
        const bool unicast = entry.state == NeighborState::kProbe;
        questions.push_back({address, unicast ? std::optional(entry.mac) : std::nullopt});
      }
      next = std::min(next, entry.due_ns);
    }
  }
  interface_.stack().timers().Arm(*this, next);
  for (const Question& question : questions) interface_.Solicit(question.address, question.to);
  for (PacketPtr& packet : undeliverable)
    interface_.stack().OnUndeliverable(interface_, std::move(packet));
}

}  // namespace netstack
