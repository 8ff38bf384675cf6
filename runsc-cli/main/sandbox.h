#pragma once

// The processes of a sandbox, seen from the process of runsc that started them: `do` itself, or the
// supervisor of a container. Starts them, watches them, explains their ends, leaves none behind.

#include <poll.h>
#include <signal.h>

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "gofer/protocol/channel.h"
#include "platform/base/fd.h"
#include "runsc-cli/main/boot_config.h"
#include "runsc-cli/main/cage.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/main/debug_log.h"
#include "runsc-cli/main/timing.h"

namespace runsc {

struct SandboxSpec {
  BootConfig config;
  std::vector<base::Fd> link_fds;    // In the order of config.network.links.
  std::vector<base::Fd> attach_fds;  // O_PATH, as config.attach_points.
  std::string debug_log;             // A directory; empty: no files.
  // Without privileges: as whose the caller's own files appear inside. Default: as the caller's.
  std::optional<uint32_t> own_uid_inside;
  std::optional<uint32_t> own_gid_inside;
};

class Sandbox {
 public:
  explicit Sandbox(const Timing& timing) : timing_(timing) {}
  // Ends what still runs and reaps it.
  virtual ~Sandbox();
  Sandbox(const Sandbox&) = delete;
  Sandbox& operator=(const Sandbox&) = delete;

 protected:
  struct Process {
    CageSpec spec;
    Caged child;
    bool ended = false;
    siginfo_t end{};
  };

  // The limits of this process that the sentry needs high, the log files. Before anything is
  // started.
  absl::Status OpenLogs(const SandboxSpec& spec);
  absl::Status StartProcesses(SandboxSpec& spec);
  // Sleeps until something happens, to the sandbox or to `others`; acts on the former. What poll(2)
  // returned.
  int PollOnce(std::span<pollfd> others, int timeout_ms);
  int control() const { return control_.get(); }
  void CloseControl() { control_.Reset(); }
  const Process& sentry() const { return sentry_; }
  const Timing& timing() const { return timing_; }

  // A frame of the sentry, which is not trusted.
  virtual void OnFrame(const Frame& frame) = 0;
  // The sandbox is over for another reason than its guest's exit. One line.
  virtual void OnFailure(const std::string& line) = 0;
  // Whether how it ended is known, so that what comes after is no news.
  virtual bool done() const = 0;

 private:
  absl::Status StartGofer(const SandboxSpec& spec, const base::Fd& config,
                          const gofer::ChannelEnds& channel);
  absl::Status StartSentry(const SandboxSpec& spec, const base::Fd& config,
                           const gofer::ChannelEnds& channel, const base::Fd& control);
  void OnControl();
  void OnProcess(Process& process, const std::string& log_path);
  // How `process` ended, for the user.
  static std::string Obituary(const Process& process, const std::string& log_path);

  const Timing& timing_;
  DebugLogs logs_;
  base::Fd control_;
  base::Fd null_;
  Process sentry_;
  Process gofer_;
};

// No control characters reach a terminal: a broken sentry could write here.
std::string Printable(std::string text);

}  // namespace runsc
