#pragma once

// The line between runsc and its sentry: one frame per packet of a SOCK_SEQPACKET pair, either way.
// The end of the line means that the other one has gone.
//
// The sentry is not trusted: runsc bounds what it reads and acts on nothing but the three kinds
// below.

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace runsc {

enum class FrameKind : uint32_t {
  // From runsc.
  kSignal = 1,      // value: a signal number that runsc was sent; for the guest's init (or its
                    // foreground group).
  kWindowSize = 2,  // value: PackWindowSize
  kForeground = 3,  // value: 1 while runsc may use its terminal, else 0: leave its input alone.
  // From the sentry.
  kStarted = 16,  // The guest's first instruction is about to run.
  kExited = 17,   // value: exit status, 128+n after a signal.
  kFailed = 18,   // value: 125, 126 or 127; text: one line for the user.
};

struct Frame {
  FrameKind kind{};
  int64_t value = 0;
  std::string text;
};

inline constexpr size_t kFrameTextMax = 4000;

struct ControlEnds {
  base::Fd runsc;
  base::Fd sentry;
};
absl::StatusOr<ControlEnds> CreateControlSocket();

// Never blocks on a full socket: EAGAIN. The text is cut at kFrameTextMax. EPIPE if the peer has
// gone.
base::Result<void> SendFrame(int socket, FrameKind kind, int64_t value, std::string_view text = {});
// Blocks unless the socket is non-blocking. EPIPE when the peer has gone, EBADMSG for what is no
// frame.
base::Result<Frame> ReceiveFrame(int socket);

constexpr int64_t PackWindowSize(uint16_t rows, uint16_t columns, uint16_t x_pixels,
                                 uint16_t y_pixels) {
  return static_cast<int64_t>(rows | uint64_t{columns} << 16 | uint64_t{x_pixels} << 32 |
                              uint64_t{y_pixels} << 48);
}

}  // namespace runsc
