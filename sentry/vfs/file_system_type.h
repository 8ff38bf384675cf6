#pragma once

// The kinds of file systems that mount(2) and fsopen(2) make.

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"
#include "sentry/vfs/file_system.h"

namespace sentry {

class Task;

struct FileSystemType {
  // `options`: comma-separated, as mount(2) passes them. Null task: set-up. The source is there
  // for the kinds to which it means something.
  struct Request {
    Task* task = nullptr;
    std::string_view source;
    std::string_view options;
  };
  std::function<base::Result<FileSystemRef>(const Request&)> make;
  // What fsconfig(2) asks for each parameter as it comes; null: everything is looked at by `make`.
  // `has_value` is false for flags.
  std::function<base::Result<void>(std::string_view key, std::string_view value, bool has_value)>
      check;
  // CAP_SYS_ADMIN in the task's own user namespace is enough (FS_USERNS_MOUNT).
  bool in_user_namespaces = false;
};

class FileSystemTypes {
 public:
  void Register(std::string name, FileSystemType type) {
    types_.insert_or_assign(std::move(name), std::move(type));
  }
  // Null if there is none of that name.
  const FileSystemType* Find(std::string_view name) const {
    const auto found = types_.find(name);
    return found == types_.end() ? nullptr : &found->second;
  }
  // For /proc/filesystems.
  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& [name, type] : types_) names.push_back(name);
    return names;
  }

 private:
  std::map<std::string, FileSystemType, std::less<>> types_;
};

}  // namespace sentry
