#include "sentry/fs/overlay/overlay.h"

#include <linux/fs.h>

#include <cerrno>
#include <string>

#include "catch2/catch.hpp"
#include "sentry/vfs/vfs.h"
#include "test/unit/sentry/vfs/files.h"

namespace {

using test::Files;
using test::TestTask;
using Names = std::set<std::string>;

// /lower is the tree below, /o the overlay over it.
struct Fixture {
  Fixture() {
    auto& vfs = task.kernel().vfs();
    lower = sentry::Tmpfs::Create(task.kernel().pool(), task.kernel().clock(), {.mode = 0755});
    files.Mkdir("/lower");
    files.Mkdir("/o");
    RAVELIN_CHECK(vfs.MountAt(vfs.WalkAsKernel("/lower").value(), lower, "none", 0).ok());
    files.Mkdir("/lower/d");
    files.Mkdir("/lower/d/sub");
    files.Make("/lower/f", "lower f");
    files.Make("/lower/d/g", "lower g");
    files.Make("/lower/d/sub/h", "lower h");
    files.Link("/lower/f", "/lower/f2");
    files.Symlink("d/g", "/lower/link");
    upper = sentry::Tmpfs::Create(task.kernel().pool(), task.kernel().clock(), {});
    auto overlay = sentry::Overlay::Create(lower, upper);
    RAVELIN_CHECK(overlay.ok());
    RAVELIN_CHECK(vfs.MountAt(vfs.WalkAsKernel("/o").value(), overlay.value(), "none", 0).ok());
  }
  TestTask task;
  Files files{task};
  std::shared_ptr<sentry::Tmpfs> lower;
  std::shared_ptr<sentry::Tmpfs> upper;
};

TEST_CASE("an overlay shows what is below it", "[overlay]") {
  Fixture t;
  CHECK(t.files.Content("/o/f") == "lower f");
  CHECK(t.files.Content("/o/d/sub/h") == "lower h");
  CHECK(t.files.Content("/o/link") == "lower g");
  CHECK(t.files.Names("/o") == Names{"d", "f", "f2", "link"});
  CHECK(t.files.Stat("/o/f").st_nlink == 2);
  CHECK(t.files.Stat("/o/f").st_dev != t.files.Stat("/lower/f").st_dev);
  CHECK(t.upper->inodes().used() == 1);
}

TEST_CASE("what is written stays above", "[overlay]") {
  Fixture t;
  const struct stat before = t.files.Stat("/o/f");
  const int64_t reader = t.files.Open("/o/f", O_RDONLY);
  const int64_t writer = t.files.Open("/o/f", O_RDWR);
  REQUIRE(writer >= 0);
  CHECK(t.files.Pwrite(writer, "UPPER", 0) == 5);
  CHECK(t.files.Content("/o/f") == "UPPER f");
  CHECK(t.files.Content("/o/f2") == "UPPER f");
  CHECK(t.files.Pread(reader, 100, 0) == "UPPER f");
  CHECK(t.files.Content("/lower/f") == "lower f");
  const struct stat after = t.files.Stat("/o/f");
  CHECK(after.st_ino == before.st_ino);
  CHECK(after.st_dev == before.st_dev);
  CHECK(after.st_nlink == 2);
  CHECK(t.files.Names("/o") == Names{"d", "f", "f2", "link"});
}

TEST_CASE("attributes are copied up without the content", "[overlay]") {
  Fixture t;
  CHECK(t.files.Chmod("/o/f", 0600) == 0);
  CHECK((t.files.Stat("/o/f").st_mode & 0777) == 0600);
  CHECK((t.files.Stat("/o/f2").st_mode & 0777) == 0600);
  CHECK(t.files.Stat("/o/f").st_size == 7);
  CHECK((t.files.Stat("/lower/f").st_mode & 0777) == 0644);
  CHECK(t.files.Content("/o/f") == "lower f");
  CHECK(t.upper->pages().used() == 0);
}

TEST_CASE("a truncated file keeps what was not cut", "[overlay]") {
  Fixture t;
  CHECK(t.files.Truncate("/o/f", 3) == 0);
  CHECK(t.files.Content("/o/f") == "low");
  CHECK(t.files.Truncate("/o/f", 5) == 0);
  CHECK(t.files.Content("/o/f") == std::string("low\0\0", 5));
  CHECK(t.files.Make("/o/d/g", "new") == 0);
  CHECK(t.files.Content("/o/d/g") == "new");
}

TEST_CASE("a name that was removed stays removed", "[overlay]") {
  Fixture t;
  CHECK(t.files.Unlink("/o/f") == 0);
  CHECK_FALSE(t.files.Exists("/o/f"));
  CHECK(t.files.Exists("/lower/f"));
  CHECK(t.files.Stat("/o/f2").st_nlink == 1);
  CHECK(t.files.Names("/o") == Names{"d", "f2", "link"});
  CHECK(t.files.Rmdir("/o/d") == -ENOTEMPTY);
  CHECK(t.files.Unlink("/o/d/g") == 0);
  CHECK(t.files.Rmdir("/o/d") == -ENOTEMPTY);
  CHECK(t.files.Unlink("/o/d/sub/h") == 0);
  CHECK(t.files.Rmdir("/o/d/sub") == 0);
  CHECK(t.files.Rmdir("/o/d") == 0);
  CHECK(t.files.Names("/o") == Names{"f2", "link"});
  // A new directory of the same name is empty.
  CHECK(t.files.Mkdir("/o/d") == 0);
  CHECK(t.files.Names("/o/d").empty());
  CHECK_FALSE(t.files.Exists("/o/d/g"));
  CHECK(t.files.Make("/o/f", "again") == 0);
  CHECK(t.files.Names("/o") == Names{"d", "f", "f2", "link"});
}

TEST_CASE("a directory from below is renamed as any other", "[overlay][rename]") {
  Fixture t;
  CHECK(t.files.Make("/o/d/new", "x") == 0);
  CHECK(t.files.Rename("/o/d", "/o/e") == 0);
  CHECK_FALSE(t.files.Exists("/o/d"));
  CHECK(t.files.Content("/o/e/g") == "lower g");
  CHECK(t.files.Content("/o/e/sub/h") == "lower h");
  CHECK(t.files.Names("/o/e") == Names{"g", "new", "sub"});
  CHECK(t.files.Rename("/o/e/sub", "/o/sub") == 0);
  CHECK(t.files.Content("/o/sub/h") == "lower h");
  CHECK(t.files.Stat("/o/sub/..").st_ino == t.files.Stat("/o").st_ino);
  CHECK(t.files.Mkdir("/o/d") == 0);
  CHECK(t.files.Names("/o/d").empty());
  CHECK(t.files.Rename("/o/d", "/o/e") == -ENOTEMPTY);
  CHECK(t.files.Rename("/o/sub", "/o/d") == 0);
  CHECK(t.files.Names("/o") == Names{"d", "e", "f", "f2", "link"});
}

TEST_CASE("files are renamed over files of either layer", "[overlay][rename]") {
  Fixture t;
  CHECK(t.files.Make("/o/new", "new") == 0);
  CHECK(t.files.Rename("/o/new", "/o/d/g") == 0);
  CHECK(t.files.Content("/o/d/g") == "new");
  CHECK(t.files.Names("/o/d") == Names{"g", "sub"});
  CHECK(t.files.Rename("/o/f", "/o/d/g") == 0);
  CHECK(t.files.Content("/o/d/g") == "lower f");
  CHECK(t.files.Rename("/o/d/g", "/o/link", RENAME_EXCHANGE) == 0);
  CHECK(t.files.Content("/o/link") == "lower f");
  CHECK(S_ISLNK(t.files.Stat("/o/d/g").st_mode));
  CHECK(t.files.Unlink("/o/d/g") == 0);
  CHECK(t.files.Names("/o/d") == Names{"sub"});
}

TEST_CASE("hard links hold across a copy-up", "[overlay]") {
  Fixture t;
  CHECK(t.files.Link("/o/f", "/o/d/f3") == 0);
  CHECK(t.files.Stat("/o/f2").st_nlink == 3);
  CHECK(t.files.Make("/o/d/f3", "all") == 0);
  CHECK(t.files.Content("/o/f") == "all");
  CHECK(t.files.Content("/o/f2") == "all");
  CHECK(t.files.Stat("/o/f").st_ino == t.files.Stat("/o/d/f3").st_ino);
}

TEST_CASE("an open file survives its name", "[overlay]") {
  Fixture t;
  const int64_t fd = t.files.Open("/o/d/g", O_RDONLY);
  REQUIRE(fd >= 0);
  CHECK(t.files.Unlink("/o/d/g") == 0);
  CHECK(t.files.Read(fd) == "lower g");
  CHECK(t.task.Call(SYS_fstat, fd, Files::kData) == 0);
  CHECK(t.task.Peek<uint64_t>(Files::kData + 16) == 0);  // st_nlink
}

TEST_CASE("extended attributes are copied up when one changes", "[overlay][xattr]") {
  Fixture t;
  const auto set = [&](std::string_view path, std::string_view name, std::string_view value) {
    t.task.PokeBytes(Files::kData, std::as_bytes(std::span(value)));
    return t.task.Call(SYS_setxattr, t.task.PokeString(Files::kFirst, path),
                       t.task.PokeString(Files::kSecond, name), Files::kData, value.size(), 0);
  };
  const auto get = [&](std::string_view path, std::string_view name) {
    return t.task.Call(SYS_getxattr, t.task.PokeString(Files::kFirst, path),
                       t.task.PokeString(Files::kSecond, name), Files::kData, 100);
  };
  REQUIRE(set("/lower/d/g", "user.a", "one") == 0);
  CHECK(get("/o/d/g", "user.a") == 3);
  CHECK(set("/o/d/g", "user.b", "four") == 0);
  CHECK(get("/o/d/g", "user.a") == 3);
  CHECK(get("/o/d/g", "user.b") == 4);
  CHECK(get("/lower/d/g", "user.b") == -ENODATA);
}

TEST_CASE("a large directory is listed in pieces, whatever changes meanwhile", "[overlay]") {
  Fixture t;
  for (int i = 0; i < 300; ++i)
    REQUIRE(t.files.Make("/lower/d/sub/l" + std::to_string(i), "") == 0);
  for (int i = 0; i < 300; ++i) REQUIRE(t.files.Make("/o/d/sub/u" + std::to_string(i), "") == 0);
  CHECK(t.files.Names("/o/d/sub").size() == 601);
  const int64_t fd = t.files.Open("/o/d/sub", O_RDONLY | O_DIRECTORY);
  std::multiset<std::string> seen;
  int removed = 0;
  while (true) {
    const int64_t bytes = t.task.Call(SYS_getdents64, fd, Files::kData, 256);
    if (bytes <= 0) break;
    std::vector<std::string> batch;
    for (uint64_t at = 0; at < static_cast<uint64_t>(bytes);) {
      batch.push_back(t.task.PeekString(Files::kData + at + 19));
      at += t.task.Peek<uint16_t>(Files::kData + at + 16);
    }
    for (const std::string& name : batch) {
      seen.insert(name);
      if (name.front() == '.') continue;
      removed += t.files.Unlink("/o/d/sub/" + name) == 0 ? 1 : 0;
    }
  }
  CHECK(removed == 601);
  CHECK(seen.size() == 603);
  t.files.Close(fd);
  CHECK(t.files.Rmdir("/o/d/sub") == 0);
}

}  // namespace
