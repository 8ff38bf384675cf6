// Unix datagram sockets, and how the family makes all three types.

#include <sys/socket.h>

#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/socket/unix_socket.h"

namespace sentry {

using base::Errno;
using base::Result;

UnixDatagramSocket::UnixDatagramSocket(Kernel& kernel, bool nonblocking, CredentialsRef credentials)
    : UnixSocket(kernel, SOCK_DGRAM, nonblocking, std::move(credentials)),
      inbox_(std::make_shared<Channel>(
          rights(), Channel::Mode::kRecords, shared_queue(),
          Channel::Limits{.bytes = 4 * kSocketBufferDefault, .packets = kPacketsMax})) {}

UnixDatagramSocket::~UnixDatagramSocket() {
  // Senders that wait for room learn that there is nobody.
  inbox_->FinishReading();
  inbox_->Clear();
}

void UnixDatagramSocket::Pair(Task& task, const std::shared_ptr<UnixDatagramSocket>& a,
                              const std::shared_ptr<UnixDatagramSocket>& b) {
  const PeerCredentials credentials = CredentialsOf(task);
  const auto set = [&](UnixDatagramSocket& self, const std::shared_ptr<UnixDatagramSocket>& other) {
    const absl::MutexLock lock(&self.mu_);
    self.peer_ = other;
    self.peer_identity_ = other.get();
    self.peer_name_ = other->name();
    self.peer_credentials_ = credentials;
  };
  set(*a, b);
  set(*b, a);
}

bool UnixDatagramSocket::Hears(const UnixDatagramSocket& sender) {
  const absl::MutexLock lock(&mu_);
  return peer_identity_ == nullptr || peer_identity_ == &sender;
}

std::shared_ptr<UnixDatagramSocket> UnixDatagramSocket::peer() {
  const absl::MutexLock lock(&mu_);
  return peer_.lock();
}

Result<void> UnixDatagramSocket::Connect(Task& task, const SocketAddress& address) {
  if (address.length >= 2 && address.family() == AF_UNSPEC) {
    const absl::MutexLock lock(&mu_);
    peer_.reset();
    peer_identity_ = nullptr;
    peer_name_ = nullptr;
    return {};
  }
  const auto found = std::static_pointer_cast<UnixDatagramSocket>(TRY(FindPeer(task, address)));
  if (!found->Hears(*this)) return Errno(EPERM);
  if (options().pass_credentials && !bound()) TRY(BindAny());
  const absl::MutexLock lock(&mu_);
  peer_ = found;
  peer_identity_ = found.get();
  peer_name_ = found->name();
  return {};
}

Result<SocketAddress> UnixDatagramSocket::PeerAddress() {
  std::shared_ptr<UnixName> peer_name;
  {
    const absl::MutexLock lock(&mu_);
    peer_name = peer_name_;
  }
  if (peer_name == nullptr) return Errno(ENOTCONN);
  SocketAddress address = peer_name->Get();
  if (address.length == 0) {
    address.bytes[0] = AF_UNIX;
    address.length = 2;
  }
  return address;
}

Result<size_t> UnixDatagramSocket::Send(Task& task, SendRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  {
    const absl::MutexLock lock(&mu_);
    if (write_ended_) return Errno(EPIPE);
  }
  std::shared_ptr<UnixDatagramSocket> target;
  if (request.to != nullptr) {
    target = std::static_pointer_cast<UnixDatagramSocket>(TRY(FindPeer(task, *request.to)));
  } else {
    const absl::MutexLock lock(&mu_);
    if (peer_identity_ == nullptr) return Errno(ENOTCONN);
    target = peer_.lock();
    if (target == nullptr) {
      // The peer has gone: the connection goes with it.
      peer_identity_ = nullptr;
      peer_name_ = nullptr;
      return Errno(ECONNREFUSED);
    }
  }
  if (!target->Hears(*this)) return Errno(EPERM);
  if (request.from.remaining() > options().send_bytes - 32) return Errno(EMSGSIZE);
  if ((options().pass_credentials || target->options().pass_credentials) && !bound())
    TRY(BindAny());
  FillCredentials(task, request.ancillary);
  SocketAddress source;
  source = name()->Get();
  if (source.length == 0) source = {};
  return target->inbox_->Send(task, request.from, request.ancillary, source, shared_queue());
}

Result<ReceiveResult> UnixDatagramSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  ReceiveResult result = TRY(inbox_->Receive(request, false));
  FilterCredentials(result);
  return result;
}

Result<void> UnixDatagramSocket::Shutdown(ShutdownHow how) {
  {
    const absl::MutexLock lock(&mu_);
    if (peer_identity_ == nullptr) return Errno(ENOTCONN);
    if (how != ShutdownHow::kRead) write_ended_ = true;
  }
  if (how != ShutdownHow::kWrite) {
    inbox_->FinishReading();
    inbox_->FinishWriting();
  }
  shared_queue()->Notify(kPollReadable | kPollWritable | POLLHUP | POLLRDHUP);
  return {};
}

PollMask UnixDatagramSocket::Poll(PollMask interest) {
  PollMask mask = 0;
  bool write_ended = false;
  std::shared_ptr<UnixDatagramSocket> target;
  {
    const absl::MutexLock lock(&mu_);
    write_ended = write_ended_;
    target = peer_.lock();
  }
  const bool read_ended = inbox_->writing_finished();
  if (inbox_->HasData()) mask |= kPollReadable;
  if (read_ended) mask |= kPollReadable | POLLRDHUP;
  if (read_ended && write_ended) mask |= POLLHUP;
  if (target == nullptr || target->inbox_->HasRoom()) {
    mask |= kPollWritable;
  } else {
    target->inbox_->NoteWriter(shared_queue());
    if (target->inbox_->HasRoom()) mask |= kPollWritable;
  }
  return mask & (interest | kPollAlways);
}

int UnixDatagramSocket::state_number() { return peer() != nullptr ? 3 : 1; }

PeerCredentials UnixDatagramSocket::peer_credentials() {
  const absl::MutexLock lock(&mu_);
  return peer_credentials_;
}

namespace {

class UnixFamilyImpl final : public SocketFamily {
 public:
  Result<SocketRef> Make(Task& task, const Socket::Kind& kind, bool nonblocking) const override {
    if (kind.protocol != 0 && kind.protocol != AF_UNIX) return Errno(EPROTONOSUPPORT);
    switch (kind.type) {
      case SOCK_STREAM:
      case SOCK_SEQPACKET:
        return SocketRef(std::make_shared<UnixStreamSocket>(task.kernel(), kind.type, nonblocking,
                                                            task.credentials()));
      case SOCK_DGRAM:
      case SOCK_RAW:  // Believe it or not: unix(7) makes it a datagram socket.
        return SocketRef(
            std::make_shared<UnixDatagramSocket>(task.kernel(), nonblocking, task.credentials()));
      default:
        return Errno(ESOCKTNOSUPPORT);
    }
  }

  Result<std::pair<SocketRef, SocketRef>> MakePair(Task& task, const Socket::Kind& kind,
                                                   bool nonblocking) const override {
    SocketRef first = TRY(Make(task, kind, nonblocking));
    SocketRef second = TRY(Make(task, kind, nonblocking));
    if (first->kind().type == SOCK_DGRAM) {
      UnixDatagramSocket::Pair(task, std::static_pointer_cast<UnixDatagramSocket>(first),
                               std::static_pointer_cast<UnixDatagramSocket>(second));
    } else {
      UnixStreamSocket::Pair(task, static_cast<UnixStreamSocket&>(*first),
                             static_cast<UnixStreamSocket&>(*second));
    }
    return std::make_pair(std::move(first), std::move(second));
  }
};

}  // namespace

const SocketFamily& UnixFamily() {
  static const UnixFamilyImpl family;
  return family;
}

}  // namespace sentry
