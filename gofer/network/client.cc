#include "gofer/network/client.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace gofer::network {

using base::Errno;
using base::Result;

namespace {

Request Make(Operation operation, uint32_t handle, std::array<int32_t, 3> arguments = {}) {
  Request request;
  request.operation = operation;
  request.handle = handle;
  request.arguments = arguments;
  return request;
}

// False if it does not fit.
bool SetData(Request& request, std::span<const uint8_t> data) {
  if (data.size() > request.data.size()) return false;
  std::copy(data.begin(), data.end(), request.data.begin());
  request.data_bytes = static_cast<uint32_t>(data.size());
  return true;
}

}  // namespace

Result<ReceivedReply> Client::Ask(const Request& request) {
  const absl::MutexLock lock(&mu_);
  const auto exchange = [&]() -> Result<ReceivedReply> {
    TRY(SendRequest(socket_.get(), request));
    return ReceiveReply(socket_.get());
  };
  auto received = exchange();
  if (!received.ok()) return Errno(ENETDOWN);
  const int32_t error = received.value().reply.error;
  // 512 and more are restart codes inside the sentry: not the gofer's to use.
  if (error < 0 || error >= 512) return Errno(ENETDOWN);
  if (error != 0) return Errno(error);
  return received;
}

Result<HostSocket> Client::AskForSocket(const Request& request) {
  ReceivedReply received = TRY(Ask(request));
  HostSocket made{static_cast<uint32_t>(received.reply.value), std::move(received.fd)};
  if (!made.fd.valid()) {
    Close(made.handle);
    return Errno(ENFILE);
  }
  return made;
}

Result<std::vector<uint8_t>> Client::AskForData(const Request& request) {
  const ReceivedReply received = TRY(Ask(request));
  const auto view = received.reply.view();
  return std::vector<uint8_t>(view.begin(), view.end());
}

Result<HostSocket> Client::Socket(int family, int type, int protocol) {
  return AskForSocket(Make(Operation::kSocket, 0, {family, type, protocol}));
}

Result<HostSocket> Client::Accept(uint32_t handle) {
  return AskForSocket(Make(Operation::kAccept, handle));
}

Result<void> Client::Bind(uint32_t handle, std::span<const uint8_t> address) {
  Request request = Make(Operation::kBind, handle);
  if (!SetData(request, address)) return Errno(EINVAL);
  TRY(Ask(request));
  return {};
}

Result<void> Client::Connect(uint32_t handle, std::span<const uint8_t> address) {
  Request request = Make(Operation::kConnect, handle);
  if (!SetData(request, address)) return Errno(EINVAL);
  TRY(Ask(request));
  return {};
}

Result<void> Client::Listen(uint32_t handle, int backlog) {
  TRY(Ask(Make(Operation::kListen, handle, {backlog})));
  return {};
}

Result<std::vector<uint8_t>> Client::LocalAddress(uint32_t handle) {
  return AskForData(Make(Operation::kLocalAddress, handle));
}

Result<std::vector<uint8_t>> Client::PeerAddress(uint32_t handle) {
  return AskForData(Make(Operation::kPeerAddress, handle));
}

Result<std::vector<uint8_t>> Client::GetOption(uint32_t handle, int level, int name) {
  return AskForData(Make(Operation::kGetOption, handle, {level, name}));
}

Result<void> Client::SetOption(uint32_t handle, int level, int name,
                               std::span<const uint8_t> value) {
  Request request = Make(Operation::kSetOption, handle, {level, name});
  if (!SetData(request, value)) return Errno(EINVAL);
  TRY(Ask(request));
  return {};
}

Result<void> Client::Shutdown(uint32_t handle, int how) {
  TRY(Ask(Make(Operation::kShutdown, handle, {how})));
  return {};
}

// Nothing that could be done about a failure: the gofer has gone, and its handles with it.
void Client::Close(uint32_t handle) { (void)Ask(Make(Operation::kClose, handle)).ok(); }

std::vector<InterfaceEntry> Client::Interfaces() {
  std::vector<InterfaceEntry> entries;
  for (int32_t number = 0; number < kInterfaceEntriesMax; ++number) {
    const auto data = AskForData(Make(Operation::kInterfaces, 0, {number}));
    if (!data.ok() || data.value().size() != sizeof(InterfaceEntry)) break;
    InterfaceEntry entry;
    std::memcpy(&entry, data.value().data(), sizeof(entry));
    entry.name.back() = '\0';
    entries.push_back(entry);
  }
  return entries;
}

}  // namespace gofer::network
