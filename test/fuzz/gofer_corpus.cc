// Writes seed inputs for the two gofer fuzzers: one of each kind of message, and a few
// conversations.

#include <fcntl.h>
#include <sys/stat.h>

#include <cstdint>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "gofer/protocol/channel.h"
#include "gofer/protocol/wire.h"

namespace {

using gofer::RequestBody;
using gofer::ResponseBody;

std::string Bytes(const gofer::Request& request) {
  gofer::WireBuffer scratch(gofer::kMessageBytesMax);
  gofer::WireBuffer out(gofer::kMessageBytesMax);
  const size_t size = gofer::EncodeRequest(request, scratch, out.bytes()).value();
  return {reinterpret_cast<const char*>(out.bytes().data()), size};
}

std::string Bytes(const gofer::Response& response) {
  gofer::WireBuffer scratch(gofer::kMessageBytesMax);
  gofer::WireBuffer out(gofer::kMessageBytesMax);
  const size_t size = gofer::EncodeResponse(response, scratch, out.bytes()).value();
  return {reinterpret_cast<const char*>(out.bytes().data()), size};
}

std::string Framed(const std::string& message) {
  std::string out;
  out += static_cast<char>(message.size() & 0xff);
  out += static_cast<char>(message.size() >> 8);
  return out + message;
}

void Write(const std::filesystem::path& path, const std::string& content) {
  std::ofstream(path, std::ios::binary) << content;
}

// Each is preceded by an attach (fid 1) and a walk to "a/f" (fids 2 and 3).
const std::vector<std::pair<const char*, std::vector<RequestBody>>> kConversations = {
    {"open", {gofer::GetAttrRequest{3}, gofer::OpenRequest{3, O_RDWR}, gofer::OpenRequest{2, 0}}},
    {"walk_link", {gofer::WalkRequest{1, {{"l", 4}, {"passwd", 5}}, true, 0}}},
    {"make",
     {gofer::MakeRequest{1, "n", 4, S_IFREG | 0644, 0, 0, {}, true, O_RDWR},
      gofer::MakeRequest{1, "d", 5, S_IFDIR | 0755, 0, 0, {}, false, 0},
      gofer::MakeRequest{5, "s", 6, S_IFLNK | 0777, 0, 0, "/etc", false, 0},
      gofer::WalkRequest{5, {{"s", 0}, {"x", 0}}, false, 0}, gofer::LinkRequest{4, 5, "h"},
      gofer::RenameRequest{5, "h", 1, "h", 1}, gofer::RenameRequest{1, "h", 1, "n", 2},
      gofer::UnlinkRequest{5, "s", 0}, gofer::UnlinkRequest{1, "d", AT_REMOVEDIR}}},
    {"attributes",
     {gofer::SetAttrRequest{3, gofer::kSetAll, 0600, 0, 0, 100, {1, 2}, {3, 4}},
      gofer::StatFsRequest{1}, gofer::FsyncRequest{3, gofer::SyncScope::kData}}},
    {"xattr",
     {gofer::XattrRequest{3, gofer::XattrAction::kSet, "user.x", "v", 0},
      gofer::XattrRequest{3, gofer::XattrAction::kGet, "user.x", {}, 0},
      gofer::XattrRequest{3, gofer::XattrAction::kList, {}, {}, 0},
      gofer::XattrRequest{3, gofer::XattrAction::kRemove, "user.x", {}, 0}}},
    {"readdir",
     {gofer::ReadDirRequest{1, 0, 1, true}, gofer::ReadDirRequest{1, 1, 1000, true},
      gofer::ReadDirRequest{2, 0, 1, false}, gofer::ReadDirRequest{1, 0, 1, true, {"a"}, 8},
      gofer::ReadDirRequest{1, 0, 9, true, {"a", "b"}, 9}, gofer::ClunkRequest{{2, 3}}}},
    {"rest",
     {gofer::ReadLinkRequest{3}, gofer::ConnectRequest{3, 1}, gofer::AttachRequest{"ro", 7},
      gofer::UnlinkRequest{7, "l", 0}}},
};

void WriteServerCorpus(const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory);
  for (const auto& [name, bodies] : kConversations) {
    uint32_t id = 0;
    std::string all = Framed(Bytes({++id, gofer::AttachRequest{"root", 1}}));
    all += Framed(Bytes({++id, gofer::WalkRequest{1, {{"a", 2}, {"f", 3}}, true, 0}}));
    for (const RequestBody& body : bodies) all += Framed(Bytes({++id, body}));
    Write(directory / name, all);
  }
}

void WriteClientCorpus(const std::filesystem::path& directory) {
  std::filesystem::create_directories(directory);
  gofer::Attributes file;
  file.mode = S_IFREG | 0644;
  gofer::WalkReply walk;
  walk.steps = {file, file};
  gofer::WalkReply partial;
  partial.steps = {file};
  partial.stop_error = ELOOP;
  partial.link_target = "elsewhere";
  gofer::DirReply entries;
  entries.end = true;
  entries.attributes.mode = S_IFDIR | 0755;
  entries.entries = {{1, 2, 8, "name", file}, {3, 4, 4, "other", {}}};
  const struct {
    const char* name;
    char head;
    gofer::Response response;
  } seeds[] = {
      {"getattr", 0, {0, 0, false, file}},
      {"getattr_error", 0, {0, ENOENT, false, {}}},
      {"walk", '\x81', {0, 0, true, walk}},
      {"walk_partial", 1, {0, 0, false, partial}},
      {"readdir", 2, {0, 0, false, entries}},
      {"readlink", 3, {0, 0, false, std::string("target")}},
      {"open", '\x84', {0, 0, true, {}}},
      {"create", '\x85', {0, 0, true, gofer::ChangeReply{file, file, {}}}},
      {"statfs", 6, {0, 0, false, gofer::StatFsReply{}}},
      {"listxattr", 7, {0, 0, false, std::string("user.a\0user.b\0", 14)}},
  };
  for (const auto& seed : seeds) {
    Write(directory / seed.name, std::string(1, seed.head) + Bytes(seed.response));
  }
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) return 2;
  WriteServerCorpus(std::filesystem::path(argv[1]) / "gofer_server");
  WriteClientCorpus(std::filesystem::path(argv[1]) / "gofer_client");
  return 0;
}
