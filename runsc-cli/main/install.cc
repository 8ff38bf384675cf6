#include "runsc-cli/main/install.h"

#include <fcntl.h>
#include <limits.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <vector>

#include "absl/strings/str_cat.h"
#include "runsc-cli/cmd/arguments.h"
#include "runsc-cli/oci/json.h"
#include "runsc-cli/oci/spec.h"

namespace runsc {
namespace {

using oci::Json;

struct Options {
  std::string file = "/etc/docker/daemon.json";
  std::string name = "runsc";
  bool experimental = false;
  bool clobber = true;
  std::string cgroup_driver;
  std::vector<std::string> runtime_arguments;
};

int Fail(absl::string_view message) {
  fprintf(stderr, "runsc: %s\n", std::string(message).c_str());
  return 1;
}

absl::StatusOr<Options> Parse(const char* command, std::span<const std::string> arguments) {
  Options options;
  cmd::Flags flags(command);
  flags.Text("config_file", &options.file);
  flags.Text("config-file", &options.file);
  flags.Text("runtime", &options.name);
  flags.Switch("experimental", &options.experimental);
  flags.Switch("clobber", &options.clobber);
  flags.Text("cgroupdriver", &options.cgroup_driver);
  const auto rest = flags.Parse(arguments);
  if (!rest.ok()) return rest.status();
  options.runtime_arguments.assign(rest->begin(), rest->end());
  return options;
}

// An absent file is an empty object.
absl::StatusOr<Json> Load(const std::string& path) {
  if (access(path.c_str(), F_OK) != 0 && errno == ENOENT) return Json::NewObject();
  const auto text = oci::ReadTextFile(path);
  if (!text.ok()) return text.status();
  auto json = Json::Parse(text->find_first_not_of(" \t\r\n") == std::string::npos ? "{}" : *text);
  if (!json.ok()) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": ", json.status().message()));
  }
  if (json->object() == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(path, ": must be an object"));
  }
  return json;
}

// By rename, with the mode that the file had: Docker may start at any time.
absl::Status Store(const std::string& path, const Json& json) {
  const size_t slash = path.rfind('/');
  if (slash != std::string::npos && slash != 0) mkdir(path.substr(0, slash).c_str(), 0755);
  struct stat old{};
  const mode_t mode = stat(path.c_str(), &old) == 0 ? old.st_mode & 0777 : 0644;
  const std::string fresh = absl::StrCat(path, ".", getpid(), ".new");
  const std::string text = json.Dump(4) + "\n";
  FILE* const file = fopen(fresh.c_str(), "we");
  const bool written = file != nullptr && fputs(text.c_str(), file) >= 0 &&
                       fchmod(fileno(file), mode) == 0 && fflush(file) == 0 &&
                       fsync(fileno(file)) == 0;
  if (file != nullptr) fclose(file);
  if (written && rename(fresh.c_str(), path.c_str()) == 0) return absl::OkStatus();
  const int error = errno;
  unlink(fresh.c_str());
  return absl::InternalError(absl::StrCat("cannot write ", path, ": ", strerror(error)));
}

}  // namespace

int InstallRuntime(std::span<const std::string> arguments) {
  const auto options = Parse("install", arguments);
  if (!options.ok()) return Fail(options.status().message());
  auto json = Load(options->file);
  if (!json.ok()) return Fail(json.status().message());
  char self[PATH_MAX] = {};
  if (readlink("/proc/self/exe", self, sizeof(self) - 1) <= 0) {
    return Fail(absl::StrCat("cannot read /proc/self/exe: ", strerror(errno)));
  }
  const Json* const known = json->Find("runtimes");
  if (known != nullptr && known->object() == nullptr) {
    return Fail(absl::StrCat(options->file, ": runtimes: must be an object"));
  }
  if (!options->clobber && known != nullptr && known->Find(options->name) != nullptr) {
    return Fail(absl::StrCat(options->file, ": there is a runtime \"", options->name,
                             "\" already, and --clobber=false"));
  }
  Json runtimes = known != nullptr ? *known : Json::NewObject();
  Json entry;
  entry.Set("path", self);
  if (!options->runtime_arguments.empty()) entry.Set("runtimeArgs", options->runtime_arguments);
  runtimes.Set(options->name, std::move(entry));
  json->Set("runtimes", std::move(runtimes));
  if (options->experimental) json->Set("experimental", true);
  if (!options->cgroup_driver.empty()) {
    json->Set("exec-opts", std::vector<std::string>{
                               absl::StrCat("native.cgroupdriver=", options->cgroup_driver)});
  }
  const absl::Status stored = Store(options->file, *json);
  if (!stored.ok()) return Fail(stored.message());
  printf(
      "Runtime %s is now in %s. Restart the Docker daemon to use it (systemctl reload docker).\n",
      options->name.c_str(), options->file.c_str());
  return 0;
}

int UninstallRuntime(std::span<const std::string> arguments) {
  const auto options = Parse("uninstall", arguments);
  if (!options.ok()) return Fail(options.status().message());
  auto json = Load(options->file);
  if (!json.ok()) return Fail(json.status().message());
  const Json* const known = json->Find("runtimes");
  if (known == nullptr || known->Find(options->name) == nullptr) {
    return Fail(absl::StrCat(options->file, ": there is no runtime \"", options->name, "\""));
  }
  Json runtimes = *known;
  std::erase_if(*runtimes.object(),
                [&](const Json::Member& member) { return member.first == options->name; });
  json->Set("runtimes", std::move(runtimes));
  const absl::Status stored = Store(options->file, *json);
  if (!stored.ok()) return Fail(stored.message());
  printf("Runtime %s is no longer in %s.\n", options->name.c_str(), options->file.c_str());
  return 0;
}

}  // namespace runsc
