#pragma once

// Bytes in order, as slices: what is to be sent (and not yet acknowledged), and what was received.
// Small pieces are gathered, so that a peer or a writer of single bytes does not make us hold a
// slab for each.

#include <cstdint>
#include <deque>

#include "netstack/stack/packet.h"

namespace netstack::tcp {

class ByteQueue {
 public:
  static constexpr uint32_t kSmall = 1024;
  static constexpr uint32_t kGather = 8192;

  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  void Append(Slice slice);
  // Precondition: count <= size().
  void DropFront(size_t count);
  // `count` bytes from `from` on. Precondition: from + count <= size().
  void Get(size_t from, size_t count, Slices& out) const;
  void Clear();

 private:
  struct Piece {
    uint64_t start = 0;  // In the stream.
    Slice slice;
    bool gathers = false;  // The slab is ours, free behind the slice.
  };
  std::deque<Piece> pieces_;
  uint64_t front_ = 0;  // Stream position of the first byte.
  size_t size_ = 0;
};

}  // namespace netstack::tcp
