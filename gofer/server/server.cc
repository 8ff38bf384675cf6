#include "gofer/server/server.h"

#include <sys/resource.h>

#include <bit>
#include <cerrno>
#include <cstring>
#include <utility>
#include <variant>

#include "absl/strings/str_cat.h"
#include "gofer/protocol/donation.h"
#include "platform/base/log.h"

namespace gofer {
namespace {

// Standard streams, log, channel, roots, and what one request opens for itself.
constexpr size_t kDescriptorsReserved = 48;
// A deep path with every step kept, with room to spare.
constexpr size_t kDescriptorsMin = 256;

}  // namespace

absl::StatusOr<std::unique_ptr<Server>> Server::Create(Options options) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return absl::ErrnoToStatus(errno, "getrlimit");
  const size_t reserved = kDescriptorsReserved + options.attach_points.size();
  if (limit.rlim_cur < reserved + kDescriptorsMin) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the limit of open files (ulimit -n) is ", static_cast<uint64_t>(limit.rlim_cur),
        "; the gofer needs at least ", reserved + kDescriptorsMin));
  }
  absl::StatusOr<Channel> channel =
      Channel::Map(std::move(options.memory), std::move(options.socket));
  if (!channel.ok()) return channel.status();
  Session::Options session;
  session.foreign_owners_are_root = options.foreign_owners_are_root;
  session.attach_points = std::move(options.attach_points);
  session.proc_self_fd = std::move(options.proc_self_fd);
  session.descriptors_max = static_cast<size_t>(limit.rlim_cur) - reserved;
  return std::unique_ptr<Server>(new Server(*std::move(channel), std::move(session)));
}

absl::Status Server::Run() {
  while (true) {
    const base::Result<uint32_t> waiting = channel_.WaitForRequests();
    if (!waiting.ok()) return absl::OkStatus();
    for (uint32_t slots = waiting.value(); slots != 0; slots &= slots - 1) {
      const absl::Status served = Serve(static_cast<size_t>(std::countr_zero(slots)));
      if (served.ok()) continue;
      LOG_ERROR("connection ended: %s", std::string(served.message()).c_str());
      return served;
    }
  }
}

absl::Status Server::Serve(size_t slot) {
  const base::Result<size_t> arrived = channel_.TakeRequest(slot, arrived_.bytes());
  if (!arrived.ok()) return absl::InvalidArgumentError("the client states an impossible length");
  const base::Result<Request> request = DecodeRequest(arrived_.bytes().first(arrived.value()));
  if (!request.ok()) return absl::InvalidArgumentError("the client sent a malformed message");
  absl::StatusOr<Session::Outcome> outcome = session_.Handle(request.value());
  if (!outcome.ok()) {
    return absl::InvalidArgumentError(absl::StrCat("the client sent ", outcome.status().message()));
  }
  if (outcome->donated) {
    const base::Result<void> sent =
        SendDonation(channel_.socket(), outcome->response.id, outcome->donated.get());
    if (!sent.ok()) {
      if (sent.error() == EPIPE || sent.error() == ECONNRESET) return absl::OkStatus();
      if (sent.error() == EAGAIN) {
        return absl::InvalidArgumentError("the client does not collect what it opens");
      }
      // ETOOMANYREFS, ENOMEM: the host's limits. What else the request did stands.
      outcome->response.donated = false;
      if (auto* walk = std::get_if<WalkReply>(&outcome->response.body)) {
        walk->open_error = sent.error().value();
      } else if (!std::holds_alternative<ChangeReply>(outcome->response.body)) {
        outcome->response = Response{outcome->response.id, sent.error().value(), false, {}};
      }
    }
  }
  const base::Result<size_t> bytes =
      EncodeResponse(outcome->response, scratch_, channel_.ResponseArea(slot));
  if (!bytes.ok()) return absl::InternalError("a response does not fit into a slot");
  channel_.Respond(slot, bytes.value());
  return absl::OkStatus();
}

}  // namespace gofer
