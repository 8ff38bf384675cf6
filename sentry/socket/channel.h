#pragma once

// One direction of a connection, or the inbox of a datagram socket: a bounded queue of packets. Its
// reader and its writers know nothing of each other but this object, so the two ends of a
// connection never lock each other.
//
// Bytes are copied to and from guests outside mu_. Readers hold read_mu_ over their copy, so that
// two of them see the stream in order; nothing that a copy needs ever takes that lock.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <vector>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/socket/socket.h"

namespace sentry {

class RightsInFlight;

struct Packet {
  std::vector<std::byte> data;
  size_t consumed = 0;  // Of a stream.
  Ancillary ancillary;
  SocketAddress from;
};

class Channel {
 public:
  enum class Mode { kStream, kRecords };
  struct Limits {
    size_t bytes = kSocketBufferDefault;
    size_t packets = ~size_t{0};
  };
  // `rights` outlives the channel.
  Channel(RightsInFlight& rights, Mode mode, std::shared_ptr<WaitQueue> reader,
          const Limits& limits);
  ~Channel();
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  // --- Writers. `writer` is notified when there is room again.
  // Files leave `ancillary` with the first packet. Takes as much as fits (kStream) or all
  // (kRecords: EMSGSIZE if it never can). EAGAIN, EPIPE if the reader is done, ETOOMANYREFS.
  base::Result<size_t> Send(Task& task, IoBuffer& from, Ancillary& ancillary,
                            const SocketAddress& source, const std::shared_ptr<WaitQueue>& writer);
  // Puts a packet in without regard to the guest: EAGAIN if there is no room.
  base::Result<void> Push(Packet packet);
  bool HasRoom() const ABSL_LOCKS_EXCLUDED(mu_);  // For POLLOUT: half empty.
  // For POLLOUT of writers that poll before they have been refused.
  void NoteWriter(const std::shared_ptr<WaitQueue>& writer) ABSL_LOCKS_EXCLUDED(mu_);
  void set_byte_limit(size_t bytes) ABSL_LOCKS_EXCLUDED(mu_);

  // --- Reader. `split_credentials`: a stream read stops where the writer's identity changes
  // (SO_PASSCRED). EAGAIN while empty; after the end 0 bytes, or the error of the reset, once.
  base::Result<ReceiveResult> Receive(const ReceiveRequest& request, bool split_credentials);
  bool Readable() const ABSL_LOCKS_EXCLUDED(mu_);  // Bytes, end or error.
  bool HasData() const ABSL_LOCKS_EXCLUDED(mu_);
  size_t bytes() const ABSL_LOCKS_EXCLUDED(mu_);
  // Of the first record, or of all for a stream.
  size_t NextBytes() const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Urgent data of TCP: one byte beside the stream (MSG_OOB), the latest replaces one that was
  // not read.
  void PushUrgent(std::byte byte) ABSL_LOCKS_EXCLUDED(mu_);
  // EINVAL if there is none.
  base::Result<std::byte> TakeUrgent(bool peek) ABSL_LOCKS_EXCLUDED(mu_);
  bool HasUrgent() const ABSL_LOCKS_EXCLUDED(mu_);
  // SO_OOBINLINE of the reader: urgent bytes go with the others.
  void set_urgent_inline(bool value) ABSL_LOCKS_EXCLUDED(mu_);
  bool urgent_inline() const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Ends.
  void FinishWriting() ABSL_LOCKS_EXCLUDED(mu_);  // Readers get what is there, then the end.
  void FinishReading() ABSL_LOCKS_EXCLUDED(mu_);  // Writers get EPIPE.
  bool writing_finished() const ABSL_LOCKS_EXCLUDED(mu_);
  bool reading_finished() const ABSL_LOCKS_EXCLUDED(mu_);
  // The connection broke: writing ends, and the reader gets `error` once it has read the rest.
  void Break(int error) ABSL_LOCKS_EXCLUDED(mu_);
  int TakeError() ABSL_LOCKS_EXCLUDED(mu_);
  bool HasError() const ABSL_LOCKS_EXCLUDED(mu_);
  void Clear() ABSL_LOCKS_EXCLUDED(mu_);

  // For RightsInFlight, which holds its own lock: no packet with files comes or goes.
  void AppendFiles(std::vector<File*>& files) const ABSL_LOCKS_EXCLUDED(mu_);
  // Takes all files out; the packets stay.
  std::vector<FileRef> StripFiles() ABSL_LOCKS_EXCLUDED(mu_);
  const std::shared_ptr<WaitQueue>& reader_queue() const { return reader_; }

 private:
  size_t RoomLocked() const ABSL_SHARED_LOCKS_REQUIRED(mu_);
  base::Result<ReceiveResult> ReceiveStream(const ReceiveRequest& request, bool split_credentials)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mu_);
  base::Result<ReceiveResult> ReceiveRecord(const ReceiveRequest& request)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(read_mu_);
  base::Result<ReceiveResult> EmptyLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Enqueue(Packet packet) ABSL_LOCKS_EXCLUDED(mu_);
  // The files of the packet at `index` go to the reader: moved, or copied for MSG_PEEK.
  std::vector<FileRef> TakeFiles(Packet& packet, bool peek);
  void AfterRead(bool took) ABSL_LOCKS_EXCLUDED(mu_);
  void NotifyWriters() ABSL_LOCKS_EXCLUDED(mu_);

  RightsInFlight& rights_;
  const Mode mode_;
  const std::shared_ptr<WaitQueue> reader_;

  absl::Mutex read_mu_ ABSL_ACQUIRED_BEFORE(mu_);
  mutable absl::Mutex mu_;
  Limits limits_ ABSL_GUARDED_BY(mu_);
  std::deque<Packet> packets_ ABSL_GUARDED_BY(mu_);
  size_t bytes_ ABSL_GUARDED_BY(mu_) = 0;
  bool writing_finished_ ABSL_GUARDED_BY(mu_) = false;
  bool reading_finished_ ABSL_GUARDED_BY(mu_) = false;
  int error_ ABSL_GUARDED_BY(mu_) = 0;
  std::optional<std::byte> urgent_ ABSL_GUARDED_BY(mu_);
  bool urgent_inline_ ABSL_GUARDED_BY(mu_) = false;
  // Who was refused for want of room; each once.
  std::vector<std::weak_ptr<WaitQueue>> writers_ ABSL_GUARDED_BY(mu_);
};

}  // namespace sentry
