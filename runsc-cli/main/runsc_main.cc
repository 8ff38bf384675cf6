// runsc: the command line.

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "runsc-cli/cmd/arguments.h"
#include "runsc-cli/cmd/do.h"
#include "runsc-cli/cmd/help.h"
#include "runsc-cli/cmd/oci_options.h"
#include "runsc-cli/main/container.h"
#include "runsc-cli/main/install.h"
#include "runsc-cli/main/launch.h"
#include "runsc-cli/main/prepare.h"
#include "runsc-cli/main/timing.h"

namespace runsc {
namespace {

int Complain(const std::string& line) {
  fprintf(stderr, "runsc: %s\n", line.c_str());
  return kOwnFailure;
}

int Print(const std::string& text) {
  if (fputs(text.c_str(), stdout) < 0 || fflush(stdout) != 0) {
    return Complain("cannot write to standard output");
  }
  return 0;
}

// The tables are the sentry's: see help_tables.h.
int PrintTable(const std::string& topic) {
  const auto sentry = OpenHelperProgram("runsc-sentry");
  if (!sentry.ok()) return Complain(std::string(sentry.status().message()));
  char* const arguments[] = {const_cast<char*>("runsc-sentry"), const_cast<char*>("help"),
                             const_cast<char*>(topic.c_str()), nullptr};
  fexecve(sentry->get(), arguments, environ);
  return Complain(std::string("cannot execute runsc-sentry: ") + strerror(errno));
}

int Help(std::span<const std::string> arguments) {
  if (arguments.empty()) return Print(cmd::OverviewText());
  if (arguments.size() > 1) return Complain("\"help\" takes one topic: do, filters or syscalls");
  const std::string& topic = arguments[0];
  if (topic == "do") return Print(cmd::DoText());
  if (topic == "filters" || topic == "syscalls") return PrintTable(topic);
  if (const std::string text = cmd::CommandText(topic); !text.empty()) return Print(text);
  return Complain("no help on \"" + topic + "\"; there is: do, filters, syscalls");
}

int RunscMain(int argc, char** argv) {
  const uint64_t start_ns = MonotonicNs();
  const std::vector<std::string> arguments(argv + (argc > 0 ? 1 : 0), argv + argc);

  cmd::GlobalOptions global;
  cmd::CommonOptions& common = global.common;
  bool version = false;
  bool help = false;
  cmd::Flags flags("");
  cmd::AddCommonFlags(flags, common);
  cmd::AddGlobalFlags(flags, global);
  flags.Switch("version", &version);
  flags.Switch("v", &version);
  flags.Switch("help", &help);
  flags.Switch("h", &help);
  const auto rest = flags.Parse(arguments);
  if (!rest.ok()) return Complain(std::string(rest.status().message()));
  if (version) return Print(cmd::VersionText());
  if (help) return Help({});
  if (rest->empty()) return Complain("no command; there is: do, help; see \"runsc help\"");

  const std::string& command = rest->front();
  const std::span<const std::string> operands = rest->subspan(1);
  if (command == "help") return Help(operands);
  if (command == "do") {
    const auto options = cmd::ParseDo(operands, common);
    if (!options.ok()) return Complain(std::string(options.status().message()));
    return RunDo(*options, start_ns);
  }
  if (command == "completion") {
    if (operands.size() == 1 && operands[0] == "bash") return Print(cmd::CompletionText());
    return Complain("\"completion\" takes the name of a shell: bash");
  }
  if (command == "install") return InstallRuntime(operands);
  if (command == "uninstall") return UninstallRuntime(operands);
  if (cmd::IsOciCommand(command)) {
    const auto options = cmd::ParseOci(command, operands, global);
    if (!options.ok()) {
      fprintf(stderr, "runsc: %s\n", std::string(options.status().message()).c_str());
      return 1;
    }
    return RunOciCommand(command, *options);
  }
  return Complain("unknown command \"" + command + "\"; there is: do, help; see \"runsc help\"");
}

}  // namespace
}  // namespace runsc

int main(int argc, char** argv) { return runsc::RunscMain(argc, argv); }
