// statmount(2) and listmount(2), Linux 6.8 and later.

#include <linux/capability.h>
#include <linux/mount.h>
#include <sys/mount.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "sentry/kernel/namespaces.h"
#include "sentry/kernel/task.h"
#include "sentry/vfs/mount_text.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"
#include "syscalls/handlers/mount_api.h"
#include "syscalls/handlers/paths.h"

namespace syscalls {

using base::Errno;
using base::Result;
using base::UserAddr;
using base::UserOut;
using sentry::MountView;
using sentry::Path;
using sentry::Task;

namespace {

// struct mnt_id_req
struct MountRequest {
  uint32_t size, spare;
  uint64_t mount_id, parameter, namespace_id;
};
constexpr size_t kRequestBytesMin = 24;

// struct statmount, without the strings that follow it.
struct MountStatus {
  uint32_t size, options;
  uint64_t mask;
  uint32_t device_major, device_minor;
  uint64_t magic;
  uint32_t super_flags, type;
  uint64_t id, parent_id;
  uint32_t old_id, old_parent_id;
  uint64_t attributes, propagation, peer_group, master, propagate_from;
  uint32_t root, point;
  uint64_t namespace_id;
  std::array<uint64_t, 49> spare;
};
static_assert(sizeof(MountStatus) == 512);

enum Mask : uint64_t {
  kSuperBasic = 1,
  kMountBasic = 2,
  kPropagateFrom = 4,
  kRoot = 8,
  kPoint = 0x10,
  kType = 0x20,
  kNamespaceId = 0x40,
  kOptions = 0x80,
};
constexpr uint64_t kSmallestId = (uint64_t{1} << 31) + 1;
constexpr uint64_t kListRoot = ~uint64_t{0};  // LSMT_ROOT
constexpr uint64_t kCountMax = 1000000;
constexpr uint32_t kReverse = 1;  // LISTMOUNT_REVERSE

Result<MountRequest> CopyInRequest(Task& task, UserAddr addr) {
  const uint32_t size = TRY(task.CopyIn(base::UserIn<uint32_t>(addr)));
  if (size > base::kPageSize) return Errno(E2BIG);
  if (size < kRequestBytesMin) return Errno(EINVAL);
  std::vector<std::byte> raw(std::max<size_t>(size, sizeof(MountRequest)));
  TRY(task.memory().CopyInExactly(addr, std::span(raw).first(size)));
  for (size_t i = sizeof(MountRequest); i < raw.size(); ++i) {
    if (raw[i] != std::byte{0}) return Errno(E2BIG);
  }
  MountRequest request{};
  std::memcpy(&request, raw.data(), sizeof request);
  if (request.spare != 0 || request.mount_id < kSmallestId) return Errno(EINVAL);
  // Another namespace than the caller's is found by its number, which nobody hands out yet.
  const uint64_t own = task.own_namespaces().mount->sequence();
  if (request.namespace_id != 0 && request.namespace_id != own) return Errno(ENOENT);
  return request;
}

uint64_t AttributesOf(uint64_t flags) {
  uint64_t attributes = 0;
  if ((flags & MS_RDONLY) != 0) attributes |= 1;
  if ((flags & MS_NOSUID) != 0) attributes |= 2;
  if ((flags & MS_NODEV) != 0) attributes |= 4;
  if ((flags & MS_NOEXEC) != 0) attributes |= 8;
  if ((flags & MS_NODIRATIME) != 0) attributes |= 0x80;
  if ((flags & sentry::kMountNoSymlinkFollow) != 0) attributes |= 0x200000;
  if ((flags & MS_NOATIME) != 0) {
    attributes |= 0x10;
  } else if ((flags & MS_RELATIME) == 0) {
    attributes |= 0x20;
  }
  return attributes;
}

uint64_t PropagationOf(const MountView& view) {
  uint64_t propagation = 0;
  if (view.peer_group != 0) propagation |= MS_SHARED;
  if (view.master_group != 0) propagation |= MS_SLAVE;
  if (view.unbindable) propagation |= MS_UNBINDABLE;
  return propagation == 0 ? uint64_t{MS_PRIVATE} : propagation;
}

// The strings follow each other, each with its NUL; a field says where one begins.
uint32_t AddString(std::string* strings, std::string_view text) {
  const auto at = static_cast<uint32_t>(strings->size());
  strings->append(text);
  strings->push_back('\0');
  return at;
}

Result<void> FillSuper(const sentry::FileSystem& file_system, MountStatus* out) {
  const uint64_t device = file_system.device();
  out->mask |= kSuperBasic;
  out->device_major = gnu_dev_major(device);
  out->device_minor = gnu_dev_minor(device);
  out->magic = TRY(const_cast<sentry::FileSystem&>(file_system).Status()).type;
  constexpr uint64_t kShown = MS_RDONLY | MS_SYNCHRONOUS | MS_DIRSYNC | MS_LAZYTIME;
  out->super_flags = static_cast<uint32_t>(file_system.super_flags() & kShown);
  return {};
}

void FillMount(const MountView& view, MountStatus* out) {
  out->mask |= kMountBasic;
  out->id = view.mount->unique_id;
  out->parent_id = view.parent_unique_id;
  out->old_id = static_cast<uint32_t>(view.mount->id);
  out->old_parent_id = static_cast<uint32_t>(view.parent_id);
  out->attributes = AttributesOf(view.mount->flags.load(std::memory_order_relaxed));
  out->propagation = PropagationOf(view);
  out->peer_group = static_cast<uint64_t>(view.peer_group);
  out->master = static_cast<uint64_t>(view.master_group);
}

}  // namespace

Result<void> Statmount(Task& task, UserAddr request_addr, UserAddr buffer, uint64_t bytes,
                       uint32_t flags) {
  if (flags != 0) return Errno(EINVAL);
  const MountRequest request = TRY(CopyInRequest(task, request_addr));
  sentry::Vfs& vfs = VfsOf(task);
  const sentry::MountNamespace& space = *task.own_namespaces().mount;
  const MountView view = vfs.mounts().ViewOf(space, request.mount_id);
  if (view.mount == nullptr) return Errno(ENOENT);
  const Path top{view.mount, view.mount->root};
  const Path root = task.fs().root();
  if (!vfs.mounts().IsReachable(top, root) &&
      !task.own_credentials().HasCapabilityIn(space.owner(), CAP_SYS_ADMIN))
    return Errno(EPERM);
  const uint64_t wanted = request.parameter;
  const sentry::FileSystem& file_system = *view.mount->file_system;
  MountStatus out{};
  std::string strings;
  if ((wanted & kSuperBasic) != 0) TRY(FillSuper(file_system, &out));
  if ((wanted & kMountBasic) != 0) FillMount(view, &out);
  if ((wanted & kPropagateFrom) != 0) {
    out.mask |= kPropagateFrom;
    if (view.master_group != 0)
      out.propagate_from = static_cast<uint64_t>(vfs.mounts().DominatingGroup(view, space, root));
  }
  if ((wanted & kType) != 0) {
    out.mask |= kType;
    out.type = AddString(&strings, file_system.type_name());
  }
  if ((wanted & kRoot) != 0) {
    out.mask |= kRoot;
    out.root = AddString(&strings, sentry::RootOfMountText(*view.mount));
  }
  if ((wanted & kPoint) != 0) {
    out.mask |= kPoint;
    out.point = AddString(&strings, vfs.NameOf(top, root));
  }
  if ((wanted & kOptions) != 0) {
    const std::string options = file_system.options();
    if (!options.empty()) {
      out.mask |= kOptions;
      out.options = AddString(&strings, options);
    }
  }
  if ((wanted & kNamespaceId) != 0) {
    out.mask |= kNamespaceId;
    out.namespace_id = space.sequence();
  }
  if (!strings.empty() && bytes < sizeof(MountStatus) + strings.size()) return Errno(EOVERFLOW);
  out.size = static_cast<uint32_t>(sizeof(MountStatus) + strings.size());
  TRY(task.memory().CopyOutExactly(
      buffer, std::as_bytes(std::span(&out, 1)).first(std::min(bytes, sizeof out))));
  if (strings.empty()) return {};
  return task.memory().CopyOutExactly(TRY(buffer.Plus(sizeof(MountStatus))),
                                      std::as_bytes(std::span(strings)));
}

Result<uint64_t> Listmount(Task& task, UserAddr request_addr, UserAddr ids, uint64_t count,
                           uint32_t flags) {
  if ((flags & ~kReverse) != 0) return Errno(EINVAL);
  if (count > kCountMax) return Errno(EOVERFLOW);
  const MountRequest request = TRY(CopyInRequest(task, request_addr));
  if (request.parameter != 0 && request.parameter < kSmallestId) return Errno(EINVAL);
  sentry::Mounts& mounts = VfsOf(task).mounts();
  const sentry::MountNamespace& space = *task.own_namespaces().mount;
  const Path root = task.fs().root();
  Path top = root;
  if (request.mount_id != kListRoot) {
    const MountView view = mounts.ViewOf(space, request.mount_id);
    if (view.mount == nullptr) return Errno(ENOENT);
    top = {view.mount, view.mount->root};
    if (!mounts.IsReachable(top, root) &&
        !task.own_credentials().HasCapabilityIn(space.owner(), CAP_SYS_ADMIN))
      return Errno(EPERM);
  }
  std::vector<MountView> views = mounts.Views(space);
  const bool reverse = (flags & kReverse) != 0;
  if (reverse) std::reverse(views.begin(), views.end());
  std::vector<uint64_t> found;
  for (const MountView& view : views) {
    if (found.size() >= count) break;
    const uint64_t id = view.mount->unique_id;
    if (id == request.mount_id) continue;
    if (request.parameter != 0 && (reverse ? id >= request.parameter : id <= request.parameter))
      continue;
    if (mounts.IsReachable({view.mount, view.mount->root}, top)) found.push_back(id);
  }
  TRY(task.memory().CopyOutArray<uint64_t>(ids, found));
  return uint64_t{found.size()};
}

}  // namespace syscalls
