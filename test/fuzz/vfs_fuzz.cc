// Sequences of calls on names, decoded from the input, made on a tmpfs and on an overlay whose
// lower layer was made by the first part of the same sequence. The two must answer alike, call by
// call, and look alike at the end: the overlay's layers must not show.

#include <linux/fs.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "platform/base/check.h"
#include "platform/memory/memory_pool.h"
#include "sentry/fs/overlay/overlay_inode.h"
#include "sentry/fs/tmpfs/tmpfs_inode.h"
#include "sentry/time/host_clock.h"
#include "sentry/vfs/vfs.h"

namespace {

using base::Result;

constexpr size_t kCallsMax = 4000;

class Input {
 public:
  Input(const uint8_t* data, size_t size) : data_(data), left_(size) {}
  bool empty() const { return left_ == 0; }
  uint8_t Byte() {
    if (left_ == 0) return 0;
    --left_;
    return *data_++;
  }
  // One to three names of few, so that they meet.
  std::string Path() {
    static const char* const kNames[] = {"a", "b", "c", "d", "a", "b", "..", "."};
    std::string path;
    const uint8_t shape = Byte();
    const uint8_t names = Byte();
    for (int i = 0; i <= shape % 3; ++i)
      path += std::string("/") + kNames[(names >> (i * 3)) & (i == 2 ? 3 : 7)];
    if ((shape & 0xc0) == 0xc0) path += '/';
    return path;
  }

 private:
  const uint8_t* data_;
  size_t left_;
};

template <typename T>
int Code(const Result<T>& result) {
  return result.ok() ? 0 : result.error().value();
}

Result<void> WriteByte(sentry::Inode& inode, uint64_t offset, uint8_t value) {
  auto* regular = dynamic_cast<sentry::TmpfsRegular*>(&inode);
  std::shared_ptr<sentry::TmpfsRegular> upper;
  if (auto* overlay = dynamic_cast<sentry::OverlayRegular*>(&inode)) {
    sentry::AttributeChanges same_size;
    same_size.size = TRY(inode.GetAttributes()).size;
    TRY(inode.SetAttributes(same_size));
    upper = overlay->upper_regular();
    regular = upper.get();
  }
  if (regular == nullptr) return base::Errno(EINVAL);
  const auto byte = static_cast<std::byte>(value);
  TRY(regular->WriteAt(offset, {&byte, 1}));
  return {};
}

// A tree of its own, with calls that give errno values.
class Tree {
 public:
  explicit Tree(sentry::FileSystemRef root) {
    CHECK(vfs_.MountRoot(std::move(root), "none", 0).ok());
  }

  int Call(uint8_t what, const std::string& path, const std::string& other, uint8_t extra) {
    const sentry::Caller caller = vfs_.KernelCaller();
    sentry::WalkOptions no_follow;
    no_follow.follow_last = false;
    switch (what % 14) {
      case 0:
      case 1:
        return Code(vfs_.MakeDirectory(caller, {}, path, 0755));
      case 2:
      case 3:
        return Code(vfs_.MakeNode(caller, {}, path, S_IFREG | 0644, 0));
      case 4:
        return Code(vfs_.MakeNode(caller, {}, path, S_IFIFO | 0600, 0));
      case 5:
        return Code(vfs_.MakeSymlink(caller, other, {}, path));
      case 6:
        return Code(vfs_.Unlink(caller, {}, path));
      case 7:
        return Code(vfs_.RemoveDirectory(caller, {}, path));
      case 8:
      case 9:
        return Code(
            vfs_.Rename(caller, {}, path, {}, other, extra % 4 == 0 ? RENAME_NOREPLACE : 0));
      case 10:
        return Code(vfs_.Rename(caller, {}, path, {}, other, RENAME_EXCHANGE));
      case 11: {
        const auto target = vfs_.Walk(caller, {}, path, no_follow);
        if (!target.ok()) return Code(target);
        return Code(vfs_.Link(caller, target.value(), {}, other));
      }
      default:
        return Change(caller, path, what % 14 == 13, extra);
    }
  }

  // Everything there is, as text by path.
  std::map<std::string, std::string> Dump() {
    std::map<std::string, std::string> dump;
    std::map<uint64_t, std::string>
        first_names;  // Inode numbers differ: a link shows as the name seen first.
    Describe(vfs_.root().dentry->inode(), "", &dump, &first_names);
    return dump;
  }

 private:
  int Change(const sentry::Caller& caller, const std::string& path, bool write, uint8_t extra) {
    const auto found = vfs_.Walk(caller, {}, path, {});
    if (!found.ok()) return Code(found);
    sentry::Inode& inode = *found.value().dentry->inode();
    if (write) {
      if (inode.type() != S_IFREG) return EINVAL;
      return Code(WriteByte(inode, extra * uint64_t{37}, extra));
    }
    sentry::AttributeChanges changes;
    if ((extra & 1) != 0) {
      changes.size = extra * uint64_t{41};
    } else {
      changes.mode = extra;
    }
    return Code(vfs_.SetAttributes(caller, found.value(), changes));
  }

  void Describe(const sentry::InodeRef& inode, const std::string& path,
                std::map<std::string, std::string>* dump,
                std::map<uint64_t, std::string>* first_names) {
    const sentry::Attributes attributes = inode->GetAttributes().value();
    std::string text =
        std::to_string(attributes.mode) + " links " + std::to_string(attributes.nlink);
    const auto [first, is_first] = first_names->try_emplace(attributes.inode, path);
    if (!is_first) text += " is " + first->second;
    if (inode->type() == S_IFLNK) text += " to " + inode->ReadLink().value();
    if (inode->type() == S_IFREG) {
      std::vector<std::byte> content(attributes.size);
      CHECK(inode->ReadContent(0, content).value() == content.size());
      text += " size " + std::to_string(content.size()) + ":";
      for (const std::byte byte : content)
        text += static_cast<char>('0' + std::to_integer<int>(byte) % 64);
    }
    CHECK(dump->emplace(path, text).second);  // A name is listed once.
    if (inode->type() != S_IFDIR) return;
    std::vector<std::string> names;
    uint64_t offset = 0;
    CHECK(inode
              ->ReadEntries(&offset,
                            [&](const sentry::DirectoryEntry& entry) {
                              names.emplace_back(entry.name);
                              return true;
                            })
              .ok());
    std::sort(names.begin(), names.end());
    for (const std::string& name : names)
      Describe(inode->Lookup(name).value(), path + "/" + name, dump, first_names);
  }

  sentry::Vfs vfs_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::unique_ptr<platform::MemoryPool> pool =
      platform::MemoryPool::Create(uint64_t{1} << 36).value();
  static const sentry::HostClock clock;
  Input input(data, size);
  const auto plain_files = sentry::Tmpfs::Create(*pool, clock, {});
  const auto lower_files = sentry::Tmpfs::Create(*pool, clock, {});
  Tree plain(plain_files);
  const auto run = [&](Tree& other, size_t calls) {
    for (size_t i = 0; i < calls && !input.empty(); ++i) {
      const uint8_t what = input.Byte();
      const std::string path = input.Path();
      const std::string second = input.Path();
      const uint8_t extra = input.Byte();
      CHECK(plain.Call(what, path, second, extra) == other.Call(what, path, second, extra));
    }
  };
  {
    Tree lower(lower_files);
    run(lower, input.Byte());
  }
  const auto overlay =
      sentry::Overlay::Create(lower_files, sentry::Tmpfs::Create(*pool, clock, {}));
  Tree layered(overlay.value());
  CHECK(plain.Dump() == layered.Dump());
  run(layered, kCallsMax);
  CHECK(plain.Dump() == layered.Dump());
  return 0;
}
