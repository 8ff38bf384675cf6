// /proc/PID/mountinfo, mounts and mountstats (proc_pid_mountinfo(5)), as parsers know them: only
// what is below the subject's root, in order of making.

#include <sys/sysmacros.h>

#include "sentry/fs/proc/proc_internal.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/namespaces.h"
#include "sentry/vfs/mount_text.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::Result;

namespace {

std::string SourceOf(const Mount& mount) {
  return mount.source.empty() ? "none" : EscapeMountText(mount.source);
}

// Calls visit(view, name) for each mount that the subject can reach.
template <typename Visit>
Result<void> ForEachMount(Task& subject, Visit&& visit) {
  Vfs& vfs = subject.kernel().vfs();
  const std::shared_ptr<FsContext> context = subject.fs_ref();
  const NamespacesRef namespaces = subject.namespaces();
  if (context == nullptr || namespaces == nullptr) return Errno(EINVAL);
  const Path root = context->root();
  for (const MountView& view : vfs.mounts().Views(*namespaces->mount)) {
    const Path top{view.mount, view.mount->root};
    if (!vfs.mounts().IsReachable(top, root)) continue;
    visit(view, EscapeMountText(vfs.NameOf(top, root)));
  }
  return {};
}

std::string OptionalFields(Task& subject, const MountView& view) {
  std::string text;
  if (view.peer_group != 0) text += Format(" shared:%d", view.peer_group);
  if (view.master_group != 0) {
    text += Format(" master:%d", view.master_group);
    const std::shared_ptr<FsContext> context = subject.fs_ref();
    const NamespacesRef namespaces = subject.namespaces();
    if (context != nullptr && namespaces != nullptr) {
      const int32_t from = subject.kernel().vfs().mounts().DominatingGroup(view, *namespaces->mount,
                                                                           context->root());
      if (from != 0 && from != view.master_group) text += Format(" propagate_from:%d", from);
    }
  }
  if (view.unbindable) text += " unbindable";
  return text;
}

}  // namespace

Result<std::string> TaskMounts(Task&, Task& subject) {
  std::string text;
  TRY(ForEachMount(subject, [&](const MountView& view, const std::string& name) {
    const Mount& mount = *view.mount;
    text += SourceOf(mount) + " " + name + " " + std::string(mount.file_system->type_name()) + " " +
            AllOptionsText(mount) + " 0 0\n";
  }));
  return text;
}

Result<std::string> TaskMountInfo(Task&, Task& subject) {
  std::string text;
  TRY(ForEachMount(subject, [&](const MountView& view, const std::string& name) {
    const Mount& mount = *view.mount;
    const uint64_t device = mount.file_system->device();
    text += Format("%llu %llu %u:%u ", static_cast<unsigned long long>(mount.id),
                   static_cast<unsigned long long>(view.parent_id), major(device), minor(device));
    text += EscapeMountText(RootOfMountText(mount)) + " " + name + " " + MountOptionsText(mount) +
            OptionalFields(subject, view) + " - " + std::string(mount.file_system->type_name()) +
            " " + SourceOf(mount) + " " + SuperOptionsText(*mount.file_system) + "\n";
  }));
  return text;
}

Result<std::string> TaskMountStats(Task&, Task& subject) {
  std::string text;
  TRY(ForEachMount(subject, [&](const MountView& view, const std::string& name) {
    text += "device " + SourceOf(*view.mount) + " mounted on " + name + " with fstype " +
            std::string(view.mount->file_system->type_name()) + "\n";
  }));
  return text;
}

}  // namespace sentry
