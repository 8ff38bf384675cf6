#include "sentry/vfs/inode.h"

#include <linux/capability.h>
#include <unistd.h>

#include "sentry/vfs/file.h"
#include "sentry/vfs/file_system.h"
#include "sentry/vfs/inode_attachments.h"
#include "sentry/vfs/path.h"

namespace sentry {

using base::Errno;
using base::Result;

Inode::~Inode() { delete attachments_.load(std::memory_order_acquire); }

Inode::Attachments& Inode::attachments() {
  if (Attachments* existing = attachments_if_any()) return *existing;
  auto made = std::make_unique<Attachments>();
  Attachments* expected = nullptr;
  if (attachments_.compare_exchange_strong(expected, made.get(), std::memory_order_acq_rel))
    return *made.release();
  return *expected;
}

Result<void> Inode::SetAttributes(const AttributeChanges&) { return Errno(EPERM); }
Result<InodeRef> Inode::Lookup(std::string_view) { return Errno(ENOTDIR); }
void Inode::WillWalk(std::string_view, bool) {}
Result<InodeRef> Inode::Create(std::string_view, const CreateContext&) { return Errno(EACCES); }
Result<InodeRef> Inode::MakeDirectory(std::string_view, const CreateContext&) {
  return Errno(EPERM);
}
Result<InodeRef> Inode::MakeNode(std::string_view, const CreateContext&, uint32_t, uint64_t) {
  return Errno(EPERM);
}
Result<InodeRef> Inode::MakeSymlink(std::string_view, std::string_view, const CreateContext&) {
  return Errno(EPERM);
}
Result<void> Inode::Link(std::string_view, Inode&) { return Errno(EPERM); }
Result<void> Inode::Unlink(std::string_view, Inode&) { return Errno(EPERM); }
Result<void> Inode::RemoveDirectory(std::string_view, Inode&) { return Errno(EPERM); }
Result<void> Inode::Rename(std::string_view, Inode&, Inode&, std::string_view, Inode*, uint32_t) {
  return Errno(EPERM);
}
Result<InodeRef> Inode::CreateUnnamed(const CreateContext&) { return Errno(EOPNOTSUPP); }
Result<void> Inode::ReadEntries(uint64_t*, const DirectorySink&) { return Errno(EOPNOTSUPP); }
Result<size_t> Inode::ReadContent(uint64_t, std::span<std::byte>) { return Errno(EOPNOTSUPP); }
Result<std::string> Inode::ReadLink() { return Errno(EINVAL); }
Result<Path> Inode::FollowMagic(Task&) { return Path{}; }
Result<std::shared_ptr<File>> Inode::Open(Task&, const Path&, uint32_t) { return Errno(ENXIO); }
Result<std::string> Inode::GetXattr(std::string_view) { return Errno(EOPNOTSUPP); }
Result<void> Inode::SetXattr(std::string_view, std::span<const std::byte>, int) {
  return Errno(EOPNOTSUPP);
}
Result<void> Inode::RemoveXattr(std::string_view) { return Errno(EOPNOTSUPP); }
Result<std::vector<std::string>> Inode::ListXattr() { return std::vector<std::string>{}; }

Result<void> Inode::CheckPermission(const Credentials& credentials, int mask) {
  // The commonest check of a walk by root, without fetching attributes.
  if (type() == S_IFDIR && credentials.HasCapability(CAP_DAC_OVERRIDE)) return {};
  return GenericPermission(TRY(GetAttributes()), credentials, mask);
}

Result<void> GenericPermission(const Attributes& attributes, const Credentials& credentials,
                               int mask) {
  uint32_t bits = attributes.mode;
  if (attributes.uid == credentials.fsuid) {
    bits >>= 6;
  } else if (credentials.InGroup(attributes.gid)) {
    bits >>= 3;
  }
  const auto wanted = static_cast<uint32_t>(mask) & 7U;
  if ((wanted & ~bits) == 0) return {};
  const auto over = [&](int capability) {
    return credentials.HasCapabilityOver(attributes.uid, attributes.gid, capability);
  };
  if (attributes.IsDirectory()) {
    if ((mask & W_OK) == 0 && over(CAP_DAC_READ_SEARCH)) return {};
    if (over(CAP_DAC_OVERRIDE)) return {};
    return Errno(EACCES);
  }
  if (mask == R_OK && over(CAP_DAC_READ_SEARCH)) return {};
  // Somebody must be able to execute it for root to be.
  const bool execute_possible = (mask & X_OK) == 0 || (attributes.mode & 0111) != 0;
  if (execute_possible && over(CAP_DAC_OVERRIDE)) return {};
  return Errno(EACCES);
}

Result<void> Inode::Attachments::GetWriteAccess() {
  int count = write_count_.load(std::memory_order_relaxed);
  do {
    if (count < 0) return Errno(ETXTBSY);
  } while (!write_count_.compare_exchange_weak(count, count + 1, std::memory_order_acq_rel));
  return {};
}

void Inode::Attachments::PutWriteAccess() { write_count_.fetch_sub(1, std::memory_order_acq_rel); }

Result<void> Inode::Attachments::DenyWrite() {
  int count = write_count_.load(std::memory_order_relaxed);
  do {
    if (count > 0) return Errno(ETXTBSY);
  } while (!write_count_.compare_exchange_weak(count, count - 1, std::memory_order_acq_rel));
  return {};
}

void Inode::Attachments::AllowWrite() { write_count_.fetch_add(1, std::memory_order_acq_rel); }

uint64_t AllocateDevice() {
  // Process-wide on purpose: a number must differ from every other one that a guest can see,
  // whatever object asks.
  static std::atomic<uint64_t> next{1};
  const uint64_t minor = next.fetch_add(1, std::memory_order_relaxed);
  // Linux's dev_t with major 0: eight bits of minor below, the rest above bit 20.
  return (minor & 0xff) | ((minor & ~uint64_t{0xff}) << 12);
}

}  // namespace sentry
