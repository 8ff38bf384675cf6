// read, write, lseek, descriptors, locks: through the dispatcher on tmpfs.

#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/falloc.h>
#include <linux/openat2.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string>

#include "catch2/catch.hpp"
#include "sentry/vfs/inode_attachments.h"
#include "test/unit/sentry/vfs/files.h"

namespace {

using test::Files;
using test::TestTask;

struct Fixture {
  TestTask task;
  Files files{task};
};

TEST_CASE("what is written is read back", "[file]") {
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  REQUIRE(fd == 0);
  CHECK(t.files.Write(fd, "hello world") == 11);
  CHECK(t.files.Read(fd).empty());
  CHECK(t.task.Call(SYS_lseek, fd, 6, SEEK_SET) == 6);
  CHECK(t.files.Read(fd, 3) == "wor");
  CHECK(t.files.Pread(fd, 100, 0) == "hello world");
  CHECK(t.files.Pwrite(fd, "J", 0) == 1);
  CHECK(t.files.Read(fd) == "ld");
  CHECK(t.files.Content("/f") == "Jello world");
  CHECK(t.files.Stat("/f").st_size == 11);
  CHECK(t.files.Stat("/f").st_blocks == 8);
}

TEST_CASE("open's flags are obeyed", "[file][open]") {
  Fixture t;
  CHECK(t.files.Open("/f", O_RDONLY) == -ENOENT);
  CHECK(t.files.Open("/f", O_CREAT | O_EXCL | O_WRONLY) == 0);
  CHECK(t.files.Open("/f", O_CREAT | O_EXCL | O_WRONLY) == -EEXIST);
  CHECK(t.files.Open("/f", O_RDONLY | O_DIRECTORY) == -ENOTDIR);
  CHECK(t.files.Open("/f/", O_RDONLY) == -ENOTDIR);
  CHECK(t.files.Open("/g/", O_CREAT | O_WRONLY) == -EISDIR);
  CHECK(t.files.Open("/", O_WRONLY) == -EISDIR);
  CHECK(t.files.Open("/.", O_CREAT | O_RDONLY) == -EISDIR);
  CHECK(t.files.Open("/d", O_CREAT | O_DIRECTORY) == -EINVAL);
  CHECK(t.files.Symlink("f", "/link") == 0);
  CHECK(t.files.Open("/link", O_RDONLY | O_NOFOLLOW) == -ELOOP);
  CHECK(t.files.Open("/link", O_CREAT | O_EXCL | O_WRONLY) == -EEXIST);
  CHECK(t.files.Symlink("target", "/dangling") == 0);
  CHECK(t.files.Open("/dangling", O_CREAT | O_WRONLY) == 1);
  CHECK(t.files.Exists("/target"));
  CHECK(t.files.Write(0, "data") == 4);
  CHECK(t.files.Read(0) == "errno 9");
  CHECK(t.files.Open("/f", O_WRONLY | O_TRUNC) == 2);
  CHECK(t.files.Stat("/f").st_size == 0);
  const int64_t path = t.files.Open("/link", O_PATH | O_NOFOLLOW);
  REQUIRE(path == 3);
  CHECK(t.files.Read(path) == "errno 9");
  CHECK(t.task.Call(SYS_fcntl, path, F_GETFL) == (O_PATH | O_NOFOLLOW));
  CHECK(t.task.Call(SYS_readlinkat, path, t.task.PokeString(Files::kFirst, ""), Files::kData,
                    100) == 1);
}

TEST_CASE("appending writes go to the end", "[file]") {
  Fixture t;
  REQUIRE(t.files.Make("/f", "one") == 0);
  const int64_t fd = t.files.Open("/f", O_WRONLY | O_APPEND);
  CHECK(t.files.Write(fd, "two") == 3);
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_SET) == 0);
  CHECK(t.files.Write(fd, "three") == 5);
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_CUR) == 11);
  CHECK(t.files.Pwrite(fd, "four", 0) == 4);  // As Linux does.
  CHECK(t.files.Content("/f") == "onetwothreefour");
}

TEST_CASE("a write stops at the byte that cannot be read", "[file][efault]") {
  const uint64_t good = GENERATE(range(0, 9));
  CAPTURE(good);
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  const int64_t written = t.task.Call(SYS_write, fd, TestTask::kPageEnd - good, 8);
  CHECK(written == (good == 0 ? -EFAULT : static_cast<int64_t>(std::min<uint64_t>(good, 8))));
  CHECK(t.files.Stat("/f").st_size == std::max<int64_t>(written, 0));
}

TEST_CASE("a read stops at the byte that cannot be written", "[file][efault]") {
  const uint64_t good = GENERATE(range(0, 9));
  CAPTURE(good);
  Fixture t;
  REQUIRE(t.files.Make("/f", "12345678") == 0);
  const int64_t fd = t.files.Open("/f", O_RDONLY);
  const int64_t got = t.task.Call(SYS_read, fd, TestTask::kPageEnd - good, 8);
  CHECK(got == (good == 0 ? -EFAULT : static_cast<int64_t>(std::min<uint64_t>(good, 8))));
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_CUR) == std::max<int64_t>(got, 0));
}

TEST_CASE("stat faults at every byte", "[stat][efault]") {
  Fixture t;
  const uint64_t path = t.task.PokeString(Files::kFirst, "/");
  for (uint64_t short_by = 1; short_by <= 144; ++short_by) {
    CHECK(t.task.Call(SYS_stat, path, TestTask::kPageEnd - 144 + short_by) == -EFAULT);
  }
  CHECK(t.task.Call(SYS_stat, path, TestTask::kPageEnd - 144) == 0);
}

TEST_CASE("vectors are gathered and scattered", "[file][limits]") {
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  t.task.PokeString(Files::kData, "abcdef");
  t.task.Poke(Files::kFirst,
              std::array<uint64_t, 6>{Files::kData, 2, Files::kData + 4, 0, Files::kData + 3, 3});
  CHECK(t.task.Call(SYS_writev, fd, Files::kFirst, 3) == 5);
  CHECK(t.files.Content("/f") == "abdef");
  CHECK(t.task.Call(SYS_preadv, fd, Files::kFirst, 3, 1) == 4);
  CHECK(t.task.Call(SYS_writev, fd, Files::kFirst, 0) == 0);
  CHECK(t.task.Call(SYS_writev, fd, Files::kFirst, 1025) == -EINVAL);
  CHECK(t.task.Call(SYS_writev, fd, Files::kFirst, -1) == -EINVAL);
  CHECK(t.task.Call(SYS_preadv, fd, Files::kFirst, 3, -1) == -EINVAL);
  t.task.Poke(Files::kFirst, std::array<uint64_t, 2>{Files::kData, uint64_t{1} << 63});
  CHECK(t.task.Call(SYS_writev, fd, Files::kFirst, 1) == -EINVAL);
}

TEST_CASE("sparse files are cheap and read as zero", "[file][tmpfs]") {
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  constexpr int64_t kFar = int64_t{100} << 30;
  CHECK(t.files.Pwrite(fd, "end", kFar) == 3);
  CHECK(t.files.Stat("/f").st_size == kFar + 3);
  CHECK(t.files.Stat("/f").st_blocks == 8);
  CHECK(t.files.Pread(fd, 4, kFar / 2) == std::string(4, '\0'));
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_DATA) == kFar);
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_HOLE) == 0);
  CHECK(t.task.Call(SYS_lseek, fd, kFar + 3, SEEK_DATA) == -ENXIO);
  CHECK(t.task.Call(SYS_lseek, fd, kFar, SEEK_HOLE) == kFar + 3);
  CHECK(t.task.Call(SYS_ftruncate, fd, 1) == 0);
  CHECK(t.files.Stat("/f").st_blocks == 0);
  CHECK(t.task.Call(SYS_ftruncate, fd, -1) == -EINVAL);
  CHECK(t.files.Pwrite(fd, "x", INT64_MAX) == -EFBIG);
}

TEST_CASE("what was cut off does not come back", "[file][tmpfs]") {
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  REQUIRE(t.files.Write(fd, std::string(10000, 'x')) == 10000);
  CHECK(t.task.Call(SYS_ftruncate, fd, 5000) == 0);
  CHECK(t.task.Call(SYS_ftruncate, fd, 10000) == 0);
  CHECK(t.files.Pread(fd, 5000, 5000) == std::string(5000, '\0'));
  CHECK(t.files.Pread(fd, 10, 4990) == std::string(10, 'x'));
}

TEST_CASE("holes are punched and filled", "[file][fallocate]") {
  Fixture t;
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  REQUIRE(t.files.Write(fd, std::string(16384, 'x')) == 16384);
  CHECK(t.task.Call(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE, 0, 4096) == -EOPNOTSUPP);
  CHECK(t.task.Call(SYS_fallocate, fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 2000, 8000) ==
        0);
  CHECK(t.files.Pread(fd, 8000, 2000) == std::string(8000, '\0'));
  CHECK(t.files.Pread(fd, 2000, 0) == std::string(2000, 'x'));
  CHECK(t.files.Pread(fd, 10, 10000) == std::string(10, 'x'));
  CHECK(t.files.Stat("/f").st_blocks == 24);
  CHECK(t.task.Call(SYS_fallocate, fd, 0, 0, 20000) == 0);
  CHECK(t.files.Stat("/f").st_size == 20000);
  CHECK(t.files.Stat("/f").st_blocks == 40);
  CHECK(t.task.Call(SYS_fallocate, fd, 0, 0, 0) == -EINVAL);
  CHECK(t.task.Call(SYS_fallocate, fd, 0, -1, 1) == -EINVAL);
}

TEST_CASE("the lowest free descriptor is taken", "[fd]") {
  Fixture t;
  for (int i = 0; i < 200; ++i) REQUIRE(t.files.Open("/", O_RDONLY) == i);
  CHECK(t.files.Close(130) == 0);
  CHECK(t.files.Close(7) == 0);
  CHECK(t.files.Close(7) == -EBADF);
  CHECK(t.files.Open("/", O_RDONLY) == 7);
  CHECK(t.task.Call(SYS_dup, 0) == 130);
  CHECK(t.task.Call(SYS_fcntl, 0, F_DUPFD, 500) == 500);
  CHECK(t.task.Call(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 500) == 501);
  CHECK(t.task.Call(SYS_fcntl, 501, F_GETFD) == FD_CLOEXEC);
  CHECK(t.task.Call(SYS_fcntl, 0, F_DUPFD, 1 << 30) == -EINVAL);
  CHECK(t.task.Call(SYS_dup2, 0, 300) == 300);
  CHECK(t.task.Call(SYS_dup2, 0, 0) == 0);
  CHECK(t.task.Call(SYS_dup2, 999, 999) == -EBADF);
  CHECK(t.task.Call(SYS_dup3, 0, 0, 0) == -EINVAL);
  CHECK(t.task.Call(SYS_dup3, 0, 5, O_TRUNC) == -EINVAL);
  CHECK(t.task.Call(SYS_close_range, 3, ~0U, 0) == 0);
  CHECK(t.task.fds().Numbers() == std::vector<int32_t>{0, 1, 2});
  CHECK(t.task.Call(SYS_close_range, 2, 1, 0) == -EINVAL);
  CHECK(t.task.Call(SYS_close_range, 0, 1, CLOSE_RANGE_CLOEXEC) == 0);
  CHECK(t.task.Call(SYS_fcntl, 1, F_GETFD) == FD_CLOEXEC);
}

TEST_CASE("descriptors share a position by dup, not by open", "[fd]") {
  Fixture t;
  REQUIRE(t.files.Make("/f", "abcdef") == 0);
  const int64_t fd = t.files.Open("/f", O_RDONLY);
  const int64_t copy = t.task.Call(SYS_dup, fd);
  const int64_t other = t.files.Open("/f", O_RDONLY);
  CHECK(t.files.Read(fd, 2) == "ab");
  CHECK(t.files.Read(copy, 2) == "cd");
  CHECK(t.files.Read(other, 2) == "ab");
}

TEST_CASE("record locks of descriptions conflict by range", "[lock]") {
  Fixture t;
  const int64_t a = t.files.Open("/f", O_CREAT | O_RDWR);
  const int64_t b = t.files.Open("/f", O_RDWR);
  struct flock lock{};
  const auto lock_as = [&](int64_t fd, int command, int16_t type, int64_t start, int64_t length) {
    lock = {};
    lock.l_type = type;
    lock.l_start = start;
    lock.l_len = length;
    t.task.PokeBytes(Files::kData, std::as_bytes(std::span(&lock, 1)));
    const int64_t result = t.task.Call(SYS_fcntl, fd, command, Files::kData);
    t.task.PeekBytes(Files::kData, std::as_writable_bytes(std::span(&lock, 1)));
    return result;
  };
  CHECK(lock_as(a, F_OFD_SETLK, F_WRLCK, 0, 100) == 0);
  CHECK(lock_as(b, F_OFD_SETLK, F_RDLCK, 50, 10) == -EAGAIN);
  CHECK(lock_as(b, F_OFD_SETLK, F_RDLCK, 100, 0) == 0);
  CHECK(lock_as(b, F_OFD_GETLK, F_WRLCK, 0, 0) == 0);
  CHECK(lock.l_type == F_WRLCK);
  CHECK(lock.l_len == 100);
  CHECK(lock.l_pid == -1);
  CHECK(lock_as(a, F_OFD_SETLK, F_UNLCK, 40, 20) == 0);
  CHECK(lock_as(b, F_OFD_SETLK, F_RDLCK, 45, 10) == 0);
  CHECK(lock_as(b, F_OFD_SETLK, F_RDLCK, 60, 1) == -EAGAIN);
  CHECK(lock_as(a, F_SETLK, F_WRLCK, 50, -20) == -EAGAIN);
  t.files.Close(b);
  CHECK(lock_as(a, F_OFD_SETLK, F_WRLCK, 0, 0) == 0);
  CHECK(t.task.Call(SYS_flock, a, LOCK_EX | LOCK_NB) == 0);
  const int64_t c = t.files.Open("/f", O_RDWR);
  CHECK(t.task.Call(SYS_flock, c, LOCK_SH | LOCK_NB) == -EAGAIN);
  CHECK(t.task.Call(SYS_flock, a, LOCK_UN) == 0);
  CHECK(t.task.Call(SYS_flock, c, LOCK_SH | LOCK_NB) == 0);
  CHECK(t.task.Call(SYS_flock, c, 0) == -EINVAL);
}

TEST_CASE("closing any descriptor of a file ends the process's locks on it", "[lock]") {
  Fixture t;
  const sentry::TaskRef child = t.task.MakeChild();
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  const int64_t childs =
      t.task.CallAs(*child, SYS_open, t.task.PokeString(Files::kFirst, "/f"), O_RDWR, 0);
  (void)childs;
  struct flock lock{};
  lock.l_type = F_WRLCK;
  t.task.PokeBytes(Files::kData, std::as_bytes(std::span(&lock, 1)));
  CHECK(t.task.Call(SYS_fcntl, fd, F_SETLK, Files::kData) == 0);
  const int64_t other = t.files.Open("/f", O_RDONLY);
  auto* locks = &t.task.fds().Get(static_cast<int32_t>(fd)).value()->inode()->attachments().locks;
  CHECK(locks->Records().size() == 1);
  CHECK(t.files.Close(other) == 0);
  CHECK(locks->Records().empty());
  TestTask::Exit(*child, 0);
}

TEST_CASE("sendfile and copy_file_range move bytes between files", "[file]") {
  Fixture t;
  REQUIRE(t.files.Make("/a", std::string(300000 % 65536, 'a') + "tail") == 0);
  const int64_t in = t.files.Open("/a", O_RDONLY);
  const int64_t out = t.files.Open("/b", O_CREAT | O_RDWR);
  const int64_t size = t.files.Stat("/a").st_size;
  CHECK(t.task.Call(SYS_sendfile, out, in, 0, 1 << 20) == size);
  CHECK(t.files.Content("/b") == t.files.Content("/a"));
  t.task.Poke(Files::kFirst, int64_t{size - 4});
  CHECK(t.task.Call(SYS_sendfile, out, in, Files::kFirst, 10) == 4);
  CHECK(t.task.Peek<int64_t>(Files::kFirst) == size);
  t.task.Poke(Files::kFirst, int64_t{0});
  t.task.Poke(Files::kSecond, int64_t{2});
  CHECK(t.task.Call(SYS_copy_file_range, in, Files::kFirst, out, Files::kSecond, 5, 0) == 5);
  CHECK(t.task.Peek<int64_t>(Files::kSecond) == 7);
  CHECK(t.task.Call(SYS_copy_file_range, in, Files::kFirst, out, Files::kSecond, 5, 1) == -EINVAL);
  CHECK(t.task.Call(SYS_copy_file_range, out, 0, out, 0, 5, 0) == 0);
}

TEST_CASE("openat2 checks its structure", "[file][open]") {
  Fixture t;
  t.task.PokeString(Files::kFirst, "/f");
  const auto open2 = [&](uint64_t flags, uint64_t mode, uint64_t resolve, uint64_t size) {
    t.task.Poke(Files::kSecond, std::array<uint64_t, 4>{flags, mode, resolve, 0});
    return t.task.Call(SYS_openat2, AT_FDCWD, Files::kFirst, Files::kSecond, size);
  };
  CHECK(open2(O_CREAT | O_RDWR, 0644, 0, 24) == 0);
  CHECK(open2(O_RDWR, 0644, 0, 24) == -EINVAL);
  CHECK(open2(O_RDWR, 0, 0, 23) == -EINVAL);
  CHECK(open2(O_RDWR, 0, 0, 32) == 1);
  CHECK(open2(O_RDWR, 0, 0, 5000) == -E2BIG);
  CHECK(open2(uint64_t{1} << 40, 0, 0, 24) == -EINVAL);
  CHECK(open2(O_RDWR, 0, RESOLVE_BENEATH | RESOLVE_IN_ROOT, 24) == -EINVAL);
  CHECK(open2(O_RDWR, 0, RESOLVE_BENEATH, 24) == -EXDEV);
}

TEST_CASE("a temporary file can be given a name", "[file][open]") {
  Fixture t;
  CHECK(t.files.Open("/", O_TMPFILE | O_RDONLY) == -EINVAL);
  const int64_t fd = t.files.Open("/", O_TMPFILE | O_RDWR, 0600);
  REQUIRE(fd >= 0);
  CHECK(t.files.Write(fd, "text") == 4);
  CHECK(t.files.Names("/").empty());
  CHECK(t.task.Call(SYS_linkat, fd, t.task.PokeString(Files::kFirst, ""), AT_FDCWD,
                    t.task.PokeString(Files::kSecond, "/named"), AT_EMPTY_PATH) == 0);
  CHECK(t.files.Content("/named") == "text");
  CHECK(t.files.Stat("/named").st_nlink == 1);
}

TEST_CASE("getdents refuses what it cannot do", "[dir]") {
  Fixture t;
  REQUIRE(t.files.Mkdir("/d") == 0);
  REQUIRE(t.files.Make("/d/some-name", "") == 0);
  const int64_t fd = t.files.Open("/d", O_RDONLY);
  CHECK(t.task.Call(SYS_getdents64, fd, Files::kData, 10) == -EINVAL);
  CHECK(t.task.Call(SYS_getdents64, fd, TestTask::kPageEnd, 4096) == -EFAULT);
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_CUR) == 0);
  CHECK(t.task.Call(SYS_getdents64, fd, Files::kData, 4096) > 0);
  CHECK(t.task.Call(SYS_getdents64, fd, Files::kData, 4096) == 0);
  const int64_t file = t.files.Open("/d/some-name", O_RDONLY);
  CHECK(t.task.Call(SYS_getdents64, file, Files::kData, 4096) == -ENOTDIR);
  CHECK(t.files.Unlink("/d/some-name") == 0);
  CHECK(t.files.Rmdir("/d") == 0);
  CHECK(t.task.Call(SYS_lseek, fd, 0, SEEK_SET) == 0);
  CHECK(t.task.Call(SYS_getdents64, fd, Files::kData, 4096) == -ENOENT);
}

TEST_CASE("a large directory can be emptied while it is read", "[dir][tmpfs]") {
  Fixture t;
  REQUIRE(t.files.Mkdir("/d") == 0);
  for (int i = 0; i < 20000; ++i) REQUIRE(t.files.Make("/d/" + std::to_string(i), "") == 0);
  CHECK(t.files.List("/d", 65536).size() == 20000);
  for (const std::string& name : t.files.List("/d", 1000))
    REQUIRE(t.files.Unlink("/d/" + name) == 0);
  CHECK(t.files.Rmdir("/d") == 0);
}

TEST_CASE("the working directory has a name until it is removed", "[path]") {
  Fixture t;
  REQUIRE(t.files.Mkdir("/d") == 0);
  CHECK(t.task.Call(SYS_chdir, t.task.PokeString(Files::kFirst, "/d")) == 0);
  CHECK(t.task.Call(SYS_getcwd, Files::kData, 100) == 3);
  CHECK(t.task.PeekString(Files::kData) == "/d");
  CHECK(t.task.Call(SYS_getcwd, Files::kData, 2) == -ERANGE);
  CHECK(t.files.Rmdir("/d") == 0);
  CHECK(t.task.Call(SYS_getcwd, Files::kData, 100) == -ENOENT);
  CHECK(t.files.Make("x", "") == -ENOENT);
}

TEST_CASE("RLIMIT_FSIZE stops a file from growing", "[file][limits]") {
  Fixture t;
  t.task.Poke(Files::kFirst, std::array<uint64_t, 2>{10, 10});
  REQUIRE(t.task.Call(SYS_setrlimit, RLIMIT_FSIZE, Files::kFirst) == 0);
  const int64_t fd = t.files.Open("/f", O_CREAT | O_RDWR);
  CHECK(t.files.Write(fd, "123456789012") == 10);
  CHECK(t.files.Write(fd, "1") == -EFBIG);
  CHECK(t.task.Call(SYS_ftruncate, fd, 11) == -EFBIG);
  CHECK(t.files.Stat("/f").st_size == 10);
}

}  // namespace
