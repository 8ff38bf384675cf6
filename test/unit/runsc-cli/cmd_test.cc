#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "runsc-cli/cmd/arguments.h"
#include "runsc-cli/cmd/do.h"

namespace {

using cmd::DoOptions;
using cmd::Flags;

absl::StatusOr<DoOptions> Do(const std::vector<std::string>& arguments) {
  return cmd::ParseDo(arguments, cmd::CommonOptions{});
}

std::string ErrorOf(const std::vector<std::string>& arguments) {
  const auto options = Do(arguments);
  REQUIRE_FALSE(options.ok());
  return std::string(options.status().message());
}

TEST_CASE("flags come with one dash or two, joined or apart", "[cmd]") {
  std::string text;
  bool on = false;
  Flags flags("test");
  flags.Text("name", &text);
  flags.Switch("on", &on);
  for (const std::vector<std::string>& arguments : {std::vector<std::string>{"--name", "v", "-on"},
                                                    {"-name=v", "--on"},
                                                    {"--name=v", "--on=true"}}) {
    text.clear();
    on = false;
    const auto rest = flags.Parse(arguments);
    REQUIRE(rest.ok());
    CHECK(rest->empty());
    CHECK(text == "v");
    CHECK(on);
  }
}

TEST_CASE("a value may contain an equals sign, look like a flag, or be empty", "[cmd]") {
  std::string text;
  Flags flags("test");
  flags.Text("name", &text);
  CHECK(flags.Parse(std::vector<std::string>{"--name=a=b"}).ok());
  CHECK(text == "a=b");
  CHECK(flags.Parse(std::vector<std::string>{"--name", "--x"}).ok());
  CHECK(text == "--x");
  CHECK(flags.Parse(std::vector<std::string>{"--name="}).ok());
  CHECK(text.empty());
}

TEST_CASE("flags end at the first argument that is none, at -- and at a lone dash", "[cmd]") {
  bool on = false;
  Flags flags("test");
  flags.Switch("on", &on);
  const std::vector<std::string> program{"ls", "--on"};
  const auto at_program = flags.Parse(program);
  REQUIRE(at_program.ok());
  CHECK(at_program->size() == 2);
  const std::vector<std::string> dashes{"--", "--on"};
  const auto after_dashes = flags.Parse(dashes);
  REQUIRE(after_dashes.ok());
  CHECK(after_dashes->size() == 1);
  const std::vector<std::string> dash{"-"};
  CHECK(flags.Parse(dash)->size() == 1);
  CHECK_FALSE(on);
}

TEST_CASE("do collects what was asked for", "[cmd]") {
  const auto options = Do({"--root", "/img", "--cwd=/w", "-e", "A=1", "-e=B=2=3", "--uid", "5",
                           "--gid=6", "--volume", "/h:/g", "--volume=/h2:/g2:ro",
                           "--platform=ptrace", "--strace", "--", "ls", "--root"});
  REQUIRE(options.ok());
  CHECK(options->root == "/img");
  CHECK(options->cwd == "/w");
  CHECK(options->environment == std::vector<std::string>{"A=1", "B=2=3"});
  CHECK(options->uid == 5);
  CHECK(options->gid == 6);
  REQUIRE(options->volumes.size() == 2);
  CHECK(options->volumes[0].host_path == "/h");
  CHECK(options->volumes[0].guest_path == "/g");
  CHECK_FALSE(options->volumes[0].read_only);
  CHECK(options->volumes[1].guest_path == "/g2");
  CHECK(options->volumes[1].read_only);
  CHECK(options->common.platform == "ptrace");
  CHECK(options->common.strace);
  CHECK(options->command == std::vector<std::string>{"ls", "--root"});
}

TEST_CASE("do without flags runs as the caller over the host's root", "[cmd]") {
  const auto options = Do({"true"});
  REQUIRE(options.ok());
  CHECK(options->root == "/");
  CHECK(options->cwd.empty());
  CHECK_FALSE(options->uid.has_value());
  CHECK(options->common.platform == "auto");
}

TEST_CASE("do says what is wrong", "[cmd]") {
  CHECK(ErrorOf({}).find("needs a program") != std::string::npos);
  CHECK(ErrorOf({"--zap", "x"}) == "unknown flag --zap; see \"runsc help do\"");
  CHECK(ErrorOf({"-z", "x"}) == "unknown flag -z; see \"runsc help do\"");
  CHECK(ErrorOf({"--root"}) == "flag --root needs a value");
  CHECK(ErrorOf({"--uid", "-1", "x"}).find("takes a number") != std::string::npos);
  CHECK(ErrorOf({"--uid", "4294967295", "x"}).find("takes a number") != std::string::npos);
  CHECK(ErrorOf({"--uid", "4294967296", "x"}).find("takes a number") != std::string::npos);
  CHECK(ErrorOf({"--uid", "", "x"}).find("takes a number") != std::string::npos);
  CHECK(ErrorOf({"-e", "=x", "x"}).find("NAME=VALUE") != std::string::npos);
  CHECK(ErrorOf({"--volume", ":/g", "x"}).find("HOST:GUEST") != std::string::npos);
  CHECK(ErrorOf({"--volume", "/h:", "x"}).find("absolute") != std::string::npos);
  CHECK(ErrorOf({"--cwd", "w", "x"}).find("absolute") != std::string::npos);
}

}  // namespace
