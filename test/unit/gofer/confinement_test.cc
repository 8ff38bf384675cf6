// Nothing above or beside a tree can be reached through it.

#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <memory>
#include <string>
#include <thread>

#include "catch2/catch.hpp"
#include "gofer/server/host.h"
#include "gofer/server/session.h"
#include "test/unit/gofer/fixture.h"

namespace {

using gofer::Fid;
using gofer::kNoFid;
using test::GoferFixture;
using test::Steps;
using test::TempDir;
using test::WriteFile;

// A session without a channel: what it calls a breach is visible.
class SessionFixture {
 public:
  SessionFixture() : SessionFixture("") {}
  // Of `path`, or of a directory of its own.
  explicit SessionFixture(const std::string& path) {
    gofer::Session::Options options;
    options.attach_points = test::AttachPointsFor(path.empty() ? dir_.path() : path);
    auto proc = gofer::host::OpenProcSelfFd();
    REQUIRE(proc.ok());
    options.proc_self_fd = *std::move(proc);
    options.descriptors_max = 100;
    session_ = std::make_unique<gofer::Session>(std::move(options));
    REQUIRE(Handle(gofer::AttachRequest{"root", 1}).ok());
  }
  absl::StatusOr<gofer::Session::Outcome> Handle(gofer::RequestBody body) {
    return session_->Handle({7, std::move(body)});
  }
  const TempDir& dir() const { return dir_; }

 private:
  TempDir dir_;
  std::unique_ptr<gofer::Session> session_;
};

TEST_CASE("a name that is no single component is a breach in every request", "[gofer][confine]") {
  const std::string name = GENERATE(std::string(""), std::string("."), std::string(".."),
                                    std::string("a/b"), std::string("/"), std::string("/etc"),
                                    std::string("a\0b", 3), std::string("../x"), std::string("x/"));
  CAPTURE(name);
  CHECK(!SessionFixture().Handle(gofer::WalkRequest{1, {{name, kNoFid}}}).ok());
  CHECK(!SessionFixture().Handle(gofer::ReadDirRequest{1, 0, 10, false, {name}, 2}).ok());
  gofer::MakeRequest make;
  make.dir = 1;
  make.name = name;
  make.mode = S_IFDIR | 0755;
  CHECK(!SessionFixture().Handle(make).ok());
}

TEST_CASE("unlink, link and rename take single components only", "[gofer][confine]") {
  const std::string name = GENERATE(std::string(".."), std::string("a/b"), std::string("/etc"));
  CAPTURE(name);
  CHECK(!SessionFixture().Handle(gofer::UnlinkRequest{1, name, 0}).ok());
  CHECK(!SessionFixture().Handle(gofer::LinkRequest{1, 1, name}).ok());
  CHECK(!SessionFixture().Handle(gofer::RenameRequest{1, name, 1, "x", 0}).ok());
  CHECK(!SessionFixture().Handle(gofer::RenameRequest{1, "x", 1, name, 0}).ok());
}

TEST_CASE("the client itself never sends such a name", "[gofer][confine]") {
  GoferFixture fixture;
  CHECK(fixture.client().Walk({fixture.root(), {{"..", kNoFid}}}).error() == EINVAL);
  CHECK(fixture.client().Walk({fixture.root(), {{"a/b", kNoFid}}}).error() == EINVAL);
  const std::string name(256, 'n');
  CHECK(fixture.client().Unlink(fixture.root(), name, 0).error() == ENAMETOOLONG);
  CHECK(!fixture.client().dead());
}

TEST_CASE("symbolic links are reported, never followed", "[gofer][confine]") {
  GoferFixture fixture;
  TempDir outside;
  WriteFile(outside / "secret", "secret");
  std::string target = GENERATE(std::string(), std::string("../.."), std::string("/"),
                                std::string("/proc/self/root"));
  if (target.empty()) target = outside.path();
  CAPTURE(target);
  REQUIRE(symlink(target.c_str(), (fixture.dir() / "link").c_str()) == 0);
  const auto walked =
      fixture.client().Walk({fixture.root(), Steps("link/secret"), true, O_RDONLY}).value();
  CHECK(walked.reply.steps.size() == 1);
  CHECK(walked.reply.stop_error == ELOOP);
  CHECK(walked.reply.link_target == target);
  CHECK(!walked.fd.valid());
  const Fid link = fixture.Fid("link");
  CHECK(fixture.client().Walk({link, Steps("secret")}).value().reply.stop_error == ELOOP);
  CHECK(fixture.client().Open(link, O_RDONLY).error() == ELOOP);
  CHECK(fixture.client().ReadDir({link, 0, 10, false}).error() == ENOTDIR);
  CHECK(fixture.client().Mkdir(link, "x", kNoFid, {0755, 0, 0}).error() == ENOTDIR);
}

TEST_CASE("magic links lead nowhere", "[gofer][confine]") {
  // A tree that contains /proc, as a careless bind mount would make one.
  base::Fd proc(open("/proc/self", O_PATH | O_DIRECTORY));
  REQUIRE(proc.valid());
  CHECK(gofer::host::OpenPath(proc.get(), "root").ok());  // The link itself.
  const base::Fd root = gofer::host::OpenPath(proc.get(), "root").value();
  CHECK(!gofer::host::OpenPath(root.get(), "etc").ok());
  CHECK(S_ISLNK(gofer::host::Stat(root.get()).value().mode));
}

TEST_CASE("the host's /proc is an empty directory below a tree that has it", "[gofer][confine]") {
  SessionFixture fixture("/");
  const auto handle = [&](gofer::RequestBody body) {
    auto outcome = fixture.Handle(std::move(body));
    REQUIRE(outcome.ok());
    return std::move(outcome->response);
  };
  const auto walk = [&](Fid from, std::string_view path) {
    return std::get<gofer::WalkReply>(handle(gofer::WalkRequest{from, Steps(path)}).body);
  };
  CHECK(walk(1, "proc").steps.size() == 1);
  CHECK(walk(1, "proc/self").steps.size() == 1);
  CHECK(walk(1, "proc/self").stop_error == ENOENT);
  CHECK(walk(1, "sys/kernel").stop_error == ENOENT);
  CHECK(handle(gofer::ReadDirRequest{1, 0, 10, true, {"proc", "self"}, 2}).error == ENOENT);
  for (const std::string_view name : {"proc", "sys"}) {
    const auto listed = handle(gofer::ReadDirRequest{1, 0, 10, true, {name}, 2});
    REQUIRE(listed.error == 0);
    CHECK(std::get<gofer::DirReply>(listed.body).entries.empty());
    CHECK(std::get<gofer::DirReply>(listed.body).end);
    REQUIRE(handle(gofer::WalkRequest{1, {{name, 3}}}).error == 0);
    CHECK(walk(3, "self").stop_error == ENOENT);
    CHECK(std::get<gofer::DirReply>(handle(gofer::ReadDirRequest{3, 0, 10, true}).body).end);
    gofer::MakeRequest make;
    make.dir = 3;
    make.name = "x";
    make.mode = S_IFDIR | 0700;
    CHECK(handle(make).error == EROFS);
    REQUIRE(handle(gofer::ClunkRequest{{3}}).error == 0);
  }
  // What is attached is meant.
  SessionFixture proc("/proc");
  auto outcome = proc.Handle(gofer::WalkRequest{1, Steps("self")});
  REQUIRE(outcome.ok());
  CHECK(std::get<gofer::WalkReply>(outcome->response.body).steps.size() == 1);
}

TEST_CASE("a directory moved out of the tree leads no further up", "[gofer][confine]") {
  GoferFixture fixture;
  TempDir outside;
  REQUIRE(mkdir((fixture.dir() / "dir").c_str(), 0755) == 0);
  WriteFile(fixture.dir() / "dir/inner", "");
  WriteFile(outside / "secret", "secret");
  const Fid dir = fixture.Fid("dir");
  REQUIRE(rename((fixture.dir() / "dir").c_str(), (outside / "dir").c_str()) == 0);
  // As with a directory that a process holds open: its content stays, its parent is not to be had.
  CHECK(fixture.client().Walk({dir, Steps("inner")}).value().reply.steps.size() == 1);
  CHECK(fixture.client().Walk({dir, {{"..", kNoFid}}}).error() == EINVAL);
  CHECK(fixture.client().Walk({dir, Steps("secret")}).value().reply.stop_error == ENOENT);
}

TEST_CASE("walks race with renames and links without ever leaving the tree", "[gofer][confine]") {
  GoferFixture fixture;
  TempDir outside;
  WriteFile(outside / "file", "outside");
  REQUIRE(mkdir((fixture.dir() / "dir").c_str(), 0755) == 0);
  WriteFile(fixture.dir() / "dir/file", "inside");
  REQUIRE(symlink(outside.path().c_str(), (fixture.dir() / "evil").c_str()) == 0);
  std::atomic<bool> stop = false;
  std::thread attacker([&] {
    const std::string dir = fixture.dir() / "dir";
    const std::string evil = fixture.dir() / "evil";
    while (!stop) renameat2(AT_FDCWD, dir.c_str(), AT_FDCWD, evil.c_str(), RENAME_EXCHANGE);
  });
  int inside = 0;
  int refused = 0;
  int escaped = 0;
  for (int i = 0; i < 3000; ++i) {
    const auto walked =
        fixture.client().Walk({fixture.root(), Steps("dir/file"), true, O_RDONLY}).value();
    if (!walked.fd.valid()) {
      ++refused;
    } else if (test::ReadAll(walked.fd.get()) == "inside") {
      ++inside;
    } else {
      ++escaped;
    }
  }
  stop = true;
  attacker.join();
  CHECK(escaped == 0);
  CHECK(inside + refused == 3000);
}

TEST_CASE("a file is opened as what it was when it was looked at", "[gofer][confine]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "x");
  const Fid fid = fixture.Fid("file");
  REQUIRE(unlink((fixture.dir() / "file").c_str()) == 0);
  REQUIRE(mkfifo((fixture.dir() / "file").c_str(), 0644) == 0);
  // Opening the FIFO of that name would block for ever.
  CHECK(test::ReadAll(fixture.client().Open(fid, O_RDONLY).value().get()) == "x");
}

TEST_CASE("the descriptor of /proc/self/fd has nothing above it", "[gofer][confine]") {
  if (geteuid() != 0) return;  // Cutting it out takes CAP_SYS_ADMIN.
  const auto proc = gofer::host::OpenProcSelfFd();
  REQUIRE(proc.ok());
  const base::Fd up(openat(proc->get(), "../cmdline", O_PATH));
  CHECK(!up.valid());
  // Where the process may not cut it out, the rule is that no name but a number is looked up in it.
  const base::Fd number(openat(proc->get(), "0", O_PATH));
  CHECK(number.valid());
}

TEST_CASE("unknown flags and fids are breaches", "[gofer][confine]") {
  CHECK(!SessionFixture().Handle(gofer::GetAttrRequest{99}).ok());
  CHECK(!SessionFixture().Handle(gofer::GetAttrRequest{kNoFid}).ok());
  CHECK(!SessionFixture().Handle(gofer::AttachRequest{"root", 1}).ok());
  CHECK(!SessionFixture().Handle(gofer::OpenRequest{1, O_CREAT}).ok());
  CHECK(!SessionFixture().Handle(gofer::OpenRequest{1, O_PATH}).ok());
  CHECK(!SessionFixture().Handle(gofer::OpenRequest{1, O_ACCMODE}).ok());
  CHECK(!SessionFixture().Handle(gofer::UnlinkRequest{1, "x", AT_EMPTY_PATH}).ok());
  CHECK(!SessionFixture().Handle(gofer::RenameRequest{1, "x", 1, "y", RENAME_WHITEOUT}).ok());
  CHECK(!SessionFixture().Handle(gofer::ClunkRequest{{1, 1}}).ok());
  CHECK(!SessionFixture().Handle(gofer::ConnectRequest{1, SOCK_RAW}).ok());
  gofer::SetAttrRequest set;
  set.fid = 1;
  set.mask = gofer::kSetAll + 1;
  CHECK(!SessionFixture().Handle(set).ok());
  gofer::XattrRequest xattr;
  xattr.fid = 1;
  CHECK(!SessionFixture().Handle(xattr).ok());
  SessionFixture session;
  WriteFile(session.dir() / "file", "");
  CHECK(session.Handle(gofer::WalkRequest{1, {{"file", 2}}}).ok());
  CHECK(!session.Handle(gofer::WalkRequest{1, {{"file", 2}}}).ok());
}

}  // namespace
