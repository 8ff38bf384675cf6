#pragma once

// A vfs whose root is a temporary directory of the host, behind a real gofer.

#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "catch2/catch.hpp"
#include "sentry/fs/gofer/gofer_file_system.h"
#include "sentry/fs/gofer/gofer_inode.h"
#include "sentry/kernel/credentials.h"
#include "sentry/vfs/caller.h"
#include "sentry/vfs/dentry.h"
#include "sentry/vfs/vfs.h"
#include "test/unit/gofer/fixture.h"

namespace test {

class GoferVfs {
 public:
  explicit GoferVfs(bool exclusive = true, size_t files_held_max = 2048) {
    sentry::GoferOptions options;
    options.attach_name = "root";
    options.exclusive = exclusive;
    options.files_held_max = files_held_max;
    auto created = sentry::GoferFileSystem::Create(gofer_.shared_client(), options);
    REQUIRE(created.ok());
    file_system_ = std::move(created).value();
    vfs_ = std::make_unique<sentry::Vfs>();
    REQUIRE(vfs_->MountRoot(file_system_, "root", 0).ok());
  }
  ~GoferVfs() {
    vfs_.reset();
    file_system_.reset();
  }

  sentry::Vfs& vfs() { return *vfs_; }
  sentry::GoferFileSystem& file_system() { return *file_system_; }
  const TempDir& dir() const { return gofer_.dir(); }
  gofer::Client& client() { return gofer_.client(); }
  sentry::Caller Root() {
    return sentry::Caller(vfs_->root(), vfs_->root(), sentry::RootCredentials(), 0);
  }
  // How many messages `action` takes.
  template <typename Action>
  uint64_t Messages(Action action) {
    const uint64_t before = client().messages_sent();
    action();
    return client().messages_sent() - before;
  }

  base::Result<std::shared_ptr<sentry::GoferInode>> Find(std::string_view path) {
    sentry::WalkOptions options;
    options.follow_last = false;
    const sentry::Path found = TRY(vfs_->Walk(Root(), {}, path, options));
    return std::static_pointer_cast<sentry::GoferInode>(found.dentry->inode());
  }
  int ErrorOf(std::string_view path) {
    const auto found = Find(path);
    return found.ok() ? 0 : found.error().value();
  }
  std::shared_ptr<sentry::GoferInode> Get(std::string_view path) {
    auto found = Find(path);
    CAPTURE(path);
    REQUIRE(found.ok());
    return std::move(found).value();
  }
  std::shared_ptr<sentry::GoferRegular> File(std::string_view path) {
    return std::static_pointer_cast<sentry::GoferRegular>(Get(path));
  }
  std::shared_ptr<sentry::GoferDirectory> Directory(std::string_view path) {
    return std::static_pointer_cast<sentry::GoferDirectory>(Get(path));
  }
  sentry::Attributes Stat(std::string_view path) {
    const auto attributes = Get(path)->GetAttributes();
    REQUIRE(attributes.ok());
    return attributes.value();
  }
  // As open, read, close.
  std::string Read(std::string_view path) {
    const auto file = File(path);
    REQUIRE(file->OpenHost(false).ok());
    std::string text = ReadOpen(*file);
    file->CloseHost();
    return text;
  }
  static std::string ReadOpen(sentry::GoferRegular& file) {
    std::string text(4096, '\0');
    sentry::IoBuffer buffer(std::as_writable_bytes(std::span(text)));
    const auto count = file.ReadInto(buffer, 0);
    REQUIRE(count.ok());
    text.resize(count.value());
    return text;
  }
  static size_t WriteOpen(sentry::GoferRegular& file, std::string_view text, uint64_t offset,
                          uint32_t flags = 0) {
    sentry::IoBuffer buffer(std::as_bytes(std::span(text)));
    const auto count = file.WriteFrom(buffer, &offset, flags);
    REQUIRE(count.ok());
    return offset;
  }
  // What the vfs does for open(O_CREAT).
  base::Result<sentry::InodeRef> Create(sentry::GoferDirectory& directory, std::string_view name) {
    return directory.Create(name, {0644, 0, 0});
  }

 private:
  GoferFixture gofer_;
  std::shared_ptr<sentry::GoferFileSystem> file_system_;
  std::unique_ptr<sentry::Vfs> vfs_;
};

}  // namespace test
