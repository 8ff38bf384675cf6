#include "sentry/fs/devpts/devpts.h"

#include <dirent.h>
#include <sys/sysmacros.h>

#include <charconv>
#include <string>

#include "sentry/kernel/kernel.h"
#include "sentry/kernel/task.h"
#include "sentry/tty/pty_files.h"

namespace sentry {
namespace {

constexpr uint64_t kDevPtsMagic = 0x1cd1;
constexpr uint32_t kTtyGroup = 5;
constexpr uint32_t kSlavePermissions = 0620;
constexpr uint64_t kPtmxInode = 2;
constexpr uint64_t kFirstSlaveInode = 3;

// A device node whose owner and mode can be changed: sshd and login do so.
class TerminalNode : public SyntheticInode {
 public:
  TerminalNode(DevPts& file_system, uint64_t number, uint32_t permissions, uint64_t rdev,
               Owner owner)
      : SyntheticInode(file_system, S_IFCHR, number), rdev_(rdev) {
    changed_.mode = permissions;
    changed_.uid = owner.uid;
    changed_.gid = owner.gid;
  }

  bool HandlesOwnOpen() const override { return true; }

  base::Result<Attributes> GetAttributes() override {
    Attributes attributes = TRY(SyntheticInode::GetAttributes());
    const absl::MutexLock lock(&mu_);
    attributes.mode = S_IFCHR | *changed_.mode;
    attributes.uid = *changed_.uid;
    attributes.gid = *changed_.gid;
    attributes.rdev = rdev_;
    attributes.block_size = 1024;
    if (changed_.atime) attributes.atime = *changed_.atime;
    if (changed_.mtime) attributes.mtime = *changed_.mtime;
    return attributes;
  }

  base::Result<void> SetAttributes(const AttributeChanges& changes) override {
    const absl::MutexLock lock(&mu_);
    if (changes.mode) changed_.mode = *changes.mode & 07777;
    if (changes.uid) changed_.uid = changes.uid;
    if (changes.gid) changed_.gid = changes.gid;
    if (changes.atime) changed_.atime = changes.atime;
    if (changes.mtime) changed_.mtime = changes.mtime;
    return {};
  }

 private:
  const uint64_t rdev_;
  absl::Mutex mu_;
  AttributeChanges changed_ ABSL_GUARDED_BY(mu_);
};

class SlaveNode final : public TerminalNode {
 public:
  SlaveNode(DevPts& file_system, std::weak_ptr<Terminal> terminal, uint32_t index, Owner owner)
      : TerminalNode(file_system, kFirstSlaveInode + index, kSlavePermissions,
                     makedev(kPtsMajor, index), owner),
        terminal_(std::move(terminal)) {}

  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override {
    const auto terminal = terminal_.lock();
    if (terminal == nullptr) return base::Errno(EIO);
    return terminal->OpenSlave(&task, path, flags, task.credentials());
  }

 private:
  const std::weak_ptr<Terminal> terminal_;
};

class PtmxNode final : public TerminalNode {
 public:
  explicit PtmxNode(DevPts& file_system)
      : TerminalNode(file_system, kPtmxInode, 0666, makedev(kTtyMajor, 2), {}),
        dev_pts_(file_system) {}
  base::Result<std::shared_ptr<File>> Open(Task& task, const Path& path, uint32_t flags) override {
    return dev_pts_.OpenMaster(task, path, flags);
  }

 private:
  DevPts& dev_pts_;
};

}  // namespace

class DevPtsRoot final : public SyntheticDirectory {
 public:
  explicit DevPtsRoot(DevPts& file_system)
      : SyntheticDirectory(file_system, 0755, 1), dev_pts_(file_system) {}

  base::Result<InodeRef> Lookup(std::string_view name) override {
    if (name == "ptmx") return dev_pts_.ptmx_;
    uint32_t index = 0;
    const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), index);
    const bool canonical =
        error == std::errc() && end == name.data() + name.size() && std::to_string(index) == name;
    if (!canonical) return base::Errno(ENOENT);
    const absl::MutexLock lock(&dev_pts_.mu_);
    const auto found = dev_pts_.entries_.find(index);
    if (found == dev_pts_.entries_.end()) return base::Errno(ENOENT);
    return found->second.inode;
  }

  base::Result<std::vector<Entry>> List(Task&) override {
    std::vector<Entry> entries = {{"ptmx", kPtmxInode, DT_CHR, kFirstPosition}};
    const absl::MutexLock lock(&dev_pts_.mu_);
    for (const auto& [index, entry] : dev_pts_.entries_) {
      entries.push_back(
          {std::to_string(index), kFirstSlaveInode + index, DT_CHR, kFirstPosition + 1 + index});
    }
    return entries;
  }

 private:
  DevPts& dev_pts_;
};

std::shared_ptr<DevPts> DevPts::Make(Kernel& kernel) { return std::make_shared<DevPts>(kernel); }

DevPts::DevPts(Kernel& kernel)
    : SyntheticFileSystem({.type_name = "devpts",
                           .magic = kDevPtsMagic,
                           .caches_dentries = false,
                           .options = "gid=5,mode=620,ptmxmode=666"},
                          kernel.clock()),
      kernel_(kernel),
      ptmx_(std::make_shared<PtmxNode>(*this)) {
  SetRoot(std::make_shared<DevPtsRoot>(*this));
}

base::Result<std::shared_ptr<Terminal>> DevPts::NewTerminal(const Credentials& owner) {
  const absl::MutexLock lock(&mu_);
  uint32_t index = 0;
  for (const auto& [used, entry] : entries_) {
    if (used != index) break;
    ++index;
  }
  if (index >= kTerminalsMax) return base::Errno(ENOSPC);
  std::weak_ptr<DevPts> weak = std::static_pointer_cast<DevPts>(shared_from_this());
  auto terminal = std::make_shared<Terminal>(kernel_, index, [weak, index] {
    if (const auto self = weak.lock()) self->Forget(index);
  });
  auto inode = std::make_shared<SlaveNode>(
      *this, terminal, index, SyntheticInode::Owner{.uid = owner.fsuid, .gid = kTtyGroup});
  entries_[index] = {terminal, std::move(inode)};
  return terminal;
}

base::Result<FileRef> DevPts::OpenMaster(Task& task, const Path& path, uint32_t flags) {
  const auto credentials = task.credentials();
  const auto terminal = TRY(NewTerminal(*credentials));
  return terminal->OpenMaster(path, flags, credentials);
}

std::shared_ptr<Terminal> DevPts::Find(uint32_t index) {
  const absl::MutexLock lock(&mu_);
  const auto found = entries_.find(index);
  return found == entries_.end() ? nullptr : found->second.terminal.lock();
}

void DevPts::Forget(uint32_t index) {
  const absl::MutexLock lock(&mu_);
  entries_.erase(index);
}

bool DevPts::Revalidate(Inode& directory, std::string_view name, Inode& child) {
  const auto now = directory.Lookup(name);
  return now.ok() && now.value().get() == &child;
}

}  // namespace sentry
