#pragma once

// System calls on files by a TestTask, with strings for paths and data.

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "test/support/test_task.h"

namespace test {

class Files {
 public:
  static constexpr uint64_t kFirst = TestTask::kPage;
  static constexpr uint64_t kSecond = TestTask::kPage + 2048;
  static constexpr uint64_t kData = TestTask::kArea;

  explicit Files(TestTask& task) : task_(task) {}

  int64_t Open(std::string_view path, int flags, uint32_t mode = 0644) {
    return task_.Call(SYS_open, task_.PokeString(kFirst, path), flags, mode);
  }
  int64_t Close(int64_t fd) { return task_.Call(SYS_close, fd); }
  int64_t Mkdir(std::string_view path, uint32_t mode = 0755) {
    return task_.Call(SYS_mkdir, task_.PokeString(kFirst, path), mode);
  }
  int64_t Unlink(std::string_view path) {
    return task_.Call(SYS_unlink, task_.PokeString(kFirst, path));
  }
  int64_t Rmdir(std::string_view path) {
    return task_.Call(SYS_rmdir, task_.PokeString(kFirst, path));
  }
  int64_t Rename(std::string_view from, std::string_view to, uint32_t flags = 0) {
    return task_.Call(SYS_renameat2, AT_FDCWD, task_.PokeString(kFirst, from), AT_FDCWD,
                      task_.PokeString(kSecond, to), flags);
  }
  int64_t Link(std::string_view from, std::string_view to) {
    return task_.Call(SYS_link, task_.PokeString(kFirst, from), task_.PokeString(kSecond, to));
  }
  int64_t Symlink(std::string_view target, std::string_view path) {
    return task_.Call(SYS_symlink, task_.PokeString(kFirst, target),
                      task_.PokeString(kSecond, path));
  }
  int64_t Chmod(std::string_view path, uint32_t mode) {
    return task_.Call(SYS_chmod, task_.PokeString(kFirst, path), mode);
  }
  int64_t Truncate(std::string_view path, int64_t size) {
    return task_.Call(SYS_truncate, task_.PokeString(kFirst, path), size);
  }
  int64_t Write(int64_t fd, std::string_view data) {
    task_.PokeBytes(kData, std::as_bytes(std::span(data)));
    return task_.Call(SYS_write, fd, kData, data.size());
  }
  int64_t Pwrite(int64_t fd, std::string_view data, int64_t offset) {
    task_.PokeBytes(kData, std::as_bytes(std::span(data)));
    return task_.Call(SYS_pwrite64, fd, kData, data.size(), offset);
  }
  std::string Read(int64_t fd, size_t size = 4096) {
    return Taken(task_.Call(SYS_read, fd, kData, size));
  }
  std::string Pread(int64_t fd, size_t size, int64_t offset) {
    return Taken(task_.Call(SYS_pread64, fd, kData, size, offset));
  }
  int64_t Stat(std::string_view path, struct stat* out, int flags = AT_SYMLINK_NOFOLLOW) {
    const int64_t result =
        task_.Call(SYS_newfstatat, AT_FDCWD, task_.PokeString(kFirst, path), kData, flags);
    if (result == 0)
      task_.PeekBytes(kData, std::as_writable_bytes(std::span<struct stat, 1>(out, 1)));
    return result;
  }
  struct stat Stat(std::string_view path) {
    struct stat out{};
    RAVELIN_CHECK(Stat(path, &out) == 0);
    return out;
  }
  bool Exists(std::string_view path) {
    struct stat out{};
    return Stat(path, &out) == 0;
  }

  // Conveniences.
  int64_t Make(std::string_view path, std::string_view content, uint32_t mode = 0644) {
    const int64_t fd = Open(path, O_CREAT | O_WRONLY | O_TRUNC, mode);
    if (fd < 0) return fd;
    const int64_t written = Write(fd, content);
    Close(fd);
    return written < 0 ? written : 0;
  }
  std::string Content(std::string_view path) {
    const int64_t fd = Open(path, O_RDONLY);
    if (fd < 0) return "errno " + std::to_string(-fd);
    std::string text;
    for (std::string piece = Read(fd); !piece.empty(); piece = Read(fd)) text += piece;
    Close(fd);
    return text;
  }
  // Without "." and "..", in the order they come, with a buffer of `room` bytes.
  std::vector<std::string> List(std::string_view path, uint32_t room = 4096) {
    std::vector<std::string> names;
    const int64_t fd = Open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return {"errno " + std::to_string(-fd)};
    while (true) {
      const int64_t bytes = task_.Call(SYS_getdents64, fd, kData, room);
      if (bytes <= 0) break;
      for (uint64_t at = 0; at < static_cast<uint64_t>(bytes);) {
        names.push_back(task_.PeekString(kData + at + 19));
        at += task_.Peek<uint16_t>(kData + at + 16);
      }
    }
    Close(fd);
    std::erase(names, ".");
    std::erase(names, "..");
    return names;
  }
  std::set<std::string> Names(std::string_view path) {
    const std::vector<std::string> names = List(path, 200);
    return {names.begin(), names.end()};
  }

 private:
  std::string Taken(int64_t count) {
    if (count < 0) return "errno " + std::to_string(-count);
    std::string text(static_cast<size_t>(count), '\0');
    task_.PeekBytes(kData, std::as_writable_bytes(std::span(text)));
    return text;
  }
  TestTask& task_;
};

}  // namespace test
