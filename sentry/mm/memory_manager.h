#pragma once

// One guest address space: VMAs, private pages, the copies in and out, and the platform's view of
// it all. Shared by the tasks that clone with CLONE_VM.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "platform/base/result.h"
#include "platform/base/user_addr.h"
#include "platform/memory/memory_pool.h"
#include "platform/platform.h"
#include "sentry/mm/mappable.h"

namespace sentry {

class AioContexts;
class File;
struct RewriteStats;

// mmap(2)'s arguments after validation of the descriptor.
struct MmapRequest {
  uint64_t address = 0;                // Hint, or exact with MAP_FIXED*.
  uint64_t length = 0;                 // > 0; rounded up inside.
  int protection = 0;                  // PROT_*
  int flags = 0;                       // MAP_*
  uint64_t offset = 0;                 // Page aligned.
  std::shared_ptr<Mappable> mappable;  // Null for anonymous memory.
  std::shared_ptr<File> file;   // Keeps the open file alive; name shown in maps. May be null.
  bool file_writable = true;    // May PROT_WRITE be given to a shared mapping later (VM_MAYWRITE)?
  bool file_executable = true;  // May PROT_EXEC be given (not on a noexec mount)?
  std::string name;             // For special areas: "[heap]", "[stack]", "[vdso]".
  bool grows_down = false;
};

struct MemoryLimits {
  uint64_t address_space_bytes = ~uint64_t{0};  // RLIMIT_AS
  uint64_t data_bytes = ~uint64_t{0};           // RLIMIT_DATA
  uint64_t stack_bytes = uint64_t{8} << 20;     // RLIMIT_STACK
  uint64_t locked_bytes = uint64_t{8} << 20;    // RLIMIT_MEMLOCK; ~0 with CAP_IPC_LOCK
  // RAM of the sandbox: a single private mapping beyond it is refused (overcommit_memory 0).
  uint64_t commit_bytes = ~uint64_t{0};
};

struct MemoryUsage {
  uint64_t virtual_bytes = 0;
  uint64_t virtual_bytes_max = 0;
  uint64_t resident_bytes = 0;
  uint64_t resident_bytes_max = 0;
  uint64_t shared_bytes = 0;
  uint64_t data_bytes = 0;
  uint64_t stack_bytes = 0;
  uint64_t text_bytes = 0;
  uint64_t locked_bytes = 0;
};

// One line of /proc/PID/maps.
struct VmaInfo {
  uint64_t start = 0;
  uint64_t end = 0;
  int protection = 0;
  bool shared = false;
  bool grows_down = false;
  uint64_t offset = 0;
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t resident_bytes = 0;
  uint64_t private_bytes = 0;
  std::string name;
  std::shared_ptr<File> file;
};

// What a fault becomes if it cannot be resolved.
struct FaultSignal {
  int signal = 0;  // SIGSEGV or SIGBUS
  int code = 0;    // SEGV_MAPERR, SEGV_ACCERR, BUS_ADRERR
};

// Identity of a futex word: (0, address space, address) for private ones, the object behind the
// mapping for shared ones.
struct FutexKey {
  uint64_t object_high = 0;
  uint64_t object_low = 0;
  uint64_t offset = 0;
  friend auto operator<=>(const FutexKey&, const FutexKey&) = default;
  template <typename H>
  friend H AbslHashValue(H hash, const FutexKey& key) {
    return H::combine(std::move(hash), key.object_high, key.object_low, key.offset);
  }
};

class MemoryManager : public std::enable_shared_from_this<MemoryManager> {
 public:
  // ENOMEM, EAGAIN from the platform. `pool` and `platform` outlive it. `layout_seed` randomises
  // mmap base, stack and brk (ASLR); 0 for none.
  static base::Result<std::shared_ptr<MemoryManager>> Create(platform::Platform& platform,
                                                             platform::MemoryPool& pool,
                                                             uint64_t layout_seed);
  ~MemoryManager();

  platform::AddressSpace& address_space();
  platform::MemoryPool& pool();

  // --- Copies. Thread-safe. They resolve faults as an access by the guest would (copy on write
  // included). CopyInBytes/CopyOutBytes: count copied before the first fault; EFAULT only if that
  // is zero.
  base::Result<size_t> CopyInBytes(base::UserAddr addr, std::span<std::byte> out);
  base::Result<size_t> CopyOutBytes(base::UserAddr addr, std::span<const std::byte> data);
  // All or EFAULT.
  base::Result<void> CopyInExactly(base::UserAddr addr, std::span<std::byte> out);
  base::Result<void> CopyOutExactly(base::UserAddr addr, std::span<const std::byte> data);
  // As a debugger does (ptrace POKE, /proc/PID/mem): ignores protection of private mappings.
  base::Result<size_t> ForceCopyIn(base::UserAddr addr, std::span<std::byte> out);
  base::Result<size_t> ForceCopyOut(base::UserAddr addr, std::span<const std::byte> data);
  // NUL-terminated, without the NUL. `bytes_max` counts the NUL: ENAMETOOLONG if none is found
  // within it.
  base::Result<std::string> CopyInString(base::UserAddr addr, size_t bytes_max);

  template <base::AbiSafe T>
  base::Result<T> CopyIn(base::UserIn<T> pointer) {
    T value;
    TRY(CopyInExactly(pointer.addr(), std::as_writable_bytes(std::span<T, 1>(&value, 1))));
    return value;
  }
  template <base::AbiSafe T>
  base::Result<T> CopyIn(base::UserInOut<T> pointer) {
    return CopyIn(pointer.in());
  }
  template <base::AbiSafe T>
  base::Result<void> CopyOut(base::UserOut<T> pointer, const std::type_identity_t<T>& value) {
    return CopyOutExactly(pointer.addr(), std::as_bytes(std::span<const T, 1>(&value, 1)));
  }
  template <base::AbiSafe T>
  base::Result<void> CopyOut(base::UserInOut<T> pointer, const std::type_identity_t<T>& value) {
    return CopyOut(pointer.out(), value);
  }
  // `count` elements; the caller has bounded it. All or EFAULT.
  template <base::AbiSafe T>
  base::Result<std::vector<T>> CopyInArray(base::UserAddr addr, size_t count) {
    std::vector<T> values(count);
    TRY(CopyInExactly(addr, std::as_writable_bytes(std::span<T>(values))));
    return values;
  }
  template <base::AbiSafe T>
  base::Result<void> CopyOutArray(base::UserAddr addr, std::span<const T> values) {
    return CopyOutExactly(addr, std::as_bytes(values));
  }

  // Atomic operations on naturally aligned guest words (futex, robust lists). EFAULT; EINVAL if
  // unaligned.
  base::Result<uint32_t> LoadWord(base::UserAddr addr);
  // Returns the old value; stored if it equalled `expected`.
  base::Result<uint32_t> CompareExchangeWord(base::UserAddr addr, uint32_t expected,
                                             uint32_t desired);
  // `shared`: false for FUTEX_PRIVATE_FLAG.
  base::Result<FutexKey> GetFutexKey(base::UserAddr addr, bool shared);

  // --- Mappings, by the rules of the system calls of the same names.
  // The checks of mmap that come before those of the file: what Mmap would answer, nothing changes.
  base::Result<void> CheckMmap(const MmapRequest& request);
  base::Result<uint64_t> Mmap(const MmapRequest& request);
  // remap_file_pages(2): the request that maps [start, start + length), which is shared and one
  // object, at the same place again. EINVAL if it is not that.
  base::Result<MmapRequest> RequestForShared(uint64_t start, uint64_t length) const;
  base::Result<void> Munmap(uint64_t address, uint64_t length);
  // shmdt(2): takes away all that is shown of one object, whose first byte would be at `address`;
  // the first such that `wanted` accepts. EINVAL if there is none.
  base::Result<void> UnmapObject(uint64_t address, bool (*wanted)(const Mappable&));
  // `protection` may hold PROT_GROWSDOWN.
  base::Result<void> Mprotect(uint64_t address, uint64_t length, int protection);
  base::Result<uint64_t> Mremap(uint64_t old_address, uint64_t old_length, uint64_t new_length,
                                int flags, uint64_t new_address);
  // Returns the resulting break, the old one if the request cannot be met, as Linux does.
  uint64_t Brk(uint64_t address);
  void SetBrkStart(uint64_t address);
  base::Result<void> Madvise(uint64_t address, uint64_t length, int advice);
  base::Result<void> Msync(uint64_t address, uint64_t length, int flags);
  base::Result<void> Mlock(uint64_t address, uint64_t length, bool on_fault);
  base::Result<void> Munlock(uint64_t address, uint64_t length);
  base::Result<void> MlockAll(int flags);
  void MunlockAll();
  // One byte per page.
  base::Result<std::vector<uint8_t>> Mincore(uint64_t address, uint64_t length);

  // Resolves a fault reported by the platform. nullopt: go on; else the signal to force.
  std::optional<FaultSignal> HandleFault(uint64_t address, uint8_t access);
  // The pages of a file that are registered by AddMapping changed their backing or are gone
  // (truncate).
  void InvalidateFile(const Mappable& mappable, uint64_t offset, uint64_t length);

  // --- System calls rewritten into jumps (platform/rewrite). The instruction at `site` trapped,
  // with this rax: rewrites it if it does so often.
  void NoteTrappedCall(uint64_t site, uint64_t rax, RewriteStats& stats);
  // For events other than kSyscall: turns one from inside a rewritten call into what it would be
  // had the code been left alone.
  void HideRewriting(platform::Event& event, platform::Registers& registers);

  // fork: private pages become copy-on-write on both sides. `alone`: no other thread of this memory
  // runs, so that pages may be copied instead.
  base::Result<std::shared_ptr<MemoryManager>> Fork(bool alone = false);
  // execve: between the two nothing is told to the platform, which maps nothing yet, and no guest
  // code runs here; then everything in one go.
  void StartLoading();
  void FinishLoading();
  // The last task has left: no guest code runs in here any more. Files are let go now, memory when
  // the platform says that it is out of reach.
  void ReleaseAll();
  // execve by the only user: an empty memory in the same address space, and this one is released.
  // Null if the platform cannot clear the address space for sure; nothing has changed then.
  std::shared_ptr<MemoryManager> TakeOver(uint64_t layout_seed);
  // If ReleaseAll was called: returns when guest code can touch nothing of this any more, and true.
  bool AwaitIfReleased();

  void SetLimits(const MemoryLimits& limits);
  MemoryLimits limits() const;
  MemoryUsage Usage() const;
  // In address order.
  std::vector<VmaInfo> Vmas() const;

  // Facts of the loaded program for /proc and prctl(PR_SET_MM); plain data guarded by the memory
  // lock.
  struct Image {
    uint64_t start_code = 0, end_code = 0, start_data = 0, end_data = 0;
    uint64_t start_brk = 0, start_stack = 0;
    uint64_t arg_start = 0, arg_end = 0, env_start = 0, env_end = 0;
    uint64_t vdso = 0;
    uint64_t entry = 0;
    std::vector<uint64_t> auxv;  // Pairs.
    std::shared_ptr<File> executable;
  };
  Image image() const;
  void SetImage(Image image);
  // True if every page of the range lies in some area.
  bool IsMapped(uint64_t address, uint64_t length) const;
  // io_setup(2): of this address space, null until the first call. Any thread.
  std::shared_ptr<AioContexts> aio() const;
  // Sets it if it is null; what it is afterwards. Null when the memory has been released.
  std::shared_ptr<AioContexts> SetAio(std::shared_ptr<AioContexts> contexts);
  // MEMBARRIER_CMD_REGISTER_* seen so far.
  std::atomic<uint32_t>& membarrier_registrations();
  // dumpable (prctl PR_SET_DUMPABLE).
  std::atomic<int>& dumpable();

  // Where new mappings may lie.
  uint64_t address_min() const;
  uint64_t address_max() const;
  // Places the mmap area below room for a stack of this limit, as execve does. Before the first
  // mapping.
  void ConfigureLayout(uint64_t stack_limit_bytes);

 private:
  friend class IoBuffer;
  friend class Leftovers;
  MemoryManager();
  static std::shared_ptr<MemoryManager> Make(platform::Platform& platform,
                                             platform::MemoryPool& pool,
                                             std::unique_ptr<platform::AddressSpace> space,
                                             uint64_t layout_seed);
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace sentry
