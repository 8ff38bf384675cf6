#pragma once

// Command-line flags the way gVisor's users type them: --name value, --name=value, -name, in any
// mix, up to the first argument that is no flag or to "--".

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace cmd {

class Flags {
 public:
  // `command` names the flags' owner in error messages.
  explicit Flags(std::string command) : command_(std::move(command)) {}

  // A flag that takes no value, or =true and =false.
  void Switch(std::string name, bool* value);
  // The last one given counts.
  void Text(std::string name, std::string* value);
  // Any number of times.
  void List(std::string name, std::vector<std::string>* values);
  // Runs for each value; its error is reported with the flag's name in front.
  void Custom(std::string name, std::function<absl::Status(std::string_view)> handler);

  // Known and without effect; `note` is told. A switch may be given a value by "=".
  void Ignore(std::string name, bool takes_value, std::function<void()> note);

  // Handles the flags at the head of `arguments` and returns what follows them.
  absl::StatusOr<std::span<const std::string>> Parse(std::span<const std::string> arguments) const;

 private:
  struct Flag {
    std::string name;
    bool takes_value;
    std::function<absl::Status(std::string_view)> handler;
  };
  const Flag* Find(std::string_view name) const;

  std::string command_;
  std::vector<Flag> flags_;
};

}  // namespace cmd
