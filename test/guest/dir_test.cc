// Reading directories.

#include <dirent.h>

#include <algorithm>
#include <set>
#include <vector>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Fd;
using test::Make;
using test::Open;
using test::Scratch;
using test::Stat;

struct Entry {
  std::string name;
  ino64_t inode;
  unsigned char type;
  off64_t next;
};

// One call of getdents64 with `room` bytes; empty at the end.
std::vector<Entry> Batch(int fd, size_t room) {
  std::vector<char> buffer(room);
  const long bytes = syscall(SYS_getdents64, fd, buffer.data(), room);
  REQUIRE(bytes >= 0);
  std::vector<Entry> entries;
  for (long at = 0; at < bytes;) {
    const auto* entry = reinterpret_cast<const dirent64*>(buffer.data() + at);
    entries.push_back({entry->d_name, entry->d_ino, entry->d_type, entry->d_off});
    at += entry->d_reclen;
  }
  return entries;
}

std::vector<Entry> All(const std::string& path, size_t room) {
  const Fd fd = Open(path, O_RDONLY | O_DIRECTORY);
  std::vector<Entry> entries;
  for (std::vector<Entry> batch = Batch(fd, room); !batch.empty(); batch = Batch(fd, room)) {
    entries.insert(entries.end(), batch.begin(), batch.end());
  }
  return entries;
}

TEST_CASE("a directory lists itself, its parent and its entries", "[dir]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  REQUIRE(mkdir("d/sub", 0755) == 0);
  Make("d/f");
  REQUIRE(symlink("f", "d/s") == 0);
  std::set<std::string> names;
  for (const Entry& entry : All("d", 4096)) {
    names.insert(entry.name);
    CHECK(entry.inode == Stat("d/" + entry.name).st_ino);
    CHECK(entry.type == IFTODT(Stat("d/" + entry.name).st_mode));
  }
  CHECK(names == std::set<std::string>{".", "..", "f", "s", "sub"});
}

TEST_CASE("a large directory comes in pieces, each name once", "[dir]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  for (int i = 0; i < 3000; ++i) Make("d/" + std::to_string(i));
  std::set<std::string> names;
  const std::vector<Entry> entries = All("d", 300);
  for (const Entry& entry : entries) names.insert(entry.name);
  CHECK(entries.size() == 3002);
  CHECK(names.size() == 3002);
}

TEST_CASE("a directory can be emptied while it is read", "[dir]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  for (int i = 0; i < 1000; ++i) Make("d/" + std::to_string(i));
  const Fd fd = Open("d", O_RDONLY | O_DIRECTORY);
  int removed = 0;
  for (std::vector<Entry> batch = Batch(fd, 500); !batch.empty(); batch = Batch(fd, 500)) {
    for (const Entry& entry : batch) {
      if (entry.name.front() != '.') removed += unlink(("d/" + entry.name).c_str()) == 0 ? 1 : 0;
    }
  }
  CHECK(removed == 1000);
  CHECK(rmdir("d") == 0);
}

TEST_CASE("reading goes on where an offset says", "[dir]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  for (int i = 0; i < 50; ++i) Make("d/" + std::to_string(i));
  const std::vector<Entry> entries = All("d", 65536);
  REQUIRE(entries.size() == 52);
  const Fd fd = Open("d", O_RDONLY | O_DIRECTORY);
  CHECK(lseek(fd, entries[20].next, SEEK_SET) == entries[20].next);
  const std::vector<Entry> rest = Batch(fd, 65536);
  REQUIRE(rest.size() == 31);
  CHECK(rest.front().name == entries[21].name);
  CHECK(lseek(fd, 0, SEEK_SET) == 0);
  CHECK(Batch(fd, 65536).size() == 52);
}

TEST_CASE("getdents64 refuses what it cannot do", "[dir]") {
  const Scratch scratch;
  REQUIRE(mkdir("d", 0755) == 0);
  Make("d/some-name");
  char buffer[4096];
  const Fd fd = Open("d", O_RDONLY);
  CHECK(Code(syscall(SYS_getdents64, static_cast<int>(fd), buffer, 10)) == -EINVAL);
  CHECK(Code(syscall(SYS_getdents64, static_cast<int>(fd), nullptr, 4096)) == -EFAULT);
  CHECK(Code(read(fd, buffer, 10)) == -EISDIR);
  const Fd file = Open("d/some-name", O_RDONLY);
  CHECK(Code(syscall(SYS_getdents64, static_cast<int>(file), buffer, 4096)) == -ENOTDIR);
  REQUIRE(unlink("d/some-name") == 0);
  REQUIRE(rmdir("d") == 0);
  CHECK(Code(syscall(SYS_getdents64, static_cast<int>(fd), buffer, 4096)) == -ENOENT);
}

TEST_CASE("a directory that is made of image and changes reads as one", "[dir]") {
  const Scratch scratch;
  // /etc comes from below where there is an overlay.
  const std::vector<Entry> before = All("/etc", 4096);
  if (access("/etc", W_OK) != 0 || getenv("RAVELIN_GUEST_MODE") == nullptr ||
      std::string(getenv("RAVELIN_GUEST_MODE")) == "native") {
    return;  // Not in the host's own /etc.
  }
  Make("/etc/ravelin-new");
  REQUIRE(rename("/etc/ravelin-new", "/etc/ravelin-newer") == 0);
  const std::vector<Entry> after = All("/etc", 300);
  CHECK(after.size() == before.size() + 1);
  REQUIRE(unlink("/etc/ravelin-newer") == 0);
  CHECK(All("/etc", 300).size() == before.size());
}

}  // namespace
