// Regular files of the overlay: read from the lower file until somebody opens them for writing.

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>
#include <vector>

#include "platform/base/user_addr.h"
#include "sentry/fs/overlay/overlay_inode.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::Result;

namespace {

constexpr size_t kCopyBytes = size_t{256} << 10;

bool IsZero(std::span<const std::byte> bytes) {
  return std::all_of(bytes.begin(), bytes.end(),
                     [](std::byte byte) { return byte == std::byte{0}; });
}

// A file opened for reading before it was copied up. Reads follow the copy; mappings made before it
// do not (overlayfs.rst, "Non-standard behavior").
class OverlayLowerFile final : public File {
 public:
  OverlayLowerFile(Path path, uint32_t flags, CredentialsRef credentials,
                   std::shared_ptr<OverlayRegular> regular, FileRef lower)
      : File(std::move(path), flags, std::move(credentials)),
        regular_(std::move(regular)),
        lower_(std::move(lower)) {}

  bool seekable() const override { return true; }
  Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override {
    if (!regular_->has_own_content()) return lower_->Read(task, to, offset);
    const size_t count = TRY(regular_->upper_regular()->ReadInto(to, *offset));
    *offset += count;
    return count;
  }
  Result<uint64_t> Seek(Task& task, uint64_t position, int64_t offset, int whence) override {
    if (whence != SEEK_DATA && whence != SEEK_HOLE)
      return File::Seek(task, position, offset, whence);
    if (!regular_->has_own_content()) return lower_->Seek(task, position, offset, whence);
    if (offset < 0) return Errno(ENXIO);
    return regular_->upper_regular()->SeekData(static_cast<uint64_t>(offset), whence == SEEK_HOLE);
  }
  Result<void> Sync(bool) override { return {}; }
  Result<void> ConfigureMmap(MmapRequest& request) override {
    if (!regular_->has_own_content()) return lower_->ConfigureMmap(request);
    request.mappable = regular_->upper_regular();
    return {};
  }

 private:
  const std::shared_ptr<OverlayRegular> regular_;
  const FileRef lower_;
};

}  // namespace

OverlayRegular::OverlayRegular(Overlay& file_system, uint64_t number, InodeRef lower,
                               std::shared_ptr<TmpfsRegular> upper)
    : OverlayInode(file_system, S_IFREG, number, std::move(lower), std::move(upper)),
      own_content_(this->lower() == nullptr) {}

std::shared_ptr<TmpfsInode> OverlayRegular::MakeUpper(const CreateContext& context, uint64_t) {
  return std::make_shared<TmpfsRegular>(overlay().upper(), context);
}

std::shared_ptr<TmpfsRegular> OverlayRegular::upper_regular() const {
  return std::static_pointer_cast<TmpfsRegular>(upper().shared_from_this());
}

Result<void> OverlayRegular::CopyUpContent(uint64_t bytes_max) {
  if (has_own_content()) return {};
  const absl::MutexLock lock(&copy_mu_);
  if (has_own_content()) return {};
  TRY(CopyUpLocked());
  const std::shared_ptr<TmpfsRegular> to = upper_regular();
  const Attributes before = TRY(to->GetAttributes());
  const uint64_t size = std::min(bytes_max, TRY(lower()->GetAttributes()).size);
  const auto copy = [&]() -> Result<void> {
    TRY(to->Resize(size));
    std::vector<std::byte> buffer(std::min<uint64_t>(size, kCopyBytes));
    for (uint64_t offset = 0; offset < size;) {
      const std::span<std::byte> space(buffer.data(),
                                       std::min<uint64_t>(buffer.size(), size - offset));
      const size_t count = TRY(lower()->ReadContent(offset, space));
      if (count == 0) break;  // Shorter than it said: the rest reads as zero.
      // Pages of zeros stay holes.
      for (size_t at = 0; at < count; at += kPageSize) {
        const std::span<const std::byte> page(buffer.data() + at,
                                              std::min<size_t>(kPageSize, count - at));
        if (!IsZero(page) && TRY(to->WriteAt(offset + at, page)) < page.size())
          return Errno(ENOSPC);
      }
      offset += count;
    }
    return {};
  };
  const Result<void> copied = copy();
  if (!copied.ok()) {
    TRY(to->Resize(0));
    to->CopyAttributes(before);
    return copied.error();
  }
  to->CopyAttributes(before);
  own_content_.store(true, std::memory_order_release);
  return {};
}

Result<void> OverlayRegular::SetAttributes(const AttributeChanges& changes) {
  // What is cut off need not be copied.
  if (changes.size) TRY(CopyUpContent(*changes.size));
  return OverlayInode::SetAttributes(changes);
}

Result<size_t> OverlayRegular::ReadContent(uint64_t offset, std::span<std::byte> out) {
  return has_own_content() ? upper_regular()->ReadContent(offset, out)
                           : lower()->ReadContent(offset, out);
}

Result<FileRef> OverlayRegular::Open(Task& task, const Path& path, uint32_t flags) {
  if ((flags & O_ACCMODE) != O_RDONLY) TRY(CopyUpContent(std::numeric_limits<uint64_t>::max()));
  if (has_own_content()) return upper_regular()->Open(task, path, flags);
  // The lower file is known by this one only: it has no place of its own.
  FileRef opened = TRY(lower()->Open(task, Path{}, flags));
  return FileRef(std::make_shared<OverlayLowerFile>(
      path, flags, task.own_credentials_ref(), std::static_pointer_cast<OverlayRegular>(self()),
      std::move(opened)));
}

}  // namespace sentry
