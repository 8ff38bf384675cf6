// Keys and keyrings (keyrings(7)).

#include <linux/keyctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <string>

#include "catch2/catch.hpp"
#include "test/support/skip.h"

namespace {

long AddKey(const char* type, const char* description, const std::string& payload, long ring) {
  return syscall(SYS_add_key, type, description, payload.empty() ? nullptr : payload.data(),
                 payload.size(), ring);
}
long Keyctl(int operation, long a = 0, long b = 0, long c = 0, long d = 0) {
  return syscall(SYS_keyctl, operation, a, b, c, d);
}
// The policy of the container that the tests run in may take these calls away.
void SkipIfRefused() {
  const char* mode = std::getenv("RAVELIN_GUEST_MODE");
  if (mode == nullptr || std::strcmp(mode, "native") != 0) return;
  if (Keyctl(KEYCTL_GET_KEYRING_ID, KEY_SPEC_PROCESS_KEYRING, 1) == -1 &&
      (errno == EPERM || errno == ENOSYS)) {
    test::SkipProgram("keyctl(2) is refused here");
  }
}

std::string Read(long key) {
  char buffer[64] = {};
  const long count =
      Keyctl(KEYCTL_READ, key, reinterpret_cast<long>(buffer), static_cast<long>(sizeof(buffer)));
  return count < 0 ? "errno " + std::to_string(errno)
                   : std::string(buffer, static_cast<size_t>(count));
}

}  // namespace

TEST_CASE("a key is found where it was put, changed and taken away", "[keys]") {
  SkipIfRefused();
  const long ring = KEY_SPEC_PROCESS_KEYRING;
  const long key = AddKey("user", "ravelin:one", "first", ring);
  REQUIRE(key > 0);
  CHECK(Read(key) == "first");
  CHECK(AddKey("user", "ravelin:one", "second", ring) == key);
  CHECK(Read(key) == "second");
  CHECK(syscall(SYS_request_key, "user", "ravelin:one", nullptr, 0) == key);
  char text[128] = {};
  REQUIRE(Keyctl(KEYCTL_DESCRIBE, key, reinterpret_cast<long>(text), sizeof(text)) > 0);
  CHECK(std::strncmp(text, "user;", 5) == 0);
  CHECK(Keyctl(KEYCTL_UNLINK, key, ring) == 0);
  CHECK(syscall(SYS_request_key, "user", "ravelin:one", nullptr, 0) == -1);
  CHECK(errno == ENOKEY);
}

TEST_CASE("a process's keyring is not its child's", "[keys]") {
  SkipIfRefused();
  REQUIRE(AddKey("user", "ravelin:mine", "x", KEY_SPEC_PROCESS_KEYRING) > 0);
  const pid_t child = fork();
  if (child == 0) {
    const long found = syscall(SYS_request_key, "user", "ravelin:mine", nullptr, 0);
    _exit(found == -1 && errno == ENOKEY ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}

TEST_CASE("arguments of add_key are checked in order", "[keys]") {
  SkipIfRefused();
  const long ring = KEY_SPEC_THREAD_KEYRING;
  CHECK(AddKey("nonsense", "d", "x", ring) == -1);
  CHECK(errno == ENODEV);
  CHECK(AddKey(".kernel", "d", "x", ring) == -1);
  CHECK(errno == EPERM);
  CHECK(AddKey("user", "d", "", ring) == -1);
  CHECK(errno == EINVAL);
  CHECK(AddKey("logon", "no-colon", "x", ring) == -1);
  CHECK(errno == EINVAL);
  CHECK(AddKey("keyring", "d", "x", ring) == -1);
  CHECK(errno == EINVAL);
  CHECK(AddKey("user", "d", "x", 0x7ffffffe) == -1);
  CHECK(errno == ENOKEY);
}

TEST_CASE("a revoked key is one no more", "[keys]") {
  SkipIfRefused();
  const long key = AddKey("user", "ravelin:gone", "x", KEY_SPEC_PROCESS_KEYRING);
  REQUIRE(key > 0);
  REQUIRE(Keyctl(KEYCTL_REVOKE, key) == 0);
  CHECK(Read(key) == "errno " + std::to_string(EKEYREVOKED));
}

TEST_CASE("keyrings may not hold themselves", "[keys]") {
  SkipIfRefused();
  const long outer = AddKey("keyring", "ravelin:outer", "", KEY_SPEC_PROCESS_KEYRING);
  const long inner = AddKey("keyring", "ravelin:inner", "", outer);
  REQUIRE(outer > 0);
  REQUIRE(inner > 0);
  CHECK(Keyctl(KEYCTL_LINK, outer, inner) == -1);
  CHECK(errno == EDEADLK);
  const long key = AddKey("user", "ravelin:deep", "x", inner);
  CHECK(Keyctl(KEYCTL_SEARCH, outer, reinterpret_cast<long>("user"),
               reinterpret_cast<long>("ravelin:deep"), 0) == key);
  CHECK(Keyctl(KEYCTL_CLEAR, outer) == 0);
  CHECK(Keyctl(KEYCTL_SEARCH, outer, reinterpret_cast<long>("user"),
               reinterpret_cast<long>("ravelin:deep"), 0) == -1);
  CHECK(errno == ENOKEY);
}
