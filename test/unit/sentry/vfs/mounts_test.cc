#include "sentry/vfs/mounts.h"

#include <sys/mount.h>

#include <cerrno>
#include <string>

#include "catch2/catch.hpp"
#include "sentry/kernel/user_namespace.h"
#include "sentry/vfs/fs_context.h"
#include "test/unit/sentry/vfs/tree.h"

namespace {

using sentry::MountNamespaceRef;
using sentry::Mounts;
using sentry::Path;
using sentry::Propagation;
using test::Tree;

struct MountTree : Tree {
  Mounts& mounts() { return vfs.mounts(); }
  sentry::MountNamespace& space() { return *mounts().initial(); }
  int MountAt(const std::string& path) {
    auto memory = sentry::Tmpfs::Create(*pool, clock, {.mode = 0755});
    return Code(vfs.MountAt(Walk(path).value(), memory, "x", 0));
  }
  int Bind(const std::string& from, const std::string& to, bool recursive = false) {
    return Code(mounts().Bind(space(), Walk(from).value(), Walk(to).value(), recursive));
  }
  int Set(const std::string& path, Propagation propagation) {
    return Code(mounts().SetPropagation(space(), Walk(path).value(), propagation, false));
  }
  int Unmount(const std::string& path, int flags = 0) {
    const Path at = Walk(path).value();
    return Code(mounts().Unmount(space(), at, flags, 1));
  }
  size_t count() { return mounts().MountsOf(space()).size(); }
};

TEST_CASE("a mount reaches the slaves of slaves, and its removal does", "[vfs][mount]") {
  MountTree tree;
  for (const char* name : {"/a", "/b", "/c"}) REQUIRE(tree.Mkdir(name) == 0);
  REQUIRE(tree.MountAt("/a") == 0);
  REQUIRE(tree.Set("/a", Propagation::kShared) == 0);
  REQUIRE(tree.Mkdir("/a/sub") == 0);
  REQUIRE(tree.Bind("/a", "/b") == 0);
  REQUIRE(tree.Set("/b", Propagation::kSlave) == 0);
  REQUIRE(tree.Set("/b", Propagation::kShared) == 0);
  REQUIRE(tree.Bind("/b", "/c") == 0);
  REQUIRE(tree.Set("/c", Propagation::kSlave) == 0);
  const size_t before = tree.count();
  REQUIRE(tree.MountAt("/a/sub") == 0);
  CHECK(tree.count() == before + 3);
  REQUIRE(tree.Mkdir("/a/sub/x") == 0);
  CHECK(tree.Find("/c/sub/x") == 0);
  CHECK(tree.Unmount("/b/sub") == 0);
  CHECK(tree.Find("/c/sub/x") == ENOENT);
  CHECK(tree.Find("/a/sub/x") == 0);
  CHECK(tree.Unmount("/a/sub") == 0);
  CHECK(tree.count() == before);
}

TEST_CASE("a namespace holds no more mounts than its limit", "[vfs][mount][limits]") {
  MountTree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  tree.mounts().mounts_max() = tree.count() + 1;
  CHECK(tree.MountAt("/a") == 0);
  CHECK(tree.MountAt("/a") == ENOSPC);
  CHECK(tree.Bind("/a", "/a") == ENOSPC);
  CHECK(tree.Unmount("/a") == 0);
  CHECK(tree.MountAt("/a") == 0);
}

TEST_CASE("a deep tree of mounts goes with its namespace", "[vfs][mount]") {
  MountTree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  for (int i = 0; i < 2000; ++i) REQUIRE(tree.MountAt("/a") == 0);
  sentry::FsContext fs(tree.vfs.root(), tree.vfs.root(), 0);
  const auto users = std::make_shared<sentry::UserNamespace>(nullptr, uint32_t{0}, uint32_t{0}, 1);
  {
    const MountNamespaceRef copy = tree.mounts().CopyNamespace(tree.space(), users, fs).value();
    CHECK(tree.mounts().MountsOf(*copy).size() == tree.count());
    CHECK(tree.mounts().IsIn(*fs.root().mount, *copy));
    // What came from outside stays.
    const Path top = tree.mounts().Topmost({fs.root().mount, tree.Walk("/").value().dentry});
    CHECK(Tree::Code(tree.mounts().Unmount(*copy, top, MNT_DETACH, 1)) == EINVAL);
  }
  CHECK(tree.count() == 2002);
}

TEST_CASE("a removed mount point of another namespace is unmounted", "[vfs][mount]") {
  MountTree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  sentry::FsContext fs(tree.vfs.root(), tree.vfs.root(), 0);
  const MountNamespaceRef copy = tree.mounts().CopyNamespace(tree.space(), nullptr, fs).value();
  const Path there{fs.root().mount, tree.Walk("/a").value().dentry};
  const auto memory = sentry::Tmpfs::Create(*tree.pool, tree.clock, {.mode = 0755});
  const auto mount = tree.mounts().NewMount(memory, "x", 0);
  REQUIRE(tree.mounts().Attach(*copy, mount, there).ok());
  CHECK(tree.mounts().MountsOf(*copy).size() == 3);
  CHECK(tree.Rmdir("/a") == 0);
  CHECK(tree.mounts().MountsOf(*copy).size() == 2);
}

TEST_CASE("id maps translate, and refuse what overlaps", "[kernel][namespace]") {
  const sentry::Credentials root = *sentry::RootCredentials();
  const auto users = sentry::UserNamespace::Make(root, true).value();
  constexpr auto kUser = sentry::UserNamespace::IdKind::kUser;
  const auto write = [&](const char* text) {
    return Tree::Code(users->WriteMap(kUser, root, root, text));
  };
  CHECK(write("0 0 0\n") == EINVAL);
  CHECK(write("0 1000 10\n5 5000 1\n") == EINVAL);
  CHECK(write("0 1000 4294967295\n") == EINVAL);
  CHECK(write("x\n") == EINVAL);
  CHECK(write("0 1000 10\n100 5000 5\n") == 0);
  CHECK(write("0 1000 10\n") == EPERM);
  CHECK(users->ToGlobal(kUser, 9) == 1009);
  CHECK(users->ToGlobal(kUser, 10) == sentry::kInvalidId);
  CHECK(users->FromGlobal(kUser, 5004) == 104);
  CHECK(sentry::UidSeenFrom(users, 0) == sentry::kOverflowId);
  std::string many;
  for (int i = 0; i <= 340; ++i) many += std::to_string(i) + " " + std::to_string(i) + " 1\n";
  const auto other = sentry::UserNamespace::Make(root, true).value();
  CHECK(Tree::Code(other->WriteMap(kUser, root, root, many)) == EINVAL);
}

}  // namespace
