#include "runsc-cli/main/guest_control.h"

#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "platform/base/log.h"
#include "platform/base/text_pages.h"
#include "runsc-cli/main/launch.h"

namespace runsc {
namespace {

// Times between which the sentry gives back what an idle one does not need: soon, for the code of
// the start, and later, for what was busy at first. Then never: an idle sandbox wakes up for
// nothing.
constexpr std::array kLeanAfterMs = {1'000, 15'000, 120'000};

}  // namespace

GuestControl::GuestControl(int control, int gofer, Handler on_frame)
    : control_(control), gofer_(gofer), on_frame_(std::move(on_frame)) {
  std::thread([this] { Run(); }).detach();
}

void GuestControl::Finish() { finishing_.store(true); }

void GuestControl::Run() {
  size_t quiet = 0;
  while (true) {
    pollfd ends[2] = {{control_, POLLIN, 0}, {gofer_, POLLRDHUP, 0}};
    const int timeout_ms = quiet < kLeanAfterMs.size() ? kLeanAfterMs[quiet] : -1;
    const int ready = poll(ends, 2, timeout_ms);
    if (ready < 0 && errno == EINTR) continue;
    if (finishing_.load()) return;
    if (ready == 0) {
      base::DropTextPages();
      ++quiet;
    }
    if ((ends[1].revents & (POLLHUP | POLLRDHUP | POLLERR)) != 0) {
      LOG_ERROR("the gofer has gone: the sandbox ends");
      (void)SendFrame(control_, FrameKind::kFailed, kOwnFailure,
                      "the sandbox's file server (runsc-gofer) died")
          .ok();
      _exit(kOwnFailure);
    }
    if (ends[0].revents == 0) continue;
    base::Result<Frame> frame = ReceiveFrame(control_, /*take_fds=*/true);
    if (frame.ok()) {
      Frame received = std::move(frame).value();
      on_frame_(received);
    } else if (frame.error() != EBADMSG) {
      if (finishing_.load()) return;
      LOG_ERROR("runsc has gone: the sandbox ends");
      _exit(kOwnFailure);
    }
  }
}

}  // namespace runsc
