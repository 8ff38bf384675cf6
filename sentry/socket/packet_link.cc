#include "sentry/socket/packet_link.h"

#include <linux/if_packet.h>
#include <linux/virtio_net.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

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

constexpr size_t kStackBytes = 256 << 10;
constexpr size_t kPartsMax = 64;
constexpr size_t kCopyBelow = 4096;  // Smaller frames get a slab of their size.
constexpr int kBatch = 64;
constexpr size_t kEthernetBytes = 14;

virtio_net_hdr HeaderFor(const Packet& packet) {
  virtio_net_hdr header = {};
  if (packet.checksum == ChecksumState::kPartial) {
    header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    header.csum_start = static_cast<uint16_t>(packet.size() - packet.transport_bytes);
    header.csum_offset = packet.checksum_field;
  }
  if (packet.segment_bytes != 0) {
    header.gso_type = packet.is_v4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
    header.gso_size = packet.segment_bytes;
    header.hdr_len = static_cast<uint16_t>(packet.header_size());
  }
  return header;
}

// A hostile header costs its own packet at most: sizes are only hints here.
void TakeHeader(const virtio_net_hdr& header, Packet& packet) {
  const bool vouched =
      (header.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)) != 0;
  packet.checksum = vouched ? ChecksumState::kVerified : ChecksumState::kUnknown;
  const auto type = header.gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
  if (type == VIRTIO_NET_HDR_GSO_TCPV4 || type == VIRTIO_NET_HDR_GSO_TCPV6)
    packet.segment_bytes = header.gso_size;
}

}  // namespace

PacketLink::~PacketLink() {
  if (!running_) return;
  stopping_ = true;
  // Ends a recvmsg that waits, for sockets that can be shut; the poll beside it has a limit.
  shutdown(socket_.get(), SHUT_RD);
  pthread_join(thread_, nullptr);
}

void PacketLink::Send(PacketPtr packet) {
  virtio_net_hdr header = HeaderFor(*packet);
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
  int in_batch = 0;
  while (!stopping_) {
    if (!slab || !slab.unique()) slab = SlabRef::New(kFrameBytesMax);
    virtio_net_hdr header = {};
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
      in_batch = 0;
      pollfd ready = {socket_.get(), POLLIN, 0};
      poll(&ready, 1, -1);
      if ((ready.revents & (POLLNVAL | POLLHUP)) != 0) return;
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
    if (++in_batch >= kBatch) in_batch = 0;
  }
}

}  // namespace sentry
