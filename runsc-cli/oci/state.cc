#include "runsc-cli/oci/state.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "runsc-cli/oci/fields.h"

namespace oci {
namespace {

constexpr size_t kIdBytesMax = 255;

absl::Status HostError(const std::string& what) {
  return absl::InternalError(absl::StrCat(what, ": ", strerror(errno)));
}

absl::Status MakeDirectories(const std::string& path) {
  for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
    const std::string prefix = path.substr(0, end);
    if (mkdir(prefix.c_str(), 0711) != 0 && errno != EEXIST) return HostError("mkdir " + prefix);
    if (end == std::string::npos) return absl::OkStatus();
  }
}

}  // namespace

Json StateToJson(const ContainerState& state) {
  Json json;
  json.Set("ociVersion", state.version);
  json.Set("id", state.id);
  json.Set("pid", int64_t{state.pid});
  json.Set("pidStartTime", state.pid_start_time);
  json.Set("bundle", state.bundle);
  json.Set("rootfs", state.rootfs);
  json.Set("created", state.created);
  json.Set("owner", state.owner);
  Json& annotations = json.Set("annotations", Json::NewObject());
  for (const auto& [key, value] : state.annotations) annotations.Set(key, value);
  json.Set("cgroups", state.cgroups);
  Json& paths = json.Set("cgroupPaths", Json::NewObject());
  for (const auto& [controller, path] : state.cgroup_paths) paths.Set(controller, path);
  return json;
}

absl::StatusOr<ContainerState> StateFromJson(const Json& json) {
  absl::Status error;
  ContainerState state;
  Fields fields(json, "state.json", error);
  fields.Read("ociVersion", state.version);
  fields.Read("id", state.id);
  fields.Read("pid", state.pid);
  fields.Read("pidStartTime", state.pid_start_time);
  fields.Read("bundle", state.bundle);
  fields.Read("rootfs", state.rootfs);
  fields.Read("created", state.created);
  fields.Read("owner", state.owner);
  fields.Read("annotations", state.annotations);
  fields.Read("cgroups", state.cgroups);
  fields.Read("cgroupPaths", state.cgroup_paths);
  if (!error.ok()) return error;
  return state;
}

absl::Status ContainerDir::CheckId(const std::string& id) {
  if (id.empty()) return absl::InvalidArgumentError("container id cannot be empty");
  const auto allowed = [](char c) {
    return isalnum(static_cast<unsigned char>(c)) != 0 || c == '_' || c == '+' || c == '-' ||
           c == '.';
  };
  if (id.size() > kIdBytesMax || id == "." || id == ".." ||
      !std::all_of(id.begin(), id.end(), allowed)) {
    return absl::InvalidArgumentError(absl::StrCat("invalid container ID format: \"", id, "\""));
  }
  return absl::OkStatus();
}

absl::StatusOr<ContainerDir> ContainerDir::Create(const std::string& root, const std::string& id) {
  if (absl::Status status = CheckId(id); !status.ok()) return status;
  if (absl::Status status = MakeDirectories(root); !status.ok()) return status;
  const std::string path = absl::StrCat(root, "/", id);
  if (mkdir(path.c_str(), 0711) != 0) {
    if (errno == EEXIST) return absl::AlreadyExistsError("container with given ID already exists");
    return HostError("mkdir " + path);
  }
  base::Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) return HostError("open " + path);
  ContainerDir directory(path, std::move(fd));
  if (absl::Status status = directory.Lock(); !status.ok()) return status;
  return directory;
}

absl::StatusOr<ContainerDir> ContainerDir::Open(const std::string& root, const std::string& id) {
  if (absl::Status status = CheckId(id); !status.ok()) return status;
  const std::string path = absl::StrCat(root, "/", id);
  base::Fd fd(open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return absl::NotFoundError("container does not exist");
    return HostError("open " + path);
  }
  return ContainerDir(path, std::move(fd));
}

absl::StatusOr<std::vector<std::string>> ContainerDir::List(const std::string& root) {
  std::vector<std::string> ids;
  DIR* const directory = opendir(root.c_str());
  if (directory == nullptr) {
    if (errno == ENOENT) return ids;
    return HostError("open " + root);
  }
  while (const dirent* entry = readdir(directory)) {
    if (CheckId(entry->d_name).ok() && (entry->d_type == DT_DIR || entry->d_type == DT_UNKNOWN)) {
      ids.emplace_back(entry->d_name);
    }
  }
  closedir(directory);
  std::sort(ids.begin(), ids.end());
  return ids;
}

absl::Status ContainerDir::Lock() {
  while (flock(fd_.get(), LOCK_EX) != 0) {
    if (errno != EINTR) return HostError("lock " + path_);
  }
  // Whoever had it may have deleted the container.
  struct stat status{};
  if (fstat(fd_.get(), &status) == 0 && status.st_nlink == 0) {
    return absl::NotFoundError("container does not exist");
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ContainerDir::ReadFile(const char* name) const {
  const base::Fd fd(openat(fd_.get(), name, O_RDONLY | O_CLOEXEC));
  if (!fd) {
    if (errno == ENOENT) return absl::NotFoundError("container does not exist");
    return HostError(absl::StrCat("open ", path_, "/", name));
  }
  std::string text;
  char buffer[16384];
  ssize_t got = 0;
  while ((got = read(fd.get(), buffer, sizeof(buffer))) > 0) {
    text.append(buffer, static_cast<size_t>(got));
  }
  if (got < 0) return HostError(absl::StrCat("read ", path_, "/", name));
  return text;
}

absl::Status ContainerDir::WriteFile(const char* name, const std::string& text) const {
  const std::string fresh = absl::StrCat(".", name, ".", getpid());
  const base::Fd fd(
      openat(fd_.get(), fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  const bool written =
      fd && write(fd.get(), text.data(), text.size()) == static_cast<ssize_t>(text.size());
  if (!written || renameat(fd_.get(), fresh.c_str(), fd_.get(), name) != 0) {
    const absl::Status failed = HostError(absl::StrCat("write ", path_, "/", name));
    unlinkat(fd_.get(), fresh.c_str(), 0);
    return failed;
  }
  return absl::OkStatus();
}

absl::StatusOr<ContainerState> ContainerDir::ReadState() const {
  const auto text = ReadFile(kStateFile);
  if (!text.ok()) return text.status();
  const auto json = Json::Parse(*text);
  if (!json.ok()) {
    return absl::DataLossError(absl::StrCat(path_, "/state.json: ", json.status().message()));
  }
  return StateFromJson(*json);
}

absl::Status ContainerDir::WriteState(const ContainerState& state) const {
  return WriteFile(kStateFile, StateToJson(state).Dump());
}

absl::Status ContainerDir::Remove() const {
  // state.json goes first: from then on there is no container, whatever happens to this process.
  unlinkat(fd_.get(), kStateFile, 0);
  const int copy = openat(fd_.get(), ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR* const entries = copy < 0 ? nullptr : fdopendir(copy);
  if (entries == nullptr) return HostError("open " + path_);
  while (const dirent* entry = readdir(entries)) {
    if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
    unlinkat(fd_.get(), entry->d_name, 0);
  }
  closedir(entries);
  if (rmdir(path_.c_str()) != 0 && errno != ENOENT) return HostError("rmdir " + path_);
  return absl::OkStatus();
}

uint64_t ProcessStartTime(int32_t pid) {
  const base::Fd fd(open(absl::StrCat("/proc/", pid, "/stat").c_str(), O_RDONLY | O_CLOEXEC));
  char text[1024] = {};
  if (!fd || read(fd.get(), text, sizeof(text) - 1) <= 0) return 0;
  // The name in the second field may hold anything.
  const char* at = strrchr(text, ')');
  for (int field = 2; at != nullptr && field < 22; ++field) at = strchr(at + 1, ' ');
  return at == nullptr ? 0 : strtoull(at + 1, nullptr, 10);
}

std::string DefaultRoot() {
  const char* const runtime = getenv("XDG_RUNTIME_DIR");
  if (geteuid() != 0 && runtime != nullptr && runtime[0] == '/') {
    return absl::StrCat(runtime, "/runsc");
  }
  return "/run/runsc";
}

}  // namespace oci
