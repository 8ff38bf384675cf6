#include "netstack/ip/fragments.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "netstack/ip/icmp.h"
#include "netstack/stack/stack.h"

namespace netstack {
namespace {

constexpr uint32_t kDatagramBytesMax = 65535;

size_t MemoryOf(const Packet& packet) {
  size_t bytes = sizeof(Packet);
  for (const Slice& slice : packet.slices()) bytes += slice.slab->capacity();
  return bytes;
}

}  // namespace

size_t FragmentTable::bytes() const {
  const absl::MutexLock lock(&mu_);
  return bytes_;
}

void FragmentTable::RefuseLocked(Datagram& datagram) {
  datagram.refused = true;
  datagram.fragments.clear();
  bytes_ -= std::exchange(datagram.charged, 0);
}

void FragmentTable::RemoveLocked(List::iterator position) {
  bytes_ -= position->charged;
  index_.erase(position->key);
  datagrams_.erase(position);
}

// False: the datagram is refused.
bool FragmentTable::InsertLocked(Datagram& datagram, Fragment fragment) {
  const auto size = static_cast<uint32_t>(fragment.packet->size() - fragment.header_bytes);
  const uint32_t end = fragment.offset + size;
  const auto next = std::lower_bound(
      datagram.fragments.begin(), datagram.fragments.end(), fragment.offset,
      [](const Fragment& other, uint32_t offset) { return other.offset < offset; });
  const auto size_of = [](const Fragment& other) {
    return static_cast<uint32_t>(other.packet->size() - other.header_bytes);
  };
  // The same piece again is a duplicate on the wire, not an overlap.
  if (next != datagram.fragments.end() && next->offset == fragment.offset &&
      size_of(*next) == size && next->more == fragment.more)
    return true;
  if (next != datagram.fragments.end() && next->offset < end) return false;
  if (next != datagram.fragments.begin()) {
    const Fragment& previous = *std::prev(next);
    if (previous.offset + size_of(previous) > fragment.offset) return false;
  }
  if (!fragment.more) {
    if (datagram.end != 0) return false;
    if (!datagram.fragments.empty()) {
      const Fragment& last = datagram.fragments.back();
      if (last.offset + size_of(last) > end) return false;
    }
    datagram.end = end;
  } else if (datagram.end != 0 && end > datagram.end) {
    return false;
  }
  if (datagram.fragments.size() >= kFragmentsMax) return false;
  datagram.payload_bytes += size;
  const size_t memory = MemoryOf(*fragment.packet);
  datagram.charged += memory;
  bytes_ += memory;
  datagram.fragments.insert(next, std::move(fragment));
  return true;
}

PacketPtr FragmentTable::Add(const Key& key, Fragment fragment) {
  const auto size = fragment.packet->size() - fragment.header_bytes;
  const bool v4 = key.source.is_v4();
  Counters::Ip& counters = v4 ? stack_.counters().ip4 : stack_.counters().ip6;
  Count(counters.reassembly_required);
  // All but the last come in units of 8 bytes; none reaches beyond what a length field can say.
  if (size == 0 || (fragment.more && size % 8 != 0) || fragment.offset + size > kDatagramBytesMax) {
    Count(counters.reassembly_fails);
    return nullptr;
  }
  int64_t expires = kNever;
  PacketPtr whole;
  {
    const absl::MutexLock lock(&mu_);
    auto found = index_.find(key);
    if (found == index_.end()) {
      if (datagrams_.size() >= kDatagramsMax) RemoveLocked(datagrams_.begin());
      expires = stack_.clock().NowNs() + (v4 ? kLifeNs : kLifeV6Ns);
      datagrams_.push_back({});
      datagrams_.back().key = key;
      datagrams_.back().expires_ns = expires;
      found = index_.emplace(key, std::prev(datagrams_.end())).first;
    }
    Datagram& datagram = *found->second;
    if (datagram.refused || !InsertLocked(datagram, std::move(fragment))) {
      Count(counters.reassembly_fails);
      RefuseLocked(datagram);
    } else if (datagram.end != 0 && datagram.payload_bytes == datagram.end) {
      whole = Join(datagram);
      RemoveLocked(found->second);
    }
    while (bytes_ > kBytesMax) {
      Count(counters.reassembly_fails);
      RemoveLocked(datagrams_.begin());
    }
  }
  stack_.timers().Arm(*this, expires);
  if (whole != nullptr) Count(counters.reassembly_ok);
  return whole;
}

PacketPtr FragmentTable::Join(Datagram& datagram) {
  PacketPtr whole;
  for (Fragment& fragment : datagram.fragments) {
    if (whole == nullptr) {
      whole = std::move(fragment.packet);
      continue;
    }
    fragment.packet->TrimFront(fragment.header_bytes);
    for (Slice& slice : fragment.packet->TakeSlices()) whole->Append(std::move(slice));
  }
  // Whatever a link said was about a fragment.
  whole->checksum = ChecksumState::kUnknown;
  whole->segment_bytes = 0;
  return whole;
}

void FragmentTable::OnTimer() {
  const int64_t now = stack_.clock().NowNs();
  int64_t next = kNever;
  std::vector<PacketPtr> incomplete;
  {
    const absl::MutexLock lock(&mu_);
    for (auto it = datagrams_.begin(); it != datagrams_.end();) {
      const auto current = it++;
      if (current->expires_ns > now) {
        next = std::min(next, current->expires_ns);
        continue;
      }
      Count(current->key.source.is_v4() ? stack_.counters().ip4.reassembly_fails
                                        : stack_.counters().ip6.reassembly_fails);
      // Only the first fragment can be quoted (RFC 792, RFC 4443 3.3).
      if (!current->fragments.empty() && current->fragments.front().offset == 0)
        incomplete.push_back(std::move(current->fragments.front().packet));
      RemoveLocked(current);
    }
  }
  stack_.timers().Arm(*this, next);
  for (PacketPtr& packet : incomplete) stack_.icmp().SendReassemblyTimeout(std::move(packet));
}

}  // namespace netstack
