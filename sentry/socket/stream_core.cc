#include "sentry/socket/stream_core.h"

#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "sentry/mm/io_buffer.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {
constexpr size_t kRefusedMax = 4096;
}  // namespace

StreamCore::StreamCore(RightsInFlight& rights, Rules rules, Channel::Mode mode,
                       std::shared_ptr<WaitQueue> queue)
    : rights_(rights), rules_(rules), mode_(mode), queue_(std::move(queue)) {}

StreamCore::~StreamCore() {
  std::shared_ptr<Channel> in;
  std::shared_ptr<Channel> out;
  std::deque<Waiting> backlog;
  std::vector<std::weak_ptr<WaitQueue>> refused;
  bool reset = false;
  {
    const absl::MutexLock lock(&mu_);
    in = std::move(in_);
    out = std::move(out_);
    backlog.swap(backlog_);
    refused.swap(refused_);
    reset = reset_on_close_;
  }
  DropBacklog(std::move(backlog));
  NotifyRefused(std::move(refused));
  if (in == nullptr) return;
  reset = reset || in->HasData();
  in->FinishReading();
  in->Clear();
  if (reset) {
    out->Break(ECONNRESET);
  } else {
    out->FinishWriting();
  }
}

// Connections that nobody accepted are reset.
void StreamCore::DropBacklog(std::deque<Waiting> backlog) {
  for (const Waiting& waiting : backlog) waiting.core->ResetOnClose();
}

void StreamCore::NotifyRefused(std::vector<std::weak_ptr<WaitQueue>> refused) {
  for (const auto& weak : refused) {
    if (const auto queue = weak.lock()) queue->Notify(kPollWritable);
  }
}

Result<void> StreamCore::Listen(int backlog) {
  std::vector<std::weak_ptr<WaitQueue>> refused;
  {
    const absl::MutexLock lock(&mu_);
    if (state_ != State::kNew && state_ != State::kListening) return Errno(EINVAL);
    state_ = State::kListening;
    backlog_max_ = backlog < 0 ? kListenBacklogMax : std::min(backlog, kListenBacklogMax);
    refused.swap(refused_);
  }
  NotifyRefused(std::move(refused));
  return {};
}

Result<SocketRef> StreamCore::Accept() {
  Waiting first;
  std::vector<std::weak_ptr<WaitQueue>> refused;
  {
    const absl::MutexLock lock(&mu_);
    if (state_ != State::kListening) return Errno(EINVAL);
    if (backlog_.empty()) return Errno(EAGAIN);
    first = std::move(backlog_.front());
    backlog_.pop_front();
    refused.swap(refused_);
  }
  NotifyRefused(std::move(refused));
  return std::move(first.socket);
}

Result<void> StreamCore::ClaimConnect() {
  const absl::MutexLock lock(&mu_);
  switch (state_) {
    case State::kNew:
      state_ = State::kConnecting;
      return {};
    case State::kConnecting:
      return Errno(EALREADY);
    case State::kConnected:
      return Errno(EISCONN);
    case State::kListening:
    case State::kEnded:
      return Errno(rules_ == Rules::kUnix ? EINVAL : EISCONN);
  }
  return Errno(EINVAL);
}

void StreamCore::Unclaim() {
  const absl::MutexLock lock(&mu_);
  if (state_ == State::kConnecting) state_ = State::kNew;
}

void StreamCore::SetConnected(std::shared_ptr<Channel> in, std::shared_ptr<Channel> out) {
  const absl::MutexLock lock(&mu_);
  in_ = std::move(in);
  out_ = std::move(out);
  state_ = State::kConnected;
}

Result<void> StreamCore::ConnectTo(StreamCore& listener, SocketRef accepted,
                                   StreamCore& accepted_core, size_t bytes_there, size_t bytes_back,
                                   bool beyond_backlog) {
  auto there = std::make_shared<Channel>(rights_, mode_, accepted_core.queue_,
                                         Channel::Limits{.bytes = bytes_there});
  auto back =
      std::make_shared<Channel>(rights_, mode_, queue_, Channel::Limits{.bytes = bytes_back});
  {
    const absl::MutexLock lock(&listener.mu_);
    if (listener.state_ != State::kListening) {
      return Errno(ECONNREFUSED);
    }
    // A TCP client that does not wait is connected before the server looks: its side of the
    // handshake is done.
    const int backlog_max = beyond_backlog ? kListenBacklogMax : listener.backlog_max_;
    if (listener.backlog_.size() > static_cast<size_t>(backlog_max)) {
      if (listener.refused_.size() >= kRefusedMax) return Errno(ECONNREFUSED);
      listener.refused_.push_back(queue_);
      return Errno(EAGAIN);
    }
    accepted_core.SetConnected(there, back);
    listener.backlog_.push_back({std::move(accepted), &accepted_core, there});
  }
  SetConnected(std::move(back), std::move(there));
  listener.queue_->Notify(kPollReadable);
  queue_->Notify(kPollWritable);
  return {};
}

void StreamCore::Join(StreamCore& a, StreamCore& b, size_t bytes) {
  auto to_a =
      std::make_shared<Channel>(a.rights_, a.mode_, a.queue_, Channel::Limits{.bytes = bytes});
  auto to_b =
      std::make_shared<Channel>(a.rights_, a.mode_, b.queue_, Channel::Limits{.bytes = bytes});
  a.SetConnected(to_a, to_b);
  b.SetConnected(std::move(to_b), std::move(to_a));
}

Result<size_t> StreamCore::Send(Task& task, SendRequest& request, const SocketAddress& source) {
  std::shared_ptr<Channel> out;
  {
    const absl::MutexLock lock(&mu_);
    if (state_ == State::kConnecting) return Errno(EAGAIN);
    if (state_ != State::kConnected) return Errno(rules_ == Rules::kUnix ? ENOTCONN : EPIPE);
    if (rules_ == Rules::kTcp && in_->HasError()) return Errno(in_->TakeError());
    if (was_reset_) return Errno(EPIPE);
    out = out_;
  }
  if (rules_ == Rules::kTcp && out->reading_finished() && !out->writing_finished())
    return SendAfterReset(request);
  if ((request.flags & MSG_OOB) != 0 && request.from.remaining() > 0 && !out->urgent_inline()) {
    return SendUrgent(task, request, *out);
  }
  return out->Send(task, request.from, request.ancillary, source, queue_);
}

// The last byte is the urgent one.
Result<size_t> StreamCore::SendUrgent(Task& task, SendRequest& request, Channel& out) {
  if (request.from.remaining() > 1) {
    IoBuffer head = request.from;
    head.Truncate(head.remaining() - 1);
    const uint64_t before = head.done();
    const auto sent = out.Send(task, head, request.ancillary, {}, queue_);
    request.from.Skip(head.done() - before);
    if (!sent.ok()) return sent.error();
  }
  std::byte urgent = {};
  (void)TRY(request.from.CopyIn(std::span(&urgent, 1)));
  if (out.reading_finished() || out.writing_finished()) return Errno(EPIPE);
  out.PushUrgent(urgent);
  return static_cast<size_t>(request.from.done());
}

Result<ReceiveResult> StreamCore::ReceiveUrgent(const ReceiveRequest& request) {
  const std::shared_ptr<Channel> in = inbox();
  if (in == nullptr) return Errno(ENOTCONN);
  const std::byte urgent = TRY(in->TakeUrgent((request.flags & MSG_PEEK) != 0));
  ReceiveResult result;
  result.flags = MSG_OOB;
  if (request.to.remaining() == 0) {
    result.flags |= MSG_TRUNC;
    return result;
  }
  result.bytes = result.full_bytes = TRY(request.to.CopyOut(std::span(&urgent, 1)));
  return result;
}

// TCP: the peer's socket is gone. These bytes are "sent"; the reset that answers them is what later
// calls see.
Result<size_t> StreamCore::SendAfterReset(SendRequest& request) {
  const absl::MutexLock lock(&mu_);
  if (was_reset_) return Errno(EPIPE);
  was_reset_ = true;
  reset_error_ = EPIPE;
  request.from.Skip(request.from.remaining());
  return static_cast<size_t>(request.from.done());
}

Result<ReceiveResult> StreamCore::Receive(const ReceiveRequest& request, bool split_credentials) {
  std::shared_ptr<Channel> in;
  bool read_ended = false;
  {
    const absl::MutexLock lock(&mu_);
    if (state_ == State::kConnecting) return Errno(EAGAIN);
    if (state_ != State::kConnected) {
      return Errno(rules_ == Rules::kUnix && mode_ == Channel::Mode::kStream ? EINVAL : ENOTCONN);
    }
    in = in_;
    read_ended = read_ended_;
  }
  if (read_ended && !in->HasData()) return ReceiveResult{};
  return in->Receive(request, split_credentials);
}

Result<void> StreamCore::Shutdown(ShutdownHow how) {
  const bool read = how != ShutdownHow::kWrite;
  const bool write = how != ShutdownHow::kRead;
  std::shared_ptr<Channel> in;
  std::shared_ptr<Channel> out;
  std::deque<Waiting> dropped;
  std::vector<std::weak_ptr<WaitQueue>> refused;
  {
    const absl::MutexLock lock(&mu_);
    if (state_ == State::kListening) {
      if (read) {
        state_ = State::kEnded;
        dropped.swap(backlog_);
        refused.swap(refused_);
      }
    } else if (state_ != State::kConnected) {
      return Errno(ENOTCONN);
    }
    in = in_;
    out = out_;
    if (read && rules_ == Rules::kTcp) read_ended_ = true;
  }
  DropBacklog(std::move(dropped));
  NotifyRefused(std::move(refused));
  if (write && out != nullptr) out->FinishWriting();
  if (read && in != nullptr && rules_ == Rules::kUnix) {
    in->FinishReading();
    in->FinishWriting();
  }
  queue_->Notify(kPollReadable | kPollWritable | POLLRDHUP | POLLHUP);
  return {};
}

PollMask StreamCore::PollConnected(Channel& in, Channel& out, bool read_ended, bool was_reset) {
  PollMask mask = 0;
  const bool receive_ended = in.writing_finished() || read_ended;
  // For a unix socket the peer's end ends both directions; TCP only learns by a reset.
  const bool send_ended =
      out.writing_finished() || (rules_ == Rules::kUnix && out.reading_finished()) || was_reset;
  if (in.HasData()) mask |= kPollReadable;
  if (in.HasUrgent()) mask |= POLLPRI;
  if (receive_ended) mask |= kPollReadable | POLLRDHUP;
  if (receive_ended && send_ended) mask |= POLLHUP;
  if (in.HasError()) mask |= POLLERR | (rules_ == Rules::kTcp ? POLLHUP | kPollReadable : 0u);
  if (was_reset) mask |= POLLHUP;
  if (send_ended || out.reading_finished() || out.HasRoom()) {
    mask |= kPollWritable;
  } else {
    out.NoteWriter(queue_);
    if (out.HasRoom()) mask |= kPollWritable;
  }
  return mask;
}

PollMask StreamCore::Poll(PollMask interest) {
  std::shared_ptr<Channel> in;
  std::shared_ptr<Channel> out;
  bool read_ended = false;
  bool was_reset = false;
  PollMask mask = 0;
  {
    const absl::MutexLock lock(&mu_);
    switch (state_) {
      case State::kNew:
        return (kPollWritable | POLLHUP) & (interest | kPollAlways);
      case State::kConnecting:
        return 0;
      case State::kListening:
        return (backlog_.empty() ? 0u : kPollReadable) & interest;
      case State::kEnded:
        return (kPollReadable | POLLRDHUP | POLLHUP) & (interest | kPollAlways);
      case State::kConnected:
        break;
    }
    in = in_;
    out = out_;
    read_ended = read_ended_;
    was_reset = was_reset_;
    if (reset_error_ != 0) mask |= POLLERR;
  }
  return (mask | PollConnected(*in, *out, read_ended, was_reset)) & (interest | kPollAlways);
}

int StreamCore::TakeError() {
  const absl::MutexLock lock(&mu_);
  if (reset_error_ != 0) return std::exchange(reset_error_, 0);
  return in_ == nullptr ? 0 : in_->TakeError();
}

void StreamCore::ResetOnClose() {
  const absl::MutexLock lock(&mu_);
  reset_on_close_ = true;
}

StreamCore::State StreamCore::state() const {
  const absl::MutexLock lock(&mu_);
  return state_;
}

std::shared_ptr<Channel> StreamCore::inbox() const {
  const absl::MutexLock lock(&mu_);
  return in_;
}

std::shared_ptr<Channel> StreamCore::outbox() const {
  const absl::MutexLock lock(&mu_);
  return out_;
}

void StreamCore::AppendInboxes(std::vector<std::shared_ptr<Channel>>& inboxes) {
  const absl::MutexLock lock(&mu_);
  if (in_ != nullptr) inboxes.push_back(in_);
  for (const Waiting& waiting : backlog_) inboxes.push_back(waiting.inbox);
}

size_t StreamCore::backlog_length() const {
  const absl::MutexLock lock(&mu_);
  return backlog_.size();
}

int StreamCore::backlog_max() const {
  const absl::MutexLock lock(&mu_);
  return backlog_max_;
}

}  // namespace sentry
