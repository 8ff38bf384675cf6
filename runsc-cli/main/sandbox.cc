#include "runsc-cli/main/sandbox.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/base/log.h"
#include "platform/seccomp/violation.h"
#include "runsc-cli/main/prepare.h"

namespace runsc {
namespace {

// How long a gofer's end waits for its sentry's, which explains it.
constexpr int kGoferFirstMs = 100;

}  // namespace

Sandbox::~Sandbox() {
  // The sentry is pid 1 of its namespace: all stubs go with it. Without its socket the gofer
  // leaves.
  control_.Reset();
  // The status is known or there will be none, so there is nothing to wait for but their ends: both
  // at once.
  for (Process* process : {&sentry_, &gofer_}) {
    if (process->child.pid < 0 || process->ended) continue;
    syscall(SYS_pidfd_send_signal, process->child.pid_fd.get(), SIGKILL, nullptr, 0);
  }
  for (Process* process : {&sentry_, &gofer_}) {
    if (process->child.pid < 0 || process->ended) continue;
    waitpid(process->child.pid, nullptr, 0);
    timing_.Note(process == &sentry_ ? "has reaped the sentry" : "has reaped the gofer");
  }
}

absl::Status Sandbox::OpenLogs(const SandboxSpec& spec) {
  const absl::Status limits = RaiseLimits();
  if (!limits.ok()) return limits;
  auto logs = OpenDebugLogs(spec.debug_log);
  if (!logs.ok()) return logs.status();
  logs_ = std::move(*logs);
  const auto level = spec.config.debug ? base::LogLevel::kDebug : base::LogLevel::kInfo;
  base::SetLogSink(logs_.runsc.get(), logs_.runsc ? level : base::LogLevel::kWarning, "runsc");
  null_ = base::Fd(open("/dev/null", O_RDWR | O_CLOEXEC));
  return absl::OkStatus();
}

absl::Status Sandbox::StartGofer(const SandboxSpec& sandbox, const base::Fd& config,
                                 const gofer::ChannelEnds& channel) {
  auto program = OpenHelperProgram("runsc-gofer");
  if (!program.ok()) return program.status();
  CageSpec& spec = gofer_.spec;
  spec.name = "runsc-gofer";
  spec.program_fd = program->get();
  spec.fds = {config.get(),
              logs_.gofer ? logs_.gofer.get() : null_.get(),
              channel.memory.get(),
              channel.server_socket.get(),
              -1,
              timing_.fd()};
  spec.timing_fd = timing_.fd();
  spec.timing_name = "gofer";
  spec.own_fds_directory_at = kOwnFdsFd;
  for (const base::Fd& fd : sandbox.attach_fds) spec.fds.push_back(fd.get());
  if (MayMakeNamespaces()) {
    // Ids must be the host's, so no user namespace; what remains of root is what serving root's
    // files takes.
    spec.own_user_namespace = false;
    spec.share_namespaces_of = sentry_.child.pid_fd.get();
    spec.kept_capabilities = uint64_t{1} << CAP_DAC_READ_SEARCH;
    for (const AttachPoint& point : sandbox.config.attach_points) {
      if (point.read_only) continue;
      spec.kept_capabilities |= uint64_t{1} << CAP_DAC_OVERRIDE | uint64_t{1} << CAP_CHOWN |
                                uint64_t{1} << CAP_FOWNER | uint64_t{1} << CAP_FSETID;
    }
  } else {
    spec.outside_uid = geteuid();
    spec.outside_gid = getegid();
    spec.inside_uid = sandbox.own_uid_inside.value_or(spec.outside_uid);
    spec.inside_gid = sandbox.own_gid_inside.value_or(spec.outside_gid);
  }
  auto child = StartCaged(spec);
  if (!child.ok()) return child.status();
  gofer_.child = std::move(*child);
  timing_.Note("has cloned the gofer");
  return absl::OkStatus();
}

absl::Status Sandbox::StartSentry(const SandboxSpec& sandbox, const base::Fd& config,
                                  const gofer::ChannelEnds& channel, const base::Fd& control) {
  auto program = OpenHelperProgram("runsc-sentry");
  if (!program.ok()) return program.status();
  CageSpec& spec = sentry_.spec;
  spec.name = "runsc-sentry";
  spec.program_fd = program->get();
  spec.fds = {config.get(),         logs_.sentry ? logs_.sentry.get() : null_.get(),
              channel.memory.get(), channel.client_socket.get(),
              control.get(),        timing_.fd()};
  spec.timing_fd = timing_.fd();
  spec.timing_name = "sentry";
  spec.fds.push_back(-1);  // kNetworkSocketFd
  for (const base::Fd& fd : sandbox.link_fds) spec.fds.push_back(fd.get());
  if (!MayMakeNamespaces()) {
    spec.outside_uid = geteuid();
    spec.outside_gid = getegid();
    // What it learns of a file by its descriptor must agree with what the gofer says.
    if (sandbox.own_uid_inside) spec.inside_uid = *sandbox.own_uid_inside;
    if (sandbox.own_gid_inside) spec.inside_gid = *sandbox.own_gid_inside;
  }
  auto child = StartCaged(spec);
  if (!child.ok()) return child.status();
  sentry_.child = std::move(*child);
  timing_.Note("has cloned the sentry");
  return absl::OkStatus();
}

absl::Status Sandbox::StartProcesses(SandboxSpec& spec) {
  const auto config_fd = WriteBootConfig(spec.config);
  if (!config_fd.ok()) return config_fd.status();
  const auto channel = gofer::CreateChannel();
  if (!channel.ok()) return channel.status();
  auto control = CreateControlSocket();
  if (!control.ok()) return control.status();
  control_ = std::move(control->runsc);

  timing_.Note("has prepared");
  const absl::Status sentry = StartSentry(spec, *config_fd, *channel, control->sentry);
  if (!sentry.ok()) return sentry;
  return StartGofer(spec, *config_fd, *channel);
  // The children's ends close here: each side must see the other's end.
}

void Sandbox::OnControl() {
  const base::Result<Frame> frame = ReceiveFrame(control_.get());
  if (frame.ok()) {
    OnFrame(frame.value());
  } else if (frame.error() != EBADMSG) {
    // The end of the line; its process descriptor says why.
    control_.Reset();
  }
}

std::string Sandbox::Obituary(const Process& process, const std::string& log_path) {
  const siginfo_t& end = process.end;
  std::string how;
  if (end.si_code == CLD_EXITED && end.si_status == platform::seccomp::kViolationExitCode) {
    how = "was killed by its seccomp filter";
  } else if (end.si_code == CLD_EXITED) {
    how = absl::StrCat("ended unexpectedly with status ", end.si_status);
  } else if (end.si_status == SIGSYS) {
    how = "was killed by its seccomp filter";
  } else if (end.si_status == SIGABRT) {
    how = "panicked";
  } else {
    how = absl::StrCat("was killed by signal ", end.si_status, " (", strsignal(end.si_status), ")");
  }
  return absl::StrCat(process.spec.name, " ", how, "; ",
                      log_path.empty() ? "the report, if any, is above (--debug-log DIR keeps it)"
                                       : absl::StrCat("the report is in ", log_path));
}

void Sandbox::OnProcess(Process& process, const std::string& log_path) {
  waitid(P_PIDFD, static_cast<id_t>(process.child.pid_fd.get()), &process.end, WEXITED);
  process.ended = true;
  // A frame that the sentry sent before it ended is still in the socket.
  while (control_ && !done()) {
    pollfd ready{control_.get(), POLLIN, 0};
    if (poll(&ready, 1, 0) <= 0) break;
    OnControl();
  }
  LOG_INFO("%s ended: code %d status %d", process.spec.name.c_str(), process.end.si_code,
           process.end.si_status);
  if (!done()) OnFailure(Obituary(process, log_path));
}

int Sandbox::PollOnce(std::span<pollfd> others, int timeout_ms) {
  constexpr size_t kOwn = 5;
  std::vector<pollfd> fds = {
      {control_.get(), POLLIN, 0},
      {sentry_.child.pid_fd.get(), POLLIN, 0},
      {gofer_.child.pid_fd.get(), POLLIN, 0},
      {sentry_.child.exec_error.get(), POLLIN, 0},
      {gofer_.child.exec_error.get(), POLLIN, 0},
  };
  fds.insert(fds.end(), others.begin(), others.end());
  const int ready = poll(fds.data(), fds.size(), timeout_ms);
  for (size_t i = 0; i < others.size(); ++i) {
    others[i].revents = ready > 0 ? fds[kOwn + i].revents : short{0};
  }
  if (ready <= 0) return ready;
  for (Process* process : {&sentry_, &gofer_}) {
    if (fds[process == &sentry_ ? 3 : 4].revents == 0) continue;
    const absl::Status started = TakeStartError(process->spec, process->child);
    if (!started.ok() && !done()) OnFailure(std::string(started.message()));
  }
  if (done()) return ready;
  if (fds[0].revents != 0) OnControl();
  if (fds[1].revents != 0 && !done()) OnProcess(sentry_, logs_.sentry_path);
  if (fds[2].revents != 0 && !done()) {
    // A gofer whose sentry has gone leaves at once and may be noticed first; the news is the
    // sentry.
    pollfd sentry_ended{sentry_.child.pid_fd.get(), POLLIN, 0};
    if (poll(&sentry_ended, 1, kGoferFirstMs) > 0) {
      OnProcess(sentry_, logs_.sentry_path);
    } else {
      OnProcess(gofer_, logs_.gofer_path);
    }
  }
  return ready;
}

std::string Printable(std::string text) {
  for (char& c : text) {
    if (static_cast<unsigned char>(c) < ' ' || c == 0x7f) c = '?';
  }
  return text;
}

}  // namespace runsc
