#include "netstack/stack/packet.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <new>

#include "netstack/header/bytes.h"

namespace netstack {

SlabRef SlabRef::New(size_t capacity) {
  CHECK(capacity <= Slab::kBytesMax);
  void* memory = std::malloc(sizeof(Slab) + capacity);
  CHECK(memory != nullptr);
  SlabRef ref;
  ref.slab_ = new (memory) Slab(static_cast<uint32_t>(capacity));
  return ref;
}

void SlabRef::Drop() {
  if (slab_ == nullptr) return;
  if (slab_->references_.fetch_sub(1, std::memory_order_acq_rel) == 1) std::free(slab_);
  slab_ = nullptr;
}

Slice Slice::Copy(std::span<const uint8_t> bytes) {
  Slice slice{SlabRef::New(bytes.size()), 0, static_cast<uint32_t>(bytes.size())};
  if (!bytes.empty()) std::memcpy(slice.slab->data(), bytes.data(), bytes.size());
  return slice;
}

PacketPtr Packet::FromSlice(Slice slice) {
  PacketPtr packet = New();
  packet->Append(std::move(slice));
  return packet;
}

PacketPtr Packet::FromBytes(std::span<const uint8_t> bytes) {
  return FromSlice(Slice::Copy(bytes));
}

void Packet::Append(Slice slice) {
  if (slice.size == 0) return;
  slice_bytes_ += slice.size;
  slices_.push_back(std::move(slice));
}

const uint8_t* Packet::Pull(size_t count) {
  if (count <= header_size()) return header_ + begin_;
  if (count > size()) return nullptr;
  if (header_size() == 0 && slices_[0].size >= count) return slices_[0].data();
  if (count > kHeaderBytesMax) return nullptr;
  const size_t have = header_size();
  const size_t begin = kHeaderBytesMax - count;
  std::memmove(header_ + begin, header_ + begin_, have);
  begin_ = static_cast<uint32_t>(begin);
  size_t at = begin + have;
  while (at < kHeaderBytesMax) {
    Slice& first = slices_[0];
    const size_t piece = std::min<size_t>(first.size, kHeaderBytesMax - at);
    std::memcpy(header_ + at, first.data(), piece);
    at += piece;
    slice_bytes_ -= static_cast<uint32_t>(piece);
    if (piece == first.size) {
      slices_.erase(slices_.begin());
    } else {
      first = first.Sub(piece, first.size - piece);
    }
  }
  return header_ + begin_;
}

uint8_t* Packet::Prepend(size_t count) {
  CHECK(count <= begin_);
  begin_ -= static_cast<uint32_t>(count);
  return header_ + begin_;
}

void Packet::TrimFront(size_t count) {
  CHECK(count <= size());
  const size_t of_header = std::min(count, header_size());
  begin_ += static_cast<uint32_t>(of_header);
  count -= of_header;
  size_t whole = 0;
  while (count > 0) {
    Slice& slice = slices_[whole];
    const auto piece = static_cast<uint32_t>(std::min<size_t>(count, slice.size));
    slice.offset += piece;
    slice.size -= piece;
    slice_bytes_ -= piece;
    count -= piece;
    if (slice.size == 0) ++whole;
  }
  if (whole != 0) slices_.erase(slices_.begin(), slices_.begin() + static_cast<ptrdiff_t>(whole));
}

void Packet::Truncate(size_t count) {
  CHECK(count <= size());
  while (size() > count && !slices_.empty()) {
    Slice& last = slices_.back();
    const auto excess = static_cast<uint32_t>(std::min<size_t>(size() - count, last.size));
    last.size -= excess;
    slice_bytes_ -= excess;
    if (last.size == 0) slices_.pop_back();
  }
  if (size() > count) {
    // Only header bytes are left: they end at the area's end, so they move.
    std::memmove(header_ + kHeaderBytesMax - count, header_ + begin_, count);
    begin_ = static_cast<uint32_t>(kHeaderBytesMax - count);
  }
}

Slices Packet::TakeSlices() {
  if (header_size() != 0) slices_.insert(slices_.begin(), Slice::Copy(header_bytes()));
  begin_ = kHeaderBytesMax;
  slice_bytes_ = 0;
  return std::exchange(slices_, {});
}

void Packet::CopyTo(std::span<uint8_t> to) const {
  CHECK(to.size() <= size());
  size_t at = std::min(to.size(), header_size());
  if (at != 0) std::memcpy(to.data(), header_ + begin_, at);
  for (const Slice& slice : slices_) {
    const size_t piece = std::min<size_t>(slice.size, to.size() - at);
    if (piece == 0) return;
    std::memcpy(to.data() + at, slice.data(), piece);
    at += piece;
  }
}

void Packet::AddTo(Checksum& sum) const {
  sum.Add(header_bytes());
  for (const Slice& slice : slices_) sum.Add(slice.bytes());
}

PacketPtr Packet::Clone() const {
  PacketPtr copy = New();
  std::memcpy(copy->header_ + begin_, header_ + begin_, header_size());
  copy->begin_ = begin_;
  copy->slice_bytes_ = slice_bytes_;
  copy->slices_ = slices_;
  copy->checksum = checksum;
  copy->checksum_field = checksum_field;
  copy->is_v4 = is_v4;
  copy->link_broadcast = link_broadcast;
  copy->segment_bytes = segment_bytes;
  copy->segment_count = segment_count;
  copy->transport_bytes = transport_bytes;
  copy->interface_index = interface_index;
  return copy;
}

void Packet::CompleteChecksum() {
  if (checksum != ChecksumState::kPartial) return;
  // The stack's own packets have the whole transport header in the header area.
  CHECK(transport_bytes <= size() && transport_bytes >= slice_bytes_ + checksum_field + 2u);
  uint8_t* transport = header_ + kHeaderBytesMax - (transport_bytes - slice_bytes_);
  Checksum sum;  // The field holds the pseudo-header's sum, so it is part of the block.
  sum.Add({transport, static_cast<size_t>(header_ + kHeaderBytesMax - transport)});
  for (const Slice& slice : slices_) sum.Add(slice.bytes());
  uint16_t value = sum.Value();
  // RFC 768: 0 means none. For TCP 0xffff is as good as 0.
  if (value == 0) value = 0xffff;
  StoreBe16(transport + checksum_field, value);
  checksum = ChecksumState::kVerified;
}

}  // namespace netstack
