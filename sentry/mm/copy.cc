// Copies between the sentry and guest memory. They run under the reader lock, so pages cannot go to
// anyone else meanwhile; what needs a change first (copy on write, first touch of a huge area) is
// done under the writer lock and the copy goes on from there.

#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "sentry/mm/memory_manager_impl.h"

namespace sentry {

using base::Errno;
using base::kPageSize;
using base::PageDown;
using base::PageUp;
using base::Result;
using base::UserAddr;

namespace {

// How much of [offset, offset + length) a mapping of the file shows: its bytes, and zeroes to the
// end of the last page. `read` of them were there.
uint64_t VisibleBytes(Mappable& mappable, uint64_t offset, uint64_t length, uint64_t read) {
  if (read >= length) return length;
  uint64_t file_end = offset + read;
  if (read == 0) {
    std::byte first{};
    const Result<size_t> probe = mappable.ReadAt(PageDown(offset), std::span(&first, 1));
    if (!probe.ok() || probe.value() == 0) return 0;
    file_end = PageDown(offset) + 1;
  }
  return std::min(length, PageUp(file_end) - offset);
}

// Bytes from `offset` on, at most `length`, that a write may change without making the file longer.
uint64_t BytesInFile(Mappable& mappable, uint64_t offset, uint64_t length) {
  std::byte last{};
  const Result<size_t> probe = mappable.ReadAt(offset + length - 1, std::span(&last, 1));
  if (probe.ok() && probe.value() == 1) return length;
  std::array<std::byte, kPageSize> scratch;
  uint64_t done = 0;
  while (done < length) {
    const size_t step = std::min<uint64_t>(scratch.size(), length - done);
    const Result<size_t> read = mappable.ReadAt(offset + done, std::span(scratch).first(step));
    if (!read.ok() || read.value() == 0) break;
    done += read.value();
  }
  return done;
}

}  // namespace

Piece MemoryManager::Impl::FindFilePieceLocked(const Vma& vma, uint64_t address, uint64_t length,
                                               CopyAccess access) {
  Piece piece;
  const uint64_t offset = vma.OffsetOf(address);
  const uint64_t in_page = offset % kPageSize;
  const Result<HostRange> host = vma.mappable->Translate(PageDown(offset), PageUp(in_page + length),
                                                         access.write && vma.shared);
  if (!host.ok() && host.error() == EFAULT) return piece;
  if (host.ok() && host.value().in_pool) {
    if (host.value().length <= in_page) return piece;
    const std::span<std::byte> bytes =
        pool.Window({host.value().offset, host.value().offset + PageUp(host.value().length)})
            .subspan(in_page);
    piece.kind = Piece::Kind::kBytes;
    piece.bytes = bytes.first(std::min<uint64_t>(bytes.size(), length));
    return piece;
  }
  piece.kind = Piece::Kind::kFile;
  piece.mappable = vma.mappable.get();
  piece.offset = offset;
  piece.length = length;
  return piece;
}

Piece MemoryManager::Impl::FindPieceLocked(uint64_t address, uint64_t length, CopyAccess access) {
  Piece piece;
  auto it = vmas.FindFrom(address);
  if (it == vmas.end()) return piece;
  const Vma& vma = it->second;
  if (address < vma.start) {
    if (vma.grows_down && address >= address_min) piece.kind = Piece::Kind::kResolve;
    return piece;
  }
  const int wanted = access.write ? PROT_WRITE : PROT_READ | PROT_WRITE | PROT_EXEC;
  const int allowed = access.force && !vma.shared ? vma.may_protect : vma.protection;
  if ((allowed & wanted) == 0) return piece;
  length = std::min(length, vma.end - address);
  if (vma.shared) return FindFilePieceLocked(vma, address, length, access);

  auto run = pages.FindFrom(address);
  if (run != pages.end() && run->second.start <= address) {
    if (access.write && run->second.copy_on_write) {
      piece.kind = Piece::Kind::kResolve;
      return piece;
    }
    const uint64_t end = std::min(address + length, run->second.end);
    const uint64_t in_page = address % kPageSize;
    const std::span<std::byte> bytes =
        pool.Window(run->second.Pool(address - in_page, PageUp(end)));
    piece.kind = Piece::Kind::kBytes;
    piece.bytes = bytes.subspan(in_page, end - address);
    return piece;
  }
  if (access.write) {
    piece.kind = Piece::Kind::kResolve;
    return piece;
  }
  if (run != pages.end()) length = std::min(length, run->second.start - address);
  if (!vma.anonymous()) return FindFilePieceLocked(vma, address, length, access);
  piece.kind = Piece::Kind::kZero;
  piece.length = length;
  return piece;
}

size_t MemoryManager::Impl::CopyPresentLocked(uint64_t address, std::byte* in, const std::byte* out,
                                              size_t length, CopyAccess access, bool* resolve) {
  size_t done = 0;
  while (done < length) {
    const Piece piece = FindPieceLocked(address + done, length - done, access);
    switch (piece.kind) {
      case Piece::Kind::kFault:
        return done;
      case Piece::Kind::kResolve:
        *resolve = true;
        return done;
      case Piece::Kind::kBytes:
        if (access.write) {
          std::memcpy(piece.bytes.data(), out + done, piece.bytes.size());
        } else {
          std::memcpy(in + done, piece.bytes.data(), piece.bytes.size());
        }
        done += piece.bytes.size();
        break;
      case Piece::Kind::kZero:
        std::memset(in + done, 0, piece.length);
        done += piece.length;
        break;
      case Piece::Kind::kFile: {
        uint64_t moved = 0;
        uint64_t visible = 0;
        if (access.write) {
          moved = BytesInFile(*piece.mappable, piece.offset, piece.length);
          // What lies in the last page behind the end of the file is dropped, as the host would.
          visible = VisibleBytes(*piece.mappable, piece.offset, piece.length, moved);
          const Result<size_t> written =
              piece.mappable->WriteAt(piece.offset, std::span(out + done, moved));
          if (!written.ok() || written.value() < moved) {
            return done + (written.ok() ? written.value() : 0);
          }
        } else {
          const std::span<std::byte> target(in + done, piece.length);
          moved = ReadFile(*piece.mappable, piece.offset, target);
          visible = VisibleBytes(*piece.mappable, piece.offset, piece.length, moved);
          if (visible > moved) std::memset(target.data() + moved, 0, visible - moved);
        }
        done += visible;
        if (visible < piece.length) return done;
        break;
      }
    }
  }
  return done;
}

bool MemoryManager::Impl::ResolveForCopy(uint64_t address, uint64_t length, CopyAccess access) {
  Leftovers leftovers(self);
  absl::MutexLock lock(&mu);
  auto it = AreaForLocked(address);
  if (it == vmas.end()) return false;
  // Rights may have changed since the copy looked.
  const Vma& vma = it->second;
  const int allowed = access.force && !vma.shared ? vma.may_protect : vma.protection;
  if (access.write ? (allowed & PROT_WRITE) == 0 : allowed == PROT_NONE) return false;
  const uint64_t bytes = std::min({length, vma.end - address, uint64_t{1} << 20});
  const Result<void> resolved = ResolveLocked(vma, address, bytes, access.write, leftovers);
  return resolved.ok() || resolved.error() == ESRCH;
}

size_t MemoryManager::Impl::Copy(uint64_t address, std::byte* in, const std::byte* out,
                                 size_t length, CopyAccess access) {
  if (length > ~address) length = ~address;
  size_t done = 0;
  while (done < length) {
    bool resolve = false;
    {
      absl::ReaderMutexLock lock(&mu);
      done +=
          CopyPresentLocked(address + done, in == nullptr ? nullptr : in + done,
                            out == nullptr ? nullptr : out + done, length - done, access, &resolve);
    }
    if (!resolve || !ResolveForCopy(address + done, length - done, access)) break;
  }
  return done;
}

size_t MemoryManager::Impl::ZeroOut(uint64_t address, uint64_t length) {
  static constexpr std::array<std::byte, 4 * kPageSize> kZeroes{};
  uint64_t done = 0;
  while (done < length) {
    const size_t step = std::min<uint64_t>(kZeroes.size(), length - done);
    const size_t copied = Copy(address + done, nullptr, kZeroes.data(), step, {.write = true});
    done += copied;
    if (copied < step) break;
  }
  return done;
}

namespace {

Result<size_t> CountOrFault(size_t done, size_t asked) {
  if (done == 0 && asked > 0) return Errno(EFAULT);
  return done;
}

}  // namespace

Result<size_t> MemoryManager::CopyInBytes(UserAddr addr, std::span<std::byte> out) {
  return CountOrFault(impl_->Copy(addr.value(), out.data(), nullptr, out.size(), {}), out.size());
}

Result<size_t> MemoryManager::CopyOutBytes(UserAddr addr, std::span<const std::byte> data) {
  return CountOrFault(impl_->Copy(addr.value(), nullptr, data.data(), data.size(), {.write = true}),
                      data.size());
}

Result<void> MemoryManager::CopyInExactly(UserAddr addr, std::span<std::byte> out) {
  if (impl_->Copy(addr.value(), out.data(), nullptr, out.size(), {}) < out.size()) {
    return Errno(EFAULT);
  }
  return {};
}

Result<void> MemoryManager::CopyOutExactly(UserAddr addr, std::span<const std::byte> data) {
  if (impl_->Copy(addr.value(), nullptr, data.data(), data.size(), {.write = true}) < data.size()) {
    return Errno(EFAULT);
  }
  return {};
}

Result<size_t> MemoryManager::ForceCopyIn(UserAddr addr, std::span<std::byte> out) {
  return CountOrFault(impl_->Copy(addr.value(), out.data(), nullptr, out.size(), {.force = true}),
                      out.size());
}

Result<size_t> MemoryManager::ForceCopyOut(UserAddr addr, std::span<const std::byte> data) {
  if (impl_->syscall_entry != 0) {
    // A debugger writes back what it has read, whole words of it.
    Leftovers leftovers(*this);
    absl::MutexLock lock(&impl_->mu);
    impl_->RevertCodeLocked(addr.value(), addr.value() + data.size(), leftovers);
  }
  return CountOrFault(
      impl_->Copy(addr.value(), nullptr, data.data(), data.size(), {.write = true, .force = true}),
      data.size());
}

Result<std::string> MemoryManager::CopyInString(UserAddr addr, size_t bytes_max) {
  std::string text;
  std::array<std::byte, 256> chunk;
  uint64_t at = addr.value();
  while (text.size() < bytes_max) {
    // Up to the end of a chunk-sized block at a time: most strings are short, and the next page may
    // not exist.
    const size_t step =
        std::min<uint64_t>(chunk.size() - at % chunk.size(), bytes_max - text.size());
    const size_t copied = impl_->Copy(at, chunk.data(), nullptr, step, {});
    if (copied == 0) return Errno(EFAULT);
    const char* bytes = reinterpret_cast<const char*>(chunk.data());
    const size_t used = strnlen(bytes, copied);
    text.append(bytes, used);
    if (used < copied) return text;
    if (copied < step) return Errno(EFAULT);
    at += copied;
  }
  return Errno(ENAMETOOLONG);
}

Result<uint32_t> MemoryManager::LoadWord(UserAddr addr) {
  const uint64_t address = addr.value();
  if (address % sizeof(uint32_t) != 0) return Errno(EINVAL);
  while (true) {
    {
      absl::ReaderMutexLock lock(&impl_->mu);
      const Piece piece = impl_->FindPieceLocked(address, sizeof(uint32_t), {});
      if (piece.kind == Piece::Kind::kFault) return Errno(EFAULT);
      if (piece.kind == Piece::Kind::kBytes) {
        auto* word = reinterpret_cast<uint32_t*>(piece.bytes.data());
        return __atomic_load_n(word, __ATOMIC_SEQ_CST);
      }
      if (piece.kind != Piece::Kind::kResolve) break;
    }
    if (!impl_->ResolveForCopy(address, sizeof(uint32_t), {})) return Errno(EFAULT);
  }
  uint32_t word = 0;
  TRY(CopyInExactly(addr, std::as_writable_bytes(std::span(&word, 1))));
  return word;
}

Result<uint32_t> MemoryManager::CompareExchangeWord(UserAddr addr, uint32_t expected,
                                                    uint32_t desired) {
  const uint64_t address = addr.value();
  if (address % sizeof(uint32_t) != 0) return Errno(EINVAL);
  while (true) {
    {
      absl::ReaderMutexLock lock(&impl_->mu);
      const Piece piece = impl_->FindPieceLocked(address, sizeof(uint32_t), {.write = true});
      if (piece.kind == Piece::Kind::kFault) return Errno(EFAULT);
      if (piece.kind == Piece::Kind::kBytes) {
        auto* word = reinterpret_cast<uint32_t*>(piece.bytes.data());
        __atomic_compare_exchange_n(word, &expected, desired, false, __ATOMIC_SEQ_CST,
                                    __ATOMIC_SEQ_CST);
        return expected;
      }
      if (piece.kind != Piece::Kind::kResolve) break;
    }
    if (!impl_->ResolveForCopy(address, sizeof(uint32_t), {.write = true})) return Errno(EFAULT);
  }
  // A shared mapping of a host file: the sentry has no view of its page. Not atomic against a guest
  // thread that changes the word in the same instant; see README.md.
  uint32_t word = 0;
  TRY(CopyInExactly(addr, std::as_writable_bytes(std::span(&word, 1))));
  if (word == expected) TRY(CopyOutExactly(addr, std::as_bytes(std::span(&desired, 1))));
  return word;
}

Result<FutexKey> MemoryManager::GetFutexKey(UserAddr addr, bool shared) {
  const uint64_t address = addr.value();
  if (address % sizeof(uint32_t) != 0) return Errno(EINVAL);
  if (address >= impl_->address_max) return Errno(EFAULT);
  const FutexKey own{0, impl_->id, address};
  if (!shared) return own;
  absl::ReaderMutexLock lock(&impl_->mu);
  auto it = impl_->vmas.Find(address);
  if (it == impl_->vmas.end() || !it->second.accessible()) return Errno(EFAULT);
  const Vma& vma = it->second;
  if (!vma.shared) return own;
  const Mappable::Identity identity = vma.mappable->identity();
  // The top bit keeps the two kinds apart.
  return FutexKey{identity.device | uint64_t{1} << 63, identity.inode, vma.OffsetOf(address)};
}

}  // namespace sentry
