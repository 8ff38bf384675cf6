#include "sentry/fs/gofer/gofer_inode.h"

#include <linux/capability.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <utility>

namespace sentry {

using base::Errno;
using base::Result;

namespace {

// A rename between looking at a place and walking there.
constexpr int kBindTriesMax = 3;

Timestamp FromGofer(const gofer::Timestamp& in) { return {in.seconds, in.nanoseconds}; }
gofer::Timestamp ToGofer(const Timestamp& in) { return {in.seconds, in.nanoseconds}; }

}  // namespace

FidPin::~FidPin() {
  if (inode_ != nullptr) inode_->Unpin();
}

GoferInode::GoferInode(GoferFileSystem& file_system, const gofer::Attributes& attributes)
    : Inode(file_system),
      host_id_{attributes.dev, attributes.ino},
      gofer_(file_system),
      type_(attributes.mode & S_IFMT),
      number_(file_system.InodeNumber(attributes.dev, attributes.ino)) {
  Update(attributes);
}

GoferInode::~GoferInode() {
  gofer_.DropExpired(host_id_);
  gofer_.client().Forget(fid_);
}

std::shared_ptr<GoferInode> GoferInode::self() {
  return std::static_pointer_cast<GoferInode>(shared_from_this());
}

// ---- Attributes.

void GoferInode::Update(const gofer::Attributes& in, uint64_t asked) {
  Attributes out;
  out.device = gofer_.device();
  out.inode = number_;
  out.mode = in.mode;
  out.nlink = in.nlink;
  out.uid = in.uid;
  out.gid = in.gid;
  out.rdev = in.rdev;
  out.size = in.size;
  out.block_size = in.blksize;
  out.blocks = in.blocks;
  out.atime = FromGofer(in.atime);
  out.mtime = FromGofer(in.mtime);
  out.ctime = FromGofer(in.ctime);
  out.btime = FromGofer(in.btime);
  const absl::MutexLock lock(&mu_);
  if (asked < updated_) return;
  updated_ = asked;
  // fstat(2) does not know the birth time.
  if (out.btime == Timestamp{}) out.btime = attributes_.btime;
  attributes_ = out;
  // As relatime, the host's default, has it.
  read_moves_atime_.store(out.atime <= out.mtime || out.atime <= out.ctime,
                          std::memory_order_relaxed);
}

Attributes GoferInode::CachedAttributes() const {
  const absl::ReaderMutexLock lock(&mu_);
  return attributes_;
}

Result<void> GoferInode::Refresh() {
  // Before asking: what changes from now on marks it again.
  stale_.store(false, std::memory_order_release);
  const uint64_t asked = Asking();
  if (const auto local = LocalAttributes()) {
    Update(*local, asked);
    return {};
  }
  const Result<FidPin> pin = Pin();
  const Result<gofer::Attributes> got = pin.ok() ? gofer_.client().GetAttr(pin.value().fid())
                                                 : Result<gofer::Attributes>(pin.error());
  if (!got.ok()) {
    MarkStale();
    return got.error();
  }
  Update(got.value(), asked);
  return {};
}

Result<Attributes> GoferInode::GetAttributes() {
  if (!gofer_.exclusive() || stale_.load(std::memory_order_acquire) || IsAlwaysStale()) {
    const Result<void> refreshed = Refresh();
    // A file that was unlinked without ever having been opened: nobody but us can know more.
    const bool gone = !refreshed.ok() && refreshed.error() == ESTALE && gofer_.exclusive();
    if (!refreshed.ok() && !gone) return refreshed.error();
  }
  return CachedAttributes();
}

Result<void> GoferInode::CheckPermission(const Credentials& credentials, int mask) {
  if (type_ == S_IFDIR && credentials.HasCapability(CAP_DAC_OVERRIDE)) return {};
  // Owner and mode change through SetAttributes or, in shared mode, are fresh from Revalidate.
  return GenericPermission(CachedAttributes(), credentials, mask);
}

Result<void> GoferInode::SetAttributes(const AttributeChanges& changes) {
  const uint64_t old_size = changes.size ? TRY(GetAttributes()).size : 0;
  const bool only_size = changes.size && !changes.mode && !changes.uid && !changes.gid &&
                         !changes.atime && !changes.mtime;
  std::optional<Result<void>> local;
  if (only_size) local = LocalSetSize(*changes.size);
  if (local) {
    TRY(*local);
    MarkStale();
  } else {
    gofer::SetAttrRequest request;
    const auto set = [&request](uint32_t bit, const auto& from, auto& to) {
      if (!from) return;
      request.mask |= bit;
      to = *from;
    };
    set(gofer::kSetMode, changes.mode, request.mode);
    set(gofer::kSetUid, changes.uid, request.uid);
    set(gofer::kSetGid, changes.gid, request.gid);
    set(gofer::kSetSize, changes.size, request.size);
    if (changes.atime) {
      request.mask |= gofer::kSetAtime;
      request.atime = ToGofer(*changes.atime);
    }
    if (changes.mtime) {
      request.mask |= gofer::kSetMtime;
      request.mtime = ToGofer(*changes.mtime);
    }
    const FidPin pin = TRY(Pin());
    request.fid = pin.fid();
    Update(TRY(gofer_.client().SetAttr(request)));
  }
  if (changes.size) SizeChanged(old_size, *changes.size);
  return {};
}

void GoferInode::CountLink(int change) {
  MarkStale();
  const absl::MutexLock lock(&mu_);
  const int64_t count = int64_t{attributes_.nlink} + change;
  attributes_.nlink =
      type_ == S_IFDIR && change < 0 ? 0 : static_cast<uint32_t>(std::max<int64_t>(count, 0));
}

// ---- Extended attributes. That a file has none is remembered: exec and ls ask each file.

Result<std::string> GoferInode::GetXattr(std::string_view name) {
  if (has_no_xattrs_.load(std::memory_order_relaxed)) return Errno(ENODATA);
  if (gofer_.exclusive() && TRY(ListXattr()).empty()) return Errno(ENODATA);
  const FidPin pin = TRY(Pin());
  return gofer_.client().GetXattr(pin.fid(), name);
}

Result<void> GoferInode::SetXattr(std::string_view name, std::span<const std::byte> value,
                                  int flags) {
  const FidPin pin = TRY(Pin());
  has_no_xattrs_.store(false, std::memory_order_relaxed);
  MarkStale();
  return gofer_.client().SetXattr(pin.fid(), name,
                                  {reinterpret_cast<const char*>(value.data()), value.size()},
                                  static_cast<uint32_t>(flags));
}

Result<void> GoferInode::RemoveXattr(std::string_view name) {
  const FidPin pin = TRY(Pin());
  MarkStale();
  return gofer_.client().RemoveXattr(pin.fid(), name);
}

Result<std::vector<std::string>> GoferInode::ListXattr() {
  std::vector<std::string> names;
  if (has_no_xattrs_.load(std::memory_order_relaxed)) return names;
  const FidPin pin = TRY(Pin());
  const std::string list = TRY(gofer_.client().ListXattr(pin.fid()));
  for (size_t at = 0; at < list.size();) {
    const size_t end = std::min(list.find('\0', at), list.size());
    names.push_back(list.substr(at, end - at));
    at = end + 1;
  }
  if (names.empty() && gofer_.exclusive()) has_no_xattrs_.store(true, std::memory_order_relaxed);
  return names;
}

// ---- Fids.

FidPin GoferInode::PinIfBound() {
  if (!referenced_.load(std::memory_order_relaxed)) {
    referenced_.store(true, std::memory_order_relaxed);
  }
  const absl::MutexLock lock(&fid_mu_);
  if (fid_ == gofer::kNoFid) return {};
  ++pins_;
  return FidPin(self(), fid_);
}

Result<FidPin> GoferInode::Pin() {
  FidPin pin = PinIfBound();
  if (pin) return pin;
  return Bind();
}

void GoferInode::Unpin() {
  const absl::MutexLock lock(&fid_mu_);
  --pins_;
}

FidPin GoferInode::AdoptAndPin(gofer::Fid fid) {
  gofer::Fid surplus = gofer::kNoFid;
  gofer::Fid kept = fid;
  {
    const absl::MutexLock lock(&fid_mu_);
    if (fid_ == gofer::kNoFid) {
      fid_ = fid;
    } else {
      surplus = fid;
      kept = fid_;
    }
    ++pins_;
  }
  gofer_.client().Forget(surplus);
  MarkHeld();
  return FidPin(self(), kept);
}

void GoferInode::Adopt(gofer::Fid fid) {
  if (fid != gofer::kNoFid) AdoptAndPin(fid);
}

Result<FidPin> GoferInode::Bind(std::optional<uint32_t> open_flags, Result<base::Fd>* opened) {
  for (int tries = 1;; ++tries) {
    Result<FidPin> pin = BindOnce(open_flags, opened);
    if (pin.ok() || pin.error() != ESTALE || tries == kBindTriesMax) return pin;
  }
}

Result<FidPin> GoferInode::BindOnce(std::optional<uint32_t> open_flags, Result<base::Fd>* opened) {
  std::shared_ptr<GoferDirectory> parent;
  std::string name;
  {
    const absl::ReaderMutexLock lock(&gofer_.tree_mutex());
    parent = parent_;
    name = name_;
  }
  if (parent == nullptr) return Errno(ESTALE);
  const std::string_view names[] = {name};
  GoferDirectory::Below below =
      TRY(parent->WalkBelow(names, GoferDirectory::Keep::kLast, open_flags));
  if (below.reply.steps.empty()) {
    return Errno(below.reply.stop_error == ENOENT ? ESTALE : below.reply.stop_error);
  }
  if (!Is(below.reply.steps[0])) {
    gofer_.client().Forget(below.fids[0]);
    return Errno(ESTALE);
  }
  if (opened != nullptr) {
    if (below.fd) {
      *opened = std::move(below.fd);
    } else {
      *opened = Errno(below.reply.open_error != 0 ? below.reply.open_error : EIO);
    }
  }
  return AdoptAndPin(below.fids[0]);
}

void GoferInode::MarkHeld() {
  if (!held_.exchange(true, std::memory_order_acq_rel)) gofer_.Track(self());
}

bool GoferInode::TryEvict() {
  if (referenced_.exchange(false, std::memory_order_relaxed)) return false;
  if (!ReleaseHostFiles()) return false;
  gofer::Fid fid = gofer::kNoFid;
  {
    if (!fid_mu_.TryLock()) return false;
    const bool stays = pins_ != 0 || !is_placed_;
    if (!stays) {
      fid = std::exchange(fid_, gofer::kNoFid);
      held_.store(false, std::memory_order_release);
    }
    fid_mu_.Unlock();
    if (stays) return false;
  }
  gofer_.client().Forget(fid);
  return true;
}

// ---- Place.

void GoferInode::set_place(std::shared_ptr<GoferDirectory> parent, std::string_view name) {
  const absl::MutexLock lock(&fid_mu_);
  is_placed_ = parent != nullptr;
  parent_ = std::move(parent);
  name_ = name;
}

Result<void> GoferInode::PrepareUnlink() {
  if (type_ == S_IFDIR || (CachedAttributes().nlink <= 1 && !InUse())) return {};
  TRY(Pin());
  return {};
}

void GoferInode::Unlinked(const GoferDirectory& parent, std::string_view name) {
  CountLink(-1);
  if (parent_.get() == &parent && name_ == name) set_place(nullptr, {});
  if (CachedAttributes().nlink == 0) gofer_.Drop(host_id_, this);
}

// ---- Symbolic links.

Result<std::string> GoferSymlink::ReadLink() {
  if (const std::string* known = KnownTarget()) return *known;
  const FidPin pin = TRY(Pin());
  std::string target = TRY(gofer().client().ReadLink(pin.fid()));
  SetTarget(target);
  return target;
}

void GoferSymlink::SetTarget(std::string target) {
  if (target.empty()) return;
  const absl::MutexLock lock(&target_mu_);
  if (!target_.empty()) return;
  target_ = std::move(target);
  known_target_.store(&target_, std::memory_order_release);
}

}  // namespace sentry
