// /proc/PID and /proc/PID/task/TID: which files there are, who may open them. What text files say
// is in proc_task_text.cc.

#include <fcntl.h>
#include <sys/prctl.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "sentry/fs/proc/proc.h"
#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/current_task.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/pid_namespace.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/vfs.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;
using base::UserAddr;

constexpr size_t kMemoryTextBytesMax = 2 << 20;  // Of cmdline and environ: as much as execve takes.

bool IsRegistered(const TaskRef& task) {
  return task != nullptr && task->kernel().pids().FindTask(task->tid()) == task;
}

// The task, as long as it is one. ESRCH afterwards, though its thread may still be on its way out.
Result<TaskRef> Living(const std::weak_ptr<Task>& task) {
  TaskRef strong = task.lock();
  if (!IsRegistered(strong)) return Errno(ESRCH);
  return strong;
}

// A process without memory (a zombie, or one on its way out) gives empty texts.
Result<std::string> MemoryText(Task& subject, uint64_t start, uint64_t end) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr || end <= start) return std::string();
  std::string text(std::min<uint64_t>(end - start, kMemoryTextBytesMax), '\0');
  const Result<size_t> copied =
      memory->ForceCopyIn(UserAddr(start), std::as_writable_bytes(std::span(text)));
  if (!copied.ok()) return std::string();
  text.resize(copied.value());
  return text;
}

Result<std::string> CommandLine(Task&, Task& subject) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return std::string();
  const MemoryManager::Image image = memory->image();
  std::string text = TRY(MemoryText(subject, image.arg_start, image.arg_end));
  // A program that overwrote its last NUL (setproctitle) goes on into the environment (proc(5)).
  if (!text.empty() && text.back() != '\0') {
    text += TRY(MemoryText(subject, image.env_start, image.env_end));
    text.resize(std::min(text.size(), text.find('\0')));
  }
  return text;
}

Result<std::string> Environment(Task&, Task& subject) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return std::string();
  const MemoryManager::Image image = memory->image();
  return MemoryText(subject, image.env_start, image.env_end);
}

Result<std::string> AuxiliaryVector(Task&, Task& subject) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return std::string();
  const std::vector<uint64_t> vector = memory->image().auxv;
  return std::string(reinterpret_cast<const char*>(vector.data()),
                     vector.size() * sizeof(uint64_t));
}

Result<std::string> CommandName(Task&, Task& subject) { return subject.name() + "\n"; }
Result<std::string> ControlGroup(Task&, Task&) { return std::string("0::/\n"); }
Result<std::string> OomScore(Task&, Task& subject) {
  return Format("%d\n", std::max(0, subject.group().oom_score_adjust().load() * 2 / 3 + 666));
}
Result<std::string> OomScoreAdjust(Task&, Task& subject) {
  return Format("%d\n", subject.group().oom_score_adjust().load());
}
Result<std::string> SessionIdText(Task&, Task&) { return std::string("4294967295"); }
Result<std::string> Zero(Task&, Task&) { return std::string("0"); }
Result<std::string> Empty(Task&, Task&) { return std::string(); }
Result<std::string> Personality(Task&, Task&) { return std::string("00000000\n"); }
Result<std::string> CoreDumpFilter(Task&, Task&) { return std::string("00000033\n"); }
Result<std::string> TimerSlack(Task&, Task& subject) {
  return Format("%llu\n", static_cast<unsigned long long>(subject.scheduling().timer_slack_ns));
}
Result<std::string> Children(Task& reader, Task& subject) {
  std::string text;
  for (const auto& group : subject.kernel().pids().Groups()) {
    const int32_t seen = SeenBy(reader, group->id());
    if (group->parent_id() == subject.group().id() && seen > 0) text += Format("%d ", seen);
  }
  return text;
}
Result<std::string> SystemCallText(Task&, Task& subject) {
  const int64_t number = subject.current_syscall();
  if (number < 0) return std::string("running\n");
  return Format("%lld 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0\n", static_cast<long long>(number));
}
// Host I/O is not told apart by task: only the lines' shape is promised.
Result<std::string> InputOutput(Task&, Task&) {
  return std::string(
      "rchar: 0\nwchar: 0\nsyscr: 0\nsyscw: 0\nread_bytes: 0\nwrite_bytes: "
      "0\ncancelled_write_bytes: 0\n");
}

Result<void> WriteName(Task& writer, Task& subject, std::string_view text) {
  if (&writer.group() != &subject.group()) return Errno(EINVAL);
  subject.set_name(std::string(text.substr(0, text.find('\n'))));
  return {};
}

Result<void> WriteOomScoreAdjust(Task& writer, Task& subject, std::string_view text) {
  const int64_t value = TRY(ParseControlNumber(text));
  if (value < -1000 || value > 1000) return Errno(EINVAL);
  std::atomic<int32_t>& adjust = subject.group().oom_score_adjust();
  constexpr int kCapSysResource = 24;
  if (value < adjust.load() && !writer.own_credentials().HasCapability(kCapSysResource))
    return Errno(EACCES);
  adjust.store(static_cast<int32_t>(value));
  return {};
}

Result<void> WriteIgnored(Task&, Task&, std::string_view) { return {}; }

using TaskWriter = Result<void> (*)(Task& writer, Task& subject, std::string_view text);

struct TextSpecification {
  std::string_view name;
  uint32_t mode;
  TaskText text;
  TaskWriter write = nullptr;
  bool inspects = false;      // Needs ptrace access, checked on each read.
  bool process_only = false;  // Not below task/.
};

constexpr TextSpecification kTexts[] = {
    {"arch_status", 0444, Empty},
    {"auxv", 0400, AuxiliaryVector, nullptr, true},
    {"cgroup", 0444, ControlGroup},
    {"children", 0444, Children},
    {"clear_refs", 0200, Empty, WriteIgnored},
    {"cmdline", 0444, CommandLine},
    {"comm", 0644, CommandName, WriteName},
    {"coredump_filter", 0644, CoreDumpFilter, WriteIgnored, false, true},
    {"environ", 0400, Environment, nullptr, true},
    {"gid_map", 0644, Empty},
    {"io", 0400, InputOutput, nullptr, true},
    {"limits", 0444, TaskLimits},
    {"loginuid", 0644, SessionIdText},
    {"maps", 0444, TaskMaps, nullptr, true},
    {"mountinfo", 0444, TaskMountInfo},
    {"mounts", 0444, TaskMounts},
    {"mountstats", 0400, TaskMountStats, nullptr, false, true},
    {"oom_adj", 0644, Zero},
    {"oom_score", 0444, OomScore},
    {"oom_score_adj", 0644, OomScoreAdjust, WriteOomScoreAdjust},
    {"personality", 0400, Personality, nullptr, true},
    {"schedstat", 0444, [](Task&, Task&) -> Result<std::string> { return std::string("0 0 0\n"); }},
    {"sessionid", 0444, SessionIdText},
    {"setgroups", 0644, Empty},
    {"smaps", 0444, TaskSmaps, nullptr, true},
    {"smaps_rollup", 0444, TaskSmapsRollup, nullptr, true},
    {"stack", 0400, Empty, nullptr, true},
    {"stat", 0444, TaskStat},
    {"statm", 0444, TaskStatm},
    {"status", 0444, TaskStatus},
    {"syscall", 0400, SystemCallText, nullptr, true},
    {"timens_offsets", 0644, TimeOffsetsText, nullptr, false, true},
    {"timerslack_ns", 0666, TimerSlack, nullptr, false, true},
    {"uid_map", 0644, Empty},
    {"wchan", 0444, Zero},
};

// Inode slots of what is not in kTexts.
enum Slot : uint32_t {
  kDirectorySlot = 0,
  kTextSlots = 16,
  kLinkSlots = 128,
  kFdSlot = 200,
  kFdInfoSlot,
  kTaskSlot,
  kNamespaceSlot,
  kMemorySlot,
  kNamespaceLinkSlots = 256
};

class OwnedByTask {
 public:
  explicit OwnedByTask(const TaskRef& task) : task_(task) {}
  Result<TaskRef> task() const { return Living(task_); }
  bool Registered() const { return IsRegistered(task_.lock()); }
  SyntheticInode::Owner Owner() const {
    const TaskRef task = task_.lock();
    if (task == nullptr) return {};
    const std::shared_ptr<MemoryManager> memory = task->memory_ref();
    if (memory != nullptr && memory->dumpable().load() != 1) return {};
    const CredentialsRef credentials = task->credentials();
    return {credentials->euid, credentials->egid};
  }

 private:
  const std::weak_ptr<Task> task_;
};

class TaskTextInode final : public TextInode, public TransientInode {
 public:
  TaskTextInode(ProcFileSystem& file_system, const TaskRef& task,
                const TextSpecification& specification)
      : TextInode(
            file_system, specification.mode,
            [weak = std::weak_ptr<Task>(task),
             &specification](Task& reader) -> Result<std::string> {
              const TaskRef subject = TRY(Living(weak));
              if (specification.inspects && !MayInspect(reader, *subject)) return Errno(EACCES);
              return specification.text(reader, *subject);
            },
            specification.write == nullptr
                ? Writer()
                : [weak = std::weak_ptr<Task>(task), &specification](
                      Task& writer, std::string_view text) -> Result<void> {
              return specification.write(writer, *TRY(Living(weak)), text);
            }),
        owned_(task) {}
  bool StillThere() const override { return owned_.Registered(); }
  Owner owner() const override { return owned_.Owner(); }

 private:
  const OwnedByTask owned_;
};

// exe, cwd, root: they lead to a place, whatever its name.
class TaskLink final : public SyntheticInode, public TransientInode {
 public:
  using Place = Result<Path> (*)(Task& subject);
  TaskLink(ProcFileSystem& file_system, const TaskRef& task, Place place, uint64_t number)
      : SyntheticInode(file_system, S_IFLNK | 0777, number),
        proc_(file_system),
        owned_(task),
        place_(place) {}
  bool StillThere() const override { return owned_.Registered(); }
  Owner owner() const override { return owned_.Owner(); }

  Result<Path> FollowMagic(Task& reader) override {
    const TaskRef subject = TRY(owned_.task());
    if (!MayInspect(reader, *subject)) return Errno(EACCES);
    return place_(*subject);
  }
  Result<std::string> ReadLinkFor(Task& reader) override {
    const Path path = TRY(FollowMagic(reader));
    return proc_.kernel().vfs().NameOf(path, reader.fs().root());
  }

 private:
  ProcFileSystem& proc_;
  const OwnedByTask owned_;
  const Place place_;
};

Result<Path> ExecutablePlace(Task& subject) {
  const std::shared_ptr<MemoryManager> memory = subject.memory_ref();
  if (memory == nullptr) return Errno(ENOENT);
  const FileRef executable = memory->image().executable;
  if (executable == nullptr) return Errno(ENOENT);
  return executable->path();
}
Result<Path> WorkingDirectoryPlace(Task& subject) {
  const std::shared_ptr<FsContext> context = subject.fs_ref();
  if (context == nullptr) return Errno(ENOENT);
  return context->working_directory();
}
Result<Path> RootPlace(Task& subject) {
  const std::shared_ptr<FsContext> context = subject.fs_ref();
  if (context == nullptr) return Errno(ENOENT);
  return context->root();
}

struct LinkSpecification {
  std::string_view name;
  TaskLink::Place place;
};
constexpr LinkSpecification kLinks[] = {
    {"cwd", WorkingDirectoryPlace}, {"exe", ExecutablePlace}, {"root", RootPlace}};

// /proc/PID/mem: the memory as a debugger sees it.
class MemoryFile final : public File {
 public:
  MemoryFile(const Path& path, uint32_t flags, CredentialsRef credentials,
             std::shared_ptr<MemoryManager> memory)
      : File(path, flags, std::move(credentials)), memory_(std::move(memory)) {}
  bool seekable() const override { return true; }
  Result<uint64_t> Seek(Task&, uint64_t position, int64_t offset, int whence) override {
    if (whence == SEEK_CUR) return position + static_cast<uint64_t>(offset);
    if (whence != SEEK_SET) return Errno(EINVAL);
    return static_cast<uint64_t>(offset);  // Addresses of the upper half are negative offsets.
  }
  Result<size_t> Read(Task&, IoBuffer& to, uint64_t* offset) override {
    return Move(offset, to.remaining(), [&](std::span<std::byte> chunk) -> Result<size_t> {
      const size_t got = TRY(memory_->ForceCopyIn(UserAddr(*offset), chunk));
      return to.CopyOut(chunk.first(got));
    });
  }
  Result<size_t> Write(Task&, IoBuffer& from, uint64_t* offset) override {
    return Move(offset, from.remaining(), [&](std::span<std::byte> chunk) -> Result<size_t> {
      const size_t got = TRY(from.CopyIn(chunk));
      return memory_->ForceCopyOut(UserAddr(*offset), chunk.first(got));
    });
  }

 private:
  // EIO where nothing is mapped, as Linux; what went before counts.
  template <typename Step>
  Result<size_t> Move(uint64_t* offset, uint64_t length, Step&& step) {
    std::array<std::byte, base::kPageSize> chunk;
    size_t done = 0;
    while (done < length) {
      const size_t wanted =
          std::min<uint64_t>(length - done, chunk.size() - *offset % chunk.size());
      const Result<size_t> moved = step(std::span(chunk).first(wanted));
      if (!moved.ok()) return done > 0 ? Result<size_t>(done) : Result<size_t>(Errno(EIO));
      done += moved.value();
      *offset += moved.value();
      if (moved.value() < wanted) break;
    }
    return done;
  }

  const std::shared_ptr<MemoryManager> memory_;
};

class MemoryInode final : public SyntheticInode, public TransientInode {
 public:
  MemoryInode(ProcFileSystem& file_system, const TaskRef& task, uint64_t number)
      : SyntheticInode(file_system, S_IFREG | 0600, number), owned_(task) {}
  bool StillThere() const override { return owned_.Registered(); }
  Owner owner() const override { return owned_.Owner(); }
  Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override {
    const TaskRef subject = TRY(owned_.task());
    if (!MayInspect(task, *subject)) return Errno(EACCES);
    std::shared_ptr<MemoryManager> memory = subject->memory_ref();
    if (memory == nullptr) return Errno(ESRCH);
    return std::shared_ptr<File>(
        std::make_shared<MemoryFile>(path, flags, task.credentials(), std::move(memory)));
  }

 private:
  const OwnedByTask owned_;
};

// /proc/PID/task
class ThreadsDirectory final : public SyntheticDirectory, public TransientInode {
 public:
  ThreadsDirectory(ProcFileSystem& file_system, const TaskRef& task)
      : SyntheticDirectory(file_system, 0555, TaskInodeNumber(task->tid(), kTaskSlot)),
        proc_(file_system),
        owned_(task) {}
  bool StillThere() const override { return owned_.Registered(); }
  Owner owner() const override { return owned_.Owner(); }

  Result<InodeRef> Lookup(std::string_view name) override {
    const TaskRef task = TRY(owned_.task());
    int32_t tid = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), tid);
    if (error != std::errc() || end != name.data() + name.size() || name.front() == '0')
      return Errno(ENOENT);
    const TaskRef thread = proc_.kernel().pids().FindTask(ToGlobal(proc_.view(), tid));
    if (thread == nullptr || &thread->group() != &task->group()) return Errno(ENOENT);
    return NewTaskDirectory(proc_, thread, true);
  }
  Result<std::vector<Entry>> List(Task&) override {
    const TaskRef task = TRY(owned_.task());
    std::vector<Entry> entries;
    for (const TaskRef& thread : task->group().tasks()) {
      const int32_t seen = SeenBy(proc_.view(), thread->tid());
      entries.push_back({std::to_string(seen), TaskInodeNumber(thread->tid(), kDirectorySlot),
                         DT_DIR, kFirstPosition + static_cast<uint64_t>(seen)});
    }
    return entries;
  }
  Result<Attributes> GetAttributes() override {
    Attributes attributes = TRY(SyntheticDirectory::GetAttributes());
    // Programs count threads by it.
    const Result<TaskRef> task = owned_.task();
    if (task.ok())
      attributes.nlink = 2 + static_cast<uint32_t>(task.value()->group().tasks().size());
    return attributes;
  }

 private:
  ProcFileSystem& proc_;
  const OwnedByTask owned_;
};

class TaskDirectory final : public SyntheticDirectory, public TransientInode {
 public:
  TaskDirectory(ProcFileSystem& file_system, const TaskRef& task, bool is_thread)
      : SyntheticDirectory(file_system, 0555, TaskInodeNumber(task->tid(), kDirectorySlot)),
        proc_(file_system),
        owned_(task),
        tid_(task->tid()),
        is_thread_(is_thread) {}
  bool StillThere() const override { return owned_.Registered(); }
  Owner owner() const override { return owned_.Owner(); }

  Result<void> CheckPermission(const Credentials& credentials, int mask) override {
    const TaskRef subject = task();
    const Task* caller = CurrentTask();
    if (subject != nullptr && caller != nullptr &&
        !proc_.MaySee(*caller, *subject, ProcOptions::kNoAccess))
      return Errno(EPERM);
    return SyntheticDirectory::CheckPermission(credentials, mask);
  }

  TaskRef task() const {
    const Result<TaskRef> task = owned_.task();
    return task.ok() && owned_.Registered() ? task.value() : nullptr;
  }

  Result<InodeRef> Lookup(std::string_view name) override {
    const TaskRef task = TRY(owned_.task());
    if (name == "uid_map" || name == "gid_map") return NewIdMapFile(proc_, task, name == "gid_map");
    if (name == "setgroups") return NewSetgroupsFile(proc_, task);
    for (const TextSpecification& text : kTexts) {
      if (text.name == name && Has(text))
        return InodeRef(std::make_shared<TaskTextInode>(proc_, task, text));
    }
    for (uint32_t i = 0; i < std::size(kLinks); ++i) {
      if (kLinks[i].name != name) continue;
      return InodeRef(std::make_shared<TaskLink>(proc_, task, kLinks[i].place,
                                                 TaskInodeNumber(tid_, kLinkSlots + i)));
    }
    if (name == "fd") return NewFdDirectory(proc_, task, false, TaskInodeNumber(tid_, kFdSlot));
    if (name == "fdinfo")
      return NewFdDirectory(proc_, task, true, TaskInodeNumber(tid_, kFdInfoSlot));
    if (name == "task" && !is_thread_)
      return InodeRef(std::make_shared<ThreadsDirectory>(proc_, task));
    if (name == "ns")
      return NewNamespaceDirectory(proc_, task, TaskInodeNumber(tid_, kNamespaceLinkSlots));
    if (name == "mem")
      return InodeRef(
          std::make_shared<MemoryInode>(proc_, task, TaskInodeNumber(tid_, kMemorySlot)));
    if (name == "net") return proc_.network_directory();
    return Errno(ENOENT);
  }

  Result<std::vector<Entry>> List(Task&) override {
    std::vector<Entry> entries;
    auto add = [&](std::string_view name, uint32_t slot, uint8_t type) {
      entries.push_back(
          {std::string(name), TaskInodeNumber(tid_, slot), type, kFirstPosition + entries.size()});
    };
    for (uint32_t i = 0; i < std::size(kTexts); ++i) {
      if (Has(kTexts[i])) add(kTexts[i].name, kTextSlots + i, DT_REG);
    }
    for (uint32_t i = 0; i < std::size(kLinks); ++i) add(kLinks[i].name, kLinkSlots + i, DT_LNK);
    add("fd", kFdSlot, DT_DIR);
    add("fdinfo", kFdInfoSlot, DT_DIR);
    if (!is_thread_) add("task", kTaskSlot, DT_DIR);
    add("ns", kNamespaceSlot, DT_DIR);
    add("mem", kMemorySlot, DT_REG);
    add("net", kDirectorySlot, DT_DIR);
    return entries;
  }

 private:
  bool Has(const TextSpecification& text) const {
    return !(is_thread_ && text.process_only) && !(!is_thread_ && text.name == "children");
  }

  ProcFileSystem& proc_;
  const OwnedByTask owned_;
  const int32_t tid_;
  const bool is_thread_;
};

}  // namespace

std::shared_ptr<Task> TaskOfProcDirectory(const File& file) {
  const auto directory = std::dynamic_pointer_cast<TaskDirectory>(file.inode());
  return directory != nullptr ? directory->task() : nullptr;
}

InodeRef NewTaskDirectory(ProcFileSystem& file_system, const TaskRef& task, bool is_thread) {
  return std::make_shared<TaskDirectory>(file_system, task, is_thread);
}

}  // namespace sentry
