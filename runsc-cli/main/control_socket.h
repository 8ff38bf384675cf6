#pragma once

// The line between runsc and its sentry, and between commands of runsc: one frame per packet of a
// SOCK_SEQPACKET socket, either way. The end of the line means that the other one has gone.
//
// The sentry is not trusted: runsc bounds what it reads, takes no descriptors from it and acts on
// nothing but the kinds below.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "platform/base/result.h"

namespace runsc {

// Four parties speak it: a command of runsc ("client"), the process of runsc that stands between
// caller and sandbox (the "supervisor" of a container; `do` itself), and the sentry.
enum class FrameKind : uint32_t {
  // --- To the sentry.
  kSignal = 1,      // value: a signal number that runsc was sent; for the guest's init (or its
                    // foreground group).
  kWindowSize = 2,  // value: PackWindowSize; request: of an exec, 0 for the first process.
  kForeground = 3,  // value: 1 while runsc may use its terminal, else 0: leave its input alone.
  kStartGuest = 4,  // The first process of a container may run.
  kExec = 5,        // request: names it from now on. Descriptors: a ProcessConfig, 0, 1, 2.
  kExecSignal = 6,  // request, value: a signal for that process.
  kSignalInit = 7,  // request, value: a signal for the first process, as by kill(1) outside.
  kSignalAll = 8,
  kPause = 9,
  kResume = 10,
  kPs = 11,  // The reply's text: lines of the guest's processes.
  // --- From the sentry.
  kStarted = 16,      // The guest's first instruction is about to run.
  kExited = 17,       // value: exit status, 128+n after a signal.
  kFailed = 18,       // value: 125, 126 or 127; text: one line for the user.
  kReady = 19,        // A container is complete but for its first process.
  kReply = 20,        // request; value: 0 or an errno.
  kExecStarted = 21,  // request; value: its process id inside.
  kExecFailed = 22,   // As kFailed, with request.
  kExecExited = 23,   // As kExited, with request.
  // --- Client to supervisor; those to the sentry, too. Answered by kReply.
  kQuery = 32,  // value of the reply: ContainerStatus.
  kWait = 33,   // kExited at the end.
  // --- Supervisor to `create`.
  kNamespacesReady = 48,
  kHooksDone =
      47,  // The other way round, with --network=sandbox: the interfaces are as they shall be.
  kCommit = 49,  // The other way round: the container is on record; from now on without `create`.
};

enum class ContainerStatus : int64_t { kCreated = 1, kRunning = 2, kPaused = 3, kStopped = 4 };

struct Frame {
  FrameKind kind{};
  uint32_t request = 0;
  int64_t value = 0;
  std::string text;
  std::vector<base::Fd> fds;
};

inline constexpr size_t kFrameTextMax = 4000;
inline constexpr size_t kFrameFdsMax = 4;

struct ControlEnds {
  base::Fd runsc;
  base::Fd sentry;
};
absl::StatusOr<ControlEnds> CreateControlSocket();

// Never blocks on a full socket: EAGAIN. The text is cut at kFrameTextMax. EPIPE if the peer has
// gone.
base::Result<void> SendFrame(int socket, FrameKind kind, int64_t value, std::string_view text = {},
                             uint32_t request = 0, std::span<const int> fds = {});
// Blocks unless the socket is non-blocking. EPIPE when the peer has gone, EBADMSG for what is no
// frame. Without `take_fds` the kernel drops descriptors that a peer sends.
base::Result<Frame> ReceiveFrame(int socket, bool take_fds = false);

constexpr int64_t PackWindowSize(uint16_t rows, uint16_t columns, uint16_t x_pixels,
                                 uint16_t y_pixels) {
  return static_cast<int64_t>(rows | uint64_t{columns} << 16 | uint64_t{x_pixels} << 32 |
                              uint64_t{y_pixels} << 48);
}

}  // namespace runsc
