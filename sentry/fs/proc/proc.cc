// The root of /proc: a directory per process, "self" and "thread-self", and the files about the
// system. Tasks come and go, so no dentry of this file system is trusted: what is about a task says
// whether the task is still there.

#include "sentry/fs/proc/proc.h"

#include <charconv>
#include <cstdarg>
#include <cstdio>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"

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
    TaskRef task = proc_.kernel().pids().FindTask(pid);
    if (task == nullptr) return base::Errno(ENOENT);
    return NewTaskDirectory(proc_, task, false);
  }

  base::Result<std::vector<Entry>> List(Task& task) override {
    std::vector<Entry> entries = TRY(StaticDirectory::List(task));
    for (const auto& group : proc_.kernel().pids().Groups()) {
      entries.push_back({std::to_string(group->id()), TaskInodeNumber(group->id(), 0), DT_DIR,
                         kProcessPositions + static_cast<uint64_t>(group->id())});
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

ProcFileSystem::ProcFileSystem(Kernel& kernel)
    : SyntheticFileSystem({.type_name = "proc", .magic = kProcMagic, .caches_dentries = false},
                          kernel.clock()),
      kernel_(kernel) {}

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

FileSystemRef NewProc(Kernel& kernel) {
  auto file_system = std::make_shared<ProcFileSystem>(kernel);
  file_system->set_network_directory(NewNetworkDirectory(*file_system));
  auto root = std::make_shared<ProcRoot>(*file_system);
  root->Add("self",
            std::make_shared<LinkInode>(*file_system, [](Task& task) -> base::Result<std::string> {
              return std::to_string(task.group().id());
            }));
  root->Add("thread-self",
            std::make_shared<LinkInode>(*file_system, [](Task& task) -> base::Result<std::string> {
              return Format("%d/task/%d", task.group().id(), task.tid());
            }));
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
