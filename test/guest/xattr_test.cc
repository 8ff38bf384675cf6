// Extended attributes.

#include <sys/xattr.h>

#include <cstring>
#include <set>

#include "test/guest/files_support.h"

namespace {

using test::Code;
using test::Fd;
using test::Make;
using test::Open;
using test::Scratch;

bool Supported() {
  Make("probe");
  return setxattr("probe", "user.probe", "x", 1, 0) == 0;
}

std::set<std::string> List(const char* path) {
  char buffer[1024];
  const ssize_t bytes = listxattr(path, buffer, sizeof(buffer));
  REQUIRE(bytes >= 0);
  std::set<std::string> names;
  for (ssize_t at = 0; at < bytes; at += static_cast<ssize_t>(std::strlen(buffer + at)) + 1) {
    const std::string name = buffer + at;
    if (name.starts_with("user.") || name.starts_with("trusted.")) names.insert(name);
  }
  return names;
}

TEST_CASE("an attribute is set, read, listed and removed", "[xattr]") {
  const Scratch scratch;
  if (!Supported()) return;
  Make("f");
  char buffer[16] = {};
  CHECK(Code(getxattr("f", "user.a", buffer, 16)) == -ENODATA);
  CHECK(setxattr("f", "user.a", "value", 5, 0) == 0);
  CHECK(getxattr("f", "user.a", nullptr, 0) == 5);
  CHECK(getxattr("f", "user.a", buffer, 16) == 5);
  CHECK(std::string(buffer, 5) == "value");
  CHECK(Code(getxattr("f", "user.a", buffer, 4)) == -ERANGE);
  CHECK(setxattr("f", "user.b", "", 0, 0) == 0);
  CHECK(List("f") == std::set<std::string>{"user.a", "user.b"});
  CHECK(Code(listxattr("f", buffer, 3)) == -ERANGE);
  CHECK(removexattr("f", "user.a") == 0);
  CHECK(Code(removexattr("f", "user.a")) == -ENODATA);
  CHECK(List("f") == std::set<std::string>{"user.b"});
}

TEST_CASE("flags say whether it must be new", "[xattr]") {
  const Scratch scratch;
  if (!Supported()) return;
  Make("f");
  CHECK(Code(setxattr("f", "user.a", "1", 1, XATTR_REPLACE)) == -ENODATA);
  CHECK(setxattr("f", "user.a", "1", 1, XATTR_CREATE) == 0);
  CHECK(Code(setxattr("f", "user.a", "2", 1, XATTR_CREATE)) == -EEXIST);
  CHECK(setxattr("f", "user.a", "2", 1, XATTR_REPLACE) == 0);
  CHECK(Code(setxattr("f", "user.a", "2", 1, 8)) == -EINVAL);
}

TEST_CASE("names and values have their limits", "[xattr]") {
  const Scratch scratch;
  if (!Supported()) return;
  Make("f");
  CHECK(Code(setxattr("f", "", "1", 1, 0)) == -ERANGE);
  CHECK(setxattr("f", ("user." + std::string(250, 'n')).c_str(), "1", 1, 0) == 0);
  CHECK(Code(setxattr("f", ("user." + std::string(251, 'n')).c_str(), "1", 1, 0)) == -ERANGE);
  const std::string large(65537, 'x');
  CHECK(Code(setxattr("f", "user.large", large.data(), 65537, 0)) == -E2BIG);
  CHECK(Code(setxattr("f", "nonsense.a", "1", 1, 0)) == -EOPNOTSUPP);
}

TEST_CASE("only files and directories have user attributes", "[xattr]") {
  const Scratch scratch;
  if (!Supported()) return;
  REQUIRE(mkdir("d", 0755) == 0);
  CHECK(setxattr("d", "user.a", "1", 1, 0) == 0);
  REQUIRE(symlink("d", "s") == 0);
  CHECK(Code(lsetxattr("s", "user.a", "1", 1, 0)) == -EPERM);
  char byte = 0;
  CHECK(Code(lgetxattr("s", "user.a", &byte, 1)) == -ENODATA);
  CHECK(getxattr("s", "user.a", &byte, 1) == 1);
  REQUIRE(mkfifo("fifo", 0644) == 0);
  CHECK(Code(setxattr("fifo", "user.a", "1", 1, 0)) == -EPERM);
}

TEST_CASE("trusted attributes are the administrator's", "[xattr]") {
  const Scratch scratch;
  if (!Supported() || geteuid() != 0) return;
  Make("f");
  REQUIRE(chmod("f", 0666) == 0);
  REQUIRE(chmod(".", 0755) == 0);
  if (setxattr("f", "trusted.a", "1", 1, 0) != 0) return;  // A container without CAP_SYS_ADMIN.
  CHECK(test::AsUser(1000, [] {
          char byte = 0;
          if (getxattr("f", "trusted.a", &byte, 1) != -1 || errno != ENODATA) return 1;
          if (setxattr("f", "trusted.a", "2", 1, 0) != -1 || errno != EPERM) return 2;
          if (setxattr("f", "user.a", "2", 1, 0) != 0) return 3;
          return 0;
        }) == 0);
}

TEST_CASE("permission of the file decides", "[xattr]") {
  const Scratch scratch;
  if (!Supported() || geteuid() != 0) return;
  Make("f");
  REQUIRE(setxattr("f", "user.a", "1", 1, 0) == 0);
  REQUIRE(chmod("f", 0600) == 0);
  REQUIRE(chmod(".", 0755) == 0);
  CHECK(test::AsUser(1000, [] {
          char byte = 0;
          if (getxattr("f", "user.a", &byte, 1) != -1 || errno != EACCES) return 1;
          if (setxattr("f", "user.a", "2", 1, 0) != -1 || errno != EACCES) return 2;
          return 0;
        }) == 0);
}

TEST_CASE("descriptors have the attributes of their file", "[xattr]") {
  const Scratch scratch;
  if (!Supported()) return;
  Make("f");
  const Fd fd = Open("f", O_RDONLY);
  CHECK(fsetxattr(fd, "user.a", "1", 1, 0) == 0);
  CHECK(unlink("f") == 0);
  char byte = 0;
  CHECK(fgetxattr(fd, "user.a", &byte, 1) == 1);
  CHECK(fremovexattr(fd, "user.a") == 0);
  const Fd path = Open(".", O_PATH);
  CHECK(Code(fgetxattr(path, "user.a", &byte, 1)) == -EBADF);
}

}  // namespace
