// The commands of an OCI runtime. What they say and how they fail is what runc's callers look for:
// Docker and podman tell failures apart by their text.

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <optional>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/time/time.h"
#include "platform/base/strings.h"
#include "runsc-cli/cmd/help.h"
#include "runsc-cli/main/container.h"
#include "runsc-cli/main/features.h"
#include "runsc-cli/main/oci_update.h"
#include "runsc-cli/main/terminal.h"

namespace runsc {
namespace {

using cmd::OciOptions;

absl::Status Print(const std::string& text) {
  if (fputs(text.c_str(), stdout) < 0 || fflush(stdout) != 0) {
    return absl::InternalError("cannot write to standard output");
  }
  return absl::OkStatus();
}

absl::Status Create(const OciOptions& options, const oci::Logrus& log) {
  const auto pid = CreateContainer(options, log, /*foreground=*/false);
  if (pid.ok()) return absl::OkStatus();
  return absl::Status(pid.status().code(),
                      absl::StrCat("runsc create failed: ", pid.status().message()));
}

absl::Status Start(const OciOptions& options, const oci::Logrus& log) {
  auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  if (absl::Status status = container->Lock(); !status.ok()) return status;
  return container->Start(log);
}

absl::Status State(const OciOptions& options) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  return Print(container->Describe(container->Status()).Dump(2) + "\n");
}

absl::Status List(const OciOptions& options) {
  const auto ids = oci::ContainerDir::List(StateRoot(options));
  if (!ids.ok()) return ids.status();
  oci::Json list = oci::Json::NewArray();
  std::string table = "ID          PID         STATUS      BUNDLE      CREATED     OWNER\n";
  std::string quiet;
  std::vector<std::vector<std::string>> rows = {
      {"ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"}};
  for (const std::string& id : *ids) {
    const auto container = Container::Open(StateRoot(options), id);
    if (!container.ok()) continue;  // Being made or deleted.
    const ContainerStatus status = container->Status();
    const oci::ContainerState& state = container->state();
    list.Append(container->Describe(status));
    absl::StrAppend(&quiet, id, "\n");
    rows.push_back({id, absl::StrCat(status == ContainerStatus::kStopped ? 0 : state.pid),
                    StatusName(status), state.bundle, state.created, state.owner});
  }
  if (options.quiet) return Print(quiet);
  if (options.format == "json") return Print((ids->empty() ? "null" : list.Dump()) + "\n");
  if (!options.format.empty() && options.format != "table") {
    return absl::InvalidArgumentError("invalid format option");
  }
  std::vector<size_t> widths(rows[0].size(), 11);
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  std::string text;
  for (const auto& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) {
      text += row[i];
      if (i + 1 < row.size()) text.append(widths[i] + 1 - row[i].size(), ' ');
    }
    text += '\n';
  }
  return Print(text);
}

absl::Status Kill(const OciOptions& options) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  const std::string name = options.rest.empty() ? "SIGTERM" : options.rest[0];
  const int signal = oci::SignalNumber(name);
  if (signal < 0) return absl::InvalidArgumentError(absl::StrCat("unknown signal \"", name, "\""));
  const absl::Status killed = container->Kill(signal, options.all);
  // Nothing is left that could be signalled, which is what --all is asked for.
  if (absl::IsNotFound(killed) && options.all) return absl::OkStatus();
  return killed;
}

absl::Status Delete(const OciOptions& options, const oci::Logrus& log) {
  const std::string root = StateRoot(options);
  auto container = Container::Open(root, options.id);
  if (container.ok()) {
    if (absl::Status status = container->Lock(); !status.ok()) {
      return options.force ? absl::OkStatus() : status;
    }
    return container->Delete(options.force, log);
  }
  if (!options.force) return container.status();
  if (absl::IsInvalidArgument(container.status())) return container.status();
  // What a killed `create` has left, or nothing.
  auto directory = oci::ContainerDir::Open(root, options.id);
  if (!directory.ok()) {
    return absl::IsNotFound(directory.status()) ? absl::OkStatus() : directory.status();
  }
  if (absl::Status status = directory->Lock(); !status.ok()) return absl::OkStatus();
  return directory->Remove();
}

absl::Status PauseOrResume(const OciOptions& options, FrameKind kind) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  auto client = ControlClient::Connect(container->directory());
  if (!client.ok()) return client.status();
  return client->Request(kind, 0, "pause");
}

// Of the processes in the container's control groups those that stand for one of the guest's.
std::vector<int32_t> StandIns(const Container& container) {
  std::vector<int32_t> pids;
  for (const int32_t pid : oci::CgroupPids(container.Cgroups())) {
    const auto name = oci::ReadTextFile(absl::StrCat("/proc/", pid, "/comm"));
    if (name.ok() && (*name == "runsc-container\n" || *name == "runsc-exec\n")) {
      pids.push_back(pid);
    }
  }
  if (pids.empty()) pids.push_back(container.state().pid);
  return pids;
}

absl::Status Ps(const OciOptions& options) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  if (container->Status() == ContainerStatus::kStopped) {
    return absl::FailedPreconditionError("container not running");
  }
  const std::vector<int32_t> pids = StandIns(*container);
  if (options.format == "json") return Print("[" + absl::StrJoin(pids, ",") + "]\n");
  if (!options.format.empty() && options.format != "table") {
    return absl::InvalidArgumentError("invalid format option");
  }
  std::vector<std::string> arguments = options.rest;
  if (arguments.empty()) arguments = {"-ef"};
  std::string command = "ps";
  for (const std::string& argument : arguments) absl::StrAppend(&command, " '", argument, "'");
  FILE* const ps = popen(command.c_str(), "r");
  if (ps == nullptr) return absl::InternalError("cannot run ps");
  char* line = nullptr;
  size_t size = 0;
  size_t pid_column = SIZE_MAX;
  std::string out;
  while (getline(&line, &size, ps) > 0) {
    const std::vector<std::string> words =
        absl::StrSplit(line, absl::ByAnyChar(" \n\t"), absl::SkipEmpty());
    if (pid_column == SIZE_MAX) {
      const auto at = std::find(words.begin(), words.end(), "PID");
      if (at == words.end()) break;
      pid_column = static_cast<size_t>(at - words.begin());
      out += line;
    } else if (pid_column < words.size() &&
               std::find(pids.begin(), pids.end(), atoi(words[pid_column].c_str())) != pids.end()) {
      out += line;
    }
  }
  free(line);
  pclose(ps);
  if (pid_column == SIZE_MAX) {
    return absl::InvalidArgumentError("couldn't find PID field in ps output");
  }
  return Print(out);
}

absl::Status Wait(const OciOptions& options) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  int64_t status = -1;
  auto client = ControlClient::Connect(container->directory());
  if (client.ok()) {
    const auto answer = client->Call(FrameKind::kWait);
    if (answer.ok() && answer->kind == FrameKind::kExited) status = answer->value;
  }
  if (status < 0) {
    const auto text = container->directory().ReadFile(oci::ContainerDir::kExitFile);
    // Killed before it could say how it ended.
    status = text.ok() ? atoi(text->c_str()) : 128 + SIGKILL;
  }
  oci::Json json;
  json.Set("id", options.id);
  json.Set("exitStatus", status);
  return Print(json.Dump() + "\n");
}

absl::Status PrintEvent(const std::string& id, const char* type, oci::Json data) {
  oci::Json event;
  event.Set("type", type);
  event.Set("id", id);
  if (!data.is_null()) event.Set("data", std::move(data));
  return Print(event.Dump() + "\n");
}

absl::Status Events(const OciOptions& options) {
  const auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return container.status();
  absl::Duration interval;
  if (!absl::ParseDuration(options.interval, &interval) || interval <= absl::ZeroDuration()) {
    return absl::InvalidArgumentError("duration interval must be greater than 0");
  }
  if (container->Status() == ContainerStatus::kStopped) {
    return absl::FailedPreconditionError(
        absl::StrCat("container with id ", options.id, " is not running"));
  }
  const oci::Cgroups cgroups = container->Cgroups();
  if (options.stats) return PrintEvent(options.id, "stats", oci::CgroupStats(cgroups));
  uint64_t kills = oci::OomKills(cgroups);
  absl::Time next = absl::Now() + interval;
  while (container->Status() != ContainerStatus::kStopped) {
    const uint64_t now = oci::OomKills(cgroups);
    if (now > kills) {
      if (absl::Status s = PrintEvent(options.id, "oom", {}); !s.ok()) return s;
    }
    kills = now;
    if (absl::Now() >= next) {
      next += interval;
      const absl::Status printed = PrintEvent(options.id, "stats", oci::CgroupStats(cgroups));
      if (!printed.ok()) return printed;
    }
    usleep(static_cast<useconds_t>(
        std::min<int64_t>(200'000, std::max<int64_t>(1'000, absl::ToInt64Microseconds(interval)))));
  }
  return absl::OkStatus();
}

absl::Status WriteSpec(const OciOptions& options) {
  const std::string path = absl::StrCat(options.bundle, "/config.json");
  const base::Fd fd(open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
  if (!fd && errno == EEXIST) {
    return absl::AlreadyExistsError("file config.json exists. Remove it first");
  }
  const std::string text = oci::ExampleSpec(options.rootless).Dump(1) + "\n";
  if (!fd || write(fd.get(), text.data(), text.size()) != static_cast<ssize_t>(text.size())) {
    return absl::InternalError(absl::StrCat("write ", path, ": ", strerror(errno)));
  }
  return absl::OkStatus();
}

void SendWindowSize(const Container& container) {
  winsize size{};
  auto client = ControlClient::Connect(container.directory());
  if (!client.ok() || ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0) return;
  // One that is lost is mended by the next.
  (void)SendFrame(client->fd(), FrameKind::kWindowSize,
                  PackWindowSize(size.ws_row, size.ws_col, size.ws_xpixel, size.ws_ypixel))
      .ok();
}

// In the foreground: signals go in, the status comes out.
int SuperviseRun(Container& container, pid_t pid, const base::Fd& signals, Terminal* terminal) {
  if (terminal != nullptr) SendWindowSize(container);
  while (true) {
    int status = 0;
    if (waitpid(pid, &status, WNOHANG) == pid) {
      return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    }
    pollfd ready{signals.get(), POLLIN, 0};
    poll(&ready, 1, -1);
    signalfd_siginfo info{};
    while (read(signals.get(), &info, sizeof(info)) == sizeof(info)) {
      const int signal = static_cast<int>(info.ssi_signo);
      if (signal == SIGWINCH && terminal != nullptr) SendWindowSize(container);
      if (signal == SIGCHLD || signal == SIGPIPE || signal == SIGURG || signal == SIGWINCH ||
          signal == SIGTTIN || signal == SIGTTOU) {
        continue;
      }
      if (signal == SIGCONT && terminal != nullptr) terminal->Acquire();
      // One that has ended is noticed by SIGCHLD.
      (void)container.Kill(signal, false);
    }
  }
}

int Run(const OciOptions& options, const oci::Logrus& log) {
  const auto fail = [&](const absl::Status& status) {
    log.Error(absl::StrCat("runsc run failed: ", status.message()));
    return 1;
  };
  base::Fd signals;
  if (!options.detach) {
    sigset_t set;
    sigfillset(&set);
    for (const int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGTRAP, SIGABRT, SIGSYS}) {
      sigdelset(&set, signal);
    }
    sigprocmask(SIG_SETMASK, &set, nullptr);
    signals = base::Fd(signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK));
  }
  const auto pid = CreateContainer(options, log, /*foreground=*/!options.detach);
  if (!pid.ok()) return fail(pid.status());
  auto container = Container::Open(StateRoot(options), options.id);
  if (!container.ok()) return fail(container.status());
  if (absl::Status started = container->Start(log); !started.ok()) {
    const absl::Status deleted = container->Delete(true, log);
    if (!deleted.ok()) log.Warning(base::Std(deleted.message()));
    waitpid(*pid, nullptr, 0);
    return fail(started);
  }
  if (options.detach) return 0;
  std::optional<Terminal> terminal;
  if (options.console_socket.empty() && isatty(STDIN_FILENO) != 0) {
    const auto spec = container->Spec();
    if (spec.ok() && spec->process->terminal) {
      terminal.emplace(STDIN_FILENO);
      terminal->Acquire();
    }
  }
  const int status = SuperviseRun(*container, *pid, signals, terminal ? &*terminal : nullptr);
  terminal.reset();
  if (!options.keep) {
    const absl::Status deleted = container->Delete(true, log);
    if (!deleted.ok()) log.Warning(base::Std(deleted.message()));
  }
  return status;
}

absl::Status RunCommand(const std::string& command, const OciOptions& options,
                        const oci::Logrus& log) {
  if (command == "create") return Create(options, log);
  if (command == "start") return Start(options, log);
  if (command == "state") return State(options);
  if (command == "list") return List(options);
  if (command == "kill") return Kill(options);
  if (command == "delete") return Delete(options, log);
  if (command == "pause") return PauseOrResume(options, FrameKind::kPause);
  if (command == "resume") return PauseOrResume(options, FrameKind::kResume);
  if (command == "ps") return Ps(options);
  if (command == "events") return Events(options);
  if (command == "update") return UpdateContainer(options);
  if (command == "spec") return WriteSpec(options);
  if (command == "features") return Print(FeaturesJson() + "\n");
  return Wait(options);
}

}  // namespace

int RunOciCommand(const std::string& command, const OciOptions& options) {
  // Callers leak descriptors; none of them is for us, or for what we start.
  syscall(SYS_close_range, 3, ~0U, 0);
  oci::Logrus log;
  if (absl::Status status = log.Open(options.global.log, options.global.log_format); !status.ok()) {
    fprintf(stderr, "%s\n", std::string(status.message()).c_str());
    return 1;
  }
  log.set_debug(options.global.common.debug);
  if (!options.global.ignored.empty()) {
    log.Warning(
        absl::StrCat("without effect here: --", absl::StrJoin(options.global.ignored, ", --")));
  }
  if (command == "exec") return ExecInContainer(options, log);
  if (command == "run") return Run(options, log);
  const absl::Status status = RunCommand(command, options, log);
  if (status.ok()) return 0;
  log.Error(base::Std(status.message()));
  return 1;
}

}  // namespace runsc
