// The gofer does all of its work under the filter that runsc-gofer installs.

#include "platform/seccomp/filter.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <string>

#include "catch2/catch.hpp"
#include "gofer/server/host.h"
#include "runsc-cli/main/gofer_filter.h"
#include "test/unit/gofer/fixture.h"

namespace {

using gofer::kNoFid;

[[noreturn]] void ServeFiltered(gofer::ChannelEnds ends, const std::string& path) {
  ends.client_socket.Reset();
  gofer::Server::Options options;
  options.memory = std::move(ends.memory);
  options.socket = std::move(ends.server_socket);
  options.attach_points = test::AttachPointsFor(path);
  auto proc = gofer::host::OpenProcSelfFd();
  if (!proc.ok()) _exit(2);
  options.proc_self_fd = *std::move(proc);
  auto server = gofer::Server::Create(std::move(options));
  if (!server.ok()) _exit(3);
  const auto program = platform::seccomp::Compile(runsc::GoferFilter());
  if (!platform::seccomp::Install(program).ok()) _exit(4);
  _exit((*server)->Run().ok() ? 0 : 1);
}

// Errors of the host's file system are fine here; EIO is a dead gofer.
template <typename Result>
bool Alive(const Result& result) {
  return result.ok() || result.error() != EIO;
}

void UseEverything(gofer::Client& client, const test::TempDir& dir) {
  const gofer::Fid root = client.NewFid();
  REQUIRE(client.Attach("root", root).ok());
  const gofer::Fid file = client.NewFid();
  CHECK(client.Create(root, "file", file, O_RDWR, {04755, 1, 1}).ok());
  const gofer::Fid sub = client.NewFid();
  CHECK(client.Mkdir(root, "dir", sub, {0755, 0, 0}).ok());
  CHECK(client.Mknod(sub, "fifo", kNoFid, {S_IFIFO | 0600, 0, 0}).ok());
  const gofer::Fid link = client.NewFid();
  CHECK(client.Symlink(sub, "link", link, "target", {}).ok());
  CHECK(client.ReadLink(link).ok());
  CHECK(client.Link(file, sub, "hard").ok());
  CHECK(client.Rename(sub, "hard", root, "moved", RENAME_NOREPLACE).ok());
  CHECK(client.Walk({root, test::Steps("dir/link")}).ok());
  CHECK(client.Walk({root, test::Steps("file"), true, O_RDONLY}).value().fd.valid());
  gofer::SetAttrRequest set;
  set.fid = file;
  set.mask = gofer::kSetAll;
  set.mode = 0600;
  set.size = 100;
  CHECK(client.SetAttr(set).ok());
  CHECK(client.Open(file, O_RDWR).ok());
  CHECK(client.StatFs(root).ok());
  CHECK(Alive(client.SetXattr(file, "user.x", "y", 0)));
  CHECK(Alive(client.GetXattr(file, "user.x")));
  CHECK(Alive(client.ListXattr(file)));
  CHECK(Alive(client.RemoveXattr(file, "user.x")));
  CHECK(client.Fsync(file, gofer::SyncScope::kFile).ok());
  CHECK(client.Fsync(file, gofer::SyncScope::kData).ok());
  CHECK(client.Fsync(root, gofer::SyncScope::kFileSystem).ok());
  for (int i = 0; i < 2000; ++i) test::WriteFile(dir / std::to_string(i), "");
  gofer::ReadDirRequest read{root, 0, 100, true};
  for (bool end = false; !end;) {
    const gofer::DirReply reply = client.ReadDir(read).value();
    end = reply.end;
    if (!end) read.cookie = reply.entries[reply.entries.size() / 2].cookie;  // Seeks back.
  }
  CHECK(client.Unlink(root, "moved", 0).ok());
  CHECK(client.GetAttr(file).ok());
  client.Forget(file);
  CHECK(client.FlushForgotten().ok());
}

TEST_CASE("every operation is possible under the gofer's filter", "[gofer][filter]") {
  test::TempDir dir;
  auto ends = gofer::CreateChannel();
  REQUIRE(ends.ok());
  const pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) ServeFiltered(*std::move(ends), dir.path());
  ends->server_socket.Reset();
  auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
  REQUIRE(client.ok());
  UseEverything(**client, dir);
  client->reset();
  int status = 0;
  REQUIRE(waitpid(pid, &status, 0) == pid);
  CHECK(status == 0);
}

TEST_CASE("the gofer's filter keeps to its limit", "[gofer][filter]") {
  CHECK(platform::seccomp::CountAllowed(runsc::GoferFilter()) <= 35);
}

}  // namespace
