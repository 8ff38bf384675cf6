#include <linux/capability.h>
#include <linux/fs.h>
#include <sys/mount.h>
#include <unistd.h>

#include <cerrno>
#include <string>

#include "catch2/catch.hpp"
#include "test/unit/sentry/vfs/tree.h"

namespace {

using test::Tree;

TEST_CASE("names are made once", "[vfs]") {
  Tree tree;
  CHECK(tree.Mkdir("/d") == 0);
  CHECK(tree.Mkdir("/d") == EEXIST);
  CHECK(tree.Mkdir("/d/") == EEXIST);
  CHECK(tree.Mkdir("/e/") == 0);
  CHECK(tree.Mkdir("/") == EEXIST);
  CHECK(tree.Mkdir("/d/.") == EEXIST);
  CHECK(tree.Mkdir("/d/..") == EEXIST);
  CHECK(tree.Mkdir("/x/y") == ENOENT);
  CHECK(tree.Touch("/f") == 0);
  CHECK(tree.Touch("/f") == EEXIST);
  CHECK(tree.Touch("/g/") == ENOENT);
  CHECK(tree.Mkdir("/f/d") == ENOTDIR);
  CHECK(tree.Symlink("", "/s") == ENOENT);
  CHECK(tree.Symlink("nowhere", "/s") == 0);
  CHECK(tree.Mkdir("/s") == EEXIST);
  CHECK(tree.Mkdir("/s/") == EEXIST);
}

TEST_CASE("unlink and rmdir know what they are given", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/d") == 0);
  REQUIRE(tree.Touch("/d/f") == 0);
  CHECK(tree.Unlink("/d") == EISDIR);
  CHECK(tree.Unlink("/d/") == EISDIR);
  CHECK(tree.Unlink("/d/f/") == ENOTDIR);
  CHECK(tree.Unlink("/d/g") == ENOENT);
  CHECK(tree.Unlink("/d/.") == EISDIR);
  CHECK(tree.Rmdir("/d") == ENOTEMPTY);
  CHECK(tree.Rmdir("/d/f") == ENOTDIR);
  CHECK(tree.Rmdir("/d/.") == EINVAL);
  CHECK(tree.Rmdir("/d/..") == ENOTEMPTY);
  CHECK(tree.Rmdir("/") == EBUSY);
  CHECK(tree.Rmdir("/x") == ENOENT);
  CHECK(tree.Unlink("/d/f") == 0);
  CHECK(tree.Find("/d/f") == ENOENT);
  CHECK(tree.Rmdir("/d/") == 0);
  CHECK(tree.Find("/d") == ENOENT);
}

TEST_CASE("hard links share an inode", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/d") == 0);
  REQUIRE(tree.Touch("/f") == 0);
  CHECK(tree.Link("/f", "/d/g") == 0);
  CHECK(tree.Link("/f", "/d/g") == EEXIST);
  CHECK(tree.Link("/d", "/e") == EPERM);
  CHECK(tree.Link("/f", "/h/") == ENOENT);
  CHECK(tree.Stat("/f").inode == tree.Stat("/d/g").inode);
  CHECK(tree.Stat("/f").nlink == 2);
  CHECK(tree.Rename("/f", "/d/g") == 0);  // Two names of one file: nothing happens.
  CHECK(tree.Find("/f") == 0);
  CHECK(tree.Unlink("/f") == 0);
  CHECK(tree.Stat("/d/g").nlink == 1);
}

TEST_CASE("rename moves, replaces and refuses", "[vfs][rename]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  REQUIRE(tree.Mkdir("/a/b") == 0);
  REQUIRE(tree.Mkdir("/a/b/c") == 0);
  REQUIRE(tree.Mkdir("/empty") == 0);
  REQUIRE(tree.Touch("/f") == 0);
  REQUIRE(tree.Touch("/g") == 0);
  CHECK(tree.Rename("/a", "/a/b/x") == EINVAL);
  CHECK(tree.Rename("/a/b", "/a") == ENOTEMPTY);
  CHECK(tree.Rename("/a/b/c", "/a") == ENOTEMPTY);
  CHECK(tree.Rename("/f", "/a") == EISDIR);
  CHECK(tree.Rename("/a", "/f") == ENOTDIR);
  CHECK(tree.Rename("/empty", "/a") == ENOTEMPTY);
  CHECK(tree.Rename("/x", "/y") == ENOENT);
  CHECK(tree.Rename("/f/", "/y") == ENOTDIR);
  CHECK(tree.Rename("/f", "/y/") == ENOTDIR);
  CHECK(tree.Rename("/a/.", "/y") == EBUSY);
  CHECK(tree.Rename("/a", "/y/..") == ENOENT);
  CHECK(tree.Rename("/f", "/g", RENAME_NOREPLACE) == EEXIST);
  CHECK(tree.Rename("/f", "/h", RENAME_NOREPLACE) == 0);
  CHECK(tree.Rename("/h", "/g") == 0);
  CHECK(tree.Find("/h") == ENOENT);
  CHECK(tree.Rename("/a/b", "/empty") == 0);
  CHECK(tree.Find("/empty/c") == 0);
  CHECK(tree.Stat("/a").nlink == 2);
  CHECK(tree.Stat("/empty").nlink == 3);
  CHECK(tree.vfs.NameOf(tree.Walk("/empty/c").value(), tree.vfs.root()) == "/empty/c");
}

TEST_CASE("rename can exchange", "[vfs][rename]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/a") == 0);
  REQUIRE(tree.Mkdir("/a/d") == 0);
  REQUIRE(tree.Touch("/f") == 0);
  CHECK(tree.Rename("/a/d", "/nothing", RENAME_EXCHANGE) == ENOENT);
  CHECK(tree.Rename("/a", "/a/d", RENAME_EXCHANGE) == EINVAL);
  CHECK(tree.Rename("/a/d", "/a", RENAME_EXCHANGE) == EINVAL);
  CHECK(tree.Rename("/a/d", "/f", RENAME_EXCHANGE | RENAME_NOREPLACE) == EINVAL);
  CHECK(tree.Rename("/a/d", "/f", RENAME_EXCHANGE) == 0);
  CHECK(tree.Stat("/f").IsDirectory());
  CHECK(tree.Stat("/a/d").IsRegular());
  CHECK(tree.Stat("/a").nlink == 2);
}

TEST_CASE("a sticky directory protects its entries", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/tmp", 01777) == 0);
  const sentry::Caller alice = tree.User(1000, 1000);
  const sentry::Caller bob = tree.User(1001, 1001);
  REQUIRE(tree.vfs.MakeNode(alice, {}, "/tmp/f", S_IFREG | 0666, 0).ok());
  CHECK(tree.Stat("/tmp/f").mode == (S_IFREG | 0644));
  CHECK(tree.Stat("/tmp/f").uid == 1000);
  CHECK(Tree::Code(tree.vfs.Unlink(bob, {}, "/tmp/f")) == EPERM);
  CHECK(Tree::Code(tree.vfs.Rename(bob, {}, "/tmp/f", {}, "/tmp/g", 0)) == EPERM);
  CHECK(Tree::Code(tree.vfs.Unlink(alice, {}, "/tmp/f")) == 0);
  CHECK(Tree::Code(tree.vfs.MakeDirectory(alice, {}, "/d", 0755)) == EACCES);
}

TEST_CASE("a set-group-id directory passes its group on", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/shared") == 0);
  sentry::AttributeChanges changes;
  changes.gid = 50;
  changes.mode = 02777;
  REQUIRE(tree.vfs.SetAttributes(tree.Root(), tree.Walk("/shared").value(), changes).ok());
  const sentry::Caller user = tree.User(1000, 1000);
  REQUIRE(tree.vfs.MakeDirectory(user, {}, "/shared/d", 0755).ok());
  REQUIRE(tree.vfs.MakeNode(user, {}, "/shared/f", S_IFREG | 0644, 0).ok());
  CHECK(tree.Stat("/shared/d").gid == 50);
  CHECK((tree.Stat("/shared/d").mode & S_ISGID) != 0);
  CHECK(tree.Stat("/shared/f").gid == 50);
}

TEST_CASE("changes of owner take privileges away", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Touch("/f") == 0);
  sentry::AttributeChanges mode;
  mode.mode = 06755;
  const sentry::Path file = tree.Walk("/f").value();
  REQUIRE(tree.vfs.SetAttributes(tree.Root(), file, mode).ok());
  sentry::AttributeChanges owner;
  owner.uid = 1000;
  REQUIRE(tree.vfs.SetAttributes(tree.Root(), file, owner).ok());
  CHECK(tree.Stat("/f").mode == (S_IFREG | 0755));
  CHECK(Tree::Code(tree.vfs.SetAttributes(tree.User(1001, 1001), file, mode)) == EPERM);
  CHECK(Tree::Code(tree.vfs.SetAttributes(tree.User(1000, 1000), file, owner)) == 0);
  owner.uid = 0;
  CHECK(Tree::Code(tree.vfs.SetAttributes(tree.User(1000, 1000), file, owner)) == EPERM);
}

TEST_CASE("a read-only mount refuses changes", "[vfs][mount]") {
  Tree tree;
  REQUIRE(tree.Touch("/f") == 0);
  tree.root_mount->flags.store(MS_RDONLY);
  CHECK(tree.Touch("/g") == EROFS);
  CHECK(tree.Touch("/f") == EEXIST);
  CHECK(tree.Mkdir("/d") == EROFS);
  CHECK(tree.Unlink("/f") == EROFS);
  CHECK(tree.Rename("/f", "/g") == EROFS);
  sentry::AttributeChanges changes;
  changes.mode = 0;
  CHECK(Tree::Code(tree.vfs.SetAttributes(tree.Root(), tree.Walk("/f").value(), changes)) == EROFS);
}

TEST_CASE("device nodes need a capability", "[vfs]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/tmp", 01777) == 0);
  CHECK(Tree::Code(tree.vfs.MakeNode(tree.Root(), {}, "/null", S_IFCHR | 0666, 0x103)) == 0);
  CHECK(tree.Stat("/null").rdev == 0x103);
  CHECK(Tree::Code(tree.vfs.MakeNode(tree.User(1, 1), {}, "/tmp/null", S_IFCHR | 0666, 0x103)) ==
        EPERM);
  CHECK(Tree::Code(tree.vfs.MakeNode(tree.User(1, 1), {}, "/tmp/fifo", S_IFIFO | 0666, 0)) == 0);
  CHECK(Tree::Code(tree.vfs.MakeNode(tree.Root(), {}, "/d", S_IFDIR | 0666, 0)) == EPERM);
  CHECK(Tree::Code(tree.vfs.MakeNode(tree.Root(), {}, "/d", S_IFLNK | 0666, 0)) == EINVAL);
}

TEST_CASE("a full file system says so", "[tmpfs][limits]") {
  Tree tree;
  REQUIRE(tree.Mkdir("/small") == 0);
  auto small = sentry::Tmpfs::Create(*tree.pool, tree.clock, {.size_bytes = 8192, .inodes_max = 3});
  REQUIRE(tree.vfs.MountAt(tree.Walk("/small").value(), small, "none", 0).ok());
  CHECK(tree.Touch("/small/a") == 0);
  CHECK(tree.Mkdir("/small/b") == 0);
  CHECK(tree.Touch("/small/c") == ENOSPC);
  CHECK(tree.Unlink("/small/a") == 0);
  CHECK(tree.Touch("/small/c") == 0);
}

}  // namespace
