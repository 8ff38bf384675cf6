#include "sentry/fs/dev/devices.h"

#include <linux/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include <algorithm>
#include <array>
#include <string_view>
#include <utility>

#include "sentry/fs/devpts/devpts.h"
#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/kernel/thread_group.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/mm/memory_manager.h"
#include "sentry/tty/terminal.h"

namespace sentry {
namespace {

using base::Errno;
using base::Result;

// Documentation/admin-guide/devices.txt.
constexpr uint32_t kMemoryMajor = 1;
constexpr uint32_t kNull = 3, kZero = 5, kFull = 7, kRandom = 8, kUrandom = 9;
constexpr uint32_t kTty = 0, kConsole = 1, kPtmx = 2;

constexpr int32_t kEntropyBits = 256;  // What a ready generator reports since Linux 5.18.

// null, zero, full.
class MemoryDevice : public File {
 public:
  using File::File;
  bool seekable() const override { return true; }
  Result<uint64_t> Seek(Task&, uint64_t, int64_t, int) override { return uint64_t{0}; }
};

class NullFile final : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<size_t> Read(Task&, IoBuffer&, uint64_t*) override { return size_t{0}; }
  Result<size_t> Write(Task&, IoBuffer& from, uint64_t*) override {
    from.Skip(from.remaining());
    return static_cast<size_t>(from.done());
  }
};

class ZeroFile : public MemoryDevice {
 public:
  using MemoryDevice::MemoryDevice;
  Result<size_t> Read(Task& task, IoBuffer& to, uint64_t*) override {
    constexpr uint64_t kPieceBytes = 1 << 20;
    size_t total = 0;
    while (to.remaining() > 0) {
      const auto count = to.ZeroOut(std::min(to.remaining(), kPieceBytes));
      if (!count.ok()) {
        if (total == 0) return count.error();
        break;
      }
      total += count.value();
      if (count.value() == 0 || task.IsInterrupted()) break;
    }
    return total;
  }
  Result<size_t> Write(Task&, IoBuffer& from, uint64_t*) override {
    from.Skip(from.remaining());
    return static_cast<size_t>(from.done());
  }
  // A mapping of /dev/zero is anonymous memory.
  Result<void> ConfigureMmap(MmapRequest& request) override {
    request.mappable = nullptr;
    request.offset = 0;
    return {};
  }
};

class FullFile final : public ZeroFile {
 public:
  using ZeroFile::ZeroFile;
  Result<size_t> Write(Task&, IoBuffer&, uint64_t*) override { return Errno(ENOSPC); }
  Result<void> ConfigureMmap(MmapRequest&) override { return Errno(ENODEV); }
};

class RandomFile final : public File {
 public:
  using File::File;
  bool seekable() const override { return true; }
  Result<uint64_t> Seek(Task&, uint64_t position, int64_t, int) override { return position; }

  Result<size_t> Read(Task& task, IoBuffer& to, uint64_t*) override {
    std::array<std::byte, 4096> bytes;
    size_t total = 0;
    while (to.remaining() > 0) {
      const size_t wanted = std::min<uint64_t>(to.remaining(), bytes.size());
      task.kernel().random().Fill(bytes.data(), wanted);
      const auto count = to.CopyOut(std::span(bytes).first(wanted));
      if (!count.ok()) {
        if (total == 0) return count.error();
        break;
      }
      total += count.value();
      if (count.value() < wanted || task.IsInterrupted()) break;
    }
    return total;
  }
  // Our randomness is the host's: what a guest mixes in cannot make it better.
  Result<size_t> Write(Task&, IoBuffer& from, uint64_t*) override {
    from.Skip(from.remaining());
    return static_cast<size_t>(from.done());
  }
  Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override {
    switch (command) {
      case RNDGETENTCNT:
        TRY(task.CopyOut(base::UserOut<int32_t>(base::UserAddr(argument)), kEntropyBits));
        return uint64_t{0};
      case RNDADDTOENTCNT:
      case RNDADDENTROPY:
      case RNDZAPENTCNT:
      case RNDCLEARPOOL:
      case RNDRESEEDCRNG:
        return Errno(EPERM);
      default:
        return Errno(EINVAL);
    }
  }
};

template <typename Device>
Result<FileRef> New(Task& task, const Path& path, uint32_t flags) {
  return FileRef(std::make_shared<Device>(path, flags, task.own_credentials_ref()));
}

Result<FileRef> OpenMemoryDevice(Task& task, const Path& path, uint32_t number, uint32_t flags) {
  switch (number) {
    case kNull:
      return New<NullFile>(task, path, flags);
    case kZero:
      return New<ZeroFile>(task, path, flags);
    case kFull:
      return New<FullFile>(task, path, flags);
    case kRandom:
    case kUrandom:
      return New<RandomFile>(task, path, flags);
    default:
      return Errno(ENXIO);
  }
}

Result<FileRef> OpenControllingTerminal(Task& task, const Path& path, uint32_t flags) {
  const auto terminal = std::dynamic_pointer_cast<Terminal>(task.group().terminal());
  if (terminal == nullptr) return Errno(ENXIO);
  return terminal->OpenSlave(nullptr, path, flags, task.own_credentials_ref());
}

struct Node {
  std::string_view name;
  uint32_t permissions;
  uint32_t major;
  uint32_t minor;
};

constexpr Node kNodes[] = {
    {"null", 0666, kMemoryMajor, kNull},       {"zero", 0666, kMemoryMajor, kZero},
    {"full", 0666, kMemoryMajor, kFull},       {"random", 0666, kMemoryMajor, kRandom},
    {"urandom", 0666, kMemoryMajor, kUrandom}, {"tty", 0666, kTtyMajor, kTty},
};

constexpr std::pair<std::string_view, std::string_view> kLinks[] = {
    {"fd", "/proc/self/fd"},       {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"},
    {"stderr", "/proc/self/fd/2"}, {"ptmx", "pts/ptmx"},
};

constexpr std::pair<std::string_view, uint32_t> kDirectories[] = {
    {"pts", 0755}, {"shm", 01777}, {"mqueue", 01777}};

// Bundles may bring their own /dev entries: those stay.
template <typename T>
Result<void> Tolerate(const Result<T>& made) {
  if (!made.ok() && made.error() != EEXIST) return made.error();
  return {};
}

}  // namespace

Result<void> PopulateDev(Inode& root, bool with_console) {
  for (const Node& node : kNodes) {
    TRY(Tolerate(root.MakeNode(node.name, {.mode = node.permissions, .uid = 0, .gid = 0}, S_IFCHR,
                               makedev(node.major, node.minor))));
  }
  if (with_console) {
    TRY(Tolerate(root.MakeNode("console", {.mode = 0620, .uid = 0, .gid = 5}, S_IFCHR,
                               makedev(kTtyMajor, kConsole))));
  }
  for (const auto& [name, target] : kLinks) {
    TRY(Tolerate(root.MakeSymlink(name, target, {.mode = 0777, .uid = 0, .gid = 0})));
  }
  for (const auto& [name, permissions] : kDirectories) {
    TRY(Tolerate(root.MakeDirectory(name, {.mode = permissions, .uid = 0, .gid = 0})));
  }
  return {};
}

Vfs::DeviceOpener NewDeviceOpener(std::shared_ptr<DevPts> dev_pts,
                                  std::shared_ptr<Terminal> console) {
  return [dev_pts = std::move(dev_pts), console = std::move(console)](
             Task& task, const Path& path, uint64_t rdev, uint32_t flags) -> Result<FileRef> {
    const uint32_t number = minor(rdev);
    if (major(rdev) == kMemoryMajor) return OpenMemoryDevice(task, path, number, flags);
    if (major(rdev) == kTtyMajor) {
      if (number == kTty) return OpenControllingTerminal(task, path, flags);
      if (number == kConsole && console != nullptr) {
        return console->OpenSlave(&task, path, flags, task.own_credentials_ref());
      }
      if (number == kPtmx && dev_pts != nullptr) return dev_pts->OpenMaster(task, path, flags);
    }
    if (major(rdev) == kPtsMajor && dev_pts != nullptr) {
      if (const auto terminal = dev_pts->Find(number)) {
        return terminal->OpenSlave(&task, path, flags, task.own_credentials_ref());
      }
    }
    return Errno(ENXIO);
  };
}

}  // namespace sentry
