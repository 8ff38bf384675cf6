// /proc/PID/ns, and what rules user and time namespaces: uid_map, gid_map, setgroups,
// timens_offsets (user_namespaces(7), time_namespaces(7)).

#include <fcntl.h>
#include <linux/capability.h>

#include "sentry/fs/nsfs/nsfs.h"
#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespace_change.h"
#include "sentry/kernel/small_namespaces.h"
#include "sentry/kernel/user_namespace.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

Result<TaskRef> Living(const std::weak_ptr<Task>& task) {
  TaskRef strong = task.lock();
  if (strong == nullptr || strong->HasExited()) return Errno(ESRCH);
  return strong;
}

// Its text is one thing to everybody; what may be written depends on who opened the file, so that
// nobody gets a more privileged program to write for him.
class OpenerText : public SyntheticInode, public TransientInode {
 public:
  OpenerText(ProcFileSystem& file_system, const TaskRef& task)
      : SyntheticInode(file_system, S_IFREG | 0644), task_(task) {}
  bool StillThere() const override {
    const TaskRef task = task_.lock();
    return task != nullptr && !task->HasExited();
  }
  Owner owner() const override {
    const TaskRef task = task_.lock();
    if (task == nullptr) return {};
    const CredentialsRef credentials = task->credentials();
    return {credentials->euid, credentials->egid};
  }
  Result<FileRef> Open(Task& task, const Path& path, uint32_t flags) override {
    const CredentialsRef opener = task.own_credentials_ref();
    if ((flags & O_ACCMODE) != O_RDONLY) TRY(MayOpenForWriting(*opener, *TRY(Living(task_))));
    const auto self = std::static_pointer_cast<OpenerText>(shared_from_this());
    const auto text = std::make_shared<TextInode>(
        synthetic(), 0644,
        [self, opener](Task&) -> Result<std::string> {
          return self->Read(*opener, *TRY(Living(self->task_)));
        },
        [self, opener](Task& writer, std::string_view written) -> Result<void> {
          return self->WriteAs(*opener, writer, *TRY(Living(self->task_)), written);
        });
    return text->Open(task, path, flags);
  }

 protected:
  virtual Result<std::string> Read(const Credentials& opener, Task& subject) = 0;
  virtual Result<void> WriteAs(const Credentials& opener, Task& writer, Task& subject,
                               std::string_view text) = 0;
  virtual Result<void> MayOpenForWriting(const Credentials& opener, Task& subject) {
    (void)opener, (void)subject;
    return {};
  }

 private:
  const std::weak_ptr<Task> task_;
};

class IdMapFile final : public OpenerText {
 public:
  IdMapFile(ProcFileSystem& file_system, const TaskRef& task, UserNamespace::IdKind kind)
      : OpenerText(file_system, task), kind_(kind) {}

 private:
  Result<std::string> Read(const Credentials& opener, Task& subject) override {
    const UserNamespaceRef space = subject.credentials()->user_namespace;
    if (space != nullptr) return space->MapText(kind_, opener.user_namespace);
    // The initial one, as the opener's namespace sees it.
    if (opener.user_namespace == nullptr) return Format("%10u %10u %10u\n", 0U, 0U, kInvalidId);
    return Format("%10u %10u %10u\n", 0U, opener.user_namespace->FromGlobal(kind_, 0), kInvalidId);
  }
  Result<void> WriteAs(const Credentials& opener, Task& writer, Task& subject,
                       std::string_view text) override {
    const UserNamespaceRef space = subject.credentials()->user_namespace;
    if (space == nullptr) return Errno(EPERM);
    return space->WriteMap(kind_, opener, writer.own_credentials(), text);
  }

  const UserNamespace::IdKind kind_;
};

class SetgroupsFile final : public OpenerText {
 public:
  using OpenerText::OpenerText;

 private:
  Result<std::string> Read(const Credentials&, Task& subject) override {
    const UserNamespaceRef space = subject.credentials()->user_namespace;
    return std::string(space != nullptr && space->setgroups_denied() ? "deny\n" : "allow\n");
  }
  Result<void> WriteAs(const Credentials&, Task&, Task& subject, std::string_view text) override {
    const UserNamespaceRef space = subject.credentials()->user_namespace;
    if (space != nullptr) return space->WriteSetgroups(text);
    return text.starts_with("allow") ? Result<void>() : Errno(EPERM);
  }
  Result<void> MayOpenForWriting(const Credentials& opener, Task& subject) override {
    if (!opener.HasCapabilityIn(subject.credentials()->user_namespace, CAP_SYS_ADMIN))
      return Errno(EACCES);
    return {};
  }
};

// A link of /proc/PID/ns.
class NamespaceLink final : public SyntheticInode, public TransientInode {
 public:
  NamespaceLink(ProcFileSystem& file_system, const TaskRef& task, NamespaceKind kind,
                bool for_children)
      : SyntheticInode(file_system, S_IFLNK | 0777),
        proc_(file_system),
        task_(task),
        kind_(kind),
        for_children_(for_children) {}
  bool StillThere() const override { return task_.lock() != nullptr; }

  Result<Path> FollowMagic(Task& reader) override {
    return PathOfNamespace(proc_.kernel(), TRY(Shown(reader)));
  }
  Result<std::string> ReadLinkFor(Task& reader) override {
    return NamespaceText(*TRY(Shown(reader)));
  }

 private:
  Result<std::shared_ptr<Namespace>> Shown(Task& reader) const {
    const TaskRef subject = task_.lock();
    if (subject == nullptr) return Errno(ESRCH);
    if (!MayInspect(reader, *subject)) return Errno(EACCES);
    std::shared_ptr<Namespace> space = NamespaceChange::Shown(*subject, kind_, for_children_);
    if (space == nullptr) return Errno(ENOENT);
    return space;
  }

  ProcFileSystem& proc_;
  const std::weak_ptr<Task> task_;
  const NamespaceKind kind_;
  const bool for_children_;
};

struct LinkName {
  std::string_view name;
  NamespaceKind kind;
  bool for_children;
};
constexpr LinkName kNamespaceLinks[] = {
    {"cgroup", NamespaceKind::kCgroup, false}, {"ipc", NamespaceKind::kIpc, false},
    {"mnt", NamespaceKind::kMount, false},     {"net", NamespaceKind::kNet, false},
    {"pid", NamespaceKind::kPid, false},       {"pid_for_children", NamespaceKind::kPid, true},
    {"time", NamespaceKind::kTime, false},     {"time_for_children", NamespaceKind::kTime, true},
    {"user", NamespaceKind::kUser, false},     {"uts", NamespaceKind::kUts, false}};

class NamespaceDirectory final : public SyntheticDirectory, public TransientInode {
 public:
  NamespaceDirectory(ProcFileSystem& file_system, const TaskRef& task, uint64_t number)
      : SyntheticDirectory(file_system, 0511, number), proc_(file_system), task_(task) {}
  bool StillThere() const override { return task_.lock() != nullptr; }
  Owner owner() const override {
    const TaskRef task = task_.lock();
    if (task == nullptr) return {};
    const CredentialsRef credentials = task->credentials();
    return {credentials->euid, credentials->egid};
  }
  Result<InodeRef> Lookup(std::string_view name) override {
    const TaskRef task = TRY(Living(task_));
    for (const LinkName& link : kNamespaceLinks) {
      if (link.name == name)
        return InodeRef(std::make_shared<NamespaceLink>(proc_, task, link.kind, link.for_children));
    }
    return Errno(ENOENT);
  }
  Result<std::vector<Entry>> List(Task&) override {
    std::vector<Entry> entries;
    for (const LinkName& link : kNamespaceLinks) {
      entries.push_back({std::string(link.name), number() + 1 + entries.size(), DT_LNK,
                         kFirstPosition + entries.size()});
    }
    return entries;
  }

 private:
  ProcFileSystem& proc_;
  const std::weak_ptr<Task> task_;
};

}  // namespace

InodeRef NewNamespaceDirectory(ProcFileSystem& file_system, const TaskRef& task, uint64_t number) {
  return std::make_shared<NamespaceDirectory>(file_system, task, number);
}

InodeRef NewIdMapFile(ProcFileSystem& file_system, const TaskRef& task, bool of_groups) {
  return std::make_shared<IdMapFile>(
      file_system, task, of_groups ? UserNamespace::IdKind::kGroup : UserNamespace::IdKind::kUser);
}

InodeRef NewSetgroupsFile(ProcFileSystem& file_system, const TaskRef& task) {
  return std::make_shared<SetgroupsFile>(file_system, task);
}

Result<std::string> TimeOffsetsText(Task&, Task& subject) {
  const NamespacesRef set = subject.namespaces();
  if (set == nullptr) return Errno(ESRCH);
  constexpr int64_t kSecond = 1'000'000'000;
  const auto line = [](const char* name, int64_t offset) {
    int64_t seconds = offset / kSecond;
    int64_t rest = offset % kSecond;
    if (rest < 0) {
      rest += kSecond;
      --seconds;
    }
    return Format("%-10s %10lld %9lld\n", name, static_cast<long long>(seconds),
                  static_cast<long long>(rest));
  };
  return line("monotonic", set->time_for_children->monotonic_offset_ns().load()) +
         line("boottime", set->time_for_children->boottime_offset_ns().load());
}

}  // namespace sentry
