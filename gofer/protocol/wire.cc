#include "gofer/protocol/wire.h"

// Cap'n Proto throws when a message does not hold together. Everything that touches it is in this
// file, inside Guarded(), which turns a throw into an Errno.

// clang-format off: before every header of kj.
#include "gofer/protocol/kj_compat.h"
// clang-format on

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/exception.h>

#include <cstring>
#include <type_traits>
#include <utility>

#include "gofer/protocol/gofer.capnp.h"

namespace gofer {
namespace {

using base::Errno;
using base::Result;

constexpr size_t kWordBytes = sizeof(capnp::word);

// Runs `function`; kj's exception becomes `error`.
template <typename Function>
Result<void> Guarded(Errno error, Function&& function) {
  bool refused = false;
  kj::Maybe<kj::Exception> thrown = kj::runCatchingExceptions([&] { refused = !function(); });
  if (thrown != nullptr || refused) return error;
  return {};
}

capnp::Data::Reader ToData(std::string_view text) {
  return capnp::Data::Reader(reinterpret_cast<const kj::byte*>(text.data()), text.size());
}

std::string_view ToView(capnp::Data::Reader data) {
  return {reinterpret_cast<const char*>(data.begin()), data.size()};
}

// False if `data` is longer than `bytes_max`.
bool Take(capnp::Data::Reader data, size_t bytes_max, std::string_view& out) {
  if (data.size() > bytes_max) return false;
  out = ToView(data);
  return true;
}

void Put(schema::Attributes::Builder out, const Attributes& in) {
  out.setDev(in.dev);
  out.setIno(in.ino);
  out.setRdev(in.rdev);
  out.setSize(in.size);
  out.setBlocks(in.blocks);
  out.setMode(in.mode);
  out.setNlink(in.nlink);
  out.setUid(in.uid);
  out.setGid(in.gid);
  out.setBlksize(in.blksize);
  out.setAtime(in.atime.seconds);
  out.setAtimeNs(in.atime.nanoseconds);
  out.setMtime(in.mtime.seconds);
  out.setMtimeNs(in.mtime.nanoseconds);
  out.setCtime(in.ctime.seconds);
  out.setCtimeNs(in.ctime.nanoseconds);
  out.setBtime(in.btime.seconds);
  out.setBtimeNs(in.btime.nanoseconds);
}

constexpr uint32_t kNanosecondsMax = 999'999'999;

bool Take(schema::Attributes::Reader in, Attributes& out) {
  out.dev = in.getDev();
  out.ino = in.getIno();
  out.rdev = in.getRdev();
  out.size = in.getSize();
  out.blocks = in.getBlocks();
  out.mode = in.getMode();
  out.nlink = in.getNlink();
  out.uid = in.getUid();
  out.gid = in.getGid();
  out.blksize = in.getBlksize();
  out.atime = {in.getAtime(), in.getAtimeNs()};
  out.mtime = {in.getMtime(), in.getMtimeNs()};
  out.ctime = {in.getCtime(), in.getCtimeNs()};
  out.btime = {in.getBtime(), in.getBtimeNs()};
  return out.atime.nanoseconds <= kNanosecondsMax && out.mtime.nanoseconds <= kNanosecondsMax &&
         out.ctime.nanoseconds <= kNanosecondsMax && out.btime.nanoseconds <= kNanosecondsMax;
}

// ---- Requests: one Put per alternative of RequestBody.

using RequestBuilder = schema::Request::Builder;

void Put(RequestBuilder message, const AttachRequest& in) {
  auto out = message.initAttach();
  out.setName(ToData(in.name));
  out.setFid(in.fid);
}

void Put(RequestBuilder message, const WalkRequest& in) {
  auto out = message.initWalk();
  out.setFrom(in.from);
  out.setOpenLast(in.open_last);
  out.setOpenFlags(in.open_flags);
  auto steps = out.initSteps(static_cast<unsigned>(in.steps.size()));
  for (unsigned i = 0; i < in.steps.size(); ++i) {
    steps[i].setName(ToData(in.steps[i].name));
    steps[i].setFid(in.steps[i].fid);
  }
}

void Put(RequestBuilder message, const GetAttrRequest& in) { message.initGetAttr().setFid(in.fid); }

void Put(RequestBuilder message, const SetAttrRequest& in) {
  auto out = message.initSetAttr();
  out.setFid(in.fid);
  out.setMask(in.mask);
  out.setMode(in.mode);
  out.setUid(in.uid);
  out.setGid(in.gid);
  out.setSize(in.size);
  out.setAtime(in.atime.seconds);
  out.setAtimeNs(in.atime.nanoseconds);
  out.setMtime(in.mtime.seconds);
  out.setMtimeNs(in.mtime.nanoseconds);
}

void Put(RequestBuilder message, const OpenRequest& in) {
  auto out = message.initOpen();
  out.setFid(in.fid);
  out.setFlags(in.flags);
}

void Put(RequestBuilder message, const MakeRequest& in) {
  auto out = message.initMake();
  out.setDir(in.dir);
  out.setName(ToData(in.name));
  out.setFid(in.fid);
  out.setMode(in.mode);
  out.setUid(in.uid);
  out.setGid(in.gid);
  if (!in.target.empty()) out.setTarget(ToData(in.target));
  out.setOpen(in.open);
  out.setOpenFlags(in.open_flags);
}

void Put(RequestBuilder message, const LinkRequest& in) {
  auto out = message.initLink();
  out.setFid(in.fid);
  out.setDir(in.dir);
  out.setName(ToData(in.name));
}

void Put(RequestBuilder message, const UnlinkRequest& in) {
  auto out = message.initUnlink();
  out.setDir(in.dir);
  out.setName(ToData(in.name));
  out.setFlags(in.flags);
}

void Put(RequestBuilder message, const RenameRequest& in) {
  auto out = message.initRename();
  out.setOldDir(in.old_dir);
  out.setOldName(ToData(in.old_name));
  out.setNewDir(in.new_dir);
  out.setNewName(ToData(in.new_name));
  out.setFlags(in.flags);
}

void Put(RequestBuilder message, const ReadLinkRequest& in) {
  message.initReadLink().setFid(in.fid);
}

void Put(RequestBuilder message, const ReadDirRequest& in) {
  auto out = message.initReadDir();
  out.setFid(in.fid);
  out.setCookie(in.cookie);
  out.setEntriesMax(in.entries_max);
  out.setWithAttributes(in.with_attributes);
  out.setNewFid(in.new_fid);
  if (in.path.empty()) return;
  auto path = out.initPath(static_cast<unsigned>(in.path.size()));
  for (unsigned i = 0; i < in.path.size(); ++i) path.set(i, ToData(in.path[i]));
}

void Put(RequestBuilder message, const StatFsRequest& in) { message.initStatFs().setFid(in.fid); }

void Put(RequestBuilder message, const XattrRequest& in) {
  auto out = message.initXattr();
  out.setFid(in.fid);
  out.setAction(static_cast<uint8_t>(in.action));
  out.setName(ToData(in.name));
  if (!in.value.empty()) out.setValue(ToData(in.value));
  out.setFlags(in.flags);
}

void Put(RequestBuilder message, const FsyncRequest& in) {
  auto out = message.initFsync();
  out.setFid(in.fid);
  out.setScope(static_cast<uint8_t>(in.scope));
}

void Put(RequestBuilder message, const ConnectRequest& in) {
  auto out = message.initConnect();
  out.setFid(in.fid);
  out.setType(in.type);
}

void Put(RequestBuilder message, const ClunkRequest& in) {
  auto fids = message.initClunk().initFids(static_cast<unsigned>(in.fids.size()));
  for (unsigned i = 0; i < in.fids.size(); ++i) fids.set(i, in.fids[i]);
}

// ---- Requests: one Take per group of the schema. False if a bound is passed.

bool Take(schema::Request::Attach::Reader in, AttachRequest& out) {
  out.fid = in.getFid();
  return Take(in.getName(), kAttachNameBytesMax, out.name);
}

bool Take(schema::Request::Walk::Reader in, WalkRequest& out) {
  out.from = in.getFrom();
  out.open_last = in.getOpenLast();
  out.open_flags = in.getOpenFlags();
  const auto steps = in.getSteps();
  if (steps.size() > kWalkStepsMax) return false;
  out.steps.resize(steps.size());
  for (unsigned i = 0; i < steps.size(); ++i) {
    if (!Take(steps[i].getName(), kNameBytesMax, out.steps[i].name)) return false;
    out.steps[i].fid = steps[i].getFid();
  }
  return true;
}

bool Take(schema::Request::GetAttr::Reader in, GetAttrRequest& out) {
  out.fid = in.getFid();
  return true;
}

bool Take(schema::Request::SetAttr::Reader in, SetAttrRequest& out) {
  out.fid = in.getFid();
  out.mask = in.getMask();
  out.mode = in.getMode();
  out.uid = in.getUid();
  out.gid = in.getGid();
  out.size = in.getSize();
  out.atime = {in.getAtime(), in.getAtimeNs()};
  out.mtime = {in.getMtime(), in.getMtimeNs()};
  return out.atime.nanoseconds <= kNanosecondsMax && out.mtime.nanoseconds <= kNanosecondsMax;
}

bool Take(schema::Request::Open::Reader in, OpenRequest& out) {
  out.fid = in.getFid();
  out.flags = in.getFlags();
  return true;
}

bool Take(schema::Request::Make::Reader in, MakeRequest& out) {
  out.dir = in.getDir();
  out.fid = in.getFid();
  out.mode = in.getMode();
  out.uid = in.getUid();
  out.gid = in.getGid();
  out.open = in.getOpen();
  out.open_flags = in.getOpenFlags();
  return Take(in.getName(), kNameBytesMax, out.name) &&
         Take(in.getTarget(), kLinkBytesMax, out.target);
}

bool Take(schema::Request::Link::Reader in, LinkRequest& out) {
  out.fid = in.getFid();
  out.dir = in.getDir();
  return Take(in.getName(), kNameBytesMax, out.name);
}

bool Take(schema::Request::Unlink::Reader in, UnlinkRequest& out) {
  out.dir = in.getDir();
  out.flags = in.getFlags();
  return Take(in.getName(), kNameBytesMax, out.name);
}

bool Take(schema::Request::Rename::Reader in, RenameRequest& out) {
  out.old_dir = in.getOldDir();
  out.new_dir = in.getNewDir();
  out.flags = in.getFlags();
  return Take(in.getOldName(), kNameBytesMax, out.old_name) &&
         Take(in.getNewName(), kNameBytesMax, out.new_name);
}

bool Take(schema::Request::ReadLink::Reader in, ReadLinkRequest& out) {
  out.fid = in.getFid();
  return true;
}

bool Take(schema::Request::ReadDir::Reader in, ReadDirRequest& out) {
  out.fid = in.getFid();
  out.cookie = in.getCookie();
  out.entries_max = in.getEntriesMax();
  out.with_attributes = in.getWithAttributes();
  out.new_fid = in.getNewFid();
  const auto path = in.getPath();
  if (path.size() > kWalkStepsMax) return false;
  out.path.resize(path.size());
  for (unsigned i = 0; i < path.size(); ++i) {
    if (!Take(path[i], kNameBytesMax, out.path[i])) return false;
  }
  return out.entries_max >= 1 && out.entries_max <= kDirEntriesMax;
}

bool Take(schema::Request::StatFs::Reader in, StatFsRequest& out) {
  out.fid = in.getFid();
  return true;
}

bool Take(schema::Request::Xattr::Reader in, XattrRequest& out) {
  if (in.getAction() > static_cast<uint8_t>(XattrAction::kRemove)) return false;
  out.fid = in.getFid();
  out.action = static_cast<XattrAction>(in.getAction());
  out.flags = in.getFlags();
  return Take(in.getName(), kXattrNameBytesMax, out.name) &&
         Take(in.getValue(), kXattrValueBytesMax, out.value);
}

bool Take(schema::Request::Fsync::Reader in, FsyncRequest& out) {
  out.fid = in.getFid();
  out.scope = static_cast<SyncScope>(in.getScope());
  return in.getScope() <= static_cast<uint8_t>(SyncScope::kFileSystem);
}

bool Take(schema::Request::Connect::Reader in, ConnectRequest& out) {
  out.fid = in.getFid();
  out.type = in.getType();
  return true;
}

bool Take(schema::Request::Clunk::Reader in, ClunkRequest& out) {
  const auto fids = in.getFids();
  if (fids.size() > kClunkFidsMax) return false;
  out.fids.reserve(fids.size());
  for (const Fid fid : fids) out.fids.push_back(fid);
  return true;
}

template <typename Body, typename Reader>
bool TakeInto(Reader in, RequestBody& body) {
  return Take(in, body.emplace<Body>());
}

bool Take(schema::Request::Reader in, Request& out) {
  out.id = in.getId();
  switch (in.which()) {
    case schema::Request::ATTACH:
      return TakeInto<AttachRequest>(in.getAttach(), out.body);
    case schema::Request::WALK:
      return TakeInto<WalkRequest>(in.getWalk(), out.body);
    case schema::Request::GET_ATTR:
      return TakeInto<GetAttrRequest>(in.getGetAttr(), out.body);
    case schema::Request::SET_ATTR:
      return TakeInto<SetAttrRequest>(in.getSetAttr(), out.body);
    case schema::Request::OPEN:
      return TakeInto<OpenRequest>(in.getOpen(), out.body);
    case schema::Request::MAKE:
      return TakeInto<MakeRequest>(in.getMake(), out.body);
    case schema::Request::LINK:
      return TakeInto<LinkRequest>(in.getLink(), out.body);
    case schema::Request::UNLINK:
      return TakeInto<UnlinkRequest>(in.getUnlink(), out.body);
    case schema::Request::RENAME:
      return TakeInto<RenameRequest>(in.getRename(), out.body);
    case schema::Request::READ_LINK:
      return TakeInto<ReadLinkRequest>(in.getReadLink(), out.body);
    case schema::Request::READ_DIR:
      return TakeInto<ReadDirRequest>(in.getReadDir(), out.body);
    case schema::Request::STAT_FS:
      return TakeInto<StatFsRequest>(in.getStatFs(), out.body);
    case schema::Request::XATTR:
      return TakeInto<XattrRequest>(in.getXattr(), out.body);
    case schema::Request::FSYNC:
      return TakeInto<FsyncRequest>(in.getFsync(), out.body);
    case schema::Request::CONNECT:
      return TakeInto<ConnectRequest>(in.getConnect(), out.body);
    case schema::Request::CLUNK:
      return TakeInto<ClunkRequest>(in.getClunk(), out.body);
  }
  return false;
}

// ---- Responses.

using ResponseBuilder = schema::Response::Builder;

void Put(ResponseBuilder message, std::monostate) { message.setNone(); }

void Put(ResponseBuilder message, const Attributes& in) { Put(message.initAttributes(), in); }

void Put(ResponseBuilder message, const WalkReply& in) {
  auto out = message.initWalk();
  out.setStopError(in.stop_error);
  out.setOpenError(in.open_error);
  if (!in.link_target.empty()) out.setLinkTarget(ToData(in.link_target));
  auto steps = out.initSteps(static_cast<unsigned>(in.steps.size()));
  for (unsigned i = 0; i < in.steps.size(); ++i) Put(steps[i], in.steps[i]);
}

void Put(ResponseBuilder message, const DirReply& in) {
  auto out = message.initDirectory();
  out.setEnd(in.end);
  if (in.attributes.mode != 0) Put(out.initAttributes(), in.attributes);
  auto entries = out.initEntries(static_cast<unsigned>(in.entries.size()));
  for (unsigned i = 0; i < in.entries.size(); ++i) {
    const DirEntry& entry = in.entries[i];
    entries[i].setIno(entry.ino);
    entries[i].setCookie(entry.cookie);
    entries[i].setType(entry.type);
    entries[i].setName(ToData(entry.name));
    if (entry.attributes.mode != 0) Put(entries[i].initAttributes(), entry.attributes);
  }
}

void Put(ResponseBuilder message, const StatFsReply& in) {
  auto out = message.initStatFs();
  out.setType(in.type);
  out.setBlockSize(in.block_size);
  out.setBlocks(in.blocks);
  out.setBlocksFree(in.blocks_free);
  out.setBlocksAvailable(in.blocks_available);
  out.setFiles(in.files);
  out.setFilesFree(in.files_free);
  out.setNameBytesMax(in.name_bytes_max);
  out.setFragmentSize(in.fragment_size);
  out.setFlags(in.flags);
  out.setFsid(in.fsid);
}

void Put(ResponseBuilder message, const std::string& in) { message.setData(ToData(in)); }

void Put(ResponseBuilder message, const ChangeReply& in) {
  auto out = message.initChange();
  if (in.object.mode != 0) Put(out.initObject(), in.object);
  if (in.dir.mode != 0) Put(out.initDir(), in.dir);
  if (in.new_dir.mode != 0) Put(out.initNewDir(), in.new_dir);
}

bool Take(schema::Response::Walk::Reader in, WalkReply& out) {
  out.stop_error = in.getStopError();
  out.open_error = in.getOpenError();
  std::string_view target;
  if (!Take(in.getLinkTarget(), kLinkBytesMax, target)) return false;
  out.link_target = target;
  const auto steps = in.getSteps();
  if (steps.size() > kWalkStepsMax) return false;
  out.steps.resize(steps.size());
  for (unsigned i = 0; i < steps.size(); ++i) {
    if (!Take(steps[i], out.steps[i])) return false;
  }
  return true;
}

bool Take(schema::Response::Directory::Reader in, DirReply& out) {
  out.end = in.getEnd();
  if (in.hasAttributes() && !Take(in.getAttributes(), out.attributes)) return false;
  const auto entries = in.getEntries();
  if (entries.size() > kDirEntriesMax) return false;
  out.entries.resize(entries.size());
  for (unsigned i = 0; i < entries.size(); ++i) {
    DirEntry& entry = out.entries[i];
    std::string_view name;
    if (!Take(entries[i].getName(), kNameBytesMax, name)) return false;
    entry.name = name;
    entry.ino = entries[i].getIno();
    entry.cookie = entries[i].getCookie();
    entry.type = entries[i].getType();
    if (entries[i].hasAttributes() && !Take(entries[i].getAttributes(), entry.attributes)) {
      return false;
    }
  }
  return true;
}

bool Take(schema::Response::StatFs::Reader in, StatFsReply& out) {
  out.type = in.getType();
  out.block_size = in.getBlockSize();
  out.blocks = in.getBlocks();
  out.blocks_free = in.getBlocksFree();
  out.blocks_available = in.getBlocksAvailable();
  out.files = in.getFiles();
  out.files_free = in.getFilesFree();
  out.name_bytes_max = in.getNameBytesMax();
  out.fragment_size = in.getFragmentSize();
  out.flags = in.getFlags();
  out.fsid = in.getFsid();
  return true;
}

bool Take(schema::Response::Change::Reader in, ChangeReply& out) {
  return (!in.hasObject() || Take(in.getObject(), out.object)) &&
         (!in.hasDir() || Take(in.getDir(), out.dir)) &&
         (!in.hasNewDir() || Take(in.getNewDir(), out.new_dir));
}

bool Take(schema::Response::Reader in, Response& out) {
  // Errors that Linux's system calls report; anything else would confuse the sentry (restart
  // codes).
  constexpr int32_t kErrnoMax = 511;
  out.id = in.getId();
  out.error = in.getError();
  out.donated = in.getDonated();
  if (out.error < 0 || out.error > kErrnoMax) return false;
  switch (in.which()) {
    case schema::Response::NONE:
      out.body = std::monostate();
      return true;
    case schema::Response::ATTRIBUTES:
      return Take(in.getAttributes(), out.body.emplace<Attributes>());
    case schema::Response::WALK: {
      WalkReply& walk = out.body.emplace<WalkReply>();
      return Take(in.getWalk(), walk) && walk.stop_error >= 0 && walk.stop_error <= kErrnoMax &&
             walk.open_error >= 0 && walk.open_error <= kErrnoMax;
    }
    case schema::Response::DIRECTORY:
      return Take(in.getDirectory(), out.body.emplace<DirReply>());
    case schema::Response::STAT_FS:
      return Take(in.getStatFs(), out.body.emplace<StatFsReply>());
    case schema::Response::CHANGE:
      return Take(in.getChange(), out.body.emplace<ChangeReply>());
    case schema::Response::DATA: {
      std::string_view data;
      if (!Take(in.getData(), kXattrValueBytesMax, data)) return false;
      out.body.emplace<std::string>(data);
      return true;
    }
  }
  return false;
}

// ---- Framing: the stream header for a single segment, then the segment.

template <typename Root, typename Message>
Result<size_t> Encode(const Message& message, WireBuffer& scratch, std::span<std::byte> out) {
  size_t total = 0;
  std::span<std::byte> memory = scratch.bytes();
  TRY(Guarded(Errno(EMSGSIZE), [&] {
    capnp::MallocMessageBuilder builder(
        kj::arrayPtr(reinterpret_cast<capnp::word*>(memory.data()), memory.size() / kWordBytes));
    auto root = builder.initRoot<Root>();
    root.setId(message.id);
    if constexpr (std::is_same_v<Message, Response>) {
      root.setError(message.error);
      root.setDonated(message.donated);
    }
    std::visit([&](const auto& body) { Put(root, body); }, message.body);
    const auto segments = builder.getSegmentsForOutput();
    if (segments.size() != 1) return false;
    const auto bytes = segments[0].asBytes();
    total = kWordBytes + bytes.size();
    if (total > out.size()) return false;
    const uint32_t header[2] = {0, static_cast<uint32_t>(segments[0].size())};
    std::memcpy(out.data(), header, sizeof(header));
    std::memcpy(out.data() + kWordBytes, bytes.begin(), bytes.size());
    return true;
  }));
  return total;
}

template <typename Root, typename Message>
Result<Message> Decode(std::span<const std::byte> bytes) {
  if (bytes.size() % kWordBytes != 0) return Errno(EBADMSG);
  Result<Message> result = Message{};
  TRY(Guarded(Errno(EBADMSG), [&] {
    const auto words =
        kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.data()), bytes.size() / kWordBytes);
    capnp::ReaderOptions options;
    // Each word of an honest message is read about once; pointers that share a target are a lie.
    options.traversalLimitInWords = 4 * words.size() + 64;
    options.nestingLimit = 8;
    capnp::FlatArrayMessageReader reader(words, options);
    return Take(reader.getRoot<Root>(), result.value());
  }));
  return result;
}

}  // namespace

Result<size_t> EncodeRequest(const Request& request, WireBuffer& scratch,
                             std::span<std::byte> out) {
  return Encode<schema::Request>(request, scratch, out);
}

Result<size_t> EncodeResponse(const Response& response, WireBuffer& scratch,
                              std::span<std::byte> out) {
  return Encode<schema::Response>(response, scratch, out);
}

Result<Request> DecodeRequest(std::span<const std::byte> bytes) {
  return Decode<schema::Request, Request>(bytes);
}

Result<Response> DecodeResponse(std::span<const std::byte> bytes) {
  return Decode<schema::Response, Response>(bytes);
}

}  // namespace gofer
