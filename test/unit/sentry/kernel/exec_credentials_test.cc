#include "sentry/kernel/exec_credentials.h"

#include <linux/capability.h>
#include <linux/securebits.h>
#include <sys/stat.h>

#include "catch2/catch.hpp"

namespace {

using sentry::Credentials;
using sentry::CredentialsAfterExec;
using sentry::ExecutableOwner;
using sentry::FileCapabilities;
using sentry::kAllCapabilities;

constexpr uint64_t Bit(int capability) { return uint64_t{1} << capability; }

Credentials User(uint32_t uid) {
  Credentials credentials;
  credentials.uid = credentials.euid = credentials.suid = credentials.fsuid = uid;
  credentials.gid = credentials.egid = credentials.sgid = credentials.fsgid = uid;
  return credentials;
}

Credentials Root() {
  Credentials credentials = User(0);
  credentials.permitted = credentials.effective = kAllCapabilities;
  return credentials;
}

const ExecutableOwner kPlain{.mode = S_IFREG | 0755, .uid = 0, .gid = 0, .capabilities = {}};

TEST_CASE("a plain file changes nothing for a user", "[exec][cred]") {
  const auto result = CredentialsAfterExec(User(1000), kPlain).value();
  CHECK(result.credentials->euid == 1000);
  CHECK(result.credentials->permitted == 0);
  CHECK_FALSE(result.secure);
  CHECK_FALSE(result.ids_changed);
}

TEST_CASE("root keeps its privileges within the bounding set", "[exec][cred]") {
  Credentials root = Root();
  root.bounding = Bit(CAP_CHOWN);
  const auto result = CredentialsAfterExec(root, kPlain).value();
  CHECK(result.credentials->permitted == Bit(CAP_CHOWN));
  CHECK(result.credentials->effective == Bit(CAP_CHOWN));
  CHECK_FALSE(result.secure);
}

TEST_CASE("SECBIT_NOROOT takes the meaning of uid 0 away", "[exec][cred]") {
  Credentials root = Root();
  root.securebits = 1U << SECURE_NOROOT;
  CHECK(CredentialsAfterExec(root, kPlain).value().credentials->permitted == 0);
}

TEST_CASE("set-user-ID root gives all, securely", "[exec][cred]") {
  ExecutableOwner owner = kPlain;
  owner.mode |= S_ISUID;
  const auto result = CredentialsAfterExec(User(1000), owner).value();
  CHECK(result.credentials->uid == 1000);
  CHECK(result.credentials->euid == 0);
  CHECK(result.credentials->suid == 0);
  CHECK(result.credentials->fsuid == 0);
  CHECK(result.credentials->effective == kAllCapabilities);
  CHECK(result.secure);
  CHECK(result.ids_changed);
}

TEST_CASE("no_new_privs ignores the bits and file capabilities", "[exec][cred]") {
  Credentials user = User(1000);
  user.no_new_privileges = true;
  ExecutableOwner owner = kPlain;
  owner.mode |= S_ISUID | S_ISGID;
  owner.capabilities = FileCapabilities{Bit(CAP_CHOWN), 0, true};
  const auto result = CredentialsAfterExec(user, owner).value();
  CHECK(result.credentials->euid == 1000);
  CHECK(result.credentials->egid == 1000);
  CHECK(result.credentials->permitted == 0);
}

TEST_CASE("set-group-ID without group execute is no such bit", "[exec][cred]") {
  ExecutableOwner owner = kPlain;
  owner.gid = 5;
  owner.mode = S_IFREG | S_ISGID | 0745;
  CHECK(CredentialsAfterExec(User(1000), owner).value().credentials->egid == 1000);
  owner.mode |= S_IXGRP;
  CHECK(CredentialsAfterExec(User(1000), owner).value().credentials->egid == 5);
}

TEST_CASE("file capabilities are bounded, and needed ones that are withheld refuse the program",
          "[exec][cred]") {
  Credentials user = User(1000);
  ExecutableOwner owner = kPlain;
  owner.capabilities = FileCapabilities{Bit(CAP_CHOWN) | Bit(CAP_KILL), 0, false};
  user.bounding = Bit(CAP_KILL);
  const auto result = CredentialsAfterExec(user, owner).value();
  CHECK(result.credentials->permitted == Bit(CAP_KILL));
  CHECK(result.credentials->effective == 0);
  owner.capabilities->effective = true;
  CHECK(CredentialsAfterExec(user, owner).error() == EPERM);
}

TEST_CASE("ambient capabilities survive plain programs only", "[exec][cred]") {
  Credentials user = User(1000);
  user.permitted = user.inheritable = user.ambient = Bit(CAP_NET_BIND_SERVICE);
  const auto plain = CredentialsAfterExec(user, kPlain).value();
  CHECK(plain.credentials->effective == Bit(CAP_NET_BIND_SERVICE));
  CHECK_FALSE(plain.secure);
  ExecutableOwner owner = kPlain;
  owner.mode |= S_ISUID;
  owner.uid = 1001;
  CHECK(CredentialsAfterExec(user, owner).value().credentials->permitted == 0);
}

}  // namespace
