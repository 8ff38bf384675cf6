#pragma once

// Shared by the files of sentry/fs/proc.

#include <dirent.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "platform/base/result.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/synthetic/synthetic.h"
#include "sentry/kernel/pid_view.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/trace_access.h"

namespace sentry {

class Kernel;

class ProcFileSystem final : public SyntheticFileSystem {
 public:
  ProcFileSystem(Kernel& kernel, PidViewRef view, const ProcOptions& options);
  // Whose ids it shows.
  const PidViewRef& view() const { return view_; }
  const ProcOptions& proc_options() const { return proc_options_; }
  // hidepid=: what is refused from `level` on.
  bool MaySee(const Task& caller, const Task& subject, int level) const;
  Kernel& kernel() const { return kernel_; }
  // The one of /proc/net, /proc/PID/net.
  const InodeRef& network_directory() const { return network_directory_; }
  void set_network_directory(InodeRef directory) { network_directory_ = std::move(directory); }
  bool Revalidate(Inode& directory, std::string_view name, Inode& child) override;

 private:
  Kernel& kernel_;
  const PidViewRef view_;
  const ProcOptions proc_options_;
  InodeRef network_directory_;
};

// An inode that is about something which may go away.
class TransientInode {
 public:
  virtual ~TransientInode() = default;
  virtual bool StillThere() const = 0;
};

// Inode numbers of a task's files: stable while the task lives. `slot` < 65536.
constexpr uint64_t TaskInodeNumber(int32_t tid, uint32_t slot) {
  return (uint64_t{1} << 40) | (static_cast<uint64_t>(static_cast<uint32_t>(tid)) << 16) | slot;
}

// May `reader` look into `subject`?
inline bool MayInspect(const Task& reader, const Task& subject) {
  return MayTrace(reader.own_credentials(), &reader.group(), subject, TraceIds::kFileSystem);
}

// --- Trees.
// /proc/N, or /proc/N/task/T if `is_thread`.
InodeRef NewTaskDirectory(ProcFileSystem& file_system, const TaskRef& task, bool is_thread);
InodeRef NewFdDirectory(ProcFileSystem& file_system, const TaskRef& task, bool info,
                        uint64_t number);
// Adds cpuinfo, meminfo, stat, ... to the root.
void AddSystemFiles(ProcFileSystem& file_system, StaticDirectory& root);
// proc_task_namespaces.cc
InodeRef NewNamespaceDirectory(ProcFileSystem& file_system, const TaskRef& task, uint64_t number);
InodeRef NewIdMapFile(ProcFileSystem& file_system, const TaskRef& task, bool of_groups);
InodeRef NewSetgroupsFile(ProcFileSystem& file_system, const TaskRef& task);
base::Result<std::string> TimeOffsetsText(Task& reader, Task& subject);
InodeRef NewSysctlDirectory(ProcFileSystem& file_system);
void AddIpcSysctls(ProcFileSystem& file_system, StaticDirectory& kernel_directory);
void AddMqueueSysctls(ProcFileSystem& file_system, StaticDirectory& directory);
void AddConfigFile(ProcFileSystem& file_system, StaticDirectory& root);
void AddKeyFiles(ProcFileSystem& file_system, StaticDirectory& root);
void AddKeySysctls(ProcFileSystem& file_system, StaticDirectory& kernel_directory);
void AddSysvIpcDirectory(ProcFileSystem& file_system, StaticDirectory& root);
InodeRef NewNetworkDirectory(ProcFileSystem& file_system);

// --- Texts of a task (proc_task_text.cc). `reader` asks about `subject`.
using TaskText = base::Result<std::string> (*)(Task& reader, Task& subject);
base::Result<std::string> TaskStat(Task& reader, Task& subject);
base::Result<std::string> TaskStatus(Task& reader, Task& subject);
base::Result<std::string> TaskStatm(Task& reader, Task& subject);
base::Result<std::string> TaskMaps(Task& reader, Task& subject);
base::Result<std::string> TaskSmaps(Task& reader, Task& subject);
base::Result<std::string> TaskSmapsRollup(Task& reader, Task& subject);
base::Result<std::string> TaskLimits(Task& reader, Task& subject);
base::Result<std::string> TaskMounts(Task& reader, Task& subject);
base::Result<std::string> TaskMountInfo(Task& reader, Task& subject);
base::Result<std::string> TaskMountStats(Task& reader, Task& subject);

// A file of text with a name, for StaticDirectory.
void AddText(ProcFileSystem& file_system, StaticDirectory& directory, std::string name,
             TextInode::Reader reader, uint32_t mode = 0444, TextInode::Writer writer = {});

// printf into a string.
[[gnu::format(printf, 1, 2)]] std::string Format(const char* format, ...);

}  // namespace sentry
