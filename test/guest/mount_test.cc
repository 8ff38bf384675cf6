// Mounts in a mount namespace of the test's own (mount(2), umount2(2), pivot_root(2),
// mount_namespaces(7)). Each case runs in a child, so that nothing of it stays.

#include <fcntl.h>
#include <linux/mount.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <fstream>
#include <functional>
#include <sstream>
#include <string>

#include "catch2/catch.hpp"

namespace {

// The number of the first expectation that failed, as an exit code.
#define EXPECT(condition)                        \
  do {                                           \
    if (!(condition)) return __LINE__ % 251 + 1; \
  } while (false)

bool WriteText(const char* path, const std::string& text) {
  const int fd = open(path, O_WRONLY);
  if (fd < 0) return false;
  const bool written = write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
  close(fd);
  return written;
}

// In a new mount namespace, and a user namespace where that is needed, upon a tmpfs at /tmp.
int InOwnMounts(const std::function<int()>& body) {
  const pid_t child = fork();
  if (child == 0) {
    const uid_t uid = getuid();
    const gid_t gid = getgid();
    if (unshare(CLONE_NEWNS) != 0) {
      if (unshare(CLONE_NEWUSER | CLONE_NEWNS) != 0) _exit(253);
      if (!WriteText("/proc/self/setgroups", "deny")) _exit(253);
      if (!WriteText("/proc/self/uid_map", "0 " + std::to_string(uid) + " 1")) _exit(253);
      if (!WriteText("/proc/self/gid_map", "0 " + std::to_string(gid) + " 1")) _exit(253);
    }
    if (mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) _exit(252);
    if (mount("own", "/tmp", "tmpfs", 0, "size=1m") != 0 || chdir("/tmp") != 0) _exit(252);
    _exit(body());
  }
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

// The fields of the last mountinfo line whose mount point is `point`; empty if there is none.
std::vector<std::string> InfoOf(const std::string& point) {
  std::ifstream file("/proc/self/mountinfo");
  std::vector<std::string> found;
  for (std::string line; std::getline(file, line);) {
    std::istringstream words(line);
    std::vector<std::string> fields;
    for (std::string word; words >> word;) fields.push_back(word);
    if (fields.size() > 5 && fields[4] == point) found = fields;
  }
  return found;
}

bool HasField(const std::vector<std::string>& fields, const std::string& prefix) {
  for (const std::string& field : fields) {
    if (field.starts_with(prefix)) return true;
  }
  return false;
}

bool Exists(const char* path) { return access(path, F_OK) == 0; }
bool Touch(const char* path) {
  const int fd = open(path, O_CREAT | O_WRONLY, 0644);
  if (fd >= 0) close(fd);
  return fd >= 0;
}
long Pivot(const char* new_root, const char* put_old) {
  return syscall(SYS_pivot_root, new_root, put_old);
}

TEST_CASE("a bind mount shows the same files at a second place") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0 && Touch("a/file"));
          EXPECT(mount("a", "b", nullptr, MS_BIND, nullptr) == 0);
          EXPECT(Exists("b/file"));
          EXPECT(rmdir("b") == -1 && errno == EBUSY);
          const auto info = InfoOf("/tmp/b");
          EXPECT(info.size() > 3 && info[3] == "/a");
          EXPECT(umount("b") == 0 && !Exists("b/file"));
          EXPECT(umount("b") == -1 && errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("a file can be bound on a file, not on a directory") {
  CHECK(InOwnMounts([] {
          EXPECT(Touch("one") && Touch("two") && mkdir("dir", 0755) == 0);
          EXPECT(WriteText("one", "1"));
          EXPECT(mount("one", "two", nullptr, MS_BIND, nullptr) == 0);
          struct stat a = {};
          struct stat b = {};
          EXPECT(stat("one", &a) == 0 && stat("two", &b) == 0 && a.st_ino == b.st_ino);
          EXPECT(mount("one", "dir", nullptr, MS_BIND, nullptr) == -1 && errno == ENOTDIR);
          EXPECT(mount("dir", "one", nullptr, MS_BIND, nullptr) == -1 && errno == ENOTDIR);
          EXPECT(unlink("two") == -1 && errno == EBUSY);
          return 0;
        }) == 0);
}

TEST_CASE("a recursive bind takes what is mounted below along") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0 && mkdir("c", 0755) == 0);
          EXPECT(mkdir("a/sub", 0755) == 0);
          EXPECT(mount("inner", "a/sub", "tmpfs", 0, nullptr) == 0 && Touch("a/sub/file"));
          EXPECT(mount("a", "b", nullptr, MS_BIND, nullptr) == 0 && !Exists("b/sub/file"));
          EXPECT(mount("a", "c", nullptr, MS_BIND | MS_REC, nullptr) == 0);
          EXPECT(Exists("c/sub/file"));
          EXPECT(umount("c") == -1 && errno == EBUSY);
          EXPECT(umount2("c", MNT_DETACH) == 0 && !Exists("c/sub"));
          EXPECT(Exists("a/sub/file"));
          return 0;
        }) == 0);
}

TEST_CASE("what is mounted below a shared mount appears below its peers and slaves") {
  CHECK(InOwnMounts([] {
          for (const char* name : {"a", "peer", "slave", "private"}) EXPECT(mkdir(name, 0755) == 0);
          EXPECT(mount("a", "a", nullptr, MS_BIND, nullptr) == 0);
          EXPECT(mount("none", "a", nullptr, MS_SHARED, nullptr) == 0);
          EXPECT(mkdir("a/sub", 0755) == 0);
          for (const char* name : {"peer", "slave", "private"})
            EXPECT(mount("a", name, nullptr, MS_BIND, nullptr) == 0);
          EXPECT(mount("none", "slave", nullptr, MS_SLAVE, nullptr) == 0);
          EXPECT(mount("none", "private", nullptr, MS_PRIVATE, nullptr) == 0);
          EXPECT(HasField(InfoOf("/tmp/a"), "shared:") && HasField(InfoOf("/tmp/peer"), "shared:"));
          EXPECT(HasField(InfoOf("/tmp/slave"), "master:"));
          EXPECT(!HasField(InfoOf("/tmp/slave"), "shared:"));
          EXPECT(mount("x", "a/sub", "tmpfs", 0, nullptr) == 0 && Touch("a/sub/file"));
          EXPECT(Exists("peer/sub/file") && Exists("slave/sub/file"));
          EXPECT(!Exists("private/sub/file"));
          // A slave keeps its own to itself.
          EXPECT(umount("slave/sub") == 0 && Exists("a/sub/file") && Exists("peer/sub/file"));
          EXPECT(umount("peer/sub") == 0 && !Exists("a/sub/file"));
          return 0;
        }) == 0);
}

TEST_CASE("an unbindable mount is not bound") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0);
          EXPECT(mount("x", "a", "tmpfs", 0, nullptr) == 0);
          EXPECT(mount("none", "a", nullptr, MS_UNBINDABLE, nullptr) == 0);
          EXPECT(HasField(InfoOf("/tmp/a"), "unbindable"));
          EXPECT(mount("a", "b", nullptr, MS_BIND, nullptr) == -1 && errno == EINVAL);
          EXPECT(mount("none", "a", nullptr, MS_SHARED | MS_SLAVE, nullptr) == -1);
          EXPECT(errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("flags of a mount are enforced and can be changed") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0 && Touch("a/file"));
          EXPECT(symlink("file", "a/link") == 0);
          EXPECT(mount("a", "b", nullptr, MS_BIND, nullptr) == 0);
          EXPECT(mount("none", "b", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY | 256, nullptr) == 0);
          EXPECT(!Touch("b/new") && errno == EROFS);
          EXPECT(Touch("a/new"));
          EXPECT(open("b/link", O_RDONLY) == -1 && errno == ELOOP);
          EXPECT(mount("none", "b", nullptr, MS_REMOUNT | MS_BIND, nullptr) == 0);
          EXPECT(Touch("b/other"));
          // Not while somebody writes.
          const int fd = open("b/file", O_WRONLY);
          EXPECT(fd >= 0);
          EXPECT(mount("none", "b", nullptr, MS_REMOUNT | MS_BIND | MS_RDONLY, nullptr) == -1);
          EXPECT(errno == EBUSY);
          close(fd);
          return 0;
        }) == 0);
}

TEST_CASE("a tmpfs keeps to its limits") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0);
          EXPECT(mount("x", "a", "tmpfs", 0, "size=8k,nr_inodes=3,mode=0700") == 0);
          struct stat status = {};
          EXPECT(stat("a", &status) == 0 && (status.st_mode & 07777) == 0700);
          const int fd = open("a/file", O_CREAT | O_WRONLY, 0644);
          EXPECT(fd >= 0);
          const std::string block(8192, 'x');
          EXPECT(write(fd, block.data(), block.size()) == 8192);
          EXPECT(write(fd, block.data(), 1) == -1 && errno == ENOSPC);
          close(fd);
          EXPECT(Touch("a/second"));
          EXPECT(!Touch("a/third") && errno == ENOSPC);
          EXPECT(mount("x", "a", "tmpfs", MS_REMOUNT, "size=16k,nr_inodes=10") == 0);
          EXPECT(Touch("a/third"));
          EXPECT(mount("x", "a", "tmpfs", 0, "nonsense=1") == -1 && errno == EINVAL);
          EXPECT(mount("x", "a", "nosuchfs", 0, nullptr) == -1 && errno == ENODEV);
          return 0;
        }) == 0);
}

TEST_CASE("a mount is moved with what is below it") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0);
          EXPECT(mount("x", "a", "tmpfs", 0, nullptr) == 0 && mkdir("a/sub", 0755) == 0);
          EXPECT(mount("y", "a/sub", "tmpfs", 0, nullptr) == 0 && Touch("a/sub/file"));
          EXPECT(mount("a", "b", nullptr, MS_MOVE, nullptr) == 0);
          EXPECT(Exists("b/sub/file") && !Exists("a/sub"));
          EXPECT(mount("b", "b/sub", nullptr, MS_MOVE, nullptr) == -1 && errno == ELOOP);
          EXPECT(mount("a", "b", nullptr, MS_MOVE, nullptr) == -1 && errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("an expiring unmount takes two calls") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0);
          EXPECT(mount("x", "a", "tmpfs", 0, nullptr) == 0);
          EXPECT(umount2("a", MNT_EXPIRE | MNT_FORCE) == -1 && errno == EINVAL);
          EXPECT(umount2("a", MNT_EXPIRE) == -1 && errno == EAGAIN);
          EXPECT(umount2("a", MNT_EXPIRE) == 0);
          EXPECT(umount2("a", 0x40) == -1 && errno == EINVAL);
          return 0;
        }) == 0);
}

TEST_CASE("a mount in use is busy until it is detached") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0);
          EXPECT(mount("x", "a", "tmpfs", 0, nullptr) == 0 && Touch("a/file"));
          const int fd = open("a/file", O_RDONLY);
          EXPECT(fd >= 0);
          EXPECT(umount("a") == -1 && errno == EBUSY);
          EXPECT(umount2("a", MNT_DETACH) == 0);
          char byte = 0;
          EXPECT(read(fd, &byte, 1) == 0);
          close(fd);
          return 0;
        }) == 0);
}

TEST_CASE("pivot_root changes the root of the namespace") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("new", 0755) == 0 && mount("x", "new", "tmpfs", 0, nullptr) == 0);
          EXPECT(mkdir("new/old", 0755) == 0 && Touch("new/here") && mkdir("plain", 0755) == 0);
          EXPECT(Pivot("plain", "plain") == -1 && errno == EINVAL);
          EXPECT(Pivot("/", "/tmp") == -1 && errno == EBUSY);
          EXPECT(Pivot("new", "new/old") == 0);
          EXPECT(chdir("/") == 0 && Exists("/here") && Exists("/old/tmp/plain"));
          EXPECT(umount2("/old", MNT_DETACH) == 0 && !Exists("/old/tmp"));
          return 0;
        }) == 0);
}

TEST_CASE("pivot_root needs no directory for the old root") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("new", 0755) == 0 && mount("x", "new", "tmpfs", 0, nullptr) == 0);
          EXPECT(Touch("new/here") && chdir("new") == 0);
          EXPECT(Pivot(".", ".") == 0);
          EXPECT(umount2(".", MNT_DETACH) == 0);
          EXPECT(chdir("/") == 0 && Exists("/here") && !Exists("/tmp"));
          return 0;
        }) == 0);
}

TEST_CASE("names in the table of mounts are escaped") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a b\\c", 0755) == 0);
          EXPECT(mount("my source", "a b\\c", "tmpfs", MS_NOSUID | MS_NOEXEC, nullptr) == 0);
          const auto info = InfoOf("/tmp/a\\040b\\134c");
          EXPECT(info.size() > 6 && info[5] == "rw,nosuid,noexec,relatime");
          EXPECT(HasField(info, "my\\040source"));
          return 0;
        }) == 0);
}

TEST_CASE("the new calls make a mount by steps") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0);
          EXPECT(syscall(SYS_fsopen, "nosuchfs", 0) == -1 && errno == ENODEV);
          const int context = static_cast<int>(syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC));
          EXPECT(context >= 0);
          EXPECT(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "size", "64k", 0) == 0);
          EXPECT(syscall(SYS_fsconfig, context, FSCONFIG_SET_STRING, "bogus", "1", 0) == -1);
          EXPECT(errno == EINVAL);
          char message[256];
          EXPECT(read(context, message, sizeof message) > 0 && message[0] == 'e');
          EXPECT(syscall(SYS_fsmount, context, 0, 0) == -1 && errno == EINVAL);
          EXPECT(syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, nullptr, nullptr, 0) == 0);
          const int tree =
              static_cast<int>(syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, MOUNT_ATTR_NODEV));
          EXPECT(tree >= 0);
          EXPECT(faccessat(tree, ".", F_OK, 0) == 0);
          EXPECT(syscall(SYS_move_mount, tree, "", AT_FDCWD, "a", MOVE_MOUNT_F_EMPTY_PATH) == 0);
          const auto info = InfoOf("/tmp/a");
          EXPECT(info.size() > 5 && info[5] == "rw,nodev,relatime" &&
                 HasField(info, "rw,size=64k"));
          return 0;
        }) == 0);
}

TEST_CASE("a tree is cloned, changed and attached") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mkdir("b", 0755) == 0 && Touch("a/file"));
          EXPECT(syscall(SYS_open_tree, AT_FDCWD, "a", AT_RECURSIVE) == -1 && errno == EINVAL);
          const int tree = static_cast<int>(
              syscall(SYS_open_tree, AT_FDCWD, "a", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC));
          EXPECT(tree >= 0);
          uint64_t attributes[4] = {MOUNT_ATTR_RDONLY, 0, 0, 0};
          EXPECT(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, attributes,
                         sizeof attributes) == 0);
          EXPECT(syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, attributes, 8) == -1);
          EXPECT(errno == EINVAL);
          EXPECT(syscall(SYS_move_mount, tree, "", AT_FDCWD, "b", MOVE_MOUNT_F_EMPTY_PATH) == 0);
          EXPECT(Exists("b/file") && !Touch("b/new") && errno == EROFS && Touch("a/new"));
          return 0;
        }) == 0);
}

TEST_CASE("statx tells a mount's number and root") {
  CHECK(InOwnMounts([] {
          EXPECT(mkdir("a", 0755) == 0 && mount("x", "a", "tmpfs", 0, nullptr) == 0);
          EXPECT(mkdir("a/sub", 0755) == 0);
          struct statx status = {};
          EXPECT(statx(AT_FDCWD, "a", 0, STATX_BASIC_STATS | STATX_MNT_ID, &status) == 0);
          EXPECT((status.stx_mask & STATX_MNT_ID) != 0);
          EXPECT((status.stx_attributes & STATX_ATTR_MOUNT_ROOT) != 0);
          const auto info = InfoOf("/tmp/a");
          EXPECT(!info.empty() && std::stoull(info[0]) == status.stx_mnt_id);
          EXPECT(statx(AT_FDCWD, "a/sub", 0, STATX_MNT_ID, &status) == 0);
          EXPECT((status.stx_attributes & STATX_ATTR_MOUNT_ROOT) == 0);
          return 0;
        }) == 0);
}

}  // namespace
