#pragma once

// Packets without copies. Bytes live in Slabs, which are counted; a Slice is a part of one; a
// Packet is a small header area that grows downwards, followed by slices. A TCP segment shares its
// payload with the send queue, a received one with the receive queue, and a packet over loopback is
// the very object that was sent.
//
// A packet that comes from outside has an empty header area and one slice: Pull looks into it in
// place. The bytes of a shared slab are never changed.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "netstack/header/checksum.h"
#include "platform/base/check.h"

namespace netstack {

class Slab {
 public:
  static constexpr size_t kBytesMax = 1 << 20;
  uint8_t* data() { return reinterpret_cast<uint8_t*>(this + 1); }
  uint32_t capacity() const { return capacity_; }

 private:
  friend class SlabRef;
  explicit Slab(uint32_t capacity) : capacity_(capacity) {}
  std::atomic<uint32_t> references_{1};
  const uint32_t capacity_;
};

class SlabRef {
 public:
  SlabRef() = default;
  // Uninitialized bytes. Precondition: capacity <= Slab::kBytesMax.
  static SlabRef New(size_t capacity);
  SlabRef(const SlabRef& other) : slab_(other.slab_) {
    if (slab_ != nullptr) slab_->references_.fetch_add(1, std::memory_order_relaxed);
  }
  SlabRef(SlabRef&& other) noexcept : slab_(std::exchange(other.slab_, nullptr)) {}
  SlabRef& operator=(SlabRef other) noexcept {
    std::swap(slab_, other.slab_);
    return *this;
  }
  ~SlabRef() { Drop(); }
  Slab* operator->() const { return slab_; }
  explicit operator bool() const { return slab_ != nullptr; }
  // Nobody else holds it, so its bytes may change.
  bool unique() const {
    return slab_ != nullptr && slab_->references_.load(std::memory_order_acquire) == 1;
  }
  friend bool operator==(const SlabRef&, const SlabRef&) = default;

 private:
  void Drop();
  Slab* slab_ = nullptr;
};

struct Slice {
  SlabRef slab;
  uint32_t offset = 0;
  uint32_t size = 0;
  const uint8_t* data() const { return slab->data() + offset; }
  std::span<const uint8_t> bytes() const { return {data(), size}; }
  Slice Sub(size_t from, size_t count) const {
    return {slab, offset + static_cast<uint32_t>(from), static_cast<uint32_t>(count)};
  }
  static Slice Copy(std::span<const uint8_t> bytes);
};

using Slices = absl::InlinedVector<Slice, 3>;

// What the transport header's checksum field holds.
enum class ChecksumState : uint8_t {
  kUnknown,   // Received: to be verified.
  kVerified,  // Received: the link vouches for it. Sent: complete.
  kPartial,   // The sum of the pseudo-header; whoever puts it on a wire completes it.
};

class Packet;
using PacketPtr = std::unique_ptr<Packet>;

class Packet {
 public:
  static constexpr size_t kHeaderBytesMax = 192;  // Ethernet 14, IPv4 60 or IPv6 40 + 8, TCP 60.

  static PacketPtr New() { return std::make_unique<Packet>(); }
  static PacketPtr FromSlice(Slice slice);
  static PacketPtr FromBytes(std::span<const uint8_t> bytes);

  size_t size() const { return header_size() + slice_bytes_; }
  // The first `count` bytes in one piece, valid until the packet changes. Null if there are fewer,
  // or if they are more than the header area takes and not in one piece already: malformed for
  // anybody who looks for a header.
  const uint8_t* Pull(size_t count);
  // Room in front, uninitialized. Precondition: it fits into the header area.
  uint8_t* Prepend(size_t count);
  size_t header_size() const { return kHeaderBytesMax - begin_; }
  uint8_t* header() { return header_ + begin_; }
  std::span<const uint8_t> header_bytes() const { return {header_ + begin_, header_size()}; }

  // Precondition: count <= size().
  void TrimFront(size_t count);
  // Keeps the first `count` bytes. Precondition: count <= size().
  void Truncate(size_t count);
  void Append(Slice slice);
  const Slices& slices() const { return slices_; }
  // Everything behind `offset` of it, as slices; bytes in the header area are copied.
  Slices TakeSlices();
  void CopyTo(std::span<uint8_t> to) const;  // Precondition: to.size() <= size().
  void AddTo(Checksum& checksum) const;
  // Shares the slices.
  PacketPtr Clone() const;
  // Makes the transport checksum complete, if it is partial (for links that do not).
  void CompleteChecksum();

  // --- What goes along with the bytes.
  ChecksumState checksum = ChecksumState::kUnknown;
  uint8_t checksum_field = 0;  // kPartial: offset of the field in the transport header.
  bool is_v4 = false;
  bool link_broadcast = false;  // Came to a group address of the link.
  uint16_t segment_bytes = 0;   // Super-packet: the payload of each segment but the last. 0: none.
  uint16_t segment_count =
      1;  // Received super-packet: how many it was on the wire, as far as known.
  uint32_t transport_bytes = 0;  // kPartial: from the transport header to the end.
  int interface_index = 0;       // Where it came from.

 private:
  uint32_t begin_ = kHeaderBytesMax;  // The header area's bytes end at its end.
  uint32_t slice_bytes_ = 0;
  Slices slices_;
  uint8_t header_[kHeaderBytesMax];
};

}  // namespace netstack
