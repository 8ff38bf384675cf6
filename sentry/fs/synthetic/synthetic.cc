#include "sentry/fs/synthetic/synthetic.h"

#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "platform/base/check.h"
#include "sentry/mm/io_buffer.h"

namespace sentry {
namespace {

Timestamp TimestampOf(int64_t ns) {
  return {ns / 1'000'000'000, static_cast<uint32_t>(ns % 1'000'000'000)};
}

// An open synthetic directory: each read lists afresh, and resumes by position.
class DirectoryFile : public File {
 public:
  DirectoryFile(Path path, uint32_t flags, CredentialsRef credentials,
                std::shared_ptr<SyntheticDirectory> directory)
      : File(std::move(path), flags, std::move(credentials)), directory_(std::move(directory)) {}

  bool seekable() const override { return true; }
  std::shared_ptr<Inode> inode() const override { return directory_; }

  base::Result<size_t> Read(Task&, IoBuffer&, uint64_t*) override { return base::Errno(EISDIR); }

  base::Result<void> ReadDirectory(Task& task, uint64_t* offset,
                                   const DirectorySink& sink) override {
    if (*offset == 0) {
      if (!sink({".", directory_->number(), DT_DIR, 1})) return {};
      *offset = 1;
    }
    if (*offset == 1) {
      if (!sink({"..", directory_->number(), DT_DIR, 2})) return {};
      *offset = SyntheticDirectory::kFirstPosition;
    }
    const auto entries = TRY(directory_->List(task));
    for (const SyntheticDirectory::Entry& entry : entries) {
      if (entry.position < *offset) continue;
      if (!sink({entry.name, entry.inode, entry.type, entry.position + 1})) return {};
      *offset = entry.position + 1;
    }
    return {};
  }

 private:
  const std::shared_ptr<SyntheticDirectory> directory_;
};

class TextFile : public File {
 public:
  TextFile(Path path, uint32_t flags, CredentialsRef credentials,
           std::shared_ptr<TextInode> text_inode)
      : File(std::move(path), flags, std::move(credentials)), inode_(std::move(text_inode)) {}

  bool seekable() const override { return true; }
  std::shared_ptr<Inode> inode() const override { return inode_; }

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override {
    if (!inode_->reader()) return base::Errno(EIO);
    std::shared_ptr<const std::string> content;
    {
      const absl::MutexLock lock(&mu_);
      if (*offset != 0) content = content_;
    }
    if (content == nullptr) {
      content = std::make_shared<const std::string>(TRY(inode_->reader()(task)));
      const absl::MutexLock lock(&mu_);
      content_ = content;
    }
    if (*offset >= content->size()) return size_t{0};
    const auto rest = std::as_bytes(std::span(*content)).subspan(static_cast<size_t>(*offset));
    const size_t count = TRY(to.CopyOut(rest));
    *offset += count;
    return count;
  }

  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override {
    if (!inode_->writer()) return base::Errno(EIO);
    std::string text(std::min<uint64_t>(from.remaining(), TextInode::kWriteBytesMax), '\0');
    // From a copy: what was refused has not been taken.
    IoBuffer bytes = from;
    text.resize(TRY(bytes.CopyIn(std::as_writable_bytes(std::span(text)))));
    TRY(inode_->writer()(task, text));
    from.Skip(text.size());
    *offset += text.size();
    return text.size();
  }

  base::Result<uint64_t> Seek(Task&, uint64_t position, int64_t offset, int whence) override {
    if (whence != SEEK_SET && whence != SEEK_CUR) return base::Errno(EINVAL);
    const int64_t start = whence == SEEK_CUR ? static_cast<int64_t>(position) : 0;
    int64_t target = 0;
    if (__builtin_add_overflow(start, offset, &target) || target < 0) return base::Errno(EINVAL);
    return static_cast<uint64_t>(target);
  }

  base::Result<void> Truncate(uint64_t) override { return base::Errno(EINVAL); }

 private:
  const std::shared_ptr<TextInode> inode_;
  absl::Mutex mu_;
  std::shared_ptr<const std::string> content_ ABSL_GUARDED_BY(mu_);
};

}  // namespace

SyntheticFileSystem::SyntheticFileSystem(const Traits& traits, const Clock& clock)
    : traits_(traits), device_(AllocateDevice()), made_(TimestampOf(clock.RealtimeNs())) {}

base::Result<FileSystemStatus> SyntheticFileSystem::Status() {
  FileSystemStatus status;
  status.type = traits_.magic;
  return status;
}

SyntheticInode::SyntheticInode(SyntheticFileSystem& file_system, uint32_t mode, uint64_t number)
    : Inode(file_system),
      synthetic_(file_system),
      mode_(mode),
      number_(number != 0 ? number : file_system.AllocateInode()) {}

base::Result<Attributes> SyntheticInode::GetAttributes() {
  Attributes attributes;
  attributes.device = synthetic_.device();
  attributes.inode = number_;
  attributes.mode = mode_;
  attributes.nlink = S_ISDIR(mode_) ? 2 : 1;
  attributes.uid = owner().uid;
  attributes.gid = owner().gid;
  attributes.atime = attributes.mtime = attributes.ctime = attributes.btime = synthetic_.made();
  return attributes;
}

base::Result<void> SyntheticInode::SetAttributes(const AttributeChanges& changes) {
  if (changes.mode || changes.uid || changes.gid) return base::Errno(EPERM);
  return {};
}

base::Result<std::shared_ptr<File>> SyntheticDirectory::Open(Task&, const Path& path,
                                                             uint32_t flags) {
  auto self = std::static_pointer_cast<SyntheticDirectory>(shared_from_this());
  return std::shared_ptr<File>(
      std::make_shared<DirectoryFile>(path, flags, RootCredentials(), self));
}

void StaticDirectory::Add(std::string name, InodeRef child) {
  index_[name] = child;
  children_.emplace_back(std::move(name), std::move(child));
}

base::Result<InodeRef> StaticDirectory::Lookup(std::string_view name) {
  const auto found = index_.find(std::string(name));
  if (found == index_.end()) return base::Errno(ENOENT);
  return found->second;
}

base::Result<std::vector<SyntheticDirectory::Entry>> StaticDirectory::List(Task&) {
  std::vector<Entry> entries;
  entries.reserve(children_.size());
  for (const auto& [name, child] : children_) {
    const auto attributes = TRY(child->GetAttributes());
    entries.push_back(
        {name, attributes.inode, DirectoryTypeOf(child->type()), kFirstPosition + entries.size()});
  }
  return entries;
}

base::Result<std::shared_ptr<File>> TextInode::Open(Task&, const Path& path, uint32_t flags) {
  auto self = std::static_pointer_cast<TextInode>(shared_from_this());
  return std::shared_ptr<File>(std::make_shared<TextFile>(path, flags, RootCredentials(), self));
}

base::Result<int64_t> ParseControlNumber(std::string_view text) {
  constexpr std::string_view kSpace = " \t\n\v\f\r";
  const size_t first = text.find_first_not_of(kSpace);
  if (first == std::string_view::npos) return base::Errno(EINVAL);
  text.remove_prefix(first);
  text = text.substr(0, text.find_last_not_of(std::string_view(" \t\n\v\f\r\0", 7)) + 1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return base::Errno(EINVAL);
  return value;
}

uint8_t DirectoryTypeOf(uint32_t mode) { return static_cast<uint8_t>((mode & S_IFMT) >> 12); }

}  // namespace sentry
