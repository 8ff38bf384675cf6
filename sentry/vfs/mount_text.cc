#include "sentry/vfs/mount_text.h"

#include <sys/mount.h>

#include <utility>

namespace sentry {

namespace {

struct FlagName {
  uint64_t flag;
  const char* name;
};

// Of the mount, and of the file system.
constexpr FlagName kMountFlags[] = {{MS_NOSUID, ",nosuid"},
                                    {MS_NODEV, ",nodev"},
                                    {MS_NOEXEC, ",noexec"},
                                    {MS_NOATIME, ",noatime"},
                                    {MS_NODIRATIME, ",nodiratime"},
                                    {MS_RELATIME, ",relatime"},
                                    {kMountNoSymlinkFollow, ",nosymfollow"}};
constexpr FlagName kSuperFlags[] = {{MS_SYNCHRONOUS, ",sync"},
                                    {MS_DIRSYNC, ",dirsync"},
                                    {MS_MANDLOCK, ",mand"},
                                    {MS_LAZYTIME, ",lazytime"}};

template <size_t kCount>
std::string NamesOf(const FlagName (&names)[kCount], uint64_t flags) {
  std::string text;
  for (const FlagName& each : names) {
    if ((flags & each.flag) != 0) text += each.name;
  }
  return text;
}

// As Linux writes what is the file system's own.
std::string OwnOptions(const FileSystem& file_system) {
  const std::string own = file_system.options();
  return own.empty() ? own : "," + own;
}

}  // namespace

std::string EscapeMountText(std::string_view text) {
  std::string out;
  for (const char byte : text) {
    if (byte == ' ' || byte == '\t' || byte == '\n' || byte == '\\' || byte == '#') {
      const auto bits = static_cast<unsigned char>(byte);
      out += '\\';
      for (const int shift : {6, 3, 0}) out += static_cast<char>('0' + ((bits >> shift) & 7));
    } else {
      out += byte;
    }
  }
  return out;
}

std::string RootOfMountText(const Mount& mount) {
  std::string text;
  const Dentry* top = mount.root.get();
  DentryRef hold;
  for (DentryRef up = top->parent(); up != nullptr; up = top->parent()) {
    text.insert(0, "/" + top->name());
    hold = std::move(up);
    top = hold.get();
  }
  // Files of namespaces have a name instead of a place.
  if (text.empty()) text = mount.root->name();
  if (mount.root->is_deleted()) text += "//deleted";
  return text;
}

std::string MountOptionsText(const Mount& mount) {
  const uint64_t flags = mount.flags.load(std::memory_order_relaxed);
  return ((flags & MS_RDONLY) != 0 ? "ro" : "rw") + NamesOf(kMountFlags, flags);
}

std::string SuperOptionsText(const FileSystem& file_system) {
  return (file_system.read_only() ? "ro" : "rw") + NamesOf(kSuperFlags, file_system.super_flags()) +
         OwnOptions(file_system);
}

std::string AllOptionsText(const Mount& mount) {
  const FileSystem& file_system = *mount.file_system;
  return (mount.read_only() ? "ro" : "rw") + NamesOf(kSuperFlags, file_system.super_flags()) +
         NamesOf(kMountFlags, mount.flags.load(std::memory_order_relaxed)) +
         OwnOptions(file_system);
}

}  // namespace sentry
