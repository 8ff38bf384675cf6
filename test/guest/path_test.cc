// Paths: how they are walked, and calls that make and remove names.

#include <linux/openat2.h>
#include <sys/sysmacros.h>

#include <climits>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Content;
using test::Exists;
using test::Fd;
using test::Make;
using test::Open;
using test::Scratch;
using test::Stat;

long OpenAt2(int base, const char* path, uint64_t flags, uint64_t resolve) {
  open_how how{};
  how.flags = flags;
  how.resolve = resolve;
  return Code(syscall(SYS_openat2, base, path, &how, sizeof(how)));
}

TEST_CASE("names are made once", "[path]") {
  const Scratch scratch;
  CHECK(mkdir("d", 0755) == 0);
  CHECK(Code(mkdir("d", 0755)) == -EEXIST);
  CHECK(Code(mkdir("d/.", 0755)) == -EEXIST);
  CHECK(Code(mkdir("/", 0755)) == -EEXIST);
  CHECK(mkdir("e/", 0755) == 0);
  CHECK(Code(mkdir("x/y", 0755)) == -ENOENT);
  CHECK(Code(mkdir("", 0755)) == -ENOENT);
  Make("f");
  CHECK(Code(mkdir("f/d", 0755)) == -ENOTDIR);
  CHECK(Code(mknod("f", S_IFREG | 0644, 0)) == -EEXIST);
  CHECK(Code(mknod("g/", S_IFREG | 0644, 0)) == -ENOENT);
  CHECK(mknod("g", S_IFREG | 0644, 0) == 0);
  CHECK(mkfifo("fifo", 0644) == 0);
  CHECK(S_ISFIFO(Stat("fifo").st_mode));
  CHECK(Code(mknod("h", S_IFDIR | 0755, 0)) == -EPERM);
  CHECK(Code(symlink("", "s")) == -ENOENT);
  CHECK(symlink("nowhere", "s") == 0);
  CHECK(Code(mkdir("s", 0755)) == -EEXIST);
}

TEST_CASE("the umask is taken from the mode", "[path]") {
  const Scratch scratch;
  CHECK(umask(027) == 022);
  CHECK(mkdir("d", 0777) == 0);
  CHECK((Stat("d").st_mode & 07777) == 0750);
  Open("f", O_CREAT | O_WRONLY, 0666);
  CHECK((Stat("f").st_mode & 07777) == 0640);
  CHECK(umask(0177777) == 027);
  CHECK(umask(022) == 0777);
}

TEST_CASE("unlink and rmdir know what they are given", "[path]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  Make("d/f");
  CHECK(Code(unlink("d")) == -EISDIR);
  CHECK(Code(unlink("d/f/")) == -ENOTDIR);
  CHECK(Code(unlink("d/x")) == -ENOENT);
  CHECK(Code(unlink("d/.")) == -EISDIR);
  CHECK(Code(rmdir("d")) == -ENOTEMPTY);
  CHECK(Code(rmdir("d/f")) == -ENOTDIR);
  CHECK(Code(rmdir("d/.")) == -EINVAL);
  CHECK(Code(rmdir("d/..")) == -ENOTEMPTY);
  CHECK(Code(rmdir("/")) == -EBUSY);
  CHECK(Code(unlinkat(AT_FDCWD, "d", 1)) == -EINVAL);
  CHECK(unlink("d/f") == 0);
  CHECK_FALSE(Exists("d/f"));
  CHECK(unlinkat(AT_FDCWD, "d/", AT_REMOVEDIR) == 0);
  CHECK_FALSE(Exists("d"));
}

TEST_CASE("names and paths have their limits", "[path]") {
  const Scratch scratch;
  const std::string longest(255, 'n');
  Make(longest);
  CHECK(Exists(longest));
  CHECK(Code(open((longest + "n").c_str(), O_CREAT | O_WRONLY, 0644)) == -ENAMETOOLONG);
  CHECK(Code(access((longest + "n").c_str(), F_OK)) == -ENAMETOOLONG);
  CHECK(access(std::string(4095, '/').c_str(), F_OK) == 0);
  CHECK(Code(access(std::string(4096, '/').c_str(), F_OK)) == -ENAMETOOLONG);
}

TEST_CASE("symbolic links are followed, at most forty", "[path]") {
  const Scratch scratch;
  Make("l0", "end");
  for (int i = 1; i <= 41; ++i) {
    REQUIRE(symlink(("l" + std::to_string(i - 1)).c_str(), ("l" + std::to_string(i)).c_str()) == 0);
  }
  CHECK(Content("l40") == "end");
  CHECK(Code(open("l41", O_RDONLY)) == -ELOOP);
  CHECK(symlink("loop", "loop") == 0);
  CHECK(Code(open("loop", O_RDONLY)) == -ELOOP);
  CHECK(Code(access("loop/x", F_OK)) == -ELOOP);
  REQUIRE(mkdir("d", 0755) == 0);
  Make("d/f", "in d");
  REQUIRE(symlink("d/", "to-d") == 0);
  REQUIRE(symlink("to-d/../to-d", "again") == 0);
  CHECK(Content("again/f") == "in d");
  CHECK(Code(access("l1/", F_OK)) == -ENOTDIR);
  CHECK(Code(rmdir("to-d")) == -ENOTDIR);
  CHECK(Code(rmdir("to-d/")) == -ENOTDIR);
}

TEST_CASE("readlink gives the text, cut to the buffer", "[path]") {
  const Scratch scratch;
  REQUIRE(symlink("some/target", "s") == 0);
  char buffer[32] = {};
  CHECK(readlink("s", buffer, sizeof(buffer)) == 11);
  CHECK(std::string(buffer, 11) == "some/target");
  CHECK(readlink("s", buffer, 4) == 4);
  CHECK(Code(readlink("s", buffer, 0)) == -EINVAL);
  CHECK(Code(readlink(".", buffer, 4)) == -EINVAL);
  CHECK(Stat("s").st_size == 11);
  const Fd path = Open("s", O_PATH | O_NOFOLLOW);
  CHECK(readlinkat(path, "", buffer, sizeof(buffer)) == 11);
}

TEST_CASE("hard links share an inode", "[path]") {
  const Scratch scratch;
  Make("f", "data");
  REQUIRE(mkdir("d", 0755) == 0);
  CHECK(link("f", "d/g") == 0);
  CHECK(Stat("f").st_ino == Stat("d/g").st_ino);
  CHECK(Stat("f").st_nlink == 2);
  CHECK(Code(link("f", "d/g")) == -EEXIST);
  CHECK(Code(link("d", "e")) == -EPERM);
  CHECK(Code(link("x", "y")) == -ENOENT);
  REQUIRE(symlink("f", "s") == 0);
  CHECK(link("s", "s2") == 0);
  CHECK(S_ISLNK(Stat("s2").st_mode));
  CHECK(linkat(AT_FDCWD, "s", AT_FDCWD, "f2", AT_SYMLINK_FOLLOW) == 0);
  CHECK(Stat("f").st_nlink == 3);
  CHECK(Code(linkat(AT_FDCWD, "s", AT_FDCWD, "f3", AT_REMOVEDIR)) == -EINVAL);
  CHECK(unlink("f") == 0);
  CHECK(Content("d/g") == "data");
}

TEST_CASE("the at calls start at a descriptor", "[path]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  const Fd d = Open("d", O_RDONLY | O_DIRECTORY);
  CHECK(mkdirat(d, "sub", 0755) == 0);
  CHECK(Exists("d/sub"));
  Make("f");
  const Fd file = Open("f", O_RDONLY);
  CHECK(Code(mkdirat(file, "sub", 0755)) == -ENOTDIR);
  CHECK(Code(mkdirat(987, "sub", 0755)) == -EBADF);
  CHECK(mkdirat(987, (scratch.path() + "/absolute").c_str(), 0755) == 0);
  CHECK(faccessat(d, "sub", F_OK, 0) == 0);
}

TEST_CASE("openat2 keeps a walk in its scope", "[path]") {
  const Scratch scratch;
  REQUIRE(mkdir("jail", 0755) == 0);
  REQUIRE(mkdir("jail/in", 0755) == 0);
  Make("jail/f");
  Make("outside");
  REQUIRE(symlink("/f", "jail/absolute") == 0);
  REQUIRE(symlink("../outside", "jail/up") == 0);
  const Fd jail = Open("jail", O_PATH);
  CHECK(OpenAt2(jail, "in/../f", O_RDONLY, RESOLVE_BENEATH) > 0);
  CHECK(OpenAt2(jail, "../outside", O_RDONLY, RESOLVE_BENEATH) == -EXDEV);
  CHECK(OpenAt2(jail, "/f", O_RDONLY, RESOLVE_BENEATH) == -EXDEV);
  CHECK(OpenAt2(jail, "absolute", O_RDONLY, RESOLVE_BENEATH) == -EXDEV);
  CHECK(OpenAt2(jail, "up", O_RDONLY, RESOLVE_BENEATH) == -EXDEV);
  CHECK(OpenAt2(jail, "absolute", O_RDONLY, RESOLVE_IN_ROOT) > 0);
  CHECK(OpenAt2(jail, "../../f", O_RDONLY, RESOLVE_IN_ROOT) > 0);
  CHECK(OpenAt2(jail, "up", O_RDONLY, RESOLVE_IN_ROOT) == -ENOENT);
  CHECK(OpenAt2(jail, "up", O_RDONLY, RESOLVE_NO_SYMLINKS) == -ELOOP);
  CHECK(OpenAt2(AT_FDCWD, "/proc/self/fd/0", O_PATH, RESOLVE_NO_MAGICLINKS) == -ELOOP);
  CHECK(OpenAt2(AT_FDCWD, "/proc/version", O_RDONLY, RESOLVE_NO_XDEV) == -EXDEV);
  CHECK(OpenAt2(jail, "f", O_RDONLY, RESOLVE_BENEATH | RESOLVE_IN_ROOT) == -EINVAL);
  CHECK(OpenAt2(jail, "f", O_RDONLY, 1 << 20) == -EINVAL);
  for (int fd = 3; fd < 20; ++fd) {
    if (fd != jail) close(fd);
  }
}

TEST_CASE("directories need search permission", "[path]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  REQUIRE(chmod(".", 0755) == 0);
  REQUIRE(mkdir("closed", 0700) == 0);
  Make("closed/f");
  Make("readable");
  CHECK(test::AsUser(1000, [] {
          if (access("closed", F_OK) != 0) return 1;
          if (access("closed/f", F_OK) != -1 || errno != EACCES) return 2;
          if (access("closed/missing", F_OK) != -1 || errno != EACCES) return 3;
          if (open("closed", O_RDONLY) != -1 || errno != EACCES) return 4;
          if (open("readable", O_WRONLY) != -1 || errno != EACCES) return 5;
          if (open("new", O_CREAT | O_WRONLY, 0644) != -1 || errno != EACCES) return 6;
          if (unlink("readable") != -1 || errno != EACCES) return 7;
          if (mkdir("closed", 0755) != -1 || errno != EEXIST) return 8;
          if (chdir("closed") != -1 || errno != EACCES) return 9;
          return 0;
        }) == 0);
}

TEST_CASE("access asks for the real user", "[path]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  Make("f");
  REQUIRE(chmod("f", 0600) == 0);
  REQUIRE(chmod(".", 0755) == 0);
  CHECK(test::InChild([] {
          if (setresuid(1000, 0, 0) != 0) return 1;
          if (access("f", R_OK) != -1 || errno != EACCES) return 2;
          if (faccessat(AT_FDCWD, "f", R_OK, AT_EACCESS) != 0) return 3;
          return 0;
        }) == 0);
  CHECK(Code(access("f", X_OK)) == -EACCES);
  CHECK(Code(access("f", 8)) == -EINVAL);
}

TEST_CASE("a sticky directory protects its entries", "[path]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  REQUIRE(chmod(".", 01777) == 0);
  CHECK(test::AsUser(1000, [] { return mkdir("theirs", 0777) == 0 ? 0 : 1; }) == 0);
  CHECK(test::AsUser(1001, [] {
          if (rmdir("theirs") != -1 || errno != EPERM) return 1;
          if (rename("theirs", "mine") != -1 || errno != EPERM) return 2;
          return 0;
        }) == 0);
  CHECK(test::AsUser(1000, [] { return rmdir("theirs") == 0 ? 0 : 1; }) == 0);
}

TEST_CASE("the working directory has a name until it is removed", "[path]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  REQUIRE(mkdir("d/e", 0755) == 0);
  REQUIRE(chdir("d/e") == 0);
  char buffer[PATH_MAX] = {};
  CHECK(std::string(getcwd(buffer, sizeof(buffer))) == scratch.path() + "/d/e");
  REQUIRE(rename("../../d", "../../moved") == 0);
  CHECK(std::string(getcwd(buffer, sizeof(buffer))) == scratch.path() + "/moved/e");
  CHECK(Code(syscall(SYS_getcwd, buffer, 5)) == -ERANGE);
  REQUIRE(rmdir("../e") == 0);
  CHECK(Code(syscall(SYS_getcwd, buffer, sizeof(buffer))) == -ENOENT);
  CHECK(Code(open("x", O_CREAT | O_WRONLY, 0644)) == -ENOENT);
  CHECK(access("..", F_OK) == 0);
  CHECK(chdir("..") == 0);
  CHECK(std::string(getcwd(buffer, sizeof(buffer))) == scratch.path() + "/moved");
}

TEST_CASE("a root of one's own cannot be left through dot dot", "[path]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  REQUIRE(mkdir("jail", 0755) == 0);
  REQUIRE(mkdir("jail/etc", 0755) == 0);
  Make("jail/etc/mark");
  CHECK(test::InChild([] {
          if (chroot("jail") != 0 || chdir("/") != 0) return 1;
          if (access("/etc/mark", F_OK) != 0) return 2;
          if (access("/../../../etc/mark", F_OK) != 0) return 3;
          char buffer[64] = {};
          if (syscall(SYS_getcwd, buffer, sizeof(buffer)) != 2 || buffer[0] != '/') return 4;
          return 0;
        }) == 0);
  CHECK(test::AsUser(1000, [] { return chroot("/") == -1 && errno == EPERM ? 0 : 1; }) == 0);
}

TEST_CASE("descriptors can be opened again through proc", "[path]") {
  const Scratch scratch;
  Make("f", "data");
  const Fd fd = Open("f", O_RDONLY);
  const std::string self = "/proc/self/fd/" + std::to_string(static_cast<int>(fd));
  char buffer[PATH_MAX] = {};
  const ssize_t length = readlink(self.c_str(), buffer, sizeof(buffer));
  REQUIRE(length > 0);
  CHECK(std::string(buffer, static_cast<size_t>(length)) == scratch.path() + "/f");
  CHECK(Content(self) == "data");
  REQUIRE(unlink("f") == 0);
  CHECK(Content(self) == "data");
  const ssize_t gone = readlink(self.c_str(), buffer, sizeof(buffer));
  CHECK(std::string(buffer, static_cast<size_t>(gone)) == scratch.path() + "/f (deleted)");
}

}  // namespace
