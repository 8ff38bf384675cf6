#include "sentry/fs/tmpfs/tmpfs.h"

#include <fcntl.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "sentry/fs/tmpfs/tmpfs_inode.h"
#include "sentry/vfs/vfs.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::Result;

namespace {

constexpr uint64_t kTmpfsMagic = 0x01021994;
// What statfs shows of an instance without a limit.
constexpr uint64_t kUnlimitedPages = uint64_t{1} << 32;

Result<uint64_t> ParseNumber(std::string_view text, int base, uint64_t memory_bytes) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
  if (error != std::errc() || end == text.data()) return Errno(EINVAL);
  const std::string_view suffix(end, static_cast<size_t>(text.data() + text.size() - end));
  if (suffix.empty()) return value;
  if (suffix == "%") return memory_bytes / 100 * std::min<uint64_t>(value, 1000);
  if (suffix.size() != 1 || base != 10) return Errno(EINVAL);
  int shift = 0;
  switch (suffix.front() | 0x20) {
    case 'k':
      shift = 10;
      break;
    case 'm':
      shift = 20;
      break;
    case 'g':
      shift = 30;
      break;
    default:
      return Errno(EINVAL);
  }
  if (value > (uint64_t{1} << 62) >> shift) return Errno(EINVAL);
  return value << shift;
}

std::string Octal(uint32_t value) {
  std::array<char, 16> digits{};
  const auto [end, error] = std::to_chars(digits.data(), digits.data() + digits.size(), value, 8);
  return std::string(digits.data(), end);
}

Result<void> ApplyOption(std::string_view key, std::string_view value, uint64_t memory_bytes,
                         TmpfsOptions* options) {
  if (key == "size") {
    options->size_bytes = base::PageUp(TRY(ParseNumber(value, 10, memory_bytes)));
    options->size_unsaid = false;
  } else if (key == "nr_blocks") {
    options->size_bytes = TRY(ParseNumber(value, 10, 0)) * kPageSize;
    options->size_unsaid = false;
  } else if (key == "nr_inodes") {
    options->inodes_max = TRY(ParseNumber(value, 10, 0));
    options->inodes_unsaid = false;
  } else if (key == "mode") {
    options->mode = static_cast<uint32_t>(TRY(ParseNumber(value, 8, 0))) & 07777U;
  } else if (key == "uid") {
    options->uid_given = true;
    options->uid = static_cast<uint32_t>(TRY(ParseNumber(value, 10, 0)));
  } else if (key == "gid") {
    options->gid_given = true;
    options->gid = static_cast<uint32_t>(TRY(ParseNumber(value, 10, 0)));
  } else if (key == "huge" || key == "mpol" || key == "inode32" || key == "inode64" ||
             key == "noswap") {
    return {};  // About the host's memory, not about what is seen.
  } else {
    return Errno(EINVAL);
  }
  return {};
}

// Changes what `text` says.
Result<void> ParseInto(std::string_view text, uint64_t memory_bytes, TmpfsOptions* options) {
  while (!text.empty()) {
    const size_t comma = std::min(text.find(','), text.size());
    const std::string_view item = text.substr(0, comma);
    text.remove_prefix(std::min(comma + 1, text.size()));
    if (item.empty()) continue;
    const size_t equals = item.find('=');
    const std::string_view value =
        equals == std::string_view::npos ? std::string_view() : item.substr(equals + 1);
    TRY(ApplyOption(item.substr(0, equals), value, memory_bytes, options));
  }
  return {};
}

}  // namespace

TmpfsOptions TmpfsOptions::Default(uint64_t memory_bytes) {
  TmpfsOptions options;
  options.size_bytes = base::PageDown(memory_bytes / 2);
  options.inodes_max = options.size_bytes / kPageSize;
  options.size_unsaid = options.inodes_unsaid = true;
  options.memory_bytes = memory_bytes;
  return options;
}

Result<TmpfsOptions> ParseTmpfsOptions(std::string_view text, uint64_t memory_bytes) {
  TmpfsOptions options = TmpfsOptions::Default(memory_bytes);
  TRY(ParseInto(text, memory_bytes, &options));
  return options;
}

Tmpfs::Tmpfs(platform::MemoryPool& pool, const Clock& clock, const TmpfsOptions& options)
    : pool_(pool),
      clock_(clock),
      options_(options),
      pages_(options.size_bytes / kPageSize),
      inodes_(options.inodes_max),
      device_(AllocateDevice()) {
  inodes_.Take(1);
  root_ = std::make_shared<TmpfsDirectory>(*this,
                                           CreateContext{options.mode, options.uid, options.gid});
}

Tmpfs::~Tmpfs() {
  // Trees may be deeper than a stack: level by level.
  std::vector<std::shared_ptr<TmpfsInode>> pending{
      std::static_pointer_cast<TmpfsInode>(std::move(root_))};
  while (!pending.empty()) {
    const std::shared_ptr<TmpfsInode> inode = std::move(pending.back());
    pending.pop_back();
    if (inode->type() == S_IFDIR) static_cast<TmpfsDirectory&>(*inode).TakeDirectories(&pending);
  }
}

std::shared_ptr<Tmpfs> Tmpfs::Create(platform::MemoryPool& pool, const Clock& clock,
                                     const TmpfsOptions& options) {
  return std::make_shared<Tmpfs>(pool, clock, options);
}

Timestamp Tmpfs::Now() const {
  constexpr int64_t kSecondNs = 1'000'000'000;
  const int64_t now = clock_.RealtimeNs();
  return {now / kSecondNs, static_cast<uint32_t>(now % kSecondNs)};
}

Result<FileSystemStatus> Tmpfs::Status() {
  FileSystemStatus status;
  status.type = kTmpfsMagic;
  status.block_size = kPageSize;
  status.blocks = pages_.limit() != 0 ? pages_.limit() : kUnlimitedPages;
  status.blocks_free = status.blocks - std::min(status.blocks, pages_.used());
  status.blocks_available = status.blocks_free;
  status.files = inodes_.limit() != 0 ? inodes_.limit() : kUnlimitedPages;
  status.files_free = status.files - std::min(status.files, inodes_.used());
  status.id = device_;
  return status;
}

Result<void> Tmpfs::Reconfigure(std::string_view text) {
  // Only what is said changes. A limit may be changed, not be made from none.
  TmpfsOptions wanted;
  wanted.size_bytes = pages_.limit() * kPageSize;
  wanted.inodes_max = inodes_.limit();
  TRY(ParseInto(text, options_.memory_bytes, &wanted));
  const uint64_t pages = wanted.size_bytes / kPageSize;
  if (pages != pages_.limit() && (pages_.limit() == 0 || (pages != 0 && pages_.used() > pages)))
    return Errno(EINVAL);
  if (wanted.inodes_max != inodes_.limit() &&
      (inodes_.limit() == 0 || (wanted.inodes_max != 0 && inodes_.used() > wanted.inodes_max)))
    return Errno(EINVAL);
  TRY(pages_.SetLimit(pages));
  return inodes_.SetLimit(wanted.inodes_max);
}

std::string Tmpfs::options() const {
  std::string text;
  const auto add = [&](const std::string& item) { text += text.empty() ? item : "," + item; };
  const bool default_size =
      options_.size_unsaid && pages_.limit() == options_.size_bytes / kPageSize;
  const bool default_inodes = options_.inodes_unsaid && inodes_.limit() == options_.inodes_max;
  if (pages_.limit() != 0 && !default_size)
    add(absl::StrCat("size=", pages_.limit() * (kPageSize / 1024), "k"));
  if (inodes_.limit() != 0 && !default_inodes) add(absl::StrCat("nr_inodes=", inodes_.limit()));
  if (options_.mode != 01777) add(absl::StrCat("mode=", Octal(options_.mode)));
  if (options_.uid != 0) add(absl::StrCat("uid=", options_.uid));
  if (options_.gid != 0) add(absl::StrCat("gid=", options_.gid));
  return text;
}

Result<FileRef> CreateMemfd(Vfs& vfs, const std::shared_ptr<Tmpfs>& shm, CredentialsRef credentials,
                            std::string_view name, uint32_t mode, uint32_t seals) {
  if (!shm->inodes().Take(1)) return Errno(ENOSPC);
  const CreateContext owner{mode, credentials->fsuid, credentials->fsgid};
  auto inode = std::make_shared<TmpfsRegular>(*shm, owner);
  inode->MakeUnnamed();
  inode->InitSeals(seals);
  Path path = vfs.AnonymousPath(shm, inode, "/memfd:" + std::string(name) + " (deleted)");
  return FileRef(std::make_shared<TmpfsFile>(std::move(path), O_RDWR, std::move(credentials),
                                             std::move(inode)));
}

}  // namespace sentry
