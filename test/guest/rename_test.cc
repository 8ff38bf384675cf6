// rename(2), renameat2(2).

#include <linux/fs.h>

#include <set>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Content;
using test::Exists;
using test::Make;
using test::Scratch;
using test::Stat;

long Rename2(const char* from, const char* to, unsigned flags) {
  return Code(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags));
}

TEST_CASE("a file replaces a file", "[rename]") {
  const Scratch scratch;
  Make("a", "a");
  Make("b", "b");
  const ino_t inode = Stat("a").st_ino;
  CHECK(rename("a", "b") == 0);
  CHECK_FALSE(Exists("a"));
  CHECK(Content("b") == "a");
  CHECK(Stat("b").st_ino == inode);
  CHECK(Code(rename("x", "y")) == -ENOENT);
  CHECK(Code(rename("b", "")) == -ENOENT);
  CHECK(rename("b", "b") == 0);
}

TEST_CASE("a directory replaces an empty directory only", "[rename]") {
  const Scratch scratch;
  REQUIRE(mkdir("a", 0755) == 0);
  REQUIRE(mkdir("a/in", 0755) == 0);
  REQUIRE(mkdir("empty", 0755) == 0);
  REQUIRE(mkdir("full", 0755) == 0);
  Make("full/f");
  Make("f");
  CHECK(Code(rename("a", "full")) == -ENOTEMPTY);
  CHECK(Code(rename("a", "f")) == -ENOTDIR);
  CHECK(Code(rename("f", "a")) == -EISDIR);
  CHECK(rename("a", "empty") == 0);
  CHECK(Exists("empty/in"));
  CHECK(rename("empty", "new/") == 0);
  CHECK(Exists("new/in"));
  CHECK(Code(rename("f", "g/")) == -ENOTDIR);
  CHECK(Code(rename("f/", "g")) == -ENOTDIR);
}

TEST_CASE("a directory does not go into itself", "[rename]") {
  const Scratch scratch;
  REQUIRE(mkdir("a", 0755) == 0);
  REQUIRE(mkdir("a/b", 0755) == 0);
  REQUIRE(mkdir("a/b/c", 0755) == 0);
  CHECK(Code(rename("a", "a/x")) == -EINVAL);
  CHECK(Code(rename("a", "a/b/c/x")) == -EINVAL);
  CHECK(Code(rename("a/b", "a")) == -ENOTEMPTY);
  CHECK(Code(rename("a/b/c", "a")) == -ENOTEMPTY);
  CHECK(Code(rename("a/.", "x")) == -EBUSY);
  CHECK(Code(rename("a", "..")) == -EBUSY);
}

TEST_CASE("two names of one file stay", "[rename]") {
  const Scratch scratch;
  Make("a", "data");
  REQUIRE(link("a", "b") == 0);
  CHECK(rename("a", "b") == 0);
  CHECK(Exists("a"));
  CHECK(Exists("b"));
}

TEST_CASE("a moved directory keeps what is in it, and its dot dot", "[rename]") {
  const Scratch scratch;
  REQUIRE(mkdir("p", 0755) == 0);
  REQUIRE(mkdir("q", 0755) == 0);
  REQUIRE(mkdir("p/d", 0755) == 0);
  Make("p/d/f", "data");
  CHECK(rename("p/d", "q/e") == 0);
  CHECK(Content("q/e/f") == "data");
  CHECK(Stat("q/e/..").st_ino == Stat("q").st_ino);
  CHECK_FALSE(Exists("p/d/f"));
  CHECK(rmdir("p") == 0);
}

TEST_CASE("rename may be asked not to replace", "[rename]") {
  const Scratch scratch;
  Make("a", "a");
  Make("b", "b");
  CHECK(Rename2("a", "b", RENAME_NOREPLACE) == -EEXIST);
  CHECK(Rename2("a", "c", RENAME_NOREPLACE) == 0);
  CHECK(Content("c") == "a");
  CHECK(Rename2("c", "d", RENAME_NOREPLACE | RENAME_EXCHANGE) == -EINVAL);
  CHECK(Rename2("c", "d", 1U << 30) == -EINVAL);
}

TEST_CASE("rename can exchange two objects of any kind", "[rename]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  REQUIRE(mkdir("d/sub", 0755) == 0);
  Make("f", "file");
  CHECK(Rename2("f", "missing", RENAME_EXCHANGE) == -ENOENT);
  CHECK(Rename2("d", "d/sub", RENAME_EXCHANGE) == -EINVAL);
  CHECK(Rename2("d/sub", "f", RENAME_EXCHANGE) == 0);
  CHECK(S_ISDIR(Stat("f").st_mode));
  CHECK(Content("d/sub") == "file");
}

TEST_CASE("mount points and other file systems are out of reach", "[rename]") {
  const Scratch scratch;
  Make("f");
  CHECK(Code(rename("f", "/proc/x")) == -EXDEV);
  CHECK(Code(rename("/proc", "x")) == -EBUSY);
}

TEST_CASE("an open file follows its new name", "[rename]") {
  const Scratch scratch;
  Make("old", "data");
  const test::Fd fd = test::Open("old", O_RDWR);
  CHECK(rename("old", "new") == 0);
  CHECK(write(fd, "DATA", 4) == 4);
  CHECK(Content("new") == "DATA");
}

}  // namespace
