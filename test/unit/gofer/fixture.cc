#include "test/unit/gofer/fixture.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

#include "catch2/catch.hpp"
#include "gofer/server/host.h"

namespace test {

TempDir::TempDir(const std::string& parent) {
  const std::filesystem::path base =
      parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent);
  std::string pattern = base / "gofer_test.XXXXXX";
  REQUIRE(mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void WriteFile(const std::string& path, std::string_view content) {
  std::ofstream(path, std::ios::binary) << content;
}

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::string ReadAll(int fd) {
  std::string content(1 << 16, '\0');
  const ssize_t got = pread(fd, content.data(), content.size(), 0);
  REQUIRE(got >= 0);
  content.resize(static_cast<size_t>(got));
  return content;
}

std::vector<gofer::AttachPoint> AttachPointsFor(const std::string& path) {
  std::vector<gofer::AttachPoint> points;
  for (const char* name : {"root", "ro", "host"}) {
    gofer::AttachPoint point;
    point.name = name;
    point.root_path_fd = base::Fd(open(path.c_str(), O_PATH | O_CLOEXEC));
    REQUIRE(point.root_path_fd.valid());
    point.read_only = point.name == "ro";
    point.allow_fifos = point.allow_connect = point.name == "host";
    points.push_back(std::move(point));
  }
  return points;
}

std::vector<gofer::WalkStep> Steps(std::string_view path) {
  std::vector<gofer::WalkStep> steps;
  while (!path.empty()) {
    const size_t slash = path.find('/');
    steps.push_back({path.substr(0, slash), gofer::kNoFid});
    path = slash == std::string_view::npos ? std::string_view() : path.substr(slash + 1);
  }
  return steps;
}

GoferFixture::GoferFixture(const std::string& parent) : dir_(parent) {
  absl::StatusOr<gofer::ChannelEnds> ends = gofer::CreateChannel();
  REQUIRE(ends.ok());
  gofer::Server::Options options;
  options.memory = base::Fd(dup(ends->memory.get()));
  options.socket = std::move(ends->server_socket);
  options.attach_points = AttachPointsFor(dir_.path());
  absl::StatusOr<base::Fd> proc = gofer::host::OpenProcSelfFd();
  REQUIRE(proc.ok());
  options.proc_self_fd = *std::move(proc);
  absl::StatusOr<std::unique_ptr<gofer::Server>> server = gofer::Server::Create(std::move(options));
  REQUIRE(server.ok());
  server_ = *std::move(server);
  absl::StatusOr<std::unique_ptr<gofer::Client>> client =
      gofer::Client::Create(std::move(ends->memory), std::move(ends->client_socket));
  REQUIRE(client.ok());
  client_ = *std::move(client);
  thread_ = std::thread([this] {
    verdict_ = server_->Run();
    server_.reset();  // As the process would: its end of the socket closes.
  });
  root_ = Attach("root");
}

GoferFixture::~GoferFixture() {
  client_.reset();
  if (thread_.joinable()) thread_.join();
}

gofer::Fid GoferFixture::Attach(std::string_view name) {
  const gofer::Fid fid = client_->NewFid();
  REQUIRE(client_->Attach(name, fid).ok());
  return fid;
}

gofer::Fid GoferFixture::FidBelow(gofer::Fid from, std::string_view path) {
  gofer::WalkRequest request;
  request.from = from;
  request.steps = Steps(path);
  const gofer::Fid fid = client_->NewFid();
  request.steps.back().fid = fid;
  const auto walked = client_->Walk(request);
  REQUIRE(walked.ok());
  REQUIRE(walked.value().reply.stop_error == 0);
  return fid;
}

absl::Status GoferFixture::Finish() {
  client_.reset();
  thread_.join();
  return verdict_;
}

}  // namespace test
