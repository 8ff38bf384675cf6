// Keys in /proc: keys, key-users, and the quotas in sys/kernel/keys (keyrings(7)).

#include <limits>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/keys/keys.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

// A quota; never above what it is at the start: keys are the sentry's memory.
void AddQuota(ProcFileSystem& file_system, StaticDirectory& directory, const char* name,
              uint32_t KeyLimits::* field, uint32_t most) {
  AddText(
      file_system, directory, name,
      [field](Task& task) -> Result<std::string> {
        return std::to_string(task.kernel().keys().limits().*field) + "\n";
      },
      0644,
      [field, most](Task& task, std::string_view text) -> Result<void> {
        const int64_t value = TRY(ParseControlNumber(text));
        if (value < 0 || value > int64_t{most}) return Errno(EINVAL);
        KeyLimits limits = task.kernel().keys().limits();
        limits.*field = static_cast<uint32_t>(value);
        task.kernel().keys().set_limits(limits);
        return {};
      });
}

}  // namespace

void AddKeyFiles(ProcFileSystem& file_system, StaticDirectory& root) {
  AddText(file_system, root, "keys",
          [](Task& task) -> Result<std::string> { return task.kernel().keys().KeysText(task); });
  AddText(file_system, root, "key-users",
          [](Task& task) -> Result<std::string> { return task.kernel().keys().UsersText(); });
}

void AddKeySysctls(ProcFileSystem& file_system, StaticDirectory& directory) {
  const KeyLimits most;
  AddQuota(file_system, directory, "maxkeys", &KeyLimits::keys_max, most.root_keys_max);
  AddQuota(file_system, directory, "maxbytes", &KeyLimits::bytes_max, most.root_bytes_max);
  AddQuota(file_system, directory, "root_maxkeys", &KeyLimits::root_keys_max, most.root_keys_max);
  AddQuota(file_system, directory, "root_maxbytes", &KeyLimits::root_bytes_max,
           most.root_bytes_max);
  AddQuota(file_system, directory, "gc_delay", &KeyLimits::gc_delay_s,
           std::numeric_limits<int32_t>::max());
  AddText(file_system, directory, "persistent_keyring_expiry",
          [](Task&) -> Result<std::string> { return std::string("259200\n"); });
}

}  // namespace sentry
