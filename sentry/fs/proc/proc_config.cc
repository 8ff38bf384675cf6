// /proc/config.gz: what this kernel was "built with", for programs that look there before they use
// something. gzip (RFC 1952) around one stored block (RFC 1951): nothing is compressed.

#include <array>
#include <string>

#include "sentry/fs/proc/proc_internal.h"

namespace sentry {
namespace {

constexpr std::string_view kConfig =
    "#\n# Automatically generated file; DO NOT EDIT.\n# Linux/x86 6.12.0 Kernel Configuration\n#\n"
    "CONFIG_64BIT=y\nCONFIG_X86_64=y\nCONFIG_X86=y\nCONFIG_SMP=y\nCONFIG_MMU=y\n"
    "CONFIG_LOCALVERSION=\"-ravelin\"\nCONFIG_HZ=100\n"
    "CONFIG_SWAP=y\nCONFIG_SYSVIPC=y\nCONFIG_SYSVIPC_SYSCTL=y\nCONFIG_POSIX_MQUEUE=y\n"
    "CONFIG_POSIX_TIMERS=y\nCONFIG_PRINTK=y\nCONFIG_BINFMT_ELF=y\nCONFIG_BINFMT_SCRIPT=y\n"
    "CONFIG_COREDUMP=y\nCONFIG_FUTEX=y\nCONFIG_FUTEX_PI=y\nCONFIG_EPOLL=y\nCONFIG_SIGNALFD=y\n"
    "CONFIG_TIMERFD=y\nCONFIG_EVENTFD=y\nCONFIG_SHMEM=y\nCONFIG_AIO=y\nCONFIG_ADVISE_SYSCALLS=y\n"
    "CONFIG_MEMBARRIER=y\nCONFIG_MULTIUSER=y\nCONFIG_SGETMASK_SYSCALL=y\nCONFIG_SYSFS_SYSCALL=y\n"
    "CONFIG_CHECKPOINT_RESTORE=y\nCONFIG_CROSS_MEMORY_ATTACH=y\nCONFIG_SECCOMP=y\n"
    "CONFIG_SECCOMP_FILTER=y\nCONFIG_KEYS=y\nCONFIG_BIG_KEYS=y\nCONFIG_PERSISTENT_KEYRINGS=y\n"
    "CONFIG_PROC_FS=y\nCONFIG_PROC_SYSCTL=y\nCONFIG_SYSFS=y\nCONFIG_TMPFS=y\n"
    "CONFIG_TMPFS_XATTR=y\nCONFIG_OVERLAY_FS=y\nCONFIG_FILE_LOCKING=y\nCONFIG_FSNOTIFY=y\n"
    "CONFIG_DNOTIFY=y\nCONFIG_INOTIFY_USER=y\nCONFIG_UNIX98_PTYS=y\nCONFIG_TTY=y\n"
    "CONFIG_NET=y\nCONFIG_UNIX=y\nCONFIG_INET=y\nCONFIG_IPV6=y\nCONFIG_IKCONFIG=y\n"
    "CONFIG_IKCONFIG_PROC=y\n"
    "# CONFIG_NUMA is not set\n# CONFIG_HUGETLBFS is not set\n# CONFIG_MODULES is not set\n"
    "# CONFIG_BSD_PROCESS_ACCT is not set\n# CONFIG_QUOTA is not set\n# CONFIG_FANOTIFY is not "
    "set\n"
    "# CONFIG_USERFAULTFD is not set\n# CONFIG_BPF_SYSCALL is not set\n# CONFIG_IO_URING is not "
    "set\n"
    "# CONFIG_SECURITY_LANDLOCK is not set\n# CONFIG_MODIFY_LDT_SYSCALL is not set\n";
static_assert(kConfig.size() < 65536);  // One stored block.

uint32_t Crc32(std::string_view data) {
  uint32_t crc = ~uint32_t{0};
  for (const char c : data) {
    crc ^= static_cast<uint8_t>(c);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0xedb88320U : 0U);
  }
  return ~crc;
}

void AppendLittle(std::string& out, uint32_t value, int bytes) {
  for (int i = 0; i < bytes; ++i) out += static_cast<char>((value >> (8 * i)) & 0xff);
}

std::string Gzip(std::string_view data) {
  constexpr std::array<char, 10> kHeader = {'\x1f', '\x8b', 8, 0, 0, 0, 0, 0, 0, 3};
  std::string out(kHeader.data(), kHeader.size());
  const auto length = static_cast<uint32_t>(data.size());
  out += '\x01';  // The last block, stored.
  AppendLittle(out, length, 2);
  AppendLittle(out, ~length & 0xffff, 2);
  out += data;
  AppendLittle(out, Crc32(data), 4);
  AppendLittle(out, length, 4);
  return out;
}

}  // namespace

void AddConfigFile(ProcFileSystem& file_system, StaticDirectory& root) {
  AddText(file_system, root, "config.gz",
          [text = Gzip(kConfig)](Task&) -> base::Result<std::string> { return text; });
}

}  // namespace sentry
