// The gofer's client file system: right answers, and how many messages they take.

#include <fcntl.h>
#include <linux/fs.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <filesystem>
#include <set>
#include <string>
#include <vector>

#include "test/unit/sentry/fs/gofer/fixture.h"

namespace {

using sentry::Attributes;
using sentry::GoferDirectory;
using sentry::GoferRegular;
using test::GoferVfs;
using test::ReadFile;
using test::WriteFile;

std::set<std::string> Names(GoferDirectory& directory) {
  std::set<std::string> names;
  uint64_t offset = sentry::DirectoryListing::kFirstCookie;
  const auto listing = directory.List();
  REQUIRE(listing.ok());
  listing.value()->Read(&offset, [&](const sentry::DirectoryEntry& entry) {
    names.insert(std::string(entry.name));
    return true;
  });
  return names;
}

TEST_CASE("a cold path of any depth takes one message, a hot one none", "[gofer][fs]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "a/b/c/d");
  WriteFile(fs.dir() / "a/b/c/d/file", "content");
  CHECK(fs.Messages([&] { fs.Stat("/a/b/c/d/file"); }) == 1);
  CHECK(fs.Messages([&] { fs.Stat("/a/b/c/d/file"); }) == 0);
  CHECK(fs.Messages([&] { fs.Stat("/a/b"); }) == 0);
  CHECK(fs.Stat("/a/b/c/d/file").size == 7);
}

TEST_CASE("a file is opened by one message, again by none", "[gofer][fs]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", "content");
  fs.Stat("/file");
  CHECK(fs.Messages([&] { CHECK(fs.Read("/file") == "content"); }) == 1);
  CHECK(fs.Messages([&] { CHECK(fs.Read("/file") == "content"); }) == 0);
}

TEST_CASE("missing names are remembered", "[gofer][fs]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "a/b");
  CHECK(fs.Messages([&] { CHECK(fs.ErrorOf("/a/b/missing") == ENOENT); }) == 1);
  CHECK(fs.Messages([&] { CHECK(fs.ErrorOf("/a/b/missing") == ENOENT); }) == 0);
  CHECK(fs.Messages([&] { CHECK(fs.ErrorOf("/no/such/path") == ENOENT); }) == 1);
  CHECK(fs.Messages([&] { CHECK(fs.ErrorOf("/no/other/path") == ENOENT); }) == 0);
}

TEST_CASE("symbolic links are followed here, with one message per stretch", "[gofer][fs]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "real/deep");
  WriteFile(fs.dir() / "real/deep/file", "x");
  REQUIRE(symlink("real/deep", (fs.dir() / "link").c_str()) == 0);
  REQUIRE(symlink("/real", (fs.dir() / "absolute").c_str()) == 0);
  sentry::WalkOptions options;
  CHECK(fs.vfs().Walk(fs.Root(), {}, "/link/file", options).ok());
  CHECK(fs.vfs().Walk(fs.Root(), {}, "/absolute/deep/file", options).ok());
  CHECK(fs.Messages([&] { CHECK(fs.Get("/link")->ReadLink().value() == "real/deep"); }) == 0);
}

// As open(2) for reading does it.
std::string WalkAndRead(GoferVfs& fs, std::string_view path) {
  sentry::WalkOptions options;
  options.will_open = true;
  const auto found = fs.vfs().Walk(fs.Root(), {}, path, options);
  REQUIRE(found.ok());
  auto& file = static_cast<sentry::GoferRegular&>(*found.value().dentry->inode());
  REQUIRE(file.OpenHost(false).ok());
  std::string text = GoferVfs::ReadOpen(file);
  file.CloseHost();
  return text;
}

TEST_CASE("opening a file far below takes one message", "[gofer][fs][open]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "a/b/c");
  WriteFile(fs.dir() / "a/b/c/file", "content");
  WriteFile(fs.dir() / "a/b/c/other", "more");
  REQUIRE(symlink("b/c", (fs.dir() / "a/link").c_str()) == 0);
  CHECK(fs.Messages([&] { CHECK(WalkAndRead(fs, "/a/b/c/file") == "content"); }) == 1);
  CHECK(fs.Messages([&] { CHECK(WalkAndRead(fs, "/a/b/c/other") == "more"); }) == 1);
  CHECK(fs.Messages([&] { CHECK(WalkAndRead(fs, "/a/b/c/file") == "content"); }) == 0);
  CHECK(fs.Messages([&] { CHECK(WalkAndRead(fs, "/a/link/other") == "more"); }) == 1);
  // What is not there, or not to be opened, is asked for once all the same.
  sentry::WalkOptions options;
  options.will_open = true;
  CHECK(fs.Messages([&] {
    CHECK(fs.vfs().Walk(fs.Root(), {}, "/a/b/missing", options).error() == ENOENT);
  }) == 1);
  REQUIRE(mkdir((fs.dir() / "a/directory").c_str(), 0755) == 0);
  REQUIRE(mkfifo((fs.dir() / "a/fifo").c_str(), 0644) == 0);
  CHECK(fs.Messages([&] { CHECK(fs.vfs().Walk(fs.Root(), {}, "/a/directory", options).ok()); }) ==
        1);
  CHECK(fs.Messages([&] { CHECK(fs.vfs().Walk(fs.Root(), {}, "/a/fifo", options).ok()); }) == 1);
}

TEST_CASE("a directory far below is listed in one message", "[gofer][fs][readdir]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "a/b/c");
  for (int i = 0; i < 1000; ++i) WriteFile(fs.dir() / ("a/b/c/" + std::to_string(i)), "");
  const auto a = fs.Directory("/a");
  CHECK(Names(*a) == std::set<std::string>{"b"});
  const auto b = fs.Directory("/a/b");
  CHECK(fs.Messages([&] { CHECK(Names(*b) == std::set<std::string>{"c"}); }) == 1);
  CHECK(fs.Messages([&] { CHECK(Names(*fs.Directory("/a/b/c")).size() == 1000); }) <= 4);
}

TEST_CASE("after a listing its names need no messages", "[gofer][fs][readdir]") {
  GoferVfs fs;
  for (int i = 0; i < 300; ++i) WriteFile(fs.dir() / ("f" + std::to_string(i)), "x");
  CHECK(fs.Messages([&] { CHECK(Names(*fs.Directory("/")).size() == 300); }) <= 2);
  CHECK(fs.Messages([&] {
    for (int i = 0; i < 300; ++i) fs.Stat("/f" + std::to_string(i));
    CHECK(fs.ErrorOf("/missing") == ENOENT);
    CHECK(Names(*fs.Directory("/")).size() == 300);
  }) == 0);
  // Unbound files are bound by their place when that is needed.
  CHECK(fs.Read("/f7") == "x");
}

TEST_CASE("names that come and go show in a kept listing", "[gofer][fs][readdir]") {
  GoferVfs fs;
  const auto root = fs.Directory("/");
  WriteFile(fs.dir() / "old", "");
  CHECK(Names(*root) == std::set<std::string>{"old"});
  CHECK(fs.vfs().MakeDirectory(fs.Root(), {}, "/dir", 0755).ok());
  CHECK(fs.Create(*root, "new").ok());
  CHECK(Names(*root) == std::set<std::string>{"old", "dir", "new"});
  CHECK(fs.vfs().Unlink(fs.Root(), {}, "/old").ok());
  CHECK(fs.vfs().Rename(fs.Root(), {}, "/new", {}, "/dir/moved", 0).ok());
  CHECK(Names(*root) == std::set<std::string>{"dir"});
  CHECK(fs.Messages(
            [&] { CHECK(Names(*fs.Directory("/dir")) == std::set<std::string>{"moved"}); }) == 0);
  CHECK(std::filesystem::exists(fs.dir() / "dir/moved"));
}

TEST_CASE("attributes from a listing are not used once they may be old", "[gofer][fs][readdir]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", "x");
  {
    const auto file = fs.File("/file");
    CHECK(Names(*fs.Directory("/")).size() == 1);
    REQUIRE(file->OpenHost(true).ok());
    GoferVfs::WriteOpen(*file, "longer", 0);
    file->CloseHost();
  }
  CHECK(fs.Stat("/file").size == 6);
}

TEST_CASE("writes show in the attributes without a message", "[gofer][fs]") {
  GoferVfs fs;
  const auto root = fs.Directory("/");
  const auto made = fs.Create(*root, "file");
  REQUIRE(made.ok());
  const auto file = fs.File("/file");
  CHECK(file == made.value());
  CHECK(fs.Messages([&] {
    REQUIRE(file->OpenHost(true).ok());
    CHECK(GoferVfs::WriteOpen(*file, "hello", 0) == 5);
    CHECK(fs.Stat("/file").size == 5);
    CHECK(GoferVfs::WriteOpen(*file, " world", 0, O_APPEND) == 11);
    CHECK(fs.Stat("/file").size == 11);
    CHECK(file->Truncate(4).ok());
    CHECK(fs.Stat("/file").size == 4);
    CHECK(GoferVfs::ReadOpen(*file) == "hell");
    file->CloseHost();
  }) == 0);
  CHECK(ReadFile(fs.dir() / "file") == "hell");
  CHECK(fs.Stat("/file").btime.seconds > 0);
}

TEST_CASE("attributes are set, and the answer is cached", "[gofer][fs]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", "0123456789");
  sentry::AttributeChanges changes;
  changes.mode = 0640;
  changes.size = 3;
  changes.mtime = sentry::Timestamp{1000, 5};
  CHECK(fs.Get("/file")->SetAttributes(changes).ok());
  CHECK(fs.Messages([&] {
    const Attributes got = fs.Stat("/file");
    CHECK(got.mode == (S_IFREG | 0640));
    CHECK(got.size == 3);
    CHECK(got.mtime == sentry::Timestamp{1000, 5});
  }) == 0);
}

TEST_CASE("directories know what changes did to them", "[gofer][fs]") {
  GoferVfs fs;
  const auto root = fs.Directory("/");
  CHECK(fs.vfs().MakeDirectory(fs.Root(), {}, "/dir", 0755).ok());
  CHECK(fs.Messages([&] { CHECK(fs.Stat("/").nlink == 3); }) == 0);
  CHECK(fs.vfs().RemoveDirectory(fs.Root(), {}, "/dir").ok());
  CHECK(fs.Messages([&] { CHECK(fs.Stat("/").nlink == 2); }) == 0);
}

TEST_CASE("an unlinked file lives on while it is open", "[gofer][fs]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", "kept");
  const auto file = fs.File("/file");
  REQUIRE(file->OpenHost(false).ok());
  CHECK(fs.vfs().Unlink(fs.Root(), {}, "/file").ok());
  CHECK(fs.ErrorOf("/file") == ENOENT);
  CHECK(file->GetAttributes().value().nlink == 0);
  CHECK(GoferVfs::ReadOpen(*file) == "kept");
  // By its fid, which it was given for this.
  CHECK(file->OpenHost(true).ok());
  file->CloseHost();
  file->CloseHost();
}

TEST_CASE("hard links are one inode", "[gofer][fs]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "one", "x");
  const sentry::Path one = fs.vfs().WalkAsKernel("/one").value();
  CHECK(fs.vfs().Link(fs.Root(), one, {}, "/two").ok());
  REQUIRE(link((fs.dir() / "one").c_str(), (fs.dir() / "three").c_str()) == 0);
  CHECK(fs.Get("/one") == fs.Get("/two"));
  CHECK(fs.Get("/one") == fs.Get("/three"));
  CHECK(fs.vfs().Unlink(fs.Root(), {}, "/one").ok());
  CHECK(fs.Read("/two") == "x");
  CHECK(fs.vfs().Unlink(fs.Root(), {}, "/three").ok());
  CHECK(fs.Stat("/two").nlink == 1);
}

TEST_CASE("what was never bound is found after its directory moved", "[gofer][fs][rename]") {
  GoferVfs fs;
  std::filesystem::create_directories(fs.dir() / "a/b");
  WriteFile(fs.dir() / "a/b/file", "x");
  CHECK(Names(*fs.Directory("/a/b")).size() == 1);
  const auto file = fs.File("/a/b/file");
  CHECK(fs.vfs().Rename(fs.Root(), {}, "/a", {}, "/z", 0).ok());
  CHECK(fs.Read("/z/b/file") == "x");
  CHECK(fs.File("/z/b/file") == file);
  CHECK(fs.ErrorOf("/a") == ENOENT);
}

TEST_CASE("rename replaces and exchanges", "[gofer][fs][rename]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "a", "a");
  WriteFile(fs.dir() / "b", "b");
  const auto b = fs.File("/b");
  REQUIRE(b->OpenHost(false).ok());
  CHECK(fs.vfs().Rename(fs.Root(), {}, "/a", {}, "/b", RENAME_EXCHANGE).ok());
  CHECK(fs.Read("/a") == "b");
  CHECK(fs.Read("/b") == "a");
  CHECK(fs.vfs().Rename(fs.Root(), {}, "/b", {}, "/a", 0).ok());
  CHECK(fs.Read("/a") == "a");
  CHECK(GoferVfs::ReadOpen(*b) == "b");
  CHECK(b->GetAttributes().value().nlink == 0);
  b->CloseHost();
}

TEST_CASE("links, FIFOs and sockets are made; devices are not", "[gofer][fs]") {
  GoferVfs fs;
  CHECK(fs.vfs().MakeSymlink(fs.Root(), "target", {}, "/link").ok());
  CHECK(fs.Get("/link")->ReadLink().value() == "target");
  CHECK(fs.vfs().MakeNode(fs.Root(), {}, "/fifo", S_IFIFO | 0600, 0).ok());
  CHECK(fs.Stat("/fifo").mode == (S_IFIFO | 0600));
  CHECK(fs.vfs().MakeSocketNode(fs.Root(), {}, "/sock", 0600).ok());
  CHECK(fs.vfs().MakeNode(fs.Root(), {}, "/null", S_IFCHR | 0600, 0x103).error() == EPERM);
}

TEST_CASE("descriptors and fids are given up and had again", "[gofer][fs][limits]") {
  constexpr size_t kHeldMax = 8;
  GoferVfs fs(true, kHeldMax);
  std::vector<std::shared_ptr<GoferRegular>> files;
  for (int i = 0; i < 100; ++i) {
    WriteFile(fs.dir() / std::to_string(i), std::to_string(i));
    CHECK(fs.Read("/" + std::to_string(i)) == std::to_string(i));
    files.push_back(fs.File("/" + std::to_string(i)));
  }
  CHECK(fs.file_system().files_held() <= kHeldMax + 1);
  for (int i = 0; i < 100; ++i) CHECK(fs.Read("/" + std::to_string(i)) == std::to_string(i));
  // Files in use keep theirs.
  for (const auto& file : files) REQUIRE(file->OpenHost(false).ok());
  CHECK(fs.file_system().files_held() >= 100);
  for (int i = 0; i < 100; ++i)
    CHECK(GoferVfs::ReadOpen(*files[static_cast<size_t>(i)]) == std::to_string(i));
  for (const auto& file : files) file->CloseHost();
}

// TODO(compat): fails when the last free descriptor of a table that both ends share (here only)
// goes to the path and none is left for the file: the retry after MakeRoom gives up. Passes or
// fails by the parity of what the caller has open.
TEST_CASE("running out of descriptors drops what is only cached", "[gofer][fs][limits]") {
  // Client and server share one table here: which of them meets its end first is a matter of
  // whether the number that is left is odd.
  std::vector<base::Fd> more(GENERATE(range<size_t>(0, 4)));
  for (base::Fd& fd : more) fd = base::Fd(dup(STDERR_FILENO));
  rlimit old{};
  REQUIRE(getrlimit(RLIMIT_NOFILE, &old) == 0);
  const rlimit low = {500, old.rlim_max};
  REQUIRE(setrlimit(RLIMIT_NOFILE, &low) == 0);
  {
    GoferVfs fs;
    // Before there is no number left for the test itself.
    for (int i = 0; i < 600; ++i) WriteFile(fs.dir() / std::to_string(i), "/" + std::to_string(i));
    for (int i = 0; i < 600; ++i) {
      const std::string name = "/" + std::to_string(i);
      REQUIRE(fs.Read(name) == name);
    }
    CHECK(!fs.client().dead());
  }
  REQUIRE(setrlimit(RLIMIT_NOFILE, &old) == 0);
}

TEST_CASE("a deep tree is reached from far above", "[gofer][fs][limits]") {
  GoferVfs fs(true, 4);
  std::string path;
  for (int i = 0; i < 100; ++i) path += "/d" + std::to_string(i);
  std::filesystem::create_directories(fs.dir().path() + path);
  WriteFile(fs.dir().path() + path + "/file", "deep");
  CHECK(fs.Read(path + "/file") == "deep");
  const auto directory = fs.Directory(path);
  CHECK(fs.file_system().MakeRoom());
  CHECK(fs.Create(*directory, "other").ok());
  CHECK(fs.Read(path + "/file") == "deep");
}

TEST_CASE("in shared mode the host's changes are seen", "[gofer][fs][shared]") {
  GoferVfs fs(false);
  WriteFile(fs.dir() / "file", "x");
  CHECK(fs.Stat("/file").size == 1);
  WriteFile(fs.dir() / "file", "longer");
  CHECK(fs.Stat("/file").size == 6);
  CHECK(fs.ErrorOf("/late") == ENOENT);
  WriteFile(fs.dir() / "late", "late");
  CHECK(fs.Read("/late") == "late");
  CHECK(Names(*fs.Directory("/")) == std::set<std::string>{"file", "late"});
  std::filesystem::remove(fs.dir() / "file");
  CHECK(fs.ErrorOf("/file") == ENOENT);
  CHECK(Names(*fs.Directory("/")) == std::set<std::string>{"late"});
  // Another file of the same name.
  const auto before = fs.Get("/late");
  WriteFile(fs.dir() / "other", "other");
  std::filesystem::rename(fs.dir() / "other", fs.dir() / "late");
  CHECK(fs.Get("/late") != before);
  CHECK(fs.Read("/late") == "other");
}

TEST_CASE("that a file has no extended attributes is remembered", "[gofer][fs][xattr]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", "");
  const auto file = fs.Get("/file");
  CHECK(file->GetXattr("security.capability").error() == ENODATA);
  CHECK(fs.Messages([&] { CHECK(file->GetXattr("user.x").error() == ENODATA); }) == 0);
  const std::string value = "value";
  const auto set = file->SetXattr("user.x", std::as_bytes(std::span(value)), 0);
  if (!set.ok() && set.error() == EOPNOTSUPP) return;
  CHECK(file->GetXattr("user.x").value() == "value");
  CHECK(file->ListXattr().value() == std::vector<std::string>{"user.x"});
  CHECK(file->RemoveXattr("user.x").ok());
}

TEST_CASE("a mapping shows the donated descriptor up to the end of the file", "[gofer][fs][mmap]") {
  GoferVfs fs;
  WriteFile(fs.dir() / "file", std::string(5000, 'x'));
  const auto file = fs.File("/file");
  REQUIRE(file->OpenHost(false).ok());
  const sentry::HostRange range = file->Translate(0, 1 << 20, false).value();
  CHECK(range.fd >= 0);
  CHECK(range.length == 8192);
  CHECK(!range.in_pool);
  CHECK(file->Translate(8192, 4096, false).error() == EFAULT);
  CHECK(file->Translate(0, 4096, true).error() == EACCES);
  void* memory = mmap(nullptr, 4096, PROT_READ, MAP_PRIVATE, range.fd, 0);
  REQUIRE(memory != MAP_FAILED);
  CHECK(*static_cast<char*>(memory) == 'x');
  munmap(memory, 4096);
  std::byte tail[100];
  CHECK(file->ReadAt(4990, tail).value() == 10);
  REQUIRE(file->OpenHost(true).ok());
  CHECK(file->WriteAt(4999, std::as_bytes(std::span("ab", 2))).value() == 1);
  CHECK(fs.Stat("/file").size == 5000);
  file->CloseHost();
  file->CloseHost();
}

TEST_CASE("a single file can be attached", "[gofer][fs]") {
  test::GoferFixture plain;
  CHECK(
      sentry::GoferFileSystem::Create(plain.shared_client(), {.attach_name = "nowhere"}).error() ==
      ENOENT);
}

TEST_CASE("a dead gofer is EIO, not a hang", "[gofer][fs]") {
  auto ends = gofer::CreateChannel();
  REQUIRE(ends.ok());
  auto client = gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
  REQUIRE(client.ok());
  ends->server_socket.Reset();
  const auto created = sentry::GoferFileSystem::Create(*std::move(client), {.attach_name = "root"});
  CHECK(created.error() == EIO);
}

}  // namespace
