#pragma once

// A mount tree with a tmpfs root, without tasks.

#include <memory>
#include <string>
#include <string_view>

#include "platform/base/check.h"
#include "platform/memory/memory_pool.h"
#include "sentry/fs/tmpfs/tmpfs.h"
#include "sentry/time/host_clock.h"
#include "sentry/vfs/inode.h"
#include "sentry/vfs/vfs.h"

namespace test {

struct Tree {
  Tree() {
    file_system = sentry::Tmpfs::Create(*pool, clock, {.mode = 0755});
    root_mount = vfs.MountRoot(file_system, "none", 0).value();
  }
  explicit Tree(sentry::FileSystemRef root) {
    root_mount = vfs.MountRoot(std::move(root), "none", 0).value();
  }
  // 0, or the errno.
  template <typename T>
  static int Code(const base::Result<T>& result) {
    return result.ok() ? 0 : result.error().value();
  }
  sentry::Caller Root() const { return vfs.KernelCaller(); }
  sentry::Caller User(uint32_t uid, uint32_t gid) const {
    auto credentials = std::make_shared<sentry::Credentials>();
    credentials->uid = credentials->euid = credentials->suid = credentials->fsuid = uid;
    credentials->gid = credentials->egid = credentials->sgid = credentials->fsgid = gid;
    return sentry::Caller(vfs.root(), vfs.root(), credentials, 022);
  }
  int Mkdir(std::string_view path, uint32_t mode = 0755) {
    return Code(vfs.MakeDirectory(Root(), {}, path, mode));
  }
  int Touch(std::string_view path, uint32_t mode = 0644) {
    return Code(vfs.MakeNode(Root(), {}, path, S_IFREG | mode, 0));
  }
  int Symlink(std::string_view target, std::string_view path) {
    return Code(vfs.MakeSymlink(Root(), target, {}, path));
  }
  int Unlink(std::string_view path) { return Code(vfs.Unlink(Root(), {}, path)); }
  int Rmdir(std::string_view path) { return Code(vfs.RemoveDirectory(Root(), {}, path)); }
  int Rename(std::string_view from, std::string_view to, uint32_t flags = 0) {
    return Code(vfs.Rename(Root(), {}, from, {}, to, flags));
  }
  int Link(std::string_view target, std::string_view path) {
    const auto found = Walk(target, false);
    if (!found.ok()) return Code(found);
    return Code(vfs.Link(Root(), found.value(), {}, path));
  }
  base::Result<sentry::Path> Walk(std::string_view path, bool follow = true, uint64_t resolve = 0) {
    sentry::WalkOptions options;
    options.follow_last = follow;
    options.resolve = resolve;
    return vfs.Walk(Root(), {}, path, options);
  }
  int Find(std::string_view path, bool follow = true, uint64_t resolve = 0) {
    const int code = Code(Walk(path, follow, resolve));
    // Once more, along what is cached now.
    RAVELIN_CHECK(Code(Walk(path, follow, resolve)) == code);
    return code;
  }
  sentry::Attributes Stat(std::string_view path) {
    return Walk(path, false).value().dentry->inode()->GetAttributes().value();
  }

  std::unique_ptr<platform::MemoryPool> pool =
      platform::MemoryPool::Create(uint64_t{1} << 40).value();
  sentry::HostClock clock;
  sentry::Vfs vfs;
  std::shared_ptr<sentry::Tmpfs> file_system;
  std::shared_ptr<sentry::Mount> root_mount;
};

}  // namespace test
