#include "sentry/socket/packet_link.h"

#include <linux/if_packet.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "netstack/stack/stack.h"
#include "platform/base/log.h"

namespace sentry {
namespace {

using netstack::ChecksumState;
using netstack::Packet;
using netstack::PacketPtr;
using netstack::SlabRef;
using netstack::Slice;

// struct virtio_net_hdr; <linux/virtio_net.h> is no C++.
struct FrameHeader {
  uint8_t flags = 0;
  uint8_t segment_kind = 0;
  uint16_t header_bytes = 0;
  uint16_t segment_bytes = 0;
  uint16_t checksum_start = 0;
  uint16_t checksum_offset = 0;
};
static_assert(sizeof(FrameHeader) == 10);
constexpr uint8_t kNeedsChecksum = 1;
constexpr uint8_t kDataValid = 2;
constexpr uint8_t kTcpV4 = 1;
constexpr uint8_t kTcpV6 = 4;
constexpr uint8_t kEcnBit = 0x80;

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kPartsMax = 64;
constexpr size_t kCopyBelow = 4096;  // Smaller frames get a slab of their size.
constexpr size_t kEthernetBytes = 14;

FrameHeader HeaderFor(const Packet& packet) {
  FrameHeader header;
  if (packet.checksum == ChecksumState::kPartial) {
    header.flags = kNeedsChecksum;
    header.checksum_start = static_cast<uint16_t>(packet.size() - packet.transport_bytes);
    header.checksum_offset = packet.checksum_field;
  }
  if (packet.segment_bytes != 0) {
    header.segment_kind = packet.is_v4 ? kTcpV4 : kTcpV6;
    header.segment_bytes = packet.segment_bytes;
    header.header_bytes = static_cast<uint16_t>(packet.header_size());
  }
  return header;
}

// A hostile header costs its own packet at most: sizes are only hints here.
void TakeHeader(const FrameHeader& header, Packet& packet) {
  const bool vouched = (header.flags & (kNeedsChecksum | kDataValid)) != 0;
  packet.checksum = vouched ? ChecksumState::kVerified : ChecksumState::kUnknown;
  const auto type = header.segment_kind & ~kEcnBit;
  if (type == kTcpV4 || type == kTcpV6) packet.segment_bytes = header.segment_bytes;
}

}  // namespace

PacketLink::~PacketLink() {
  if (!running_) return;
  stopping_ = true;
  const uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = write(stop_.get(), &one, sizeof(one));
  pthread_join(thread_, nullptr);
}

void PacketLink::Send(PacketPtr packet) {
  FrameHeader header = HeaderFor(*packet);
  std::array<iovec, kPartsMax> parts;
  size_t count = 0;
  parts[count++] = {&header, sizeof(header)};
  if (packet->header_size() != 0) parts[count++] = {packet->header(), packet->header_size()};
  SlabRef joined;
  if (packet->slices().size() + count > parts.size()) {
    joined = SlabRef::New(packet->size());
    packet->CopyTo({joined->data(), packet->size()});
    count = 1;
    parts[count++] = {joined->data(), packet->size()};
  } else {
    for (const Slice& slice : packet->slices())
      parts[count++] = {const_cast<uint8_t*>(slice.data()), slice.size};
  }
  msghdr message = {};
  message.msg_iov = parts.data();
  message.msg_iovlen = count;
  while (sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    if (errno == EINTR) continue;
    if (interface_ != nullptr)
      interface_->counters().sent_dropped.fetch_add(1, std::memory_order_relaxed);
    return;
  }
}

base::Result<void> PacketLink::Start(netstack::Interface& interface) {
  interface_ = &interface;
  stop_ = base::Fd(eventfd(0, EFD_CLOEXEC));
  if (!stop_) return base::LastErrno();
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  const int error = pthread_create(&thread_, &attributes, &ThreadMain, this);
  pthread_attr_destroy(&attributes);
  if (error != 0) return base::Errno(error);
  running_ = true;
  return {};
}

void* PacketLink::ThreadMain(void* self) {
  pthread_setname_np(pthread_self(), "link");
  static_cast<PacketLink*>(self)->ReceiveAll();
  return nullptr;
}

void PacketLink::ReceiveAll() {
  SlabRef slab;
  while (!stopping_) {
    if (!slab || !slab.unique()) slab = SlabRef::New(kFrameBytesMax);
    FrameHeader header;
    sockaddr_ll from = {};
    std::array<iovec, 2> parts = {{{&header, sizeof(header)}, {slab->data(), slab->capacity()}}};
    msghdr message = {};
    message.msg_name = &from;
    message.msg_namelen = sizeof(from);
    message.msg_iov = parts.data();
    message.msg_iovlen = parts.size();
    const ssize_t got = recvmsg(socket_.get(), &message, MSG_DONTWAIT);
    if (got < 0) {
      if (errno == EINTR) continue;
      if (errno != EAGAIN) {
        // ENETDOWN: the interface went down, and may come up again.
        if (errno != ENETDOWN) {
          LOG_ERROR("a link of the sandbox failed: %s", strerror(errno));
          return;
        }
      }
      pollfd ready[] = {{socket_.get(), POLLIN, 0}, {stop_.get(), POLLIN, 0}};
      poll(ready, 2, -1);
      if ((ready[0].revents & POLLNVAL) != 0) return;
      continue;
    }
    if (static_cast<size_t>(got) < sizeof(header) + kEthernetBytes ||
        from.sll_pkttype == PACKET_OUTGOING || (message.msg_flags & MSG_TRUNC) != 0)
      continue;
    const size_t size = static_cast<size_t>(got) - sizeof(header);
    PacketPtr packet = size < kCopyBelow
                           ? Packet::FromBytes({slab->data(), size})
                           : Packet::FromSlice({slab, 0, static_cast<uint32_t>(size)});
    TakeHeader(header, *packet);
    interface_->stack().Receive(*interface_, std::move(packet));
  }
}

}  // namespace sentry
