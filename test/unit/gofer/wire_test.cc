// Messages survive the wire; bytes that are no message do not.

#include "gofer/protocol/wire.h"

#include <algorithm>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "catch2/catch.hpp"
#include "gofer/protocol/channel.h"

namespace {

using gofer::kMessageBytesMax;

struct Bytes {
  gofer::WireBuffer buffer{kMessageBytesMax};
  size_t size = 0;
  std::span<std::byte> span() { return buffer.bytes().first(size); }
};

Bytes Encoded(const gofer::Request& request) {
  Bytes out;
  gofer::WireBuffer scratch(kMessageBytesMax);
  out.size = gofer::EncodeRequest(request, scratch, out.buffer.bytes()).value();
  return out;
}

Bytes Encoded(const gofer::Response& response) {
  Bytes out;
  gofer::WireBuffer scratch(kMessageBytesMax);
  out.size = gofer::EncodeResponse(response, scratch, out.buffer.bytes()).value();
  return out;
}

gofer::WalkRequest LongWalk() {
  static const std::string name(gofer::kNameBytesMax, 'w');
  gofer::WalkRequest walk{1, {}, true, 2};
  for (uint32_t i = 0; i < gofer::kWalkStepsMax; ++i) walk.steps.push_back({name, i});
  return walk;
}

TEST_CASE("a request comes out as it went in", "[gofer][wire]") {
  Bytes bytes = Encoded(gofer::Request{42, LongWalk()});
  const auto decoded = gofer::DecodeRequest(bytes.span());
  REQUIRE(decoded.ok());
  CHECK(decoded.value().id == 42);
  const auto& walk = std::get<gofer::WalkRequest>(decoded.value().body);
  CHECK(walk.from == 1);
  CHECK(walk.open_last);
  REQUIRE(walk.steps.size() == gofer::kWalkStepsMax);
  CHECK(walk.steps[31].fid == 31);
  CHECK(walk.steps[31].name == std::string(gofer::kNameBytesMax, 'w'));
}

TEST_CASE("a response comes out as it went in", "[gofer][wire]") {
  gofer::DirReply directory;
  directory.end = true;
  for (int i = 0; i < 300; ++i) {
    gofer::DirEntry& entry = directory.entries.emplace_back();
    entry.name = "name" + std::to_string(i);
    entry.ino = static_cast<uint64_t>(i);
    entry.cookie = ~uint64_t{0};
    if (i % 2 == 0)
      entry.attributes = {.dev = 1, .ino = 2, .mode = 0100644, .mtime = {-1, 999999999}};
  }
  Bytes bytes = Encoded(gofer::Response{7, 0, false, directory});
  const auto decoded = gofer::DecodeResponse(bytes.span());
  REQUIRE(decoded.ok());
  const auto& got = std::get<gofer::DirReply>(decoded.value().body);
  REQUIRE(got.entries.size() == 300);
  CHECK(got.entries[298].attributes == directory.entries[298].attributes);
  CHECK(got.entries[299].attributes.mode == 0);
  CHECK(got.entries[299].name == "name299");
}

TEST_CASE("each kind of request survives the wire", "[gofer][wire]") {
  const std::vector<gofer::RequestBody> bodies = {
      gofer::AttachRequest{"root", 1},
      gofer::WalkRequest{1, {{"a", 2}}, false, 0},
      gofer::GetAttrRequest{1},
      gofer::SetAttrRequest{.fid = 1, .mask = 0xff, .atime = {-1, 5}},
      gofer::OpenRequest{1, 2},
      gofer::MakeRequest{.dir = 1, .name = "n", .mode = 0120777, .target = "t"},
      gofer::LinkRequest{1, 2, "n"},
      gofer::UnlinkRequest{1, "n", 0},
      gofer::RenameRequest{1, "o", 2, "n", 1},
      gofer::ReadLinkRequest{1},
      gofer::ReadDirRequest{1, 2, 3, true},
      gofer::StatFsRequest{1},
      gofer::XattrRequest{1, gofer::XattrAction::kRemove, "user.x", "v", 0},
      gofer::FsyncRequest{1, gofer::SyncScope::kFileSystem},
      gofer::ConnectRequest{1, 1},
      gofer::ClunkRequest{{1, 2, 3}}};
  REQUIRE(bodies.size() == std::variant_size_v<gofer::RequestBody>);
  for (size_t i = 0; i < bodies.size(); ++i) {
    Bytes bytes = Encoded(gofer::Request{1, bodies[i]});
    const auto decoded = gofer::DecodeRequest(bytes.span());
    REQUIRE(decoded.ok());
    CHECK(decoded.value().body.index() == i);
  }
}

TEST_CASE("lists and strings one past their bound are refused", "[gofer][wire][limits]") {
  gofer::WalkRequest walk = LongWalk();
  walk.steps.push_back({"x", 1});
  Bytes bytes = Encoded(gofer::Request{1, walk});
  CHECK(gofer::DecodeRequest(bytes.span()).error() == EBADMSG);
  const std::string name(gofer::kNameBytesMax + 1, 'n');
  bytes = Encoded(gofer::Request{1, gofer::UnlinkRequest{1, name, 0}});
  CHECK(gofer::DecodeRequest(bytes.span()).error() == EBADMSG);
  bytes = Encoded(gofer::Request{1, gofer::ClunkRequest{std::vector<gofer::Fid>(513, 1)}});
  CHECK(gofer::DecodeRequest(bytes.span()).error() == EBADMSG);
  bytes = Encoded(gofer::Request{1, gofer::ReadDirRequest{1, 0, gofer::kDirEntriesMax + 1, false}});
  CHECK(gofer::DecodeRequest(bytes.span()).error() == EBADMSG);
  bytes = Encoded(gofer::Request{1, gofer::SetAttrRequest{.atime = {0, 1'000'000'000}}});
  CHECK(gofer::DecodeRequest(bytes.span()).error() == EBADMSG);
  bytes = Encoded(gofer::Response{1, 512, false, {}});
  CHECK(gofer::DecodeResponse(bytes.span()).error() == EBADMSG);
  bytes = Encoded(gofer::Response{1, -1, false, {}});
  CHECK(gofer::DecodeResponse(bytes.span()).error() == EBADMSG);
}

TEST_CASE("what does not fit into a slot is not written", "[gofer][wire][limits]") {
  gofer::WireBuffer scratch(kMessageBytesMax);
  gofer::WireBuffer out(kMessageBytesMax);
  const std::string value(kMessageBytesMax, 'v');
  gofer::XattrRequest request{1, gofer::XattrAction::kSet, "user.x", value, 0};
  CHECK(gofer::EncodeRequest({1, request}, scratch, out.bytes()).error() == EMSGSIZE);
  // And the scratch memory is fit for the next.
  const auto bytes = scratch.bytes();
  CHECK(
      std::all_of(bytes.begin(), bytes.end(), [](std::byte byte) { return byte == std::byte{0}; }));
  CHECK(gofer::EncodeRequest({1, gofer::GetAttrRequest{1}}, scratch, out.bytes()).ok());
}

TEST_CASE("a message cut short anywhere is refused", "[gofer][wire]") {
  Bytes bytes = Encoded(gofer::Request{1, LongWalk()});
  for (size_t size = 0; size < bytes.size; ++size) {
    REQUIRE(!gofer::DecodeRequest(bytes.span().first(size)).ok());
  }
}

TEST_CASE("no flipped bits make decoding crash or exceed a bound", "[gofer][wire]") {
  std::mt19937_64 random(20260101);
  for (int round = 0; round < 20'000; ++round) {
    Bytes bytes =
        Encoded(gofer::Request{1, gofer::WalkRequest{1, {{"alpha", 2}, {"beta", 3}}, true, 0}});
    for (int flips = 0; flips < 4; ++flips) {
      bytes.span()[random() % bytes.size] ^= static_cast<std::byte>(1U << (random() % 8));
    }
    const auto decoded = gofer::DecodeRequest(bytes.span());
    if (!decoded.ok()) continue;
    if (const auto* walk = std::get_if<gofer::WalkRequest>(&decoded.value().body)) {
      REQUIRE(walk->steps.size() <= gofer::kWalkStepsMax);
    }
  }
}

TEST_CASE("a list that claims billions of elements is refused", "[gofer][wire]") {
  // Every 32-bit half of every word in turn becomes all ones: list counts, offsets, sizes.
  Bytes original = Encoded(gofer::Request{1, gofer::ClunkRequest{{1, 2, 3}}});
  for (size_t at = 0; at + 4 <= original.size; at += 4) {
    Bytes bytes = Encoded(gofer::Request{1, gofer::ClunkRequest{{1, 2, 3}}});
    std::memset(bytes.span().data() + at, 0xff, 4);
    const auto decoded = gofer::DecodeRequest(bytes.span());
    if (decoded.ok()) {
      if (const auto* clunk = std::get_if<gofer::ClunkRequest>(&decoded.value().body)) {
        CHECK(clunk->fids.size() <= 3);
      }
    }
  }
}

}  // namespace
