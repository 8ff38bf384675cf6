#include "runsc-cli/main/guest_mounts.h"

#include <fcntl.h>
#include <sys/mount.h>

#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "platform/base/strings.h"
#include "sentry/fs/dev/devices.h"
#include "sentry/fs/devpts/devpts.h"
#include "sentry/fs/gofer/gofer_file_system.h"
#include "sentry/fs/mountable/mountable.h"
#include "sentry/fs/mqueue/mqueue.h"
#include "sentry/fs/overlay/overlay.h"
#include "sentry/fs/proc/proc.h"
#include "sentry/fs/sys/sys.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/ipc/ipc_objects.h"
#include "sentry/vfs/mounts.h"
#include "sentry/vfs/vfs.h"

namespace runsc {
namespace {

using base::Absl;
using base::Result;

absl::Status Failed(std::string_view what, base::Errno error) {
  return absl::InternalError(
      absl::StrCat("cannot mount ", Absl(what), " in the sandbox: ", strerror(error.value())));
}

class TreeBuilder {
 public:
  TreeBuilder(sentry::Kernel& kernel, const std::shared_ptr<gofer::Client>& files,
              const BootConfig& config, const GuestDevices& devices)
      : kernel_(kernel), files_(files), config_(config), devices_(devices) {}

  absl::Status Build() {
    if (config_.container) return BuildContainer();
    if (absl::Status status = MountRoot(); !status.ok()) return status;
    if (absl::Status status = MountKernelFileSystems(); !status.ok()) return status;
    for (size_t i = 1; i < config_.attach_points.size(); ++i) {
      if (absl::Status status = MountVolume(config_.attach_points[i]); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  sentry::TmpfsOptions MemoryOptions() const {
    return sentry::TmpfsOptions::Default(kernel_.options().memory_bytes);
  }

  Result<sentry::FileSystemRef> NewMemory(uint32_t mode) {
    sentry::TmpfsOptions options = MemoryOptions();
    options.mode = mode;
    return sentry::FileSystemRef(sentry::Tmpfs::Create(kernel_.pool(), kernel_.clock(), options));
  }

  // `exclusive`: nobody else is expected to change the tree while the sandbox runs.
  Result<sentry::FileSystemRef> Serve(const AttachPoint& attach, bool exclusive) {
    sentry::GoferOptions options;
    options.attach_name = attach.name;
    // A container's root becomes read-only as a mount, once its mount points are there.
    options.read_only = attach.read_only && !(config_.container && attach.guest_path == "/");
    options.exclusive = exclusive;
    return sentry::FileSystemRef(TRY(sentry::GoferFileSystem::Create(files_, options)));
  }

  absl::Status MountRoot() {
    const AttachPoint& root = config_.attach_points.front();
    Result<sentry::FileSystemRef> lower = Serve(root, true);
    if (!lower.ok()) return Failed("the root", lower.error());
    auto overlay = sentry::Overlay::Create(
        lower.value(), sentry::Tmpfs::Create(kernel_.pool(), kernel_.clock(), MemoryOptions()));
    if (!overlay.ok()) return Failed("the root's overlay", overlay.error());
    const auto mounted = kernel_.vfs().MountRoot(std::move(overlay).value(), "none", 0);
    if (!mounted.ok()) return Failed("the root", mounted.error());
    return absl::OkStatus();
  }

  absl::Status MountKernelFileSystems() {
    constexpr uint64_t kSafe = MS_NOSUID | MS_NODEV | MS_NOEXEC;
    Result<sentry::FileSystemRef> dev = NewMemory(0755);
    if (!dev.ok()) return Failed("/dev", dev.error());
    const Result<void> populated =
        sentry::PopulateDev(*dev.value()->root(), devices_.console != nullptr);
    if (!populated.ok()) return Failed("/dev", populated.error());
    RegisterTypes();
    Result<sentry::FileSystemRef> shm = NewMemory(01777);
    if (!shm.ok()) return Failed("/dev/shm", shm.error());
    struct Entry {
      const char* path;
      sentry::FileSystemRef file_system;
      const char* source;
      uint64_t flags;
    };
    const Entry entries[] = {
        {"/proc", sentry::NewProc(kernel_), "proc", kSafe},
        {"/sys", sentry::NewSys(kernel_), "sysfs", kSafe | MS_RDONLY},
        {"/dev", std::move(dev).value(), "dev", MS_NOSUID | MS_NOEXEC},
        {"/dev/pts", devices_.dev_pts, "devpts", MS_NOSUID | MS_NOEXEC},
        {"/dev/shm", std::move(shm).value(), "shm", MS_NOSUID | MS_NODEV},
        {"/dev/mqueue", sentry::IpcObjectsOf(kernel_, *kernel_.initial_namespaces()).mqueue_ref(),
         "mqueue", kSafe},
    };
    for (const Entry& entry : entries) {
      if (absl::Status status =
              Mount(entry.path, entry.file_system, entry.source, entry.flags, true);
          !status.ok()) {
        return status;
      }
    }
    return absl::OkStatus();
  }

  // --- An OCI container.
  absl::Status BuildContainer() {
    const AttachPoint& root = config_.attach_points.front();
    Result<sentry::FileSystemRef> served = Serve(root, !config_.root_shared);
    if (!served.ok()) return Failed("the root", served.error());
    const auto mounted = kernel_.vfs().MountRoot(std::move(served).value(), "rootfs", 0);
    if (!mounted.ok()) return Failed("the root", mounted.error());
    RegisterTypes();
    for (const GuestMount& mount : config_.mounts) {
      if (absl::Status status = MountOne(mount); !status.ok()) return status;
    }
    for (const std::string& path : config_.read_only_paths) {
      if (absl::Status status = MakeReadOnly(path); !status.ok()) return status;
    }
    for (const std::string& path : config_.masked_paths) {
      if (absl::Status status = Mask(path); !status.ok()) return status;
    }
    // Last: mount points had to be made.
    if (root.read_only) mounted.value()->flags.fetch_or(MS_RDONLY);
    return absl::OkStatus();
  }

  absl::Status MountOne(const GuestMount& mount) {
    Result<sentry::FileSystemRef> made = MakeFileSystem(mount);
    if (!made.ok() && made.error() == ENODEV) {
      return absl::InvalidArgumentError(absl::StrCat("mounts: the type \"", mount.type, "\" of ",
                                                     mount.destination, " is not known"));
    }
    if (!made.ok()) return Failed(mount.destination, made.error());
    return Mount(mount.destination, std::move(made).value(), mount.source.c_str(), mount.flags,
                 mount.is_directory);
  }

  Result<sentry::FileSystemRef> MakeFileSystem(const GuestMount& mount) {
    if (!mount.attach.empty()) {
      for (const AttachPoint& point : config_.attach_points) {
        if (point.name == mount.attach) return Serve(point, false);
      }
      return base::Errno(ENODEV);
    }
    if (mount.type == "proc") return sentry::FileSystemRef(sentry::NewProc(kernel_));
    if (mount.type == "sysfs") return sentry::FileSystemRef(sentry::NewSys(kernel_));
    if (mount.type == "devpts") return sentry::FileSystemRef(devices_.dev_pts);
    if (mount.type != "tmpfs" && mount.type != "mqueue" && mount.type != "cgroup" &&
        mount.type != "cgroup2") {
      return base::Errno(ENODEV);
    }
    sentry::TmpfsOptions options;
    if (mount.type == "tmpfs") {
      options = TRY(sentry::ParseTmpfsOptions(mount.data, kernel_.options().memory_bytes));
    } else if (mount.type != "mqueue") {
      options.mode = 0755;
    }
    sentry::FileSystemRef memory(sentry::Tmpfs::Create(kernel_.pool(), kernel_.clock(), options));
    if (mount.destination == "/dev") {
      TRY(sentry::PopulateDev(*memory->root(), devices_.console != nullptr));
    }
    return memory;
  }

  // What is not there needs no protection.
  absl::Status MakeReadOnly(const std::string& path) {
    const Result<sentry::Path> at = kernel_.vfs().WalkAsKernel(path);
    if (!at.ok()) return absl::OkStatus();
    const auto bound = Bind(at.value(), at.value(), true);
    if (!bound.ok()) return Failed(path, bound.error());
    bound.value()->flags.fetch_or(MS_RDONLY);
    return absl::OkStatus();
  }

  Result<sentry::MountRef> Bind(const sentry::Path& from, const sentry::Path& at, bool recursive) {
    sentry::Mounts& mounts = kernel_.vfs().mounts();
    return mounts.Bind(*mounts.initial(), from, at, recursive);
  }

  // A directory becomes an empty one, anything else /dev/null.
  absl::Status Mask(const std::string& path) {
    sentry::Vfs& vfs = kernel_.vfs();
    const Result<sentry::Path> at = vfs.WalkAsKernel(path);
    if (!at.ok()) return absl::OkStatus();
    if (vfs.Walk(vfs.KernelCaller(), {}, path, {.directory_only = true}).ok()) {
      return Mount(path, NewMemory(0755).value(), "tmpfs", MS_RDONLY, true);
    }
    const Result<sentry::Path> null = vfs.WalkAsKernel("/dev/null");
    if (!null.ok()) return Failed(path, null.error());
    const auto bound = Bind(null.value(), at.value(), false);
    if (!bound.ok()) return Failed(path, bound.error());
    return absl::OkStatus();
  }

  // What a guest with CAP_SYS_ADMIN may mount itself, and the devices.
  void RegisterTypes() {
    sentry::Vfs& vfs = kernel_.vfs();
    vfs.SetCharacterDeviceOpener(sentry::NewDeviceOpener(devices_.dev_pts, devices_.console));
    sentry::RegisterFileSystemTypes(kernel_);
  }

  absl::Status MountVolume(const AttachPoint& volume) {
    Result<sentry::FileSystemRef> served = Serve(volume, false);
    if (!served.ok()) return Failed(volume.guest_path, served.error());
    return Mount(volume.guest_path, std::move(served).value(), "none",
                 volume.read_only ? MS_RDONLY : 0, volume.is_directory);
  }

  absl::Status Mount(const std::string& path, const sentry::FileSystemRef& file_system,
                     const char* source, uint64_t flags, bool directory) {
    if (const Result<void> made = Ensure(path, directory); !made.ok())
      return Failed(path, made.error());
    const Result<sentry::Path> at = kernel_.vfs().WalkAsKernel(path);
    if (!at.ok()) return Failed(path, at.error());
    const auto mounted = kernel_.vfs().MountAt(at.value(), file_system, source, flags);
    if (!mounted.ok()) return Failed(path, mounted.error());
    return absl::OkStatus();
  }

  // The mount point and the directories above it, made where they are missing.
  Result<void> Ensure(const std::string& path, bool directory) {
    sentry::Vfs& vfs = kernel_.vfs();
    const sentry::Caller caller = vfs.KernelCaller();
    for (size_t end = path.find('/', 1);; end = path.find('/', end + 1)) {
      const bool last = end == std::string::npos;
      const std::string prefix = path.substr(0, end);
      if (!vfs.WalkAsKernel(prefix).ok()) {
        if (last && !directory) {
          TRY(vfs.MakeNode(caller, {}, prefix, S_IFREG | 0644, 0));
        } else {
          TRY(vfs.MakeDirectory(caller, {}, prefix, 0755));
        }
      }
      if (last) return {};
    }
  }

  sentry::Kernel& kernel_;
  const std::shared_ptr<gofer::Client>& files_;
  const BootConfig& config_;
  const GuestDevices& devices_;
};

}  // namespace

absl::Status MountGuestTree(sentry::Kernel& kernel, const std::shared_ptr<gofer::Client>& files,
                            const BootConfig& config, const GuestDevices& devices) {
  return TreeBuilder(kernel, files, config, devices).Build();
}

}  // namespace runsc
