#pragma once

// A client and a server in one process, over a real channel, on a temporary directory.

#include <memory>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "gofer/protocol/client.h"
#include "gofer/server/server.h"

namespace test {

// A directory that disappears with its content.
class TempDir {
 public:
  // In `parent`, or where temporary files go.
  explicit TempDir(const std::string& parent = {});
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  const std::string& path() const { return path_; }
  std::string operator/(std::string_view name) const { return path_ + "/" + std::string(name); }

 private:
  std::string path_;
};

void WriteFile(const std::string& path, std::string_view content);
std::string ReadFile(const std::string& path);
std::string ReadAll(int fd);

// The attach points: "root" is the directory, "ro" the same read-only, "host" the same with FIFOs
// and sockets allowed.
class GoferFixture {
 public:
  explicit GoferFixture(const std::string& parent = {});
  ~GoferFixture();

  gofer::Client& client() { return *client_; }
  const std::shared_ptr<gofer::Client>& shared_client() { return client_; }
  const TempDir& dir() const { return dir_; }
  gofer::Fid root() const { return root_; }
  gofer::Fid Attach(std::string_view name);
  // A fid for a path below `from` (default: root); fails the test if it is not there.
  gofer::Fid Fid(std::string_view path) { return FidBelow(root_, path); }
  gofer::Fid FidBelow(gofer::Fid from, std::string_view path);
  // Closes the client's end and waits for the server's verdict.
  absl::Status Finish();

 private:
  TempDir dir_;
  std::shared_ptr<gofer::Client> client_;
  std::unique_ptr<gofer::Server> server_;
  absl::Status verdict_;
  std::thread thread_;
  gofer::Fid root_ = gofer::kNoFid;
};

std::vector<gofer::AttachPoint> AttachPointsFor(const std::string& path);
// "a/b/c" as steps without fids.
std::vector<gofer::WalkStep> Steps(std::string_view path);

}  // namespace test
