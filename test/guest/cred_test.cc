// Credentials: ids, groups, capabilities, securebits, no_new_privs. Cases that need root run only
// then.

#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <signal.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <vector>

#include "catch2/catch.hpp"

namespace {

struct Capabilities {
  uint64_t effective, permitted, inheritable;
};

bool Get(Capabilities* out) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  if (syscall(SYS_capget, &header, data) != 0) return false;
  out->effective = data[0].effective | (uint64_t{data[1].effective} << 32);
  out->permitted = data[0].permitted | (uint64_t{data[1].permitted} << 32);
  out->inheritable = data[0].inheritable | (uint64_t{data[1].inheritable} << 32);
  return true;
}

int Set(const Capabilities& wanted) {
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  __user_cap_data_struct data[2]{};
  for (int i = 0; i < 2; ++i) {
    data[i].effective = static_cast<uint32_t>(wanted.effective >> (32 * i));
    data[i].permitted = static_cast<uint32_t>(wanted.permitted >> (32 * i));
    data[i].inheritable = static_cast<uint32_t>(wanted.inheritable >> (32 * i));
  }
  return static_cast<int>(syscall(SYS_capset, &header, data));
}

template <typename Body>
int InChild(Body body) {
  const pid_t child = fork();
  if (child == 0) _exit(body());
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

// System calls, not libc's: those change all threads and hide errors.
long SetResUid(uid_t real, uid_t effective, uid_t saved) {
  return syscall(SYS_setresuid, real, effective, saved);
}

bool MayChangeIds() {
  Capabilities now{};
  return geteuid() == 0 && Get(&now) && (now.effective & (1U << CAP_SETUID)) != 0 &&
         (now.effective & (1U << CAP_SETGID)) != 0 && (now.effective & (1U << CAP_SETPCAP)) != 0;
}

TEST_CASE("the id calls agree with each other", "[cred]") {
  uid_t real = 1, effective = 2, saved = 3;
  REQUIRE(getresuid(&real, &effective, &saved) == 0);
  CHECK(real == getuid());
  CHECK(effective == geteuid());
  CHECK(setfsuid(static_cast<uid_t>(-1)) == static_cast<int>(effective));
}

TEST_CASE("minus one is no id", "[cred]") {
  CHECK(syscall(SYS_setuid, -1) == -1);
  CHECK(errno == EINVAL);
  CHECK(SetResUid(static_cast<uid_t>(-1), static_cast<uid_t>(-1), static_cast<uid_t>(-1)) == 0);
}

TEST_CASE("setuid from root is for good and drops all capabilities", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          if (syscall(SYS_setuid, 1000) != 0) return 1;
          Capabilities now{};
          if (!Get(&now) || now.effective != 0 || now.permitted != 0) return 2;
          if (syscall(SYS_setuid, 0) != -1 || errno != EPERM) return 3;
          return getuid() == 1000 && geteuid() == 1000 ? 0 : 4;
        }) == 0);
}

TEST_CASE("a saved set-user-ID of root leads back", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          if (SetResUid(1000, 1000, 0) != 0) return 1;
          Capabilities now{};
          if (!Get(&now) || now.effective != 0 || now.permitted == 0) return 2;
          if (SetResUid(static_cast<uid_t>(-1), 0, static_cast<uid_t>(-1)) != 0) return 3;
          return Get(&now) && now.effective == now.permitted ? 0 : 4;
        }) == 0);
}

TEST_CASE("PR_SET_KEEPCAPS keeps the permitted set over setuid", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          if (prctl(PR_SET_KEEPCAPS, 1) != 0 || prctl(PR_GET_KEEPCAPS) != 1) return 1;
          Capabilities before{}, after{};
          Get(&before);
          if (SetResUid(1000, 1000, 1000) != 0) return 2;
          Get(&after);
          if (after.permitted != before.permitted || after.effective != 0) return 3;
          after.effective = after.permitted;
          return Set(after) == 0 ? 0 : 4;
        }) == 0);
  CHECK(prctl(PR_SET_KEEPCAPS, 2) == -1);
  CHECK(errno == EINVAL);
}

TEST_CASE("capset can only take away", "[cred]") {
  CHECK(InChild([] {
          Capabilities now{};
          if (!Get(&now)) return 1;
          const Capabilities none{0, 0, 0};
          if (Set(none) != 0) return 2;
          if (Set({1, 1, 0}) != -1 || errno != EPERM) return 3;
          return 0;
        }) == 0);
}

TEST_CASE("capget knows its versions", "[cred]") {
  __user_cap_header_struct header{0x12345678, 0};
  __user_cap_data_struct data[2]{};
  CHECK(syscall(SYS_capget, &header, data) == -1);
  CHECK(errno == EINVAL);
  CHECK(header.version == _LINUX_CAPABILITY_VERSION_3);
  header.version = 0;
  CHECK(syscall(SYS_capget, &header, nullptr) == 0);  // A probe.
}

TEST_CASE("groups are set, read back and bounded", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          const gid_t groups[3] = {7, 5, 9};
          if (syscall(SYS_setgroups, 3, groups) != 0) return 1;
          if (getgroups(0, nullptr) != 3) return 2;
          gid_t back[3] = {};
          if (getgroups(2, back) != -1 || errno != EINVAL) return 3;
          if (getgroups(3, back) != 3) return 4;
          if (syscall(SYS_setgroups, 65537, groups) != -1 || errno != EINVAL) return 5;
          return 0;
        }) == 0);
}

TEST_CASE("no_new_privs is set once and inherited", "[cred]") {
  CHECK(InChild([] {
          if (prctl(PR_SET_NO_NEW_PRIVS, 0, 0, 0, 0) != -1 || errno != EINVAL) return 1;
          if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return 2;
          return InChild([] { return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 ? 0 : 3; });
        }) == 0);
}

TEST_CASE("the bounding set only shrinks", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          if (prctl(PR_CAPBSET_READ, CAP_CHOWN) != 1) return 0;  // Taken away already.
          if (prctl(PR_CAPBSET_DROP, CAP_CHOWN) != 0) return 1;
          if (prctl(PR_CAPBSET_READ, CAP_CHOWN) != 0) return 2;
          if (prctl(PR_CAPBSET_READ, 63) != -1 || errno != EINVAL) return 3;
          return 0;
        }) == 0);
}

TEST_CASE("ambient capabilities live within permitted and inheritable ones", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          Capabilities now{};
          Get(&now);
          now.inheritable = 0;
          if (Set(now) != 0) return 1;
          if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0) != -1 || errno != EPERM)
            return 2;
          now.inheritable = 1U << CAP_SETUID;
          if (Set(now) != 0) return 3;
          if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SETUID, 0, 0) != 0) return 4;
          if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SETUID, 0, 0) != 1) return 5;
          now.inheritable = 0;
          if (Set(now) != 0) return 6;  // Takes the ambient one along.
          return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_IS_SET, CAP_SETUID, 0, 0) == 0 ? 0 : 7;
        }) == 0);
}

TEST_CASE("credentials belong to the thread", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          const long child = syscall(SYS_clone, SIGCHLD, nullptr, nullptr, nullptr, 0);
          if (child == 0) {
            SetResUid(1000, 1000, 1000);
            _exit(geteuid() == 1000 ? 0 : 1);
          }
          int status = 0;
          waitpid(static_cast<pid_t>(child), &status, 0);
          return status == 0 && geteuid() == 0 ? 0 : 1;
        }) == 0);
}

TEST_CASE("kill needs the same user or CAP_KILL", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          const pid_t victim = getppid();
          if (SetResUid(1000, 1000, 1000) != 0) return 1;
          if (kill(victim, 0) != -1 || errno != EPERM) return 2;
          return kill(victim, SIGCONT) == 0 ? 0 : 3;  // Of the same session.
        }) == 0);
}

TEST_CASE("a change of identity makes a process undumpable", "[cred][root]") {
  if (!MayChangeIds()) return;
  CHECK(InChild([] {
          if (prctl(PR_SET_DUMPABLE, 1) != 0 || prctl(PR_GET_DUMPABLE) != 1) return 1;
          if (SetResUid(1000, 1000, 1000) != 0) return 2;
          return prctl(PR_GET_DUMPABLE) != 1 ? 0 : 3;
        }) == 0);
}

}  // namespace
