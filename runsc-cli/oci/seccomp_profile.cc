#include "runsc-cli/oci/seccomp_profile.h"

#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/base/fd.h"

namespace oci {
namespace {

struct Context {
  explicit Context(uint32_t action) : handle(seccomp_init(action)) {}
  ~Context() {
    if (handle != nullptr) seccomp_release(handle);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  scmp_filter_ctx handle;
};

absl::StatusOr<uint32_t> Action(const std::string& name, std::optional<uint32_t> error,
                                const std::string& field) {
  const auto number = static_cast<uint16_t>(error.value_or(EPERM));
  if (name == "SCMP_ACT_ALLOW") return SCMP_ACT_ALLOW;
  if (name == "SCMP_ACT_ERRNO") return SCMP_ACT_ERRNO(number);
  if (name == "SCMP_ACT_KILL" || name == "SCMP_ACT_KILL_THREAD") return SCMP_ACT_KILL_THREAD;
  if (name == "SCMP_ACT_KILL_PROCESS") return SCMP_ACT_KILL_PROCESS;
  if (name == "SCMP_ACT_TRAP") return SCMP_ACT_TRAP;
  if (name == "SCMP_ACT_TRACE") return SCMP_ACT_TRACE(number);
  if (name == "SCMP_ACT_LOG") return SCMP_ACT_LOG;
  if (name == "SCMP_ACT_NOTIFY") {
    return absl::UnimplementedError(
        absl::StrCat(field, ": SCMP_ACT_NOTIFY is not supported in a sandbox"));
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": unknown action \"", name, "\""));
}

absl::StatusOr<scmp_compare> Operation(const std::string& name, const std::string& field) {
  constexpr std::pair<const char*, scmp_compare> kOperations[] = {
      {"SCMP_CMP_NE", SCMP_CMP_NE},
      {"SCMP_CMP_LT", SCMP_CMP_LT},
      {"SCMP_CMP_LE", SCMP_CMP_LE},
      {"SCMP_CMP_EQ", SCMP_CMP_EQ},
      {"SCMP_CMP_GE", SCMP_CMP_GE},
      {"SCMP_CMP_GT", SCMP_CMP_GT},
      {"SCMP_CMP_MASKED_EQ", SCMP_CMP_MASKED_EQ}};
  for (const auto& [known, operation] : kOperations) {
    if (name == known) return operation;
  }
  return absl::InvalidArgumentError(absl::StrCat(field, ": unknown operator \"", name, "\""));
}

absl::Status Refused(const std::string& field, int result) {
  return absl::InvalidArgumentError(absl::StrCat(field, ": libseccomp says: ", strerror(-result)));
}

absl::Status AddRule(scmp_filter_ctx filter, uint32_t default_action, const SeccompRule& rule,
                     const std::string& field, std::vector<std::string>& unknown) {
  const auto action = Action(rule.action, rule.error, field + ".action");
  if (!action.ok()) return action.status();
  if (*action == default_action) return absl::OkStatus();
  std::vector<scmp_arg_cmp> tests;
  bool index_used[6] = {};
  bool repeated = false;
  for (const SeccompArgument& argument : rule.arguments) {
    const auto operation = Operation(argument.operation, field + ".args.op");
    if (!operation.ok()) return operation.status();
    // valueTwo is what a masked comparison is compared with; value the mask.
    tests.push_back({argument.index, *operation, argument.value, argument.value_two});
    repeated = repeated || index_used[argument.index];
    index_used[argument.index] = true;
  }
  for (const std::string& name : rule.names) {
    const int number = seccomp_syscall_resolve_name(name.c_str());
    if (number == __NR_SCMP_ERROR) {
      unknown.push_back(name);
      continue;
    }
    if (number < 0) continue;  // Another architecture's.
    int result = 0;
    if (repeated) {
      // Several tests of one argument are alternatives, as runc has always taken them.
      for (const scmp_arg_cmp& test : tests) {
        result = seccomp_rule_add_array(filter, *action, number, 1, &test);
        if (result < 0 && result != -EEXIST) break;
      }
    } else {
      result = seccomp_rule_add_array(filter, *action, number, static_cast<unsigned>(tests.size()),
                                      tests.data());
    }
    if (result < 0 && result != -EEXIST)
      return Refused(absl::StrCat(field, " (", name, ")"), result);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<CompiledProfile> CompileSeccomp(const SeccompProfile& profile) {
  if (!profile.listener_path.empty()) {
    return absl::UnimplementedError(
        "linux.seccomp.listenerPath: notification is not supported in a sandbox");
  }
  const auto default_action =
      Action(profile.default_action, profile.default_error, "linux.seccomp.defaultAction");
  if (!default_action.ok()) return default_action.status();
  // The guest has the architecture of this program alone, so those that the profile lists beside
  // it do not matter: a call of another one fails the filter's first test, as it must.
  const Context context(*default_action);
  if (context.handle == nullptr)
    return absl::ResourceExhaustedError("linux.seccomp: out of memory");
  seccomp_attr_set(context.handle, SCMP_FLTATR_CTL_OPTIMIZE, 2);
  CompiledProfile compiled;
  for (size_t i = 0; i < profile.rules.size(); ++i) {
    const absl::Status added =
        AddRule(context.handle, *default_action, profile.rules[i],
                absl::StrCat("linux.seccomp.syscalls[", i, "]"), compiled.unknown);
    if (!added.ok()) return added;
  }
  const base::Fd file(memfd_create("profile", MFD_CLOEXEC));
  int result = file ? seccomp_export_bpf(context.handle, file.get()) : -errno;
  if (result < 0) return Refused("linux.seccomp", result);
  char buffer[4096];
  off_t at = 0;
  ssize_t got = 0;
  while ((got = pread(file.get(), buffer, sizeof(buffer), at)) > 0) {
    compiled.program.append(buffer, static_cast<size_t>(got));
    at += got;
  }
  return compiled;
}

}  // namespace oci
