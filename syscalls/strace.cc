// Decoding follows a short specification per system call: a letter for each argument, below. A call
// without one prints its arguments as hexadecimal numbers. Strings are cut at kTextBytesMax, so
// that a line stays readable and its cost bounded.

#include "syscalls/strace.h"

#include <fcntl.h>
#include <sys/mman.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstring>
#include <string_view>
#include <utility>
#include <vector>

#include "platform/base/log.h"
#include "sentry/kernel/task.h"

namespace syscalls {
namespace {

constexpr size_t kTextBytesMax = 80;

// d signed number, u unsigned, x hexadecimal, o octal (modes), f descriptor, D directory descriptor
// (AT_FDCWD), p path, O open flags, P memory protection, M mapping flags, s bytes in (count in the
// next argument), b bytes out (count is the result), v array of strings, S signal number, n nothing
// printed, w futex operation.
using Specification = std::pair<std::string_view, std::string_view>;
constexpr Specification kSpecifications[] = {
    {"read", "fbu"},
    {"write", "fsu"},
    {"open", "pOo"},
    {"close", "f"},
    {"stat", "px"},
    {"fstat", "fx"},
    {"lstat", "px"},
    {"poll", "xud"},
    {"lseek", "fdd"},
    {"mmap", "xuPMfx"},
    {"mprotect", "xuP"},
    {"munmap", "xu"},
    {"brk", "x"},
    {"rt_sigaction", "Sxxu"},
    {"rt_sigprocmask", "dxxu"},
    {"ioctl", "fxx"},
    {"pread64", "fbud"},
    {"pwrite64", "fsud"},
    {"readv", "fxd"},
    {"writev", "fxd"},
    {"access", "pd"},
    {"pipe", "x"},
    {"select", "dxxxx"},
    {"mremap", "xuudx"},
    {"madvise", "xud"},
    {"dup", "f"},
    {"dup2", "ff"},
    {"nanosleep", "xx"},
    {"alarm", "u"},
    {"sendfile", "ffxu"},
    {"socket", "dxd"},
    {"connect", "fxu"},
    {"accept", "fxx"},
    {"sendto", "fsuxxu"},
    {"recvfrom", "fbuxxx"},
    {"sendmsg", "fxx"},
    {"recvmsg", "fxx"},
    {"shutdown", "fd"},
    {"bind", "fxu"},
    {"listen", "fd"},
    {"socketpair", "dxdx"},
    {"setsockopt", "fddxu"},
    {"getsockopt", "fddxx"},
    {"clone", "xxxxx"},
    {"execve", "pvn"},
    {"exit", "d"},
    {"wait4", "dxdx"},
    {"kill", "dS"},
    {"uname", "x"},
    {"fcntl", "fdx"},
    {"flock", "fd"},
    {"fsync", "f"},
    {"fdatasync", "f"},
    {"truncate", "pd"},
    {"ftruncate", "fd"},
    {"getdents", "fxu"},
    {"getcwd", "xu"},
    {"chdir", "p"},
    {"fchdir", "f"},
    {"rename", "pp"},
    {"mkdir", "po"},
    {"rmdir", "p"},
    {"creat", "po"},
    {"link", "pp"},
    {"unlink", "p"},
    {"symlink", "pp"},
    {"readlink", "pbu"},
    {"chmod", "po"},
    {"fchmod", "fo"},
    {"chown", "pdd"},
    {"fchown", "fdd"},
    {"lchown", "pdd"},
    {"umask", "o"},
    {"mknod", "pox"},
    {"statfs", "px"},
    {"fstatfs", "fx"},
    {"prctl", "dxxxx"},
    {"arch_prctl", "xx"},
    {"setrlimit", "dx"},
    {"chroot", "p"},
    {"mount", "pppxx"},
    {"umount2", "pd"},
    {"gettid", ""},
    {"getpid", ""},
    {"getppid", ""},
    {"getuid", ""},
    {"geteuid", ""},
    {"getgid", ""},
    {"getegid", ""},
    {"setsid", ""},
    {"setpgid", "dd"},
    {"getpgid", "d"},
    {"getpgrp", ""},
    {"getsid", "d"},
    {"futex", "xwuxxx"},
    {"getdents64", "fxu"},
    {"clock_gettime", "dx"},
    {"clock_nanosleep", "ddxx"},
    {"exit_group", "d"},
    {"epoll_wait", "fxdd"},
    {"epoll_ctl", "fdfx"},
    {"tgkill", "ddS"},
    {"tkill", "dS"},
    {"waitid", "ddxxx"},
    {"inotify_add_watch", "fpx"},
    {"inotify_rm_watch", "fd"},
    {"openat", "DpOo"},
    {"mkdirat", "Dpo"},
    {"mknodat", "Dpox"},
    {"fchownat", "Dpddx"},
    {"newfstatat", "Dpxx"},
    {"unlinkat", "Dpx"},
    {"renameat", "DpDp"},
    {"linkat", "DpDpx"},
    {"symlinkat", "pDp"},
    {"readlinkat", "Dpbu"},
    {"fchmodat", "Dpo"},
    {"faccessat", "Dpd"},
    {"pselect6", "dxxxxx"},
    {"ppoll", "xuxxu"},
    {"set_robust_list", "xu"},
    {"utimensat", "Dpxx"},
    {"epoll_pwait", "fxddxu"},
    {"fallocate", "fxdd"},
    {"accept4", "fxxx"},
    {"eventfd2", "ux"},
    {"epoll_create1", "x"},
    {"dup3", "ffO"},
    {"pipe2", "xO"},
    {"preadv", "fxdx"},
    {"pwritev", "fxdx"},
    {"prlimit64", "ddxx"},
    {"renameat2", "DpDpx"},
    {"getrandom", "xux"},
    {"memfd_create", "px"},
    {"execveat", "Dpvnx"},
    {"copy_file_range", "fxfxux"},
    {"statx", "Dpxxx"},
    {"close_range", "uux"},
    {"openat2", "Dpxu"},
    {"faccessat2", "Dpdx"},
    {"fchmodat2", "Dpox"},
    {"getxattr", "ppxu"},
    {"lgetxattr", "ppxu"},
    {"splice", "fxfxux"},
};

struct Bit {
  uint64_t value;
  std::string_view name;
};
constexpr Bit kOpenBits[] = {{O_CREAT, "O_CREAT"},
                             {O_EXCL, "O_EXCL"},
                             {O_NOCTTY, "O_NOCTTY"},
                             {O_TRUNC, "O_TRUNC"},
                             {O_APPEND, "O_APPEND"},
                             {O_NONBLOCK, "O_NONBLOCK"},
                             {020040000 | O_DIRECTORY, "O_TMPFILE"},
                             {O_DIRECTORY, "O_DIRECTORY"},
                             {O_NOFOLLOW, "O_NOFOLLOW"},
                             {O_CLOEXEC, "O_CLOEXEC"},
                             {O_PATH, "O_PATH"},
                             {O_DIRECT, "O_DIRECT"},
                             {O_NOATIME, "O_NOATIME"}};
constexpr Bit kProtectionBits[] = {
    {PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}};
constexpr Bit kMappingBits[] = {{MAP_FIXED, "MAP_FIXED"},
                                {MAP_ANONYMOUS, "MAP_ANONYMOUS"},
                                {MAP_NORESERVE, "MAP_NORESERVE"},
                                {MAP_STACK, "MAP_STACK"},
                                {MAP_POPULATE, "MAP_POPULATE"},
                                {MAP_DENYWRITE, "MAP_DENYWRITE"},
                                {MAP_FIXED_NOREPLACE, "MAP_FIXED_NOREPLACE"},
                                {MAP_GROWSDOWN, "MAP_GROWSDOWN"}};

std::string Number(const char* format, uint64_t value) {
  char text[32];
  snprintf(text, sizeof(text), format, static_cast<unsigned long long>(value));
  return text;
}

std::string Bits(uint64_t value, std::span<const Bit> bits, std::string first) {
  for (const Bit& bit : bits) {
    if ((value & bit.value) != bit.value) continue;
    if (!first.empty()) first += '|';
    first += bit.name;
    value &= ~bit.value;
  }
  if (value != 0) first += (first.empty() ? "" : "|") + Number("%#llx", value);
  return first.empty() ? "0" : first;
}

std::string OpenFlags(uint64_t flags) {
  static constexpr std::array<const char*, 4> kModes = {"O_RDONLY", "O_WRONLY", "O_RDWR",
                                                        "O_ACCMODE"};
  return Bits(flags & 0xfffffffc & ~uint64_t{0100000}, kOpenBits, kModes[flags & 3]);
}

std::string MappingFlags(uint64_t flags) {
  static constexpr std::array<const char*, 4> kTypes = {"0", "MAP_SHARED", "MAP_PRIVATE",
                                                        "MAP_SHARED_VALIDATE"};
  return Bits(flags & ~uint64_t{3}, kMappingBits, kTypes[flags & 3]);
}

std::string Quote(std::string_view bytes, bool cut) {
  std::string text = "\"";
  for (const char byte : bytes) {
    if (byte == '\n') {
      text += "\\n";
    } else if (byte == '"' || byte == '\\') {
      text += {'\\', byte};
    } else if (byte >= ' ' && byte < 0x7f) {
      text += byte;
    } else {
      text += Number("\\x%02llx", static_cast<uint8_t>(byte));
    }
  }
  return text + (cut ? "\"..." : "\"");
}

std::string Bytes(sentry::Task& task, uint64_t address, uint64_t count) {
  std::array<char, kTextBytesMax> buffer;
  const size_t wanted = std::min<uint64_t>(count, buffer.size());
  if (wanted == 0) return address == 0 ? "NULL" : "\"\"";
  const base::Result<size_t> copied = task.memory().CopyInBytes(
      base::UserAddr(address), std::as_writable_bytes(std::span(buffer).first(wanted)));
  if (!copied.ok()) return Number("%#llx", address);
  return Quote({buffer.data(), copied.value()}, copied.value() < count);
}

std::string Path(sentry::Task& task, uint64_t address) {
  if (address == 0) return "NULL";
  const base::Result<std::string> path = task.memory().CopyInString(base::UserAddr(address), 4096);
  return path.ok() ? Quote(path.value(), false) : Number("%#llx", address);
}

std::string StringArray(sentry::Task& task, uint64_t address) {
  constexpr int kStringsMax = 16;
  std::string text = "[";
  for (int i = 0; i < kStringsMax; ++i) {
    const auto pointer =
        task.CopyIn(base::UserIn<uint64_t>(base::UserAddr(address + 8 * static_cast<uint64_t>(i))));
    if (!pointer.ok() || pointer.value() == 0) return text + "]";
    text += (i > 0 ? ", " : "") + Path(task, pointer.value());
  }
  return text + ", ...]";
}

std::string Signal(uint64_t number) {
  const char* name = number > 0 && number < 32 ? sigabbrev_np(static_cast<int>(number)) : nullptr;
  return name != nullptr ? std::string("SIG") + name : Number("%lld", number);
}

std::string Futex(uint64_t operation) {
  static constexpr std::array<const char*, 14> kNames = {
      "WAIT",           "WAKE",      "FD",         "REQUEUE",     "CMP_REQUEUE", "WAKE_OP",
      "LOCK_PI",        "UNLOCK_PI", "TRYLOCK_PI", "WAIT_BITSET", "WAKE_BITSET", "WAIT_REQUEUE_PI",
      "CMP_REQUEUE_PI", "LOCK_PI2"};
  const uint64_t command = operation & 0x7f;
  std::string text =
      command < kNames.size() ? std::string("FUTEX_") + kNames[command] : Number("%llu", command);
  if ((operation & 128) != 0) text += "_PRIVATE";
  if ((operation & 256) != 0) text += "|FUTEX_CLOCK_REALTIME";
  return text;
}

std::string_view SpecificationOf(std::string_view name) {
  for (const Specification& specification : kSpecifications) {
    if (specification.first == name) return specification.second;
  }
  return "xxxxxx";
}

const Row* RowOf(uint64_t number) {
  if (number >= kTableSize || X8664()[number].name.empty()) return nullptr;
  return &X8664()[number];
}

std::string Argument(sentry::Task& task, char letter, const RegisterFile& arguments, size_t index) {
  const uint64_t value = arguments[index];
  const uint64_t next = index + 1 < arguments.size() ? arguments[index + 1] : 0;
  switch (letter) {
    case 'd':
      return Number("%lld",
                    static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value))));
    case 'f':
      return Number("%lld",
                    static_cast<uint64_t>(static_cast<int64_t>(static_cast<int32_t>(value))));
    case 'D':
      return static_cast<int32_t>(value) == AT_FDCWD ? "AT_FDCWD" : Number("%lld", value);
    case 'u':
      return Number("%llu", value);
    case 'o':
      return Number("%#llo", value);
    case 'p':
      return Path(task, value);
    case 'O':
      return OpenFlags(value);
    case 'P':
      return value == 0 ? "PROT_NONE" : Bits(value, kProtectionBits, "");
    case 'M':
      return MappingFlags(value);
    case 's':
      return Bytes(task, value, next);
    case 'v':
      return StringArray(task, value);
    case 'S':
      return Signal(value);
    case 'w':
      return Futex(value);
    default:
      return Number("%#llx", value);
  }
}

std::string Outcome(int64_t result) {
  if (result >= 0 || result < -4095) {
    return result > 0xffff || result < 0 ? Number("%#llx", static_cast<uint64_t>(result))
                                         : Number("%lld", static_cast<uint64_t>(result));
  }
  const int error = static_cast<int>(-result);
  switch (error) {
    case 512:
      return "? ERESTARTSYS (interrupted, to be restarted if SA_RESTART)";
    case 513:
      return "? ERESTARTNOINTR (interrupted, to be restarted)";
    case 514:
      return "? ERESTARTNOHAND (interrupted, to be restarted if no handler)";
    case 516:
      return "? ERESTART_RESTARTBLOCK (interrupted by a signal)";
    default: {
      const char* name = strerrorname_np(error);
      return "-1 " + (name != nullptr ? std::string(name)
                                      : Number("errno %llu", static_cast<uint64_t>(error)));
    }
  }
}

}  // namespace

TracedCall::TracedCall(sentry::Task& task, uint64_t number, const RegisterFile& arguments)
    : task_(task), number_(number), arguments_(arguments), tid_(task.tid()) {
  const Row* row = RowOf(number);
  text_ = row != nullptr ? std::string(row->name) : Number("syscall_%llu", number);
  text_ += '(';
  const std::string_view specification = row != nullptr ? SpecificationOf(row->name) : "xxxxxx";
  bool first = true;
  for (size_t i = 0; i < specification.size(); ++i) {
    if (specification[i] == 'n') continue;
    if (!std::exchange(first, false)) text_ += ", ";
    text_ += Argument(task, specification[i], arguments, i);
  }
  text_ += ')';
  base::Log(base::LogLevel::kInfo, "[%d] %s ...", tid_, text_.c_str());
}

void TracedCall::Finish(int64_t result) const {
  std::string data;
  const Row* row = RowOf(number_);
  const std::string_view specification = row != nullptr ? SpecificationOf(row->name) : "";
  const size_t out = specification.find('b');
  if (result > 0 && out != std::string_view::npos) {
    data = " <- " + Bytes(task_, arguments_[out], static_cast<uint64_t>(result));
  }
  base::Log(base::LogLevel::kInfo, "[%d] %s = %s%s", tid_, text_.c_str(), Outcome(result).c_str(),
            data.c_str());
}

}  // namespace syscalls
