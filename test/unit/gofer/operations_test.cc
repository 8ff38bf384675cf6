// Every operation through a real channel, with the errors that the host gives.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "catch2/catch.hpp"
#include "test/unit/gofer/fixture.h"

namespace {

using gofer::Attributes;
using gofer::Client;
using gofer::Fid;
using gofer::kNoFid;
using test::GoferFixture;
using test::ReadAll;
using test::ReadFile;
using test::Steps;
using test::WriteFile;

struct stat HostStat(const std::string& path) {
  struct stat status{};
  REQUIRE(lstat(path.c_str(), &status) == 0);
  return status;
}

const Client::Ownership kOwner = {0644, 0, 0};

TEST_CASE("attach finds trees by name and tells a root's attributes", "[gofer]") {
  GoferFixture fixture;
  CHECK(fixture.client().Attach("nowhere", kNoFid).error() == ENOENT);
  const Attributes root = fixture.client().Attach("root", kNoFid).value();
  const struct stat host = HostStat(fixture.dir().path());
  CHECK(root.ino == host.st_ino);
  CHECK(root.dev == host.st_dev);
  CHECK(S_ISDIR(root.mode));
}

TEST_CASE("getattr tells what lstat tells", "[gofer]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "hello");
  REQUIRE(symlink("file", (fixture.dir() / "link").c_str()) == 0);
  for (const char* name : {"file", "link"}) {
    const Attributes got = fixture.client().GetAttr(fixture.Fid(name)).value();
    const struct stat host = HostStat(fixture.dir() / name);
    CHECK(got.ino == host.st_ino);
    CHECK(got.mode == host.st_mode);
    CHECK(got.size == static_cast<uint64_t>(host.st_size));
    CHECK(got.nlink == host.st_nlink);
    CHECK(got.uid == host.st_uid);
    CHECK(got.gid == host.st_gid);
    CHECK(got.blocks == static_cast<uint64_t>(host.st_blocks));
    CHECK(got.mtime.seconds == host.st_mtim.tv_sec);
    CHECK(got.mtime.nanoseconds == host.st_mtim.tv_nsec);
    CHECK(got.ctime.nanoseconds == host.st_ctim.tv_nsec);
  }
}

TEST_CASE("a walk takes many steps in one message", "[gofer][walk]") {
  GoferFixture fixture;
  REQUIRE(mkdir((fixture.dir() / "a").c_str(), 0755) == 0);
  REQUIRE(mkdir((fixture.dir() / "a/b").c_str(), 0700) == 0);
  WriteFile(fixture.dir() / "a/b/c", "content");
  const uint64_t before = fixture.client().messages_sent();
  gofer::WalkRequest request{fixture.root(), Steps("a/b/c"), true, O_RDONLY};
  const Fid middle = fixture.client().NewFid();
  request.steps[1].fid = middle;
  Client::Walked walked = fixture.client().Walk(request).value();
  CHECK(fixture.client().messages_sent() == before + 1);
  REQUIRE(walked.reply.steps.size() == 3);
  CHECK(walked.reply.stop_error == 0);
  CHECK(walked.reply.steps[1].mode == (S_IFDIR | 0700));
  CHECK(walked.reply.steps[2].size == 7);
  CHECK(ReadAll(walked.fd.get()) == "content");
  CHECK(fixture.client().GetAttr(middle).value() == walked.reply.steps[1]);
}

TEST_CASE("a walk stops at what is missing, at links and at files", "[gofer][walk]") {
  GoferFixture fixture;
  REQUIRE(mkdir((fixture.dir() / "a").c_str(), 0755) == 0);
  WriteFile(fixture.dir() / "a/file", "");
  REQUIRE(symlink("file", (fixture.dir() / "a/link").c_str()) == 0);
  const auto walk = [&](const char* path) {
    return fixture.client().Walk({fixture.root(), Steps(path)}).value().reply;
  };
  CHECK(walk("a/missing/x").steps.size() == 1);
  CHECK(walk("a/missing/x").stop_error == ENOENT);
  CHECK(walk("a/file/x").steps.size() == 2);
  CHECK(walk("a/file/x").stop_error == ENOTDIR);
  CHECK(walk("a/link/x").steps.size() == 2);
  CHECK(walk("a/link/x").stop_error == ELOOP);
  CHECK(walk("a/link/x").link_target == "file");
  CHECK(walk("a/link").stop_error == 0);
  CHECK(walk("a/link").link_target == "file");
  CHECK(walk("").steps.empty());
}

TEST_CASE("a walk of the longest length works, one more is refused", "[gofer][walk][limits]") {
  GoferFixture fixture;
  std::string path = fixture.dir().path();
  std::vector<gofer::WalkStep> steps;
  const std::string name(255, 'n');
  int dir = open(path.c_str(), O_PATH);
  for (size_t i = 0; i < gofer::kWalkStepsMax; ++i) {
    steps.push_back({name, kNoFid});
    REQUIRE(mkdirat(dir, name.c_str(), 0755) == 0);
    const int next = openat(dir, name.c_str(), O_PATH);
    close(dir);
    dir = next;
  }
  close(dir);
  CHECK(fixture.client().Walk({fixture.root(), steps}).value().reply.steps.size() == 32);
  steps.push_back({name, kNoFid});
  CHECK(fixture.client().Walk({fixture.root(), steps}).error() == E2BIG);
}

TEST_CASE("open donates a descriptor with the access asked for", "[gofer][open]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "hello");
  const Fid fid = fixture.Fid("file");
  const base::Fd reader = fixture.client().Open(fid, O_RDONLY).value();
  CHECK(ReadAll(reader.get()) == "hello");
  CHECK(write(reader.get(), "x", 1) == -1);
  const base::Fd writer = fixture.client().Open(fid, O_RDWR).value();
  CHECK(pwrite(writer.get(), "J", 1, 0) == 1);
  CHECK(ReadFile(fixture.dir() / "file") == "Jello");
  CHECK((fcntl(writer.get(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK(fixture.client().Open(fid, O_WRONLY | O_TRUNC).ok());
  CHECK(ReadFile(fixture.dir() / "file").empty());
}

TEST_CASE("an unlinked file can still be opened by its fid", "[gofer][open]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "kept");
  const Fid fid = fixture.Fid("file");
  REQUIRE(unlink((fixture.dir() / "file").c_str()) == 0);
  WriteFile(fixture.dir() / "file", "other");
  const base::Fd fd = fixture.client().Open(fid, O_RDONLY).value();
  CHECK(ReadAll(fd.get()) == "kept");
  CHECK(fixture.client().GetAttr(fid).value().nlink == 0);
}

TEST_CASE("nothing but regular files is opened", "[gofer][open]") {
  GoferFixture fixture;
  REQUIRE(mkdir((fixture.dir() / "dir").c_str(), 0755) == 0);
  REQUIRE(mkfifo((fixture.dir() / "fifo").c_str(), 0644) == 0);
  REQUIRE(symlink("dir", (fixture.dir() / "link").c_str()) == 0);
  REQUIRE(mknod((fixture.dir() / "sock").c_str(), S_IFSOCK | 0644, 0) == 0);
  CHECK(fixture.client().Open(fixture.Fid("dir"), O_RDONLY).error() == EISDIR);
  CHECK(fixture.client().Open(fixture.Fid("fifo"), O_RDONLY).error() == ENXIO);
  CHECK(fixture.client().Open(fixture.Fid("sock"), O_RDONLY).error() == ENXIO);
  CHECK(fixture.client().Open(fixture.Fid("link"), O_RDONLY).error() == ELOOP);
  if (geteuid() == 0 && mknod((fixture.dir() / "null").c_str(), S_IFCHR | 0666, 0x103) == 0) {
    CHECK(fixture.client().Open(fixture.Fid("null"), O_RDONLY).error() == EACCES);
    const Fid allowed = fixture.FidBelow(fixture.Attach("host"), "null");
    CHECK(fixture.client().Open(allowed, O_RDONLY).error() == EACCES);
  }
}

TEST_CASE("a FIFO is opened where allowed, without waiting for its other end", "[gofer][open]") {
  GoferFixture fixture;
  REQUIRE(mkfifo((fixture.dir() / "fifo").c_str(), 0644) == 0);
  const Fid fifo = fixture.FidBelow(fixture.Attach("host"), "fifo");
  CHECK(fixture.client().Open(fifo, O_WRONLY).error() == ENXIO);
  CHECK(fixture.client().Open(fifo, O_RDONLY).ok());
}

TEST_CASE("create makes, owns and donates a file, exclusively", "[gofer][create]") {
  GoferFixture fixture;
  const Fid fid = fixture.client().NewFid();
  const uint32_t uid = geteuid() == 0 ? 1234 : geteuid();
  Client::Change made =
      fixture.client().Create(fixture.root(), "new", fid, O_RDWR, {06755, uid, getegid()}).value();
  CHECK(made.object.uid == uid);
  CHECK(made.object.mode == (S_IFREG | 06755));
  CHECK(write(made.fd.get(), "abc", 3) == 3);
  CHECK(ReadFile(fixture.dir() / "new") == "abc");
  CHECK(fixture.client().GetAttr(fid).value().size == 3);
  CHECK(fixture.client().Create(fixture.root(), "new", kNoFid, O_RDWR, kOwner).error() == EEXIST);
  CHECK(fixture.client().Create(fid, "x", kNoFid, O_RDWR, kOwner).error() == ENOTDIR);
  REQUIRE(symlink("elsewhere", (fixture.dir() / "link").c_str()) == 0);
  CHECK(fixture.client().Create(fixture.root(), "link", kNoFid, O_RDWR, kOwner).error() == EEXIST);
}

TEST_CASE("directories, nodes and links are made", "[gofer][make]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  const Fid dir = client.NewFid();
  CHECK(client.Mkdir(fixture.root(), "dir", dir, {0711, 0, 0}).value().object.mode ==
        (S_IFDIR | 0711));
  CHECK(client.Mkdir(fixture.root(), "dir", kNoFid, {0711, 0, 0}).error() == EEXIST);
  CHECK(client.Mknod(dir, "fifo", kNoFid, {S_IFIFO | 0600, 0, 0}).value().object.mode ==
        (S_IFIFO | 0600));
  CHECK(client.Mknod(dir, "sock", kNoFid, {S_IFSOCK | 0600, 0, 0}).ok());
  CHECK(client.Mknod(dir, "file", kNoFid, {S_IFREG | 0600, 0, 0}).ok());
  CHECK(client.Mknod(dir, "null", kNoFid, {S_IFCHR | 0600, 0, 0}).error() == EPERM);
  CHECK(client.Mknod(dir, "disk", kNoFid, {S_IFBLK | 0600, 0, 0}).error() == EPERM);
  const Fid link = client.NewFid();
  const std::string target(gofer::kLinkBytesMax, 't');
  CHECK(client.Symlink(dir, "link", link, target, kOwner).value().object.size == target.size());
  CHECK(client.ReadLink(link).value() == target);
  CHECK(client.Symlink(dir, "long", kNoFid, target + "t", kOwner).error() == ENAMETOOLONG);
  CHECK(client.ReadLink(dir).error() == EINVAL);
  CHECK(client.Link(link, fixture.root(), "hard").value().object.nlink == 2);
  CHECK(S_ISLNK(HostStat(fixture.dir() / "hard").st_mode));
  CHECK(client.Link(link, fixture.root(), "hard").error() == EEXIST);
  CHECK(client.Link(dir, fixture.root(), "dir2").error() == EPERM);
}

TEST_CASE("unlink and rename say what Linux says", "[gofer][rename]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  REQUIRE(mkdir((fixture.dir() / "dir").c_str(), 0755) == 0);
  WriteFile(fixture.dir() / "dir/a", "a");
  WriteFile(fixture.dir() / "b", "b");
  const Fid dir = fixture.Fid("dir");
  CHECK(client.Unlink(fixture.root(), "dir", 0).error() == EISDIR);
  CHECK(client.Unlink(fixture.root(), "dir", AT_REMOVEDIR).error() == ENOTEMPTY);
  CHECK(client.Unlink(fixture.root(), "b", AT_REMOVEDIR).error() == ENOTDIR);
  CHECK(client.Unlink(fixture.root(), "missing", 0).error() == ENOENT);
  CHECK(client.Rename(dir, "a", fixture.root(), "b", RENAME_NOREPLACE).error() == EEXIST);
  CHECK(client.Rename(dir, "a", fixture.root(), "b", RENAME_EXCHANGE).ok());
  CHECK(ReadFile(fixture.dir() / "b") == "a");
  CHECK(client.Rename(dir, "a", fixture.root(), "b", 0).ok());
  CHECK(ReadFile(fixture.dir() / "b") == "b");
  CHECK(client.Rename(fixture.root(), "dir", dir, "self", 0).error() == EINVAL);
  CHECK(client.Unlink(fixture.root(), "dir", AT_REMOVEDIR).ok());
  // The two attach points are the same tree on the host, and different ones to the client.
  CHECK(client.Rename(fixture.root(), "b", fixture.Attach("host"), "c", 0).error() == EXDEV);
}

TEST_CASE("changes tell what the directories look like afterwards", "[gofer][make]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  const Fid dir = client.NewFid();
  const Client::Change made = client.Mkdir(fixture.root(), "dir", dir, {0755, 0, 0}).value();
  CHECK(made.dir == client.GetAttr(fixture.root()).value());
  CHECK(made.dir.nlink == 3);
  const Client::Change created = client.Create(dir, "file", kNoFid, O_RDWR, kOwner).value();
  CHECK(created.dir == client.GetAttr(dir).value());
  const Client::Change moved = client.Rename(dir, "file", fixture.root(), "file", 0).value();
  CHECK(moved.dir == client.GetAttr(dir).value());
  CHECK(moved.new_dir == client.GetAttr(fixture.root()).value());
  CHECK(client.Unlink(fixture.root(), "dir", AT_REMOVEDIR).value().dir.nlink == 2);
}

TEST_CASE("setattr changes each attribute", "[gofer][setattr]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "0123456789");
  const Fid fid = fixture.Fid("file");
  gofer::SetAttrRequest request;
  request.fid = fid;
  request.mask = gofer::kSetMode | gofer::kSetSize | gofer::kSetAtime | gofer::kSetMtime;
  request.mode = 04711;
  request.size = 4;
  request.atime = {1, 2};
  request.mtime = {-3, 4};
  Attributes got = fixture.client().SetAttr(request).value();
  CHECK(got.mode == (S_IFREG | 04711));
  CHECK(got.size == 4);
  CHECK(got.atime == gofer::Timestamp{1, 2});
  CHECK(got.mtime == gofer::Timestamp{-3, 4});
  request.mask = gofer::kSetMtimeNow;
  got = fixture.client().SetAttr(request).value();
  CHECK(got.atime == gofer::Timestamp{1, 2});
  CHECK(got.mtime.seconds > 1'000'000'000);
  if (geteuid() == 0) {
    request.mask = gofer::kSetUid | gofer::kSetGid | gofer::kSetMode;
    request.uid = 12;
    request.gid = 34;
    got = fixture.client().SetAttr(request).value();
    CHECK(got.uid == 12);
    CHECK(got.gid == 34);
    CHECK(got.mode == (S_IFREG | 04711));
  }
  request.fid = fixture.root();
  request.mask = gofer::kSetSize;
  CHECK(fixture.client().SetAttr(request).error() == EISDIR);
  request.fid = fid;
  request.size = ~uint64_t{0};
  CHECK(fixture.client().SetAttr(request).error() == EINVAL);
}

TEST_CASE("the mode and the times of what is not a file or a link change too", "[gofer][setattr]") {
  GoferFixture fixture;
  REQUIRE(mkfifo((fixture.dir() / "fifo").c_str(), 0644) == 0);
  REQUIRE(symlink("nowhere", (fixture.dir() / "link").c_str()) == 0);
  gofer::SetAttrRequest request;
  request.mask = gofer::kSetMode;
  request.mode = 0600;
  request.fid = fixture.Fid("fifo");
  CHECK(fixture.client().SetAttr(request).value().mode == (S_IFIFO | 0600));
  request.fid = fixture.Fid("link");
  CHECK(fixture.client().SetAttr(request).error() == EOPNOTSUPP);
  request.mask = gofer::kSetMtime;
  request.mtime = {5, 6};
  CHECK(fixture.client().SetAttr(request).value().mtime == gofer::Timestamp{5, 6});
}

// What reading the root in full delivers; entries with wrong attributes are left out.
std::set<std::string> ReadWholeRoot(GoferFixture& fixture, bool with_attributes) {
  std::set<std::string> seen;
  gofer::ReadDirRequest request{fixture.root(), 0, gofer::kDirEntriesMax, with_attributes};
  while (true) {
    const gofer::DirReply reply = fixture.client().ReadDir(request).value();
    for (const gofer::DirEntry& entry : reply.entries) {
      request.cookie = entry.cookie;
      const bool right = !with_attributes || (entry.attributes.ino == entry.ino &&
                                              entry.attributes.mode == (S_IFREG | 0644));
      if (right) seen.insert(entry.name);
    }
    if (reply.end) return seen;
  }
}

TEST_CASE("a directory of a hundred thousand entries is read completely", "[gofer][readdir]") {
  // Making the files takes ten seconds on some disks.
  GoferFixture fixture(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "");
  constexpr int kEntries = 100'000;
  base::Fd dir(open(fixture.dir().path().c_str(), O_DIRECTORY));
  int made = 0;
  for (int i = 0; i < kEntries; ++i) {
    if (mknodat(dir.get(), ("entry" + std::to_string(i)).c_str(), S_IFREG | 0644, 0) == 0) ++made;
  }
  REQUIRE(made == kEntries);
  CHECK(ReadWholeRoot(fixture, false).size() == kEntries);
  CHECK(ReadWholeRoot(fixture, true).size() == kEntries);
}

TEST_CASE("reading a directory goes on from any cookie", "[gofer][readdir]") {
  GoferFixture fixture;
  for (char name = 'a'; name <= 'z'; ++name) WriteFile(fixture.dir() / std::string(1, name), "");
  gofer::ReadDirRequest request{fixture.root(), 0, gofer::kDirEntriesMax, false};
  const gofer::DirReply all = fixture.client().ReadDir(request).value();
  REQUIRE(all.entries.size() == 26);
  CHECK(all.end);
  for (size_t i = 0; i + 1 < all.entries.size(); ++i) {
    request.cookie = all.entries[i].cookie;
    request.entries_max = 1;
    const gofer::DirReply one = fixture.client().ReadDir(request).value();
    REQUIRE(one.entries.size() == 1);
    CHECK(one.entries[0].name == all.entries[i + 1].name);
  }
  request.cookie = all.entries.back().cookie;
  CHECK(fixture.client().ReadDir(request).value().end);
  WriteFile(fixture.dir() / "new", "");
  request = {fixture.root(), 0, gofer::kDirEntriesMax, false};
  CHECK(fixture.client().ReadDir(request).value().entries.size() == 27);
  request.fid = fixture.Fid("a");
  CHECK(fixture.client().ReadDir(request).error() == ENOTDIR);
}

TEST_CASE("a directory far below is read in one message", "[gofer][readdir]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  std::filesystem::create_directories(fixture.dir() / "a/b/c");
  for (int i = 0; i < 20; ++i) WriteFile(fixture.dir() / ("a/b/c/" + std::to_string(i)), "");
  gofer::ReadDirRequest request{fixture.root(), 0, gofer::kDirEntriesMax, true, {"a", "b", "c"}};
  request.new_fid = client.NewFid();
  const uint64_t messages = client.messages_sent();
  const gofer::DirReply all = client.ReadDir(request).value();
  CHECK(client.messages_sent() == messages + 1);
  CHECK(all.end);
  CHECK(all.entries.size() == 20);
  struct stat host{};
  REQUIRE(stat((fixture.dir() / "a/b/c").c_str(), &host) == 0);
  CHECK(all.attributes.ino == host.st_ino);

  // Its fid is free still. Read in parts, it is bound.
  request.entries_max = 15;
  const gofer::DirReply part = client.ReadDir(request).value();
  CHECK(part.entries.size() == 15);
  REQUIRE(!part.end);
  gofer::ReadDirRequest rest{request.new_fid, part.entries.back().cookie, 15, false};
  CHECK(client.ReadDir(rest).value().entries.size() == 5);
  CHECK(client.Walk({request.new_fid, Steps("7")}).value().reply.steps.size() == 1);
  client.Forget(request.new_fid);

  const auto error_of = [&](std::vector<std::string_view> path) {
    gofer::ReadDirRequest wrong{fixture.root(), 0, 10, false, std::move(path), client.NewFid()};
    return client.ReadDir(wrong).error().value();
  };
  REQUIRE(symlink("b", (fixture.dir() / "a/link").c_str()) == 0);
  CHECK(error_of({"a", "missing"}) == ENOENT);
  CHECK(error_of({"a", "b", "c", "7"}) == ENOTDIR);
  CHECK(error_of({"a", "link", "c"}) == ELOOP);
  CHECK(error_of({"a", ".."}) == EINVAL);
}

TEST_CASE("the longest names fit, a thousand at a time", "[gofer][readdir][limits]") {
  GoferFixture fixture;
  for (int i = 0; i < 1100; ++i) {
    const std::string number = std::to_string(i);
    WriteFile(fixture.dir() / (std::string(255 - number.size(), 'x') + number), "");
  }
  size_t seen = 0;
  gofer::ReadDirRequest request{fixture.root(), 0, gofer::kDirEntriesMax, true};
  for (bool end = false; !end;) {
    const gofer::DirReply reply = fixture.client().ReadDir(request).value();
    seen += reply.entries.size();
    if (!reply.entries.empty()) request.cookie = reply.entries.back().cookie;
    end = reply.end;
  }
  CHECK(seen == 1100);
}

TEST_CASE("statfs tells what the host tells", "[gofer]") {
  GoferFixture fixture;
  struct statfs host{};
  REQUIRE(statfs(fixture.dir().path().c_str(), &host) == 0);
  const gofer::StatFsReply got = fixture.client().StatFs(fixture.root()).value();
  CHECK(got.type == static_cast<uint64_t>(host.f_type));
  CHECK(got.block_size == static_cast<uint64_t>(host.f_bsize));
  CHECK(got.blocks == host.f_blocks);
  CHECK(got.name_bytes_max == static_cast<uint64_t>(host.f_namelen));
}

TEST_CASE("extended attributes are set, read, listed and removed", "[gofer][xattr]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  WriteFile(fixture.dir() / "file", "");
  const Fid fid = fixture.Fid("file");
  const base::Result<void> set = client.SetXattr(fid, "user.one", "value", 0);
  if (!set.ok() && set.error() == EOPNOTSUPP) return;  // The host's file system has none.
  CHECK(client.GetXattr(fid, "user.one").value() == "value");
  CHECK(client.SetXattr(fid, "user.one", "x", XATTR_CREATE).error() == EEXIST);
  CHECK(client.SetXattr(fid, "user.two", "x", XATTR_REPLACE).error() == ENODATA);
  CHECK(client.ListXattr(fid).value().find(std::string("user.one\0", 9)) != std::string::npos);
  CHECK(client.RemoveXattr(fid, "user.one").ok());
  CHECK(client.SetXattr(fid, "security.capability", "x", 0).error() == EPERM);
  CHECK(client.SetXattr(fid, "trusted.overlay.opaque", "y", 0).error() == EPERM);
  CHECK(client.GetXattr(fid, "user.one").error() == ENODATA);
  CHECK(client.SetXattr(fid, "user.big", std::string(gofer::kXattrValueBytesMax + 1, 'x'), 0)
            .error() == E2BIG);
  CHECK(client.GetXattr(fid, "user." + std::string(251, 'n')).error() == ERANGE);
  REQUIRE(mkfifo((fixture.dir() / "fifo").c_str(), 0644) == 0);
  const Fid fifo = fixture.Fid("fifo");
  CHECK(client.SetXattr(fifo, "user.one", "x", 0).error() == EPERM);
  CHECK(client.ListXattr(fifo).value().empty());
}

TEST_CASE("the largest extended attribute fits into a message", "[gofer][xattr][limits]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "");
  const std::string value(gofer::kXattrValueBytesMax, 'v');
  // Most file systems hold less than the interface allows; what counts is that it gets there.
  const base::Result<void> set =
      fixture.client().SetXattr(fixture.Fid("file"), "user.big", value, 0);
  if (set.ok()) {
    CHECK(fixture.client().GetXattr(fixture.Fid("file"), "user.big").value() == value);
  } else {
    CHECK((set.error() == ENOSPC || set.error() == EOPNOTSUPP || set.error() == E2BIG));
  }
}

TEST_CASE("fsync takes files and directories", "[gofer]") {
  GoferFixture fixture;
  WriteFile(fixture.dir() / "file", "x");
  CHECK(fixture.client().Fsync(fixture.Fid("file"), gofer::SyncScope::kData).ok());
  CHECK(fixture.client().Fsync(fixture.root(), gofer::SyncScope::kFileSystem).ok());
}

TEST_CASE("connect reaches a socket of the tree, where allowed", "[gofer][connect]") {
  GoferFixture fixture;
  const std::string path = fixture.dir() / "sock";
  base::Fd listener(socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address = {};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  REQUIRE(bind(listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0);
  REQUIRE(listen(listener.get(), 1) == 0);
  CHECK(fixture.client().Connect(fixture.Fid("sock"), SOCK_STREAM).error() == ECONNREFUSED);
  const Fid host = fixture.Attach("host");
  const base::Fd socket =
      fixture.client().Connect(fixture.FidBelow(host, "sock"), SOCK_STREAM).value();
  const base::Fd accepted(accept(listener.get(), nullptr, nullptr));
  REQUIRE(write(socket.get(), "hi", 2) == 2);
  char text[2];
  CHECK(read(accepted.get(), text, 2) == 2);
  CHECK(fixture.client().Connect(host, SOCK_STREAM).error() == ECONNREFUSED);
}

TEST_CASE("a read-only tree refuses every change", "[gofer][readonly]") {
  GoferFixture fixture;
  Client& client = fixture.client();
  WriteFile(fixture.dir() / "file", "x");
  REQUIRE(mkdir((fixture.dir() / "dir").c_str(), 0755) == 0);
  const Fid ro = fixture.Attach("ro");
  const Fid file = fixture.FidBelow(ro, "file");
  CHECK(client.Open(file, O_RDONLY).ok());
  CHECK(client.Open(file, O_RDWR).error() == EROFS);
  CHECK(client.Open(file, O_WRONLY).error() == EROFS);
  CHECK(client.Open(file, O_RDONLY | O_TRUNC).error() == EROFS);
  CHECK(client.Create(ro, "new", kNoFid, O_RDWR, kOwner).error() == EROFS);
  CHECK(client.Mkdir(ro, "new", kNoFid, kOwner).error() == EROFS);
  CHECK(client.Mknod(ro, "new", kNoFid, {S_IFIFO | 0600, 0, 0}).error() == EROFS);
  CHECK(client.Symlink(ro, "new", kNoFid, "x", kOwner).error() == EROFS);
  CHECK(client.Link(file, ro, "new").error() == EROFS);
  CHECK(client.Unlink(ro, "file", 0).error() == EROFS);
  CHECK(client.Rename(ro, "file", ro, "new", 0).error() == EROFS);
  CHECK(client.Rename(ro, "file", fixture.root(), "new", 0).error() == EROFS);
  CHECK(client.Rename(fixture.root(), "file", ro, "new", 0).error() == EROFS);
  CHECK(client.SetXattr(file, "user.x", "x", 0).error() == EROFS);
  CHECK(client.RemoveXattr(file, "user.x").error() == EROFS);
  gofer::SetAttrRequest request;
  request.fid = file;
  request.mask = gofer::kSetMtimeNow;
  CHECK(client.SetAttr(request).error() == EROFS);
  gofer::WalkRequest walk{ro, Steps("file"), true, O_RDWR};
  const Client::Walked walked = client.Walk(walk).value();
  CHECK(walked.reply.open_error == EROFS);
  CHECK(!walked.fd.valid());
  CHECK(ReadFile(fixture.dir() / "file") == "x");
}

TEST_CASE("the table of fids is bounded, and clunking makes room", "[gofer][limits]") {
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const rlimit low = {400, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  {
    GoferFixture fixture;
    WriteFile(fixture.dir() / "file", "x");
    std::vector<Fid> fids;
    int32_t stop = 0;
    while (stop == 0 && fids.size() < 1000) {
      gofer::WalkRequest request{fixture.root(), Steps("file")};
      request.steps[0].fid = fixture.client().NewFid();
      stop = fixture.client().Walk(request).value().reply.stop_error;
      if (stop == 0) fids.push_back(request.steps[0].fid);
    }
    CHECK(stop == ENFILE);
    CHECK(fids.size() > 200);
    // What exists goes on working.
    CHECK(fixture.client().Open(fids[0], O_RDONLY).ok());
    for (const Fid fid : fids) fixture.client().Forget(fid);
    REQUIRE(fixture.client().FlushForgotten().ok());
    fixture.Fid("file");
  }
  REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
}

TEST_CASE("too low a limit of descriptors is explained", "[gofer][limits]") {
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const rlimit low = {64, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  const auto server = gofer::Server::Create({});
  REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
  REQUIRE(!server.ok());
  CHECK(server.status().message().find("ulimit -n") != absl::string_view::npos);
}

TEST_CASE("many threads call at once and each gets its own answer", "[gofer][threads]") {
  GoferFixture fixture;
  constexpr size_t kThreads = 48;  // More than there are slots.
  std::vector<Fid> fids;
  for (size_t i = 0; i < kThreads; ++i) {
    WriteFile(fixture.dir() / std::to_string(i), std::to_string(i));
    fids.push_back(fixture.Fid(std::to_string(i)));
  }
  std::vector<std::thread> threads;
  std::atomic<int> wrong = 0;
  for (size_t i = 0; i < kThreads; ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 50; ++round) {
        const auto fd = fixture.client().Open(fids[i], O_RDONLY);
        char text[8];
        const ssize_t got = fd.ok() ? pread(fd.value().get(), text, sizeof(text), 0) : -1;
        if (got < 0 || std::string(text, static_cast<size_t>(got)) != std::to_string(i)) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}

}  // namespace
