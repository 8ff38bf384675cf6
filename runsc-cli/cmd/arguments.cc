#include "runsc-cli/cmd/arguments.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"

namespace cmd {

using base::Absl;

void Flags::Switch(std::string name, bool* value) {
  flags_.push_back({std::move(name), false, [value](std::string_view text) -> absl::Status {
                      if (text != "true" && text != "false" && text != "1" && text != "0") {
                        return absl::InvalidArgumentError("takes true or false");
                      }
                      *value = text == "true" || text == "1";
                      return absl::OkStatus();
                    }});
}

void Flags::Text(std::string name, std::string* value) {
  Custom(std::move(name), [value](std::string_view text) {
    *value = text;
    return absl::OkStatus();
  });
}

void Flags::List(std::string name, std::vector<std::string>* values) {
  Custom(std::move(name), [values](std::string_view text) {
    values->emplace_back(text);
    return absl::OkStatus();
  });
}

void Flags::Custom(std::string name, std::function<absl::Status(std::string_view)> handler) {
  flags_.push_back({std::move(name), true, std::move(handler)});
}

void Flags::Ignore(std::string name, bool takes_value, std::function<void()> note) {
  flags_.push_back(
      {std::move(name), takes_value, [note = std::move(note)](std::string_view) -> absl::Status {
         note();
         return absl::OkStatus();
       }});
}

const Flags::Flag* Flags::Find(std::string_view name) const {
  for (const Flag& flag : flags_) {
    if (flag.name == name) return &flag;
  }
  return nullptr;
}

absl::StatusOr<std::span<const std::string>> Flags::Parse(
    std::span<const std::string> arguments) const {
  while (!arguments.empty()) {
    const std::string_view whole = arguments.front();
    if (whole.size() < 2 || whole.front() != '-') return arguments;
    arguments = arguments.subspan(1);
    if (whole == "--") return arguments;

    std::string_view name = whole.substr(whole.starts_with("--") ? 2 : 1);
    std::string_view value = "true";
    const size_t equals = name.find('=');
    if (equals != std::string_view::npos) {
      value = name.substr(equals + 1);
      name = name.substr(0, equals);
    }
    const Flag* const flag = Find(name);
    const std::string shown = absl::StrCat(name.size() == 1 ? "-" : "--", Absl(name));
    if (flag == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat("unknown flag ", shown, "; see \"runsc help",
                                                     command_.empty() ? "" : " ", command_, "\""));
    }
    if (flag->takes_value && equals == std::string_view::npos) {
      if (arguments.empty()) {
        return absl::InvalidArgumentError(absl::StrCat("flag ", shown, " needs a value"));
      }
      value = arguments.front();
      arguments = arguments.subspan(1);
    }
    const absl::Status status = flag->handler(value);
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat("flag ", shown, " ", status.message()));
    }
  }
  return arguments;
}

}  // namespace cmd
