#include "sentry/socket/channel.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "platform/base/check.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/rights.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

// A stream packet grows up to this much before another one is begun: small writes do not each cost
// an allocation.
constexpr size_t kMergeBytes = 4096;
constexpr size_t kStreamPieceBytes = 65536;
// What a packet costs beside its bytes: empty datagrams must not be free.
constexpr size_t kPacketOverheadBytes = 64;
constexpr size_t kWritersMax = 1024;

size_t Cost(const Packet& packet) {
  return packet.data.size() - packet.consumed + kPacketOverheadBytes;
}

}  // namespace

Channel::Channel(RightsInFlight& rights, Mode mode, std::shared_ptr<WaitQueue> reader,
                 const Limits& limits)
    : rights_(rights), mode_(mode), reader_(std::move(reader)), limits_(limits) {}

Channel::~Channel() { Clear(); }

size_t Channel::RoomLocked() const {
  if (packets_.size() >= limits_.packets) return 0;
  // A channel that is empty takes at least one packet.
  return limits_.bytes - std::min(bytes_, limits_.bytes);
}

Result<size_t> Channel::Send(Task& task, IoBuffer& from, Ancillary& ancillary,
                             const SocketAddress& source,
                             const std::shared_ptr<WaitQueue>& writer) {
  const bool stream = mode_ == Mode::kStream;
  while (true) {
    size_t size = 0;
    {
      const absl::MutexLock lock(&mu_);
      if (reading_finished_ || writing_finished_) return Errno(EPIPE);
      if (!stream && from.remaining() + kPacketOverheadBytes > limits_.bytes)
        return Errno(EMSGSIZE);
      const size_t room = RoomLocked();
      const size_t wanted = from.remaining() + (stream ? 0 : kPacketOverheadBytes);
      if (stream ? room == 0 : room < wanted || (room == 0 && wanted == 0)) {
        if (writers_.size() < kWritersMax) writers_.push_back(writer);
        return Errno(EAGAIN);
      }
      size = stream ? std::min({room, wanted, kStreamPieceBytes}) : from.remaining();
    }
    if (stream && size == 0) break;  // An empty write to a stream is nothing.
    Packet packet;
    packet.data.resize(size);
    const size_t copied = size == 0 ? 0 : TRY(from.CopyIn(packet.data));
    if (copied < size && !stream) return Errno(EFAULT);
    packet.data.resize(copied);
    packet.from = source;
    packet.ancillary.credentials = ancillary.credentials;
    packet.ancillary.files = std::exchange(ancillary.files, {});
    if (packet.ancillary.files.empty()) {
      Enqueue(std::move(packet));
    } else {
      TRY(rights_.Send(task, packet.ancillary.files.size(), [&] { Enqueue(std::move(packet)); }));
    }
    reader_->Notify(kPollReadable);
    if (!stream || from.remaining() == 0 || copied < size) break;
  }
  return static_cast<size_t>(from.done());
}

void Channel::Enqueue(Packet packet) {
  if (!packet.ancillary.files.empty()) rights_.AddInFlight(packet.ancillary.files);
  const absl::MutexLock lock(&mu_);
  if (mode_ == Mode::kStream && !packets_.empty() && packet.ancillary.files.empty()) {
    Packet& last = packets_.back();
    if (last.data.size() + packet.data.size() <= kMergeBytes && last.ancillary.files.empty() &&
        last.consumed == 0 && last.data.capacity() >= last.data.size() + packet.data.size() &&
        last.ancillary.credentials == packet.ancillary.credentials) {
      last.data.insert(last.data.end(), packet.data.begin(), packet.data.end());
      bytes_ += packet.data.size();
      return;
    }
  }
  // Room for small writes that follow; readers hold references to the bytes, so they never move.
  if (mode_ == Mode::kStream && packet.data.size() < kMergeBytes / 4)
    packet.data.reserve(kMergeBytes);
  bytes_ += Cost(packet);
  packets_.push_back(std::move(packet));
}

Result<void> Channel::Push(Packet packet) {
  {
    const absl::MutexLock lock(&mu_);
    if (reading_finished_) return Errno(EPIPE);
    if (RoomLocked() < Cost(packet)) return Errno(EAGAIN);
  }
  Enqueue(std::move(packet));
  reader_->Notify(kPollReadable);
  return {};
}

bool Channel::HasRoom() const {
  const absl::MutexLock lock(&mu_);
  return packets_.size() < limits_.packets && bytes_ <= limits_.bytes / 2;
}

void Channel::NoteWriter(const std::shared_ptr<WaitQueue>& writer) {
  const absl::MutexLock lock(&mu_);
  for (const auto& known : writers_) {
    if (known.lock() == writer) return;
  }
  if (writers_.size() < kWritersMax) writers_.push_back(writer);
}

void Channel::set_byte_limit(size_t bytes) {
  const absl::MutexLock lock(&mu_);
  limits_.bytes = bytes;
}

std::vector<FileRef> Channel::TakeFiles(Packet& packet, bool peek) {
  if (peek) return packet.ancillary.files;
  std::vector<FileRef> files;
  {
    const absl::MutexLock lock(&mu_);
    files = std::exchange(packet.ancillary.files, {});
  }
  rights_.RemoveInFlight(files);
  return files;
}

Result<ReceiveResult> Channel::EmptyLocked() {
  if (error_ != 0) return Errno(std::exchange(error_, 0));
  if (writing_finished_) return ReceiveResult{};
  return Errno(EAGAIN);
}

Result<ReceiveResult> Channel::Receive(const ReceiveRequest& request, bool split_credentials) {
  const absl::MutexLock reading(&read_mu_);
  return mode_ == Mode::kStream ? ReceiveStream(request, split_credentials)
                                : ReceiveRecord(request);
}

// References to packets stay valid while mu_ is released: only the reader takes packets away, and a
// deque does not move its elements when one is added at the end.
Result<ReceiveResult> Channel::ReceiveStream(const ReceiveRequest& request,
                                             bool split_credentials) {
  const bool peek = (request.flags & MSG_PEEK) != 0;
  ReceiveResult result;
  size_t index = 0;
  bool any = false;
  while (request.to.remaining() > 0 || !any) {
    Packet* packet = nullptr;
    std::span<const std::byte> bytes;
    {
      const absl::MutexLock lock(&mu_);
      if (index >= packets_.size()) {
        if (any) break;
        return EmptyLocked();
      }
      packet = &packets_[index];
      bytes = std::span<const std::byte>(packet->data).subspan(packet->consumed);
    }
    if (any && split_credentials && packet->ancillary.credentials != result.ancillary.credentials)
      break;
    const size_t wanted = std::min<uint64_t>(bytes.size(), request.to.remaining());
    size_t copied = 0;
    if (wanted > 0) {
      const auto moved = request.to.CopyOut(bytes.first(wanted));
      if (!moved.ok()) {
        if (result.bytes > 0) break;
        return moved.error();
      }
      copied = moved.value();
    }
    if (!any) {
      result.from = packet->from;
      result.ancillary.credentials = packet->ancillary.credentials;
    }
    any = true;
    result.bytes += copied;
    const bool has_files = !packet->ancillary.files.empty();
    if (has_files) rights_.Receive([&] { result.ancillary.files = TakeFiles(*packet, peek); });
    if (peek) {
      ++index;
    } else {
      const absl::MutexLock lock(&mu_);
      packet->consumed += copied;
      bytes_ -= copied;
      if (packet->consumed == packet->data.size()) {
        bytes_ -= kPacketOverheadBytes;
        packets_.pop_front();
      }
    }
    if (has_files || copied < bytes.size()) break;
  }
  result.full_bytes = result.bytes;
  AfterRead(!peek && result.bytes > 0);
  return result;
}

Result<ReceiveResult> Channel::ReceiveRecord(const ReceiveRequest& request) {
  const bool peek = (request.flags & MSG_PEEK) != 0;
  ReceiveResult result;
  Packet* packet = nullptr;
  {
    const absl::MutexLock lock(&mu_);
    if (packets_.empty()) return EmptyLocked();
    packet = &packets_.front();
  }
  result.from = packet->from;
  result.full_bytes = packet->data.size();
  result.ancillary.credentials = packet->ancillary.credentials;
  result.ancillary.others = packet->ancillary.others;
  const size_t wanted = std::min<uint64_t>(packet->data.size(), request.to.remaining());
  if (wanted < packet->data.size()) result.flags |= MSG_TRUNC;
  base::Result<size_t> copied = size_t{0};
  if (wanted > 0)
    copied = request.to.CopyOut(std::span<const std::byte>(packet->data).first(wanted));
  if (!packet->ancillary.files.empty()) {
    rights_.Receive([&] { result.ancillary.files = TakeFiles(*packet, peek); });
  }
  if (!peek) {
    const absl::MutexLock lock(&mu_);
    bytes_ -= Cost(*packet);
    packets_.pop_front();
  }
  AfterRead(!peek);
  // The record is gone even if the guest's buffer faulted, as in Linux.
  result.bytes = TRY(copied);
  if (result.bytes < wanted) return Errno(EFAULT);
  return result;
}

void Channel::AfterRead(bool took) {
  if (!took) return;
  NotifyWriters();
}

void Channel::NotifyWriters() {
  std::vector<std::weak_ptr<WaitQueue>> writers;
  {
    const absl::MutexLock lock(&mu_);
    writers.swap(writers_);
  }
  for (const auto& weak : writers) {
    if (const auto queue = weak.lock()) queue->Notify(kPollWritable);
  }
}

bool Channel::Readable() const {
  const absl::MutexLock lock(&mu_);
  return !packets_.empty() || writing_finished_ || error_ != 0;
}

bool Channel::HasData() const {
  const absl::MutexLock lock(&mu_);
  return !packets_.empty();
}

size_t Channel::bytes() const {
  const absl::MutexLock lock(&mu_);
  return bytes_ - packets_.size() * kPacketOverheadBytes;
}

size_t Channel::NextBytes() const {
  const absl::MutexLock lock(&mu_);
  if (mode_ == Mode::kStream) return bytes_ - packets_.size() * kPacketOverheadBytes;
  return packets_.empty() ? 0 : packets_.front().data.size();
}

void Channel::PushUrgent(std::byte byte) {
  {
    const absl::MutexLock lock(&mu_);
    urgent_ = byte;
  }
  reader_->Notify(POLLPRI);
}

Result<std::byte> Channel::TakeUrgent(bool peek) {
  const absl::MutexLock lock(&mu_);
  if (!urgent_) return Errno(EINVAL);
  const std::byte byte = *urgent_;
  if (!peek) urgent_.reset();
  return byte;
}

bool Channel::HasUrgent() const {
  const absl::MutexLock lock(&mu_);
  return urgent_.has_value();
}

void Channel::set_urgent_inline(bool value) {
  const absl::MutexLock lock(&mu_);
  urgent_inline_ = value;
}

bool Channel::urgent_inline() const {
  const absl::MutexLock lock(&mu_);
  return urgent_inline_;
}

void Channel::FinishWriting() {
  {
    const absl::MutexLock lock(&mu_);
    writing_finished_ = true;
  }
  reader_->Notify(kPollReadable | POLLRDHUP | POLLHUP);
  NotifyWriters();
}

void Channel::FinishReading() {
  {
    const absl::MutexLock lock(&mu_);
    reading_finished_ = true;
  }
  NotifyWriters();
}

bool Channel::writing_finished() const {
  const absl::MutexLock lock(&mu_);
  return writing_finished_;
}

bool Channel::reading_finished() const {
  const absl::MutexLock lock(&mu_);
  return reading_finished_;
}

void Channel::Break(int error) {
  {
    const absl::MutexLock lock(&mu_);
    error_ = error;
    writing_finished_ = true;
  }
  reader_->Notify(kPollReadable | kPollWritable | POLLRDHUP | POLLHUP | POLLERR);
  NotifyWriters();
}

int Channel::TakeError() {
  const absl::MutexLock lock(&mu_);
  return std::exchange(error_, 0);
}

bool Channel::HasError() const {
  const absl::MutexLock lock(&mu_);
  return error_ != 0;
}

void Channel::Clear() {
  std::deque<Packet> packets;
  {
    const absl::MutexLock lock(&mu_);
    packets.swap(packets_);
    bytes_ = 0;
  }
  std::vector<FileRef> files;
  for (Packet& packet : packets) {
    std::move(packet.ancillary.files.begin(), packet.ancillary.files.end(),
              std::back_inserter(files));
    packet.ancillary.files.clear();
  }
  if (!files.empty()) {
    rights_.Receive([&] { rights_.RemoveInFlight(files); });
    rights_.Dispose(std::move(files));
  }
}

void Channel::AppendFiles(std::vector<File*>& files) const {
  const absl::MutexLock lock(&mu_);
  for (const Packet& packet : packets_) {
    for (const FileRef& file : packet.ancillary.files) files.push_back(file.get());
  }
}

std::vector<FileRef> Channel::StripFiles() {
  const absl::MutexLock lock(&mu_);
  std::vector<FileRef> files;
  for (Packet& packet : packets_) {
    std::move(packet.ancillary.files.begin(), packet.ancillary.files.end(),
              std::back_inserter(files));
    packet.ancillary.files.clear();
  }
  return files;
}

}  // namespace sentry
