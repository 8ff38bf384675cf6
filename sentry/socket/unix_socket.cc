#include "sentry/socket/unix_socket.h"

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <utility>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/socket/network_namespace.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

constexpr uint32_t kPathOffset = offsetof(sockaddr_un, sun_path);
constexpr uint32_t kAutobindNames = 1u << 20;
constexpr char kHexDigits[] = "0123456789abcdef";

SocketAddress Unnamed() {
  SocketAddress address;
  address.bytes[0] = AF_UNIX;
  address.length = kPathOffset;
  return address;
}

SocketAddress AbstractAddress(const std::string& name) {
  SocketAddress address = Unnamed();
  std::copy(name.begin(), name.end(), address.bytes.begin() + kPathOffset + 1);
  address.length = static_cast<uint32_t>(kPathOffset + 1 + name.size());
  return address;
}

bool IsAbstract(const SocketAddress& address) {
  return address.length > kPathOffset && address.bytes[kPathOffset] == 0;
}

std::string AbstractName(const SocketAddress& address) {
  return std::string(address.bytes.begin() + kPathOffset + 1,
                     address.bytes.begin() + address.length);
}

std::string PathName(const SocketAddress& address) {
  const auto first = address.bytes.begin() + kPathOffset;
  const auto last = address.bytes.begin() + address.length;
  return std::string(first, std::find(first, last, uint8_t{0}));
}

Result<void> CheckAddress(const SocketAddress& address) {
  if (address.length < kPathOffset || address.length > sizeof(sockaddr_un)) return Errno(EINVAL);
  if (address.family() != AF_UNIX) return Errno(EINVAL);
  return {};
}

}  // namespace

// --- Names.

SocketAddress UnixName::Get() const {
  const absl::MutexLock lock(&mu_);
  return address_;
}

void UnixName::Set(const SocketAddress& address) {
  const absl::MutexLock lock(&mu_);
  address_ = address;
}

Result<void> UnixNames::Bind(const std::string& name, const std::shared_ptr<UnixSocket>& socket) {
  const absl::MutexLock lock(&mu_);
  const auto [entry, added] =
      names_.try_emplace(Key{socket->kind().type, name}, socket.get(), socket);
  return added ? Result<void>() : Errno(EADDRINUSE);
}

Result<std::string> UnixNames::BindAny(const std::shared_ptr<UnixSocket>& socket) {
  const absl::MutexLock lock(&mu_);
  for (uint32_t attempt = 0; attempt < kAutobindNames; ++attempt) {
    next_ = (next_ + 1) % kAutobindNames;
    std::string name(5, '0');
    for (size_t i = 0; i < name.size(); ++i) name[i] = kHexDigits[(next_ >> (4 * (4 - i))) & 0xf];
    if (names_.try_emplace(Key{socket->kind().type, name}, socket.get(), socket).second)
      return name;
  }
  return Errno(ENOSPC);
}

std::shared_ptr<UnixSocket> UnixNames::Find(int type, const std::string& name) {
  const absl::MutexLock lock(&mu_);
  const auto found = names_.find({type, name});
  return found == names_.end() ? nullptr : found->second.second.lock();
}

void UnixNames::Remove(const std::string& name, const UnixSocket* socket) {
  const absl::MutexLock lock(&mu_);
  const auto found = names_.find({socket->kind().type, name});
  if (found != names_.end() && found->second.first == socket) names_.erase(found);
}

void UnixNames::Register(UnixSocket* socket) {
  const absl::MutexLock lock(&mu_);
  sockets_[socket->number()] = socket;
}

void UnixNames::Unregister(UnixSocket* socket) {
  const absl::MutexLock lock(&mu_);
  sockets_.erase(socket->number());
}

std::vector<std::shared_ptr<UnixSocket>> UnixNames::All() {
  const absl::MutexLock lock(&mu_);
  std::vector<std::shared_ptr<UnixSocket>> all;
  for (const auto& [number, socket] : sockets_) {
    if (auto file = std::static_pointer_cast<UnixSocket>(socket->weak_from_this().lock()))
      all.push_back(std::move(file));
  }
  return all;
}

// --- UnixSocket.

UnixSocket::UnixSocket(Kernel& kernel, int type, bool nonblocking, CredentialsRef credentials)
    : Socket(kernel, {AF_UNIX, type, 0}, nonblocking, std::move(credentials)),
      name_(std::make_shared<UnixName>()) {
  network().unix_names().Register(this);
}

UnixSocket::~UnixSocket() {
  UnixNames& names = network().unix_names();
  names.Unregister(this);
  const SocketAddress address = name_->Get();
  if (IsAbstract(address)) names.Remove(AbstractName(address), this);
}

RightsInFlight& UnixSocket::rights() const { return kernel().network().rights(); }

Result<void> UnixSocket::OnClose(Task&) {
  // This may have been the last descriptor that led to a ring of messages.
  rights().Collect();
  return {};
}

Result<void> UnixSocket::BindAny() {
  auto self = std::static_pointer_cast<UnixSocket>(shared_from_this());
  const absl::MutexLock lock(&bind_mu_);
  if (bound()) return {};
  name_->Set(AbstractAddress(TRY(network().unix_names().BindAny(self))));
  return {};
}

Result<void> UnixSocket::Bind(Task& task, const SocketAddress& address) {
  TRY(CheckAddress(address));
  if (address.length == kPathOffset) return BindAny();
  if (!IsAbstract(address)) return BindPath(task, address);
  auto self = std::static_pointer_cast<UnixSocket>(shared_from_this());
  const absl::MutexLock lock(&bind_mu_);
  if (bound()) return Errno(EINVAL);
  TRY(network().unix_names().Bind(AbstractName(address), self));
  name_->Set(address);
  return {};
}

Result<void> UnixSocket::BindPath(Task& task, const SocketAddress& address) {
  const std::string path = PathName(address);
  if (bound()) return Errno(EINVAL);
  auto made = kernel().vfs().MakeSocketNode(task, {}, path, 0777);
  if (!made.ok()) return made.error() == EEXIST ? Errno(EADDRINUSE) : made.error();
  Path place = std::move(made).value();
  auto self = std::static_pointer_cast<UnixSocket>(shared_from_this());
  const absl::MutexLock lock(&bind_mu_);
  // Another thread was faster: its name stays, and our file leads nowhere, as when an owner has
  // gone.
  if (bound()) return Errno(EINVAL);
  {
    Inode::Attachments& attachments = place.dentry->inode()->attachments();
    const absl::MutexLock attachments_lock(&attachments.mu);
    attachments.socket = self;
  }
  bound_path_ = std::move(place);
  SocketAddress named = Unnamed();
  std::copy(path.begin(), path.end(), named.bytes.begin() + kPathOffset);
  named.length = static_cast<uint32_t>(kPathOffset + path.size() + 1);
  name_->Set(named);
  return {};
}

Result<SocketAddress> UnixSocket::LocalAddress() {
  const SocketAddress address = name_->Get();
  return address.length == 0 ? Unnamed() : address;
}

Result<std::shared_ptr<UnixSocket>> UnixSocket::FindPeer(Task& task, const SocketAddress& address) {
  TRY(CheckAddress(address));
  if (address.length == kPathOffset) return Errno(EINVAL);
  std::shared_ptr<UnixSocket> found;
  if (IsAbstract(address)) {
    found = network().unix_names().Find(kind().type, AbstractName(address));
  } else {
    const Path place = TRY(kernel().vfs().Walk(task, {}, PathName(address), {}));
    Inode& inode = *place.dentry->inode();
    TRY(inode.CheckPermission(*task.credentials(), W_OK));
    if (inode.type() != S_IFSOCK) return Errno(ECONNREFUSED);
    Inode::Attachments& attachments = inode.attachments();
    const absl::MutexLock lock(&attachments.mu);
    found = std::static_pointer_cast<UnixSocket>(attachments.socket.lock());
  }
  if (found == nullptr) return Errno(ECONNREFUSED);
  if (found->kind().type != kind().type) return Errno(EPROTOTYPE);
  return found;
}

void UnixSocket::FillCredentials(Task& task, Ancillary& ancillary) {
  if (ancillary.credentials) return;
  const auto credentials = task.credentials();
  ancillary.credentials = PeerCredentials{task.group().id(), credentials->uid, credentials->gid};
}

void UnixSocket::FilterCredentials(ReceiveResult& result) {
  if (!options().pass_credentials) {
    result.ancillary.credentials.reset();
  } else if (!result.ancillary.credentials && result.bytes > 0) {
    result.ancillary.credentials = PeerCredentials{0, 65534, 65534};
  }
}

// --- Stream and sequenced packets.

UnixStreamSocket::UnixStreamSocket(Kernel& kernel, int type, bool nonblocking,
                                   CredentialsRef credentials)
    : UnixSocket(kernel, type, nonblocking, std::move(credentials)),
      core_(rights(), StreamCore::Rules::kUnix,
            type == SOCK_STREAM ? Channel::Mode::kStream : Channel::Mode::kRecords,
            shared_queue()) {}

void UnixStreamSocket::SetPeer(std::shared_ptr<UnixName> name, const PeerCredentials& credentials) {
  const absl::MutexLock lock(&peer_mu_);
  peer_name_ = std::move(name);
  peer_credentials_ = credentials;
}

void UnixStreamSocket::Pair(Task& task, UnixStreamSocket& a, UnixStreamSocket& b) {
  const PeerCredentials credentials = CredentialsOf(task);
  a.SetPeer(b.name(), credentials);
  b.SetPeer(a.name(), credentials);
  StreamCore::Join(a.core_, b.core_, kSocketBufferDefault);
}

Result<void> UnixStreamSocket::Listen(Task& task, int backlog) {
  if (!bound()) return Errno(EINVAL);
  TRY(core_.Listen(backlog));
  const absl::MutexLock lock(&peer_mu_);
  listen_credentials_ = CredentialsOf(task);
  peer_credentials_ = listen_credentials_;
  return {};
}

Result<SocketRef> UnixStreamSocket::Accept(Task&, bool nonblocking_result) {
  SocketRef accepted = TRY(core_.Accept());
  auto& socket = static_cast<UnixStreamSocket&>(*accepted);
  if (nonblocking_result) socket.set_flags(socket.flags() | O_NONBLOCK);
  return accepted;
}

Result<void> UnixStreamSocket::Connect(Task& task, const SocketAddress& address) {
  const auto listener = std::static_pointer_cast<UnixStreamSocket>(TRY(FindPeer(task, address)));
  if (options().pass_credentials && !bound()) TRY(BindAny());
  TRY(core_.ClaimConnect());
  auto accepted =
      std::make_shared<UnixStreamSocket>(kernel(), kind().type, false, listener->credentials());
  accepted->name()->Set(listener->name()->Get());
  accepted->options().pass_credentials = listener->options().pass_credentials.load();
  accepted->SetPeer(name(), CredentialsOf(task));
  PeerCredentials server;
  {
    const absl::MutexLock lock(&listener->peer_mu_);
    server = listener->listen_credentials_;
  }
  SetPeer(accepted->name(), server);
  UnixStreamSocket& raw = *accepted;
  const auto result = core_.ConnectTo(listener->core_, std::move(accepted), raw.core_,
                                      options().send_bytes, listener->options().send_bytes, false);
  if (!result.ok()) {
    core_.Unclaim();
    SetPeer(nullptr, {0, ~0u, ~0u});
  }
  return result;
}

Result<SocketAddress> UnixStreamSocket::PeerAddress() {
  if (core_.state() != StreamCore::State::kConnected) return Errno(ENOTCONN);
  const absl::MutexLock lock(&peer_mu_);
  const SocketAddress address = peer_name_->Get();
  return address.length == 0 ? Unnamed() : address;
}

Result<size_t> UnixStreamSocket::Send(Task& task, SendRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  if (request.to != nullptr && kind().type == SOCK_STREAM) {
    return Errno(core_.state() == StreamCore::State::kConnected ? EISCONN : EOPNOTSUPP);
  }
  FillCredentials(task, request.ancillary);
  return core_.Send(task, request, {});
}

Result<ReceiveResult> UnixStreamSocket::Receive(Task&, ReceiveRequest& request) {
  if ((request.flags & MSG_OOB) != 0) return Errno(EOPNOTSUPP);
  ReceiveResult result = TRY(core_.Receive(request, options().pass_credentials));
  FilterCredentials(result);
  return result;
}

int UnixStreamSocket::state_number() {
  return core_.state() == StreamCore::State::kConnected ? 3 : 1;
}

Result<uint64_t> UnixStreamSocket::InputQueued() {
  if (listening()) return Errno(EINVAL);
  const auto inbox = core_.inbox();
  return uint64_t{inbox == nullptr ? 0 : inbox->NextBytes()};
}

uint64_t UnixStreamSocket::OutputQueued() {
  const auto outbox = core_.outbox();
  return outbox == nullptr ? 0 : outbox->bytes();
}

PeerCredentials UnixStreamSocket::peer_credentials() {
  const absl::MutexLock lock(&peer_mu_);
  return peer_credentials_;
}

void UnixStreamSocket::OnBufferSizes() {
  if (const auto outbox = core_.outbox()) outbox->set_byte_limit(options().send_bytes);
}

}  // namespace sentry
