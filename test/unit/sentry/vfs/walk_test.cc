#include <linux/openat2.h>

#include <cerrno>
#include <string>

#include "catch2/catch.hpp"
#include "sentry/vfs/dentry_cache.h"
#include "sentry/vfs/mounts.h"
#include "test/unit/sentry/vfs/tree.h"

namespace {

using test::Tree;

TEST_CASE("a path is walked component by component", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  REQUIRE(tree.Mkdir("/a/b") == 0);
  REQUIRE(tree.Touch("/a/b/f") == 0);
  CHECK(tree.Find("/a/b/f") == 0);
  CHECK(tree.Find("a/b/f") == 0);
  CHECK(tree.Find("//a///b/./f") == 0);
  CHECK(tree.Find("/a/b/../b/f") == 0);
  CHECK(tree.Find("/../../a") == 0);
  CHECK(tree.Find("/a/b/") == 0);
  CHECK(tree.Find("/") == 0);
  CHECK(tree.Find(".") == 0);
  CHECK(tree.Find("") == ENOENT);
  CHECK(tree.Find("/a/x") == ENOENT);
  CHECK(tree.Find("/x/f") == ENOENT);
  CHECK(tree.Find("/a/b/f/") == ENOTDIR);
  CHECK(tree.Find("/a/b/f/g") == ENOTDIR);
  CHECK(tree.Find("/a/b/f/..") == ENOTDIR);
}

TEST_CASE("names and paths have their limits", "[vfs][walk][limits]") {
  Tree tree;
  const std::string longest(255, 'n');
  CHECK(tree.Touch("/" + longest) == 0);
  CHECK(tree.Find("/" + longest) == 0);
  CHECK(tree.Find("/" + longest + "n") == ENAMETOOLONG);
  CHECK(tree.Touch("/" + longest + "n") == ENAMETOOLONG);
  std::string path(4095, '/');
  CHECK(tree.Find(path) == 0);
  CHECK(tree.Find(path + "/") == ENAMETOOLONG);
}

TEST_CASE("symbolic links are followed, at most forty", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/d") == 0);
  REQUIRE(tree.Touch("/d/f") == 0);
  REQUIRE(tree.Symlink("d", "/to-d") == 0);
  REQUIRE(tree.Symlink("/d/f", "/to-f") == 0);
  REQUIRE(tree.Symlink("d/", "/to-d-slash") == 0);
  REQUIRE(tree.Symlink("nowhere", "/dangling") == 0);
  REQUIRE(tree.Symlink("loop", "/loop") == 0);
  REQUIRE(tree.Symlink("/", "/to-root") == 0);
  CHECK(tree.Find("/to-d/f") == 0);
  CHECK(tree.Find("/to-d-slash/f") == 0);
  CHECK(tree.Find("/to-root/to-root/to-d/f") == 0);
  CHECK(tree.Find("/to-f") == 0);
  CHECK(tree.Find("/to-f/") == ENOTDIR);
  CHECK(tree.Find("/dangling") == ENOENT);
  CHECK(tree.Find("/dangling", false) == 0);
  CHECK(tree.Find("/loop") == ELOOP);
  CHECK(tree.Walk("/to-d", false).value().dentry->is_symlink());
  CHECK(tree.Walk("/to-d/", false).value().dentry->is_directory());
  REQUIRE(tree.Touch("/l0") == 0);
  for (int i = 1; i <= 41; ++i) {
    REQUIRE(tree.Symlink("l" + std::to_string(i - 1), "/l" + std::to_string(i)) == 0);
  }
  CHECK(tree.Find("/l40") == 0);
  CHECK(tree.Find("/l41") == ELOOP);
}

TEST_CASE("directories need search permission, root does not", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/closed", 0700) == 0);
  REQUIRE(tree.Touch("/closed/f") == 0);
  const sentry::Caller user = tree.User(1000, 1000);
  CHECK(Tree::Code(tree.vfs.Walk(user, {}, "/closed", {})) == 0);
  CHECK(Tree::Code(tree.vfs.Walk(user, {}, "/closed/f", {})) == EACCES);
  CHECK(Tree::Code(tree.vfs.Walk(user, {}, "/closed/nothing", {})) == EACCES);
  CHECK(Tree::Code(tree.vfs.Walk(user, {}, "/closed/.", {})) == EACCES);
  CHECK(tree.Find("/closed/f") == 0);
}

TEST_CASE("openat2's scopes hold the walk back", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/jail") == 0);
  REQUIRE(tree.Mkdir("/jail/in") == 0);
  REQUIRE(tree.Touch("/jail/f") == 0);
  REQUIRE(tree.Touch("/f-outside") == 0);
  REQUIRE(tree.Symlink("/f", "/jail/absolute") == 0);
  REQUIRE(tree.Symlink("../f-outside", "/jail/up") == 0);
  const sentry::Path jail = tree.Walk("/jail").value();
  const auto find = [&](std::string_view path, uint64_t resolve) {
    sentry::WalkOptions options;
    options.resolve = resolve;
    return Tree::Code(tree.vfs.Walk(tree.Root(), jail, path, options));
  };
  CHECK(find("f", RESOLVE_BENEATH) == 0);
  CHECK(find("in/../f", RESOLVE_BENEATH) == 0);
  CHECK(find("../f-outside", RESOLVE_BENEATH) == EXDEV);
  CHECK(find("/f-outside", RESOLVE_BENEATH) == EXDEV);
  CHECK(find("absolute", RESOLVE_BENEATH) == EXDEV);
  CHECK(find("up", RESOLVE_BENEATH) == EXDEV);
  CHECK(find("absolute", RESOLVE_IN_ROOT) == 0);
  CHECK(find("/f", RESOLVE_IN_ROOT) == 0);
  CHECK(find("../../f", RESOLVE_IN_ROOT) == 0);
  CHECK(find("up", RESOLVE_IN_ROOT) == ENOENT);
  CHECK(find("up", 0) == 0);
  CHECK(find("up", RESOLVE_NO_SYMLINKS) == ELOOP);
  CHECK(find("f", RESOLVE_CACHED) == 0);
}

TEST_CASE("mounts are crossed downwards and upwards", "[vfs][mount]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/mnt") == 0);
  REQUIRE(tree.Touch("/mnt/below") == 0);
  auto other = sentry::Tmpfs::Create(*tree.pool, tree.clock, {});
  REQUIRE(tree.vfs.MountAt(tree.Walk("/mnt").value(), other, "none", 0).ok());
  CHECK(tree.Find("/mnt/below") == ENOENT);
  REQUIRE(tree.Mkdir("/mnt/sub") == 0);
  CHECK(tree.Stat("/mnt").device == other->device());
  CHECK(tree.Stat("/mnt/..").device == tree.file_system->device());
  CHECK(tree.Stat("/mnt/sub/../..").device == tree.file_system->device());
  CHECK(tree.Find("/mnt/sub", true, RESOLVE_NO_XDEV) == EXDEV);
  CHECK(tree.Rmdir("/mnt") == EBUSY);
  CHECK(tree.Rename("/mnt", "/other") == EBUSY);
  CHECK(tree.Touch("/here") == 0);
  CHECK(tree.Rename("/here", "/mnt/here") == EXDEV);
  CHECK(tree.Link("/here", "/mnt/here") == EXDEV);
  CHECK(tree.vfs.NameOf(tree.Walk("/mnt/sub").value(), tree.vfs.root()) == "/mnt/sub");
  CHECK(Tree::Code(tree.vfs.mounts().Unmount(*tree.vfs.mounts().initial(),
                                             tree.Walk("/mnt").value(), 0, 1)) == 0);
  CHECK(tree.Find("/mnt/below") == 0);
}

TEST_CASE("a bind mount shows the same files elsewhere", "[vfs][mount]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  REQUIRE(tree.Mkdir("/b") == 0);
  REQUIRE(tree.Touch("/a/f") == 0);
  REQUIRE(tree.vfs.mounts()
              .Bind(*tree.vfs.mounts().initial(), tree.Walk("/a").value(), tree.Walk("/b").value(),
                    false)
              .ok());
  CHECK(tree.Stat("/b/f").inode == tree.Stat("/a/f").inode);
  CHECK(tree.Stat("/b/..").inode == tree.Stat("/").inode);
  REQUIRE(tree.Unlink("/b/f") == 0);
  CHECK(tree.Find("/a/f") == ENOENT);
}

TEST_CASE("a root of one's own cannot be left through dot dot", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/jail") == 0);
  REQUIRE(tree.Mkdir("/jail/d") == 0);
  REQUIRE(tree.Symlink("/d", "/jail/link") == 0);
  const sentry::Path jail = tree.Walk("/jail").value();
  const sentry::Caller caller(jail, jail, sentry::RootCredentials(), 0);
  const auto top = tree.vfs.Walk(caller, {}, "../../..", {});
  REQUIRE(top.ok());
  CHECK(top.value() == jail);
  CHECK(Tree::Code(tree.vfs.Walk(caller, {}, "/link", {})) == 0);
  CHECK(tree.vfs.NameOf(tree.Walk("/jail/d").value(), jail) == "/d");
  CHECK(tree.vfs.NameOf(tree.vfs.root(), jail) == "(unreachable)/");
}

TEST_CASE("a removed working directory has dot and dot dot, nothing else", "[vfs][walk]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/gone") == 0);
  const sentry::Path gone = tree.Walk("/gone").value();
  const sentry::Caller caller(tree.vfs.root(), gone, sentry::RootCredentials(), 0);
  REQUIRE(tree.Rmdir("/gone") == 0);
  CHECK(Tree::Code(tree.vfs.Walk(caller, {}, ".", {})) == 0);
  CHECK(Tree::Code(tree.vfs.Walk(caller, {}, "..", {})) == 0);
  CHECK(Tree::Code(tree.vfs.Walk(caller, {}, "x", {})) == ENOENT);
  CHECK(Tree::Code(tree.vfs.MakeDirectory(caller, {}, "x", 0755)) == ENOENT);
  CHECK(tree.vfs.NameOf(gone, tree.vfs.root()) == "/gone (deleted)");
}

TEST_CASE("the cache stays within its bound", "[vfs][cache]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/d") == 0);
  for (int i = 0; i < 70000; ++i) REQUIRE(tree.Touch("/d/" + std::to_string(i)) == 0);
  CHECK(tree.vfs.cached_dentries() <= sentry::DentryCache::kEntriesMax + 16);
  for (int i = 0; i < 70000; i += 997) CHECK(tree.Find("/d/" + std::to_string(i)) == 0);
  for (int i = 0; i < 70000; ++i) REQUIRE(tree.Unlink("/d/" + std::to_string(i)) == 0);
  CHECK(tree.Rmdir("/d") == 0);
  CHECK(tree.file_system->inodes().used() == 1);
}

}  // namespace
