#pragma once

// The life of a container as the commands see it: created by one invocation of runsc, started,
// signalled and deleted by others.

#include <sys/types.h>

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runsc-cli/cmd/oci_options.h"
#include "runsc-cli/main/control_socket.h"
#include "runsc-cli/oci/cgroup.h"
#include "runsc-cli/oci/logrus.h"
#include "runsc-cli/oci/state.h"

namespace runsc {

// A command's connection to the supervisor. NotFound: nobody is there, so the container has ended.
class ControlClient {
 public:
  static absl::StatusOr<ControlClient> Connect(const oci::ContainerDir& directory);
  // Sends and waits for the answer. The end of the line is an error: kUnavailable.
  absl::StatusOr<Frame> Call(FrameKind kind, int64_t value = 0, std::span<const int> fds = {});
  // Call, whose reply says 0, or why not: then `fallback` is used if it has no text.
  absl::Status Request(FrameKind kind, int64_t value, const char* fallback);
  int fd() const { return socket_.get(); }

 private:
  explicit ControlClient(base::Fd socket) : socket_(std::move(socket)) {}
  base::Fd socket_;
};

class Container {
 public:
  static absl::StatusOr<Container> Open(const std::string& root, const std::string& id);

  const oci::ContainerState& state() const { return state_; }
  const oci::ContainerDir& directory() const { return directory_; }
  // Asks the supervisor.
  ContainerStatus Status() const;
  absl::StatusOr<oci::Spec> Spec() const;
  oci::Cgroups Cgroups() const;
  absl::Status Lock() { return directory_.Lock(); }

  absl::Status Start(const oci::Logrus& log);
  absl::Status Kill(int signal, bool all) const;
  absl::Status Delete(bool force, const oci::Logrus& log);
  // As `state` prints it; also what hooks get.
  oci::Json Describe(ContainerStatus status) const;

 private:
  Container(oci::ContainerDir directory, oci::ContainerState state)
      : directory_(std::move(directory)), state_(std::move(state)) {}
  void EndProcesses() const;

  oci::ContainerDir directory_;
  oci::ContainerState state_;
};

const char* StatusName(ContainerStatus status);

// The id of the supervisor's process, whose parent is the caller. After a failure nothing is left.
// `foreground`: the caller stays, so its own terminal may be the container's.
absl::StatusOr<pid_t> CreateContainer(const cmd::OciOptions& options, const oci::Logrus& log,
                                      bool foreground);
// The status that the command exits with.
int ExecInContainer(const cmd::OciOptions& options, const oci::Logrus& log);
int RunOciCommand(const std::string& command, const cmd::OciOptions& options);

absl::Status WritePidFile(const std::string& path, pid_t pid);
std::string StateRoot(const cmd::OciOptions& options);

}  // namespace runsc
