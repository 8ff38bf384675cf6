// Attributes: stat and its kin, modes, owners, times.

#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <sys/time.h>
#include <utime.h>

#include <cstring>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Fd;
using test::Make;
using test::Open;
using test::Scratch;
using test::Stat;

TEST_CASE("stat tells type, size and links", "[stat]") {
  const Scratch scratch;
  Make("f", "12345");
  REQUIRE(symlink("f", "s") == 0);
  REQUIRE(mkdir("d", 0750) == 0);
  CHECK(Stat("f").st_mode == (S_IFREG | 0644));
  CHECK(Stat("f").st_size == 5);
  CHECK(Stat("f").st_nlink == 1);
  CHECK(Stat("d").st_mode == (S_IFDIR | 0750));
  CHECK(S_ISLNK(Stat("s").st_mode));
  struct stat followed{};
  CHECK(stat("s", &followed) == 0);
  CHECK(followed.st_ino == Stat("f").st_ino);
  CHECK(Code(stat("x", &followed)) == -ENOENT);
  CHECK(Code(stat("", &followed)) == -ENOENT);
  const Fd fd = Open("f", O_RDONLY);
  CHECK(fstatat(fd, "", &followed, AT_EMPTY_PATH) == 0);
  CHECK(followed.st_size == 5);
  CHECK(Code(fstatat(fd, "", &followed, 0)) == -ENOENT);
  CHECK(Code(syscall(SYS_newfstatat, AT_FDCWD, "f", &followed, 1)) == -EINVAL);
}

TEST_CASE("statx tells the same, and which it knows", "[stat]") {
  const Scratch scratch;
  Make("f", "12345");
  struct statx out{};
  CHECK(statx(AT_FDCWD, "f", 0, STATX_ALL, &out) == 0);
  CHECK((out.stx_mask & STATX_BASIC_STATS) == STATX_BASIC_STATS);
  CHECK(out.stx_size == 5);
  CHECK(out.stx_ino == Stat("f").st_ino);
  CHECK(makedev(out.stx_dev_major, out.stx_dev_minor) == Stat("f").st_dev);
  CHECK(Code(statx(AT_FDCWD, "f", 0, 0x80000000U, &out)) == -EINVAL);
  CHECK(Code(statx(AT_FDCWD, "f", AT_STATX_SYNC_TYPE, STATX_ALL, &out)) == -EINVAL);
}

TEST_CASE("chmod changes the permission bits alone", "[stat]") {
  const Scratch scratch;
  Make("f");
  CHECK(chmod("f", 04755) == 0);
  CHECK(Stat("f").st_mode == (S_IFREG | 04755));
  const Fd fd = Open("f", O_RDONLY);
  CHECK(fchmod(fd, 0600) == 0);
  CHECK(Stat("f").st_mode == (S_IFREG | 0600));
  CHECK(fchmodat(AT_FDCWD, "f", 0640, 0) == 0);
  CHECK(Code(chmod("x", 0600)) == -ENOENT);
  if (geteuid() != 0) return;
  CHECK(chmod(".", 0755) == 0);
  CHECK(test::AsUser(1000, [] { return chmod("f", 0777) == -1 && errno == EPERM ? 0 : 1; }) == 0);
}

TEST_CASE("chown takes privileges away", "[stat]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  Make("f");
  REQUIRE(chmod("f", 06755) == 0);
  CHECK(chown("f", 1000, 1000) == 0);
  CHECK(Stat("f").st_uid == 1000);
  CHECK(Stat("f").st_gid == 1000);
  CHECK(Stat("f").st_mode == (S_IFREG | 0755));
  CHECK(chown("f", static_cast<uid_t>(-1), 7) == 0);
  CHECK(Stat("f").st_uid == 1000);
  CHECK(Stat("f").st_gid == 7);
  REQUIRE(symlink("f", "s") == 0);
  CHECK(lchown("s", 5, 5) == 0);
  CHECK(Stat("s").st_uid == 5);
  CHECK(Stat("f").st_uid == 1000);
  CHECK(chmod(".", 0755) == 0);
  CHECK(test::AsUser(1000, [] {
          if (chown("f", 1001, 7) != -1 || errno != EPERM) return 1;
          if (chown("f", 1000, 1000) != 0) return 2;
          return 0;
        }) == 0);
}

TEST_CASE("a set-group-id directory passes its group on", "[stat]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  REQUIRE(mkdir("d", 0777) == 0);
  REQUIRE(chown("d", 0, 50) == 0);
  REQUIRE(chmod("d", 02777) == 0);
  REQUIRE(chmod(".", 0755) == 0);
  CHECK(test::AsUser(1000, [] {
          return mkdir("d/sub", 0755) == 0 && close(creat("d/f", 0644)) == 0 ? 0 : 1;
        }) == 0);
  CHECK(Stat("d/sub").st_gid == 50);
  CHECK((Stat("d/sub").st_mode & S_ISGID) != 0);
  CHECK(Stat("d/f").st_gid == 50);
}

TEST_CASE("utimensat sets one time, both, or now", "[stat]") {
  const Scratch scratch;
  Make("f");
  timespec times[2] = {{1000, 123456789}, {2000, 987654321}};
  CHECK(utimensat(AT_FDCWD, "f", times, 0) == 0);
  CHECK(Stat("f").st_atim.tv_sec == 1000);
  CHECK(Stat("f").st_atim.tv_nsec == 123456789);
  CHECK(Stat("f").st_mtim.tv_nsec == 987654321);
  times[0].tv_nsec = UTIME_OMIT;
  times[1] = {3000, 0};
  CHECK(utimensat(AT_FDCWD, "f", times, 0) == 0);
  CHECK(Stat("f").st_atim.tv_sec == 1000);
  CHECK(Stat("f").st_mtim.tv_sec == 3000);
  times[1].tv_nsec = UTIME_NOW;
  CHECK(utimensat(AT_FDCWD, "f", times, 0) == 0);
  CHECK(Stat("f").st_mtim.tv_sec > 1'000'000);
  times[1].tv_nsec = 1'000'000'000;
  CHECK(Code(utimensat(AT_FDCWD, "f", times, 0)) == -EINVAL);
  const Fd fd = Open("f", O_RDONLY);
  times[0] = {5, 0};
  times[1] = {6, 0};
  CHECK(futimens(fd, times) == 0);
  CHECK(Stat("f").st_mtim.tv_sec == 6);
  const utimbuf both{7, 8};
  CHECK(utime("f", &both) == 0);
  CHECK(Stat("f").st_mtim.tv_sec == 8);
  REQUIRE(symlink("f", "s") == 0);
  CHECK(utimensat(AT_FDCWD, "s", times, AT_SYMLINK_NOFOLLOW) == 0);
  CHECK(Stat("s").st_mtim.tv_sec == 6);
  CHECK(Stat("f").st_mtim.tv_sec == 8);
}

TEST_CASE("changes move the right times", "[stat]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  Make("d/f", "x");
  const timespec old[2] = {{1000, 0}, {1000, 0}};
  const auto reset = [&] {
    REQUIRE(utimensat(AT_FDCWD, "d/f", old, 0) == 0);
    REQUIRE(utimensat(AT_FDCWD, "d", old, 0) == 0);
  };
  reset();
  const timespec ctime = Stat("d/f").st_ctim;
  usleep(20000);
  CHECK(chmod("d/f", 0600) == 0);
  CHECK(Stat("d/f").st_mtim.tv_sec == 1000);
  const timespec after = Stat("d/f").st_ctim;
  CHECK(std::make_pair(after.tv_sec, after.tv_nsec) > std::make_pair(ctime.tv_sec, ctime.tv_nsec));
  CHECK(Stat("d").st_mtim.tv_sec == 1000);
  Make("d/f", "new");
  CHECK(Stat("d/f").st_mtim.tv_sec > 1000);
  CHECK(Stat("d").st_mtim.tv_sec == 1000);
  reset();
  Make("d/g");
  CHECK(Stat("d").st_mtim.tv_sec > 1000);
  reset();
  CHECK(unlink("d/g") == 0);
  CHECK(Stat("d").st_mtim.tv_sec > 1000);
}

TEST_CASE("a directory counts its subdirectories", "[stat]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  const nlink_t base = Stat("d").st_nlink;
  if (base != 2) return;  // Some file systems do not count.
  REQUIRE(mkdir("d/a", 0755) == 0);
  REQUIRE(mkdir("d/b", 0755) == 0);
  Make("d/f");
  CHECK(Stat("d").st_nlink == 4);
  CHECK(rename("d/a", "a") == 0);
  CHECK(rmdir("d/b") == 0);
  CHECK(Stat("d").st_nlink == 2);
}

TEST_CASE("statfs knows its file system", "[stat]") {
  const Scratch scratch;
  Make("f");
  struct statfs by_path{};
  struct statfs by_fd{};
  CHECK(statfs("f", &by_path) == 0);
  const Fd fd = Open("f", O_RDONLY);
  CHECK(fstatfs(fd, &by_fd) == 0);
  CHECK(by_path.f_type == by_fd.f_type);
  CHECK(by_path.f_namelen == 255);
  CHECK(by_path.f_bsize == 4096);
  CHECK(statfs("/proc", &by_path) == 0);
  CHECK(by_path.f_type == 0x9fa0);
  CHECK(Code(statfs("x", &by_path)) == -ENOENT);
}

TEST_CASE("device numbers survive mknod", "[stat]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  if (mknod("null", S_IFCHR | 0666, makedev(1, 3)) != 0) return;  // Not allowed in this container.
  CHECK(S_ISCHR(Stat("null").st_mode));
  CHECK(Stat("null").st_rdev == makedev(1, 3));
}

}  // namespace
