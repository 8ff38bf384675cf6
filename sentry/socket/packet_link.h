#pragma once

// A link of netstack over a packet socket of the host (packet(7)), or a tap: one descriptor that
// was opened, bound and set up before the filter (PACKET_VNET_HDR, PACKET_IGNORE_OUTGOING). Each
// frame has a virtio header in front, so checksums and segmentation are left to the host where it
// does them and super-packets come whole.
//
// One thread waits in recvmsg. Sending is sendmsg that does not wait: what the host has no room for
// is lost, as on any link.

#include <pthread.h>

#include <atomic>
#include <memory>

#include "netstack/link/link.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace netstack {
class Interface;
class Stack;
}  // namespace netstack

namespace sentry {

class PacketLink final : public netstack::Link {
 public:
  static constexpr size_t kFrameBytesMax = 65536 + 64;
  PacketLink(base::Fd socket, const Properties& properties)
      : Link(properties), socket_(std::move(socket)) {}
  ~PacketLink() override;

  void Send(netstack::PacketPtr packet) override;
  // Starts the thread that receives for `interface`, which is this link's. EAGAIN.
  base::Result<void> Start(netstack::Interface& interface);

 private:
  static void* ThreadMain(void* self);
  void ReceiveAll();

  const base::Fd socket_;
  base::Fd stop_;  // An eventfd: ends the thread's wait.
  netstack::Interface* interface_ = nullptr;
  pthread_t thread_{};
  std::atomic<bool> running_{false};
  std::atomic<bool> stopping_{false};
};

}  // namespace sentry
