// The root of /proc: a directory per process, "self" and "thread-self", and the files about the
// system. Tasks come and go, so no dentry of this file system is trusted: what is about a task says
// whether the task is still there.

#include "sentry/fs/proc/proc.h"

#include <algorithm>
#include <charconv>
#include <cstdarg>
#include <cstdio>
#include <utility>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/current_task.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"

namespace sentry {
namespace {

constexpr uint64_t kProcMagic = 0x9fa0;
// Positions in a listing: static entries first, then processes by id.
constexpr uint64_t kProcessPositions = uint64_t{1} << 16;

class ProcRoot final : public StaticDirectory {
 public:
  explicit ProcRoot(ProcFileSystem& file_system)
      : StaticDirectory(file_system, 0555, 1), proc_(file_system) {}

  base::Result<InodeRef> Lookup(std::string_view name) override {
    int32_t pid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (error != std::errc() || end != name.data() + name.size() || pid <= 0 ||
        name.front() == '0') {
      return StaticDirectory::Lookup(name);
    }
    // A thread's id works here, too, though it is not listed (proc(5)).
    const int32_t global = ToGlobal(proc_.view(), pid);
    TaskRef task = global <= 0 ? nullptr : proc_.kernel().pids().FindTask(global);
    if (task == nullptr) return base::Errno(ENOENT);
    const Task* caller = CurrentTask();
    if (caller != nullptr && !proc_.MaySee(*caller, *task, ProcOptions::kInvisible))
      return base::Errno(ENOENT);
    return NewTaskDirectory(proc_, task, false);
  }

  base::Result<std::vector<Entry>> List(Task& task) override {
    std::vector<Entry> entries = TRY(StaticDirectory::List(task));
    for (const auto& group : proc_.kernel().pids().Groups()) {
      const int32_t seen = SeenBy(proc_.view(), group->id());
      const TaskRef leader = group->leader();
      if (seen <= 0 || leader == nullptr || !proc_.MaySee(task, *leader, ProcOptions::kInvisible))
        continue;
      entries.push_back({std::to_string(seen), TaskInodeNumber(group->id(), 0), DT_DIR,
                         kProcessPositions + static_cast<uint64_t>(seen)});
    }
    return entries;
  }

  base::Result<Attributes> GetAttributes() override {
    Attributes attributes = TRY(StaticDirectory::GetAttributes());
    attributes.nlink = static_cast<uint32_t>(2 + proc_.kernel().pids().Groups().size());
    return attributes;
  }

 private:
  ProcFileSystem& proc_;
};

}  // namespace

namespace {

std::string OptionsText(const ProcOptions& options) {
  std::string text;
  const auto add = [&](const std::string& item) { text += text.empty() ? item : "," + item; };
  if (options.exempt_group != 0) add(Format("gid=%u", options.exempt_group));
  if (options.hide == ProcOptions::kNoAccess) add("hidepid=noaccess");
  if (options.hide == ProcOptions::kInvisible) add("hidepid=invisible");
  if (options.hide == ProcOptions::kPtraceable) add("hidepid=ptraceable");
  if (options.only_processes) add("subset=pid");
  return text;
}

}  // namespace

base::Result<ProcOptions> ParseProcOptions(std::string_view text) {
  ProcOptions options;
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (item == "hidepid=0" || item == "hidepid=off") {
      options.hide = 0;
    } else if (item == "hidepid=1" || item == "hidepid=noaccess") {
      options.hide = ProcOptions::kNoAccess;
    } else if (item == "hidepid=2" || item == "hidepid=invisible") {
      options.hide = ProcOptions::kInvisible;
    } else if (item == "hidepid=4" || item == "hidepid=ptraceable") {
      options.hide = ProcOptions::kPtraceable;
    } else if (item == "subset=pid") {
      options.only_processes = true;
    } else if (item.starts_with("gid=")) {
      const std::string_view number = item.substr(4);
      const auto [end, error] =
          std::from_chars(number.data(), number.data() + number.size(), options.exempt_group);
      if (error != std::errc() || end != number.data() + number.size()) return base::Errno(EINVAL);
    } else if (!item.empty()) {
      return base::Errno(EINVAL);
    }
  }
  return options;
}

ProcFileSystem::ProcFileSystem(Kernel& kernel, PidViewRef view, const ProcOptions& options)
    : SyntheticFileSystem({.type_name = "proc",
                           .magic = kProcMagic,
                           .caches_dentries = false,
                           .options = OptionsText(options),
                           .is_kernel_view = true},
                          kernel.clock()),
      kernel_(kernel),
      view_(std::move(view)),
      proc_options_(options) {}

bool ProcFileSystem::MaySee(const Task& caller, const Task& subject, int level) const {
  if (proc_options_.hide < level) return true;
  if (proc_options_.hide != ProcOptions::kPtraceable &&
      caller.own_credentials().InGroup(proc_options_.exempt_group))
    return true;
  return MayInspect(caller, subject);
}

bool ProcFileSystem::Revalidate(Inode&, std::string_view, Inode& child) {
  const auto* transient = dynamic_cast<const TransientInode*>(&child);
  return transient == nullptr || transient->StillThere();
}

void AddText(ProcFileSystem& file_system, StaticDirectory& directory, std::string name,
             TextInode::Reader reader, uint32_t mode, TextInode::Writer writer) {
  directory.Add(std::move(name), std::make_shared<TextInode>(file_system, mode, std::move(reader),
                                                             std::move(writer)));
}

std::string Format(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  va_list again;
  va_copy(again, arguments);
  const int length = vsnprintf(nullptr, 0, format, arguments);
  va_end(arguments);
  std::string text(static_cast<size_t>(length), '\0');
  vsnprintf(text.data(), text.size() + 1, format, again);
  va_end(again);
  return text;
}

FileSystemRef NewProc(Kernel& kernel, PidViewRef view, const ProcOptions& options) {
  auto file_system = std::make_shared<ProcFileSystem>(kernel, view, options);
  file_system->set_network_directory(NewNetworkDirectory(*file_system));
  auto root = std::make_shared<ProcRoot>(*file_system);
  root->Add("self", std::make_shared<LinkInode>(
                        *file_system, [view](Task& task) -> base::Result<std::string> {
                          const int32_t seen = SeenBy(view, task.group().id());
                          if (seen == 0) return base::Errno(ENOENT);
                          return std::to_string(seen);
                        }));
  root->Add("thread-self", std::make_shared<LinkInode>(
                               *file_system, [view](Task& task) -> base::Result<std::string> {
                                 const int32_t seen = SeenBy(view, task.group().id());
                                 if (seen == 0) return base::Errno(ENOENT);
                                 return Format("%d/task/%d", seen, SeenBy(view, task.tid()));
                               }));
  if (options.only_processes) {
    file_system->SetRoot(std::move(root));
    return file_system;
  }
  root->Add("net", std::make_shared<LinkInode>(*file_system, std::string("self/net")));
  root->Add("mounts", std::make_shared<LinkInode>(*file_system, std::string("self/mounts")));
  root->Add("sys", NewSysctlDirectory(*file_system));
  AddSysvIpcDirectory(*file_system, *root);
  AddKeyFiles(*file_system, *root);
  AddConfigFile(*file_system, *root);
  AddSystemFiles(*file_system, *root);
  file_system->SetRoot(std::move(root));
  return file_system;
}

}  // namespace sentry
