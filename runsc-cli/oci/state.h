#pragma once

// What is known of a container between two commands: a directory per container below --root.
//
//   <root>/<id>/            0711; flock'ed by each command that changes something
//     state.json            written by rename: a reader sees the old or the new one
//     config.json           the container's configuration as it was at its creation
//     control               the supervisor's socket: its answer, not a file, says what runs
//     exit                  the status of a container that has ended
//
// A directory without state.json is what a killed `create` has left; only `delete --force` and
// `create` of the same id (which refuses) take notice of it. Nothing here needs cleaning for
// correctness: a container is alive if and only if its supervisor answers.

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "platform/base/fd.h"
#include "runsc-cli/oci/spec.h"

namespace oci {

struct ContainerState {
  std::string version;
  std::string id;
  std::string bundle;
  std::string rootfs;
  std::string created;
  int32_t pid = 0;              // The supervisor; 0 until it exists.
  uint64_t pid_start_time = 0;  // Of that process, in clock ticks since boot: ids are used again.
  std::string owner;
  Pairs annotations;
  std::vector<std::string> cgroups;  // Directories that were made for it.
  // Statistics and limits: controller ("memory", "" for v2) to directory.
  Pairs cgroup_paths;
};

Json StateToJson(const ContainerState& state);
absl::StatusOr<ContainerState> StateFromJson(const Json& json);

class ContainerDir {
 public:
  static constexpr char kStateFile[] = "state.json";
  static constexpr char kConfigFile[] = "config.json";
  static constexpr char kControlSocket[] = "control";
  static constexpr char kExitFile[] = "exit";

  // Makes root and directory; AlreadyExists. The directory is locked.
  static absl::StatusOr<ContainerDir> Create(const std::string& root, const std::string& id);
  // NotFound: "container does not exist". Not locked.
  static absl::StatusOr<ContainerDir> Open(const std::string& root, const std::string& id);
  // Ids with a directory, sorted.
  static absl::StatusOr<std::vector<std::string>> List(const std::string& root);
  static absl::Status CheckId(const std::string& id);

  // Held until this object goes.
  absl::Status Lock();
  absl::StatusOr<ContainerState> ReadState() const;
  absl::Status WriteState(const ContainerState& state) const;
  absl::StatusOr<std::string> ReadFile(const char* name) const;
  // By rename.
  absl::Status WriteFile(const char* name, const std::string& text) const;
  // The directory with what is in it.
  absl::Status Remove() const;

  int fd() const { return fd_.get(); }
  const std::string& path() const { return path_; }

 private:
  ContainerDir(std::string path, base::Fd fd) : path_(std::move(path)), fd_(std::move(fd)) {}

  std::string path_;
  base::Fd fd_;
};

// Field 22 of /proc/PID/stat; 0 if there is no such process.
uint64_t ProcessStartTime(int32_t pid);
// /run/runsc, or below XDG_RUNTIME_DIR for an ordinary user.
std::string DefaultRoot();

}  // namespace oci
