#include "netstack/tcp/byte_queue.h"

#include <algorithm>
#include <cstring>

namespace netstack::tcp {

void ByteQueue::Append(Slice slice) {
  if (slice.size == 0) return;
  const uint32_t size = slice.size;
  if (!pieces_.empty() && size <= kSmall) {
    // Segments in flight may share the slab: they look at earlier bytes.
    Slice& last = pieces_.back().slice;
    const uint32_t used = last.offset + last.size;
    if (pieces_.back().gathers && used + size <= kGather) {
      std::memcpy(last.slab->data() + used, slice.data(), size);
      last.size += size;
      size_ += size;
      return;
    }
  }
  const bool gathers = size <= kSmall && !pieces_.empty();
  if (gathers) {
    // The second small piece in a row opens a slab to gather in.
    Slice gather{SlabRef::New(kGather), 0, size};
    std::memcpy(gather.slab->data(), slice.data(), size);
    slice = std::move(gather);
  }
  pieces_.push_back({front_ + size_, std::move(slice), gathers});
  size_ += size;
}

void ByteQueue::DropFront(size_t count) {
  RAVELIN_CHECK(count <= size_);
  front_ += count;
  size_ -= count;
  while (!pieces_.empty()) {
    Piece& piece = pieces_.front();
    const uint64_t end = piece.start + piece.slice.size;
    if (end > front_) {
      if (piece.start < front_) {
        const auto gone = static_cast<uint32_t>(front_ - piece.start);
        piece.slice.offset += gone;
        piece.slice.size -= gone;
        piece.start = front_;
      }
      return;
    }
    pieces_.pop_front();
  }
}

void ByteQueue::Get(size_t from, size_t count, Slices& out) const {
  RAVELIN_CHECK(from + count <= size_);
  if (count == 0) return;
  uint64_t at = front_ + from;
  auto piece =
      std::upper_bound(pieces_.begin(), pieces_.end(), at,
                       [](uint64_t position, const Piece& p) { return position < p.start; });
  --piece;
  while (count > 0) {
    const size_t inside = at - piece->start;
    const size_t take = std::min<size_t>(count, piece->slice.size - inside);
    out.push_back(piece->slice.Sub(inside, take));
    at += take;
    count -= take;
    ++piece;
  }
}

void ByteQueue::Clear() {
  front_ += size_;
  size_ = 0;
  pieces_.clear();
}

}  // namespace netstack::tcp
