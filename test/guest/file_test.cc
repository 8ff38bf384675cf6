// Descriptors and data: open, read, write, seek, and what is shared.

#include <linux/close_range.h>
#include <linux/falloc.h>
#include <sys/file.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

#include <csignal>
#include <cstring>
#include <vector>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Content;
using test::Fd;
using test::Make;
using test::Open;
using test::Scratch;
using test::Stat;

TEST_CASE("what is written is read back", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  CHECK(write(fd, "hello world", 11) == 11);
  CHECK(lseek(fd, 6, SEEK_SET) == 6);
  char buffer[16] = {};
  CHECK(read(fd, buffer, 3) == 3);
  CHECK(std::string(buffer, 3) == "wor");
  CHECK(pread(fd, buffer, 16, 0) == 11);
  CHECK(lseek(fd, 0, SEEK_CUR) == 9);
  CHECK(pwrite(fd, "J", 1, 0) == 1);
  CHECK(Content("f") == "Jello world");
}

TEST_CASE("open obeys its flags", "[file]") {
  const Scratch scratch;
  CHECK(Code(open("f", O_RDONLY)) == -ENOENT);
  Make("f", "data");
  CHECK(Code(open("f", O_CREAT | O_EXCL | O_WRONLY, 0644)) == -EEXIST);
  CHECK(Code(open("f", O_RDONLY | O_DIRECTORY)) == -ENOTDIR);
  CHECK(Code(open("f/", O_RDONLY)) == -ENOTDIR);
  CHECK(Code(open("g/", O_CREAT | O_WRONLY, 0644)) == -EISDIR);
  CHECK(Code(open(".", O_WRONLY)) == -EISDIR);
  CHECK(Code(open(".", O_CREAT | O_RDONLY, 0644)) == -EISDIR);
  CHECK(symlink("f", "link") == 0);
  CHECK(Code(open("link", O_RDONLY | O_NOFOLLOW)) == -ELOOP);
  CHECK(Code(open("link", O_CREAT | O_EXCL | O_WRONLY, 0644)) == -EEXIST);
  CHECK(Code(open("link", O_RDONLY | O_NOFOLLOW | O_DIRECTORY)) == -ENOTDIR);
  CHECK(symlink("made", "dangling") == 0);
  Open("dangling", O_CREAT | O_WRONLY);
  CHECK(test::Exists("made"));
  Open("f", O_WRONLY | O_TRUNC);
  CHECK(Stat("f").st_size == 0);
}

TEST_CASE("the access mode of a descriptor holds", "[file]") {
  const Scratch scratch;
  Make("f", "data");
  char byte = 0;
  const Fd reader = Open("f", O_RDONLY);
  const Fd writer = Open("f", O_WRONLY);
  CHECK(Code(write(reader, &byte, 1)) == -EBADF);
  CHECK(Code(read(writer, &byte, 1)) == -EBADF);
  CHECK(Code(ftruncate(reader, 0)) == -EINVAL);
  const Fd path = Open("f", O_PATH);
  CHECK(Code(read(path, &byte, 1)) == -EBADF);
  CHECK(Code(fchmod(path, 0600)) == -EBADF);
  CHECK(fcntl(path, F_GETFL) == O_PATH);
  CHECK(fcntl(reader, F_GETFL) == 0100000);
}

TEST_CASE("appending goes to the end, even with pwrite", "[file]") {
  const Scratch scratch;
  Make("f", "one");
  const Fd fd = Open("f", O_WRONLY | O_APPEND);
  CHECK(write(fd, "two", 3) == 3);
  CHECK(lseek(fd, 0, SEEK_SET) == 0);
  CHECK(write(fd, "three", 5) == 5);
  CHECK(lseek(fd, 0, SEEK_CUR) == 11);
  CHECK(pwrite(fd, "four", 4, 0) == 4);
  CHECK(Content("f") == "onetwothreefour");
}

TEST_CASE("two writers with O_APPEND lose nothing", "[file]") {
  const Scratch scratch;
  Make("f");
  const pid_t child = fork();
  const char letter = child == 0 ? 'c' : 'p';
  {
    const Fd fd = Open("f", O_WRONLY | O_APPEND);
    for (int i = 0; i < 500; ++i) {
      const std::string line(100, letter);
      if (write(fd, line.data(), line.size()) != 100) std::abort();
    }
  }
  if (child == 0) _exit(0);
  waitpid(child, nullptr, 0);
  const std::string text = Content("f");
  REQUIRE(text.size() == 100000);
  for (size_t at = 0; at < text.size(); at += 100)
    CHECK(text.substr(at, 100) == std::string(100, text[at]));
}

TEST_CASE("vectors are gathered and scattered", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  char a[] = "ab";
  char b[] = "cdef";
  iovec out[] = {{a, 2}, {nullptr, 0}, {b, 4}};
  CHECK(writev(fd, out, 3) == 6);
  char c[4] = {};
  char d[4] = {};
  iovec in[] = {{c, 3}, {d, 4}};
  CHECK(preadv(fd, in, 2, 1) == 5);
  CHECK(std::string(c, 3) == "bcd");
  CHECK(std::string(d, 2) == "ef");
  std::vector<iovec> many(1024, iovec{a, 1});
  CHECK(writev(fd, many.data(), 1024) == 1024);
  many.push_back({a, 1});
  CHECK(Code(syscall(SYS_writev, static_cast<int>(fd), many.data(), 1025)) == -EINVAL);
  CHECK(Code(syscall(SYS_writev, static_cast<int>(fd), many.data(), -1)) == -EINVAL);
  CHECK(pwritev2(fd, out, 3, -1, RWF_APPEND) == 6);
}

TEST_CASE("a buffer that faults half way gives a short count", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  char* pages = static_cast<char*>(
      mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
  REQUIRE(munmap(pages + 4096, 4096) == 0);
  CHECK(write(fd, std::string(4096, 'x').data(), 4096) == 4096);
  CHECK(pread(fd, pages + 4000, 200, 0) == 96);
  CHECK(Code(pread(fd, pages + 4096, 200, 0)) == -EFAULT);
  CHECK(Code(write(fd, pages + 4096, 1)) == -EFAULT);
  munmap(pages, 4096);
}

TEST_CASE("sparse files have holes that read as zero", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  constexpr off_t kFar = off_t{8} << 30;
  CHECK(pwrite(fd, "end", 3, kFar) == 3);
  CHECK(Stat("f").st_size == kFar + 3);
  CHECK(Stat("f").st_blocks < 100);
  char buffer[4] = {1, 1, 1, 1};
  CHECK(pread(fd, buffer, 4, kFar / 2) == 4);
  CHECK(std::memcmp(buffer, "\0\0\0\0", 4) == 0);
  CHECK(lseek(fd, 0, SEEK_DATA) == kFar);
  CHECK(lseek(fd, 0, SEEK_HOLE) == 0);
  CHECK(Code(lseek(fd, kFar + 3, SEEK_DATA)) == -ENXIO);
  CHECK(Code(lseek(fd, -1, SEEK_SET)) == -EINVAL);
  CHECK(Code(lseek(fd, 0, 17)) == -EINVAL);
}

TEST_CASE("what was cut off does not come back", "[file]") {
  const Scratch scratch;
  Make("f", std::string(10000, 'x'));
  CHECK(truncate("f", 5000) == 0);
  CHECK(truncate("f", 10000) == 0);
  const std::string text = Content("f");
  CHECK(text.substr(0, 5000) == std::string(5000, 'x'));
  CHECK(text.substr(5000) == std::string(5000, '\0'));
  CHECK(Code(truncate("f", -1)) == -EINVAL);
  CHECK(Code(truncate(".", 0)) == -EISDIR);
  CHECK(Code(truncate("g", 0)) == -ENOENT);
}

TEST_CASE("space is allocated and given back", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  CHECK(fallocate(fd, 0, 0, 65536) == 0);
  CHECK(Stat("f").st_size == 65536);
  CHECK(Stat("f").st_blocks >= 128);
  CHECK(fallocate(fd, FALLOC_FL_KEEP_SIZE, 65536, 65536) == 0);
  CHECK(Stat("f").st_size == 65536);
  CHECK(pwrite(fd, "xxxx", 4, 8190) == 4);
  CHECK(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 8191, 4096) == 0);
  char buffer[4] = {};
  CHECK(pread(fd, buffer, 4, 8190) == 4);
  CHECK(std::memcmp(buffer, "x\0\0\0", 4) == 0);
  CHECK(Code(fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 1)) == -EOPNOTSUPP);
  CHECK(Code(fallocate(fd, 0, 0, 0)) == -EINVAL);
  CHECK(Code(fallocate(fd, 0, -1, 1)) == -EINVAL);
  const Fd reader = Open("f", O_RDONLY);
  CHECK(Code(fallocate(reader, 0, 0, 1)) == -EBADF);
}

TEST_CASE("the lowest free descriptor is taken", "[file]") {
  const Scratch scratch;
  const int first = open(".", O_RDONLY);
  const int second = dup(first);
  CHECK(second > first);
  close(first);
  CHECK(open(".", O_RDONLY) == first);
  CHECK(fcntl(first, F_DUPFD, 200) == 200);
  CHECK(fcntl(first, F_DUPFD_CLOEXEC, 200) == 201);
  CHECK(fcntl(201, F_GETFD) == FD_CLOEXEC);
  CHECK(fcntl(200, F_GETFD) == 0);
  CHECK(dup2(first, 201) == 201);
  CHECK(fcntl(201, F_GETFD) == 0);
  CHECK(dup3(first, 201, O_CLOEXEC) == 201);
  CHECK(fcntl(201, F_GETFD) == FD_CLOEXEC);
  CHECK(Code(dup3(first, first, 0)) == -EINVAL);
  CHECK(Code(dup2(987, 987)) == -EBADF);
  CHECK(dup2(first, first) == first);
  CHECK(syscall(SYS_close_range, 200, 300, 0) == 0);
  CHECK(Code(fcntl(200, F_GETFD)) == -EBADF);
  close(first);
  close(second);
  CHECK(Code(close(second)) == -EBADF);
}

TEST_CASE("the limit of descriptors is RLIMIT_NOFILE", "[file]") {
  CHECK(test::InChild([] {
          const rlimit limit{64, 64};
          if (setrlimit(RLIMIT_NOFILE, &limit) != 0) return 1;
          int last = -1;
          for (int fd = dup(0); fd >= 0; fd = dup(0)) last = fd;
          if (errno != EMFILE || last != 63) return 2;
          if (fcntl(0, F_DUPFD, 64) != -1 || errno != EINVAL) return 3;
          if (dup2(0, 64) != -1 || errno != EBADF) return 4;
          return 0;
        }) == 0);
}

TEST_CASE("a size limit stops a file from growing", "[file]") {
  const Scratch scratch;
  CHECK(test::InChild([] {
          const rlimit limit{10, 10};
          signal(SIGXFSZ, SIG_IGN);
          if (setrlimit(RLIMIT_FSIZE, &limit) != 0) return 1;
          const int fd = open("f", O_CREAT | O_RDWR, 0644);
          if (write(fd, "123456789012", 12) != 10) return 2;
          if (write(fd, "1", 1) != -1 || errno != EFBIG) return 3;
          if (ftruncate(fd, 11) != -1 || errno != EFBIG) return 4;
          return 0;
        }) == 0);
}

TEST_CASE("a position is shared by dup and fork, not by open", "[file]") {
  const Scratch scratch;
  Make("f", "abcdefgh");
  const Fd fd = Open("f", O_RDONLY);
  const Fd copy(dup(fd));
  const Fd other = Open("f", O_RDONLY);
  char byte = 0;
  CHECK(read(fd, &byte, 1) == 1);
  CHECK(read(copy, &byte, 1) == 1);
  CHECK(byte == 'b');
  CHECK(read(other, &byte, 1) == 1);
  CHECK(byte == 'a');
  CHECK(test::InChild([&] { return read(fd, &byte, 1) == 1 && byte == 'c' ? 0 : 1; }) == 0);
  CHECK(read(fd, &byte, 1) == 1);
  CHECK(byte == 'd');
}

TEST_CASE("sendfile and copy_file_range move bytes between files", "[file]") {
  const Scratch scratch;
  Make("a", std::string(200000, 'a') + "tail");
  const Fd in = Open("a", O_RDONLY);
  const Fd out = Open("b", O_CREAT | O_RDWR);
  CHECK(sendfile(out, in, nullptr, 1 << 20) == 200004);
  CHECK(Content("b") == Content("a"));
  off_t offset = 200000;
  CHECK(sendfile(out, in, &offset, 10) == 4);
  CHECK(offset == 200004);
  loff_t from = 0;
  loff_t to = 2;
  CHECK(copy_file_range(in, &from, out, &to, 5, 0) == 5);
  CHECK(to == 7);
  CHECK(Code(copy_file_range(in, &from, out, &to, 5, 1)) == -EINVAL);
  const Fd append = Open("b", O_WRONLY | O_APPEND);
  CHECK(Code(sendfile(append, in, &offset, 10)) == -EINVAL);
  CHECK(Code(copy_file_range(in, &from, append, nullptr, 5, 0)) == -EBADF);
  const Fd directory = Open(".", O_RDONLY);
  CHECK(Code(copy_file_range(directory, nullptr, out, nullptr, 5, 0)) == -EISDIR);
}

TEST_CASE("shared mappings and writes see each other", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  REQUIRE(ftruncate(fd, 8192) == 0);
  char* map = static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
  REQUIRE(map != MAP_FAILED);
  std::memcpy(map, "mapped", 6);
  char buffer[8] = {};
  CHECK(pread(fd, buffer, 6, 0) == 6);
  CHECK(std::string(buffer, 6) == "mapped");
  CHECK(pwrite(fd, "W", 1, 5000) == 1);
  CHECK(map[5000] == 'W');
  const pid_t child = fork();
  if (child == 0) {
    map[1] = 'C';
    _exit(0);
  }
  waitpid(child, nullptr, 0);
  CHECK(map[1] == 'C');
  // A file may be read into a mapping of itself.
  CHECK(pread(fd, map + 4096, 4096, 0) == 4096);
  CHECK(std::memcmp(map + 4096, map, 6) == 0);
  munmap(map, 8192);
}

TEST_CASE("a mapping beyond the end of its file raises SIGBUS", "[file]") {
  const Scratch scratch;
  const Fd fd = Open("f", O_CREAT | O_RDWR);
  REQUIRE(ftruncate(fd, 8192) == 0);
  const pid_t child = fork();
  if (child == 0) {
    volatile char* map =
        static_cast<char*>(mmap(nullptr, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0));
    map[4096] = 1;
    if (ftruncate(fd, 4096) != 0) _exit(1);
    map[0] = 1;
    map[4096] = 2;
    _exit(2);
  }
  int status = 0;
  waitpid(child, &status, 0);
  REQUIRE(WIFSIGNALED(status));
  CHECK(WTERMSIG(status) == SIGBUS);
}

TEST_CASE("a temporary file can be given a name", "[file]") {
  const Scratch scratch;
  const Fd fd = Open(".", O_TMPFILE | O_RDWR);
  CHECK(write(fd, "text", 4) == 4);
  const std::string self = "/proc/self/fd/" + std::to_string(static_cast<int>(fd));
  CHECK(linkat(AT_FDCWD, self.c_str(), AT_FDCWD, "named", AT_SYMLINK_FOLLOW) == 0);
  CHECK(Content("named") == "text");
  CHECK(Code(open(".", O_TMPFILE | O_RDONLY, 0600)) == -EINVAL);
}

TEST_CASE("an unlinked file lives as long as it is open", "[file]") {
  const Scratch scratch;
  Make("f", "data");
  const Fd fd = Open("f", O_RDWR);
  CHECK(unlink("f") == 0);
  struct stat status{};
  CHECK(fstat(fd, &status) == 0);
  CHECK(status.st_nlink == 0);
  char buffer[8] = {};
  CHECK(read(fd, buffer, 8) == 4);
  CHECK(write(fd, "more", 4) == 4);
  CHECK(pread(fd, buffer, 8, 0) == 8);
}

TEST_CASE("writing takes set-user-id away from the unprivileged", "[file]") {
  const Scratch scratch;
  if (geteuid() != 0) return;
  CHECK(chmod(".", 0777) == 0);
  CHECK(test::AsUser(1000, [] {
          const int fd = open("f", O_CREAT | O_RDWR, 0755);
          if (fchmod(fd, 06755) != 0) return 1;
          if (write(fd, "x", 1) != 1) return 2;
          struct stat status{};
          if (fstat(fd, &status) != 0) return 3;
          return (status.st_mode & 07777) == 0755 ? 0 : 4;
        }) == 0);
}

TEST_CASE("ioctls that every file knows", "[file]") {
  const Scratch scratch;
  Make("f", "data");
  const Fd fd = Open("f", O_RDONLY);
  int value = 0;
  CHECK(ioctl(fd, FIONREAD, &value) == 0);
  CHECK(value == 4);
  CHECK(ioctl(fd, FIOCLEX) == 0);
  CHECK(fcntl(fd, F_GETFD) == FD_CLOEXEC);
  CHECK(ioctl(fd, FIONCLEX) == 0);
  CHECK(fcntl(fd, F_GETFD) == 0);
  value = 1;
  CHECK(ioctl(fd, FIONBIO, &value) == 0);
  CHECK((fcntl(fd, F_GETFL) & O_NONBLOCK) != 0);
  CHECK(Code(ioctl(fd, TCGETS, &value)) == -ENOTTY);
}

TEST_CASE("sync and advice are accepted where they make sense", "[file]") {
  const Scratch scratch;
  Make("f", "data");
  const Fd fd = Open("f", O_RDWR);
  CHECK(fsync(fd) == 0);
  CHECK(fdatasync(fd) == 0);
  CHECK(syncfs(fd) == 0);
  CHECK(posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL) == 0);
  CHECK(posix_fadvise(fd, 0, 0, 77) == EINVAL);
  CHECK(readahead(fd, 0, 100) == 0);
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  CHECK(Code(fsync(ends[0])) == -EINVAL);
  CHECK(posix_fadvise(ends[0], 0, 0, POSIX_FADV_NORMAL) == ESPIPE);
  CHECK(Code(lseek(ends[0], 0, SEEK_SET)) == -ESPIPE);
  CHECK(Code(pread(ends[0], ends, 1, 0)) == -ESPIPE);
  close(ends[0]);
  close(ends[1]);
}

}  // namespace
