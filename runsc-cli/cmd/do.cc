#include "runsc-cli/cmd/do.h"

#include <charconv>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"

namespace cmd {
namespace {

using base::Absl;

absl::Status ParseId(std::string_view text, std::optional<uint32_t>& id) {
  uint32_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  // (uid_t)-1 means "no change" in the kernel's interfaces and is nobody's id.
  if (error != std::errc() || end != text.data() + text.size() || value == UINT32_MAX) {
    return absl::InvalidArgumentError(absl::StrCat("takes a number, not \"", Absl(text), "\""));
  }
  id = value;
  return absl::OkStatus();
}

absl::Status ParseVolume(std::string_view text, std::vector<Volume>& volumes) {
  Volume volume;
  std::string_view rest = text;
  if (rest.ends_with(":ro")) {
    volume.read_only = true;
    rest.remove_suffix(3);
  } else if (rest.ends_with(":rw")) {
    rest.remove_suffix(3);
  }
  const size_t colon = rest.find(':');
  if (colon == std::string_view::npos || colon == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("takes HOST:GUEST or HOST:GUEST:ro, not \"", Absl(text), "\""));
  }
  volume.host_path = rest.substr(0, colon);
  volume.guest_path = rest.substr(colon + 1);
  if (!volume.guest_path.starts_with('/')) {
    return absl::InvalidArgumentError(
        absl::StrCat("needs an absolute path in the guest, not \"", volume.guest_path, "\""));
  }
  volumes.push_back(std::move(volume));
  return absl::OkStatus();
}

absl::Status ParseVariable(std::string_view text, std::vector<std::string>& environment) {
  const size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return absl::InvalidArgumentError(absl::StrCat("takes NAME=VALUE, not \"", Absl(text), "\""));
  }
  environment.emplace_back(text);
  return absl::OkStatus();
}

// One of `values`, else a message that lists them.
void AddChoice(Flags& flags, std::string name, std::string* value,
               std::vector<std::string> values) {
  flags.Custom(std::move(name), [value, values](std::string_view text) -> absl::Status {
    std::string known;
    for (const std::string& candidate : values) {
      if (candidate == text) {
        *value = candidate;
        return absl::OkStatus();
      }
      absl::StrAppend(&known, known.empty() ? "" : ", ", candidate);
    }
    return absl::InvalidArgumentError(
        absl::StrCat("takes one of ", known, ", not \"", Absl(text), "\""));
  });
}

}  // namespace

void AddCommonFlags(Flags& flags, CommonOptions& options) {
  AddChoice(flags, "platform", &options.platform, {"auto", "systrap", "ptrace"});
  flags.Custom("network", [&options](std::string_view text) -> absl::Status {
    if (text == "host") {
      return absl::InvalidArgumentError(
          "does not take \"host\" yet: this build has no network but loopback; use --network=none");
    }
    if (text != "none" && text != "sandbox") {
      return absl::InvalidArgumentError(
          absl::StrCat("takes none or sandbox, not \"", Absl(text), "\""));
    }
    options.network = text;
    return absl::OkStatus();
  });
  AddChoice(flags, "rewrite", &options.rewrite, {"on", "off"});
  AddChoice(flags, "file-access", &options.file_access, {"exclusive", "shared"});
  flags.Text("debug-log", &options.debug_log);
  flags.Switch("strace", &options.strace);
  flags.Switch("debug", &options.debug);
  flags.Switch("timing", &options.timing);
}

absl::StatusOr<DoOptions> ParseDo(std::span<const std::string> arguments,
                                  const CommonOptions& common) {
  DoOptions options;
  options.common = common;
  Flags flags("do");
  AddCommonFlags(flags, options.common);
  flags.Text("root", &options.root);
  flags.Text("cwd", &options.cwd);
  const auto variable = [&options](std::string_view text) {
    return ParseVariable(text, options.environment);
  };
  flags.Custom("e", variable);
  flags.Custom("env", variable);
  flags.Custom("uid", [&options](std::string_view text) { return ParseId(text, options.uid); });
  flags.Custom("gid", [&options](std::string_view text) { return ParseId(text, options.gid); });
  flags.Custom("volume",
               [&options](std::string_view text) { return ParseVolume(text, options.volumes); });

  flags.Text("network-namespace", &options.network_namespace);
  AddChoice(flags, "provoke-violation", &options.provoke_violation, {"sentry", "gofer"});

  const auto rest = flags.Parse(arguments);
  if (!rest.ok()) return rest.status();
  if (rest->empty()) {
    return absl::InvalidArgumentError(
        "\"do\" needs a program to run, as in: runsc do -- bash; see \"runsc help do\"");
  }
  if (!options.cwd.empty() && !options.cwd.starts_with('/')) {
    return absl::InvalidArgumentError(
        absl::StrCat("flag --cwd needs an absolute path in the guest, not \"", options.cwd, "\""));
  }
  if (options.common.network != "sandbox" && !options.network_namespace.empty()) {
    return absl::InvalidArgumentError("flag --network-namespace needs --network=sandbox");
  }
  options.command.assign(rest->begin(), rest->end());
  return options;
}

}  // namespace cmd
