#include "platform/stub/filter_table.h"

#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include <csignal>
#include <cstddef>

#include "platform/base/check.h"
#include "platform/stub/stub_calls.h"

namespace platform {
namespace {

constexpr uint64_t kAll = ~uint64_t{0};
constexpr uint64_t kMapKinds = MAP_SHARED | MAP_PRIVATE | MAP_POPULATE;

constexpr FilterRule kFutexWait = {SYS_futex,
                                   "futex",
                                   {{{1, kAll, FUTEX_WAIT}}},
                                   "op = FUTEX_WAIT",
                                   "sleep until the sentry is done"};
constexpr FilterRule kFutexWake = {
    SYS_futex, "futex", {{{1, kAll, FUTEX_WAKE}}}, "op = FUTEX_WAKE", "wake the sentry"};
constexpr FilterRule kSigreturn = {
    SYS_rt_sigreturn, "rt_sigreturn", {}, "", "back into guest code with the sentry's registers"};
constexpr FilterRule kYield = {
    SYS_sched_yield, "sched_yield", {}, "", "let the sentry run when no CPU is free"};

constexpr std::array kGuestRules = {kSigreturn, kFutexWait, kFutexWake, kYield};

constexpr std::array kProcessRules = {
    kSigreturn,
    kFutexWait,
    kFutexWake,
    kYield,
    FilterRule{SYS_pwrite64,
               "pwrite64",
               {{{2, kAll, 1}}},
               "length = 1",
               "acknowledge a command, byte by byte, from constants"},
    FilterRule{SYS_mmap,
               "mmap",
               {{{2, ~uint64_t{7}, 0}, {3, ~kMapKinds, MAP_FIXED}}},
               "prot <= 7, flags = MAP_FIXED | {SHARED, PRIVATE, POPULATE}",
               "guest mappings"},
    FilterRule{SYS_munmap, "munmap", {}, "", "guest mappings"},
    FilterRule{SYS_mprotect, "mprotect", {{{2, ~uint64_t{7}, 0}}}, "prot <= 7", "guest mappings"},
    FilterRule{SYS_clone,
               "clone",
               {{{0, kAll, kCloneThread}}},
               "flags = VM | FS | FILES | SIGHAND | THREAD | SYSVSEM",
               "memory thread: guest threads"},
    FilterRule{SYS_clone,
               "clone",
               {{{0, kAll, kCloneProcess}}},
               "flags = FILES | PIDFD | SIGCHLD",
               "spawner: stub processes"},
    FilterRule{SYS_prctl,
               "prctl",
               {{{0, kAll, PR_SET_PDEATHSIG}, {1, kAll, SIGKILL}}},
               "PR_SET_PDEATHSIG, SIGKILL",
               "a stub dies with its spawner"},
    FilterRule{SYS_prctl,
               "prctl",
               {{{0, kAll, kPrSetSyscallUserDispatch}}},
               "PR_SET_SYSCALL_USER_DISPATCH",
               "guest threads: system calls trap"},
    FilterRule{SYS_seccomp,
               "seccomp",
               {{{0, kAll, SECCOMP_SET_MODE_FILTER}, {1, kAll, 0}}},
               "SECCOMP_SET_MODE_FILTER, flags = 0",
               "guest threads: put on the guest filter"},
    FilterRule{SYS_close_range,
               "close_range",
               {{{0, kAll, 0}, {2, kAll, kCloseRangeUnshare}}},
               "first = 0, CLOSE_RANGE_UNSHARE",
               "guest threads: hold no descriptors"},
    FilterRule{SYS_sigaltstack, "sigaltstack", {}, "", "guest threads: frames go to the context"},
    FilterRule{
        SYS_rt_sigprocmask, "rt_sigprocmask", {}, "", "guest threads: unblock before first entry"},
    FilterRule{SYS_exit_group, "exit_group", {}, "", "give up when something went wrong"},
};

constexpr uint32_t kOffsetNumber = offsetof(seccomp_data, nr);
constexpr uint32_t kOffsetArch = offsetof(seccomp_data, arch);
constexpr uint32_t kOffsetIp = offsetof(seccomp_data, instruction_pointer);
constexpr uint32_t kOffsetArgs = offsetof(seccomp_data, args);

class Program {
 public:
  void Load(uint32_t offset) { Add(BPF_LD | BPF_W | BPF_ABS, offset); }
  void And(uint32_t mask) { Add(BPF_ALU | BPF_AND | BPF_K, mask); }
  void Return(uint32_t verdict) { Add(BPF_RET | BPF_K, verdict); }
  // Goes on if the accumulator compares as wanted, else traps.
  void RequireEqual(uint32_t value) { Require(BPF_JEQ, value, true); }
  void RequireAtLeast(uint32_t value) { Require(BPF_JGE, value, true); }
  void RequireBelow(uint32_t value) { Require(BPF_JGE, value, false); }
  // Jumps to whatever Land() marks next if the accumulator is something else.
  void SkipUnlessEqual(uint32_t value) {
    open_.push_back(code_.size());
    Add(BPF_JMP | BPF_JEQ | BPF_K, value);
  }
  void Land() {
    for (size_t at : open_) {
      const size_t distance = code_.size() - at - 1;
      CHECK(distance <= 255);
      code_[at].jf = static_cast<uint8_t>(distance);
    }
    open_.clear();
  }
  std::vector<sock_filter> Take() { return std::move(code_); }

 private:
  void Add(int code, uint32_t k) { code_.push_back({static_cast<uint16_t>(code), 0, 0, k}); }
  void Require(int comparison, uint32_t value, bool wanted) {
    Add(BPF_JMP | comparison | BPF_K, value);
    (wanted ? code_.back().jt : code_.back().jf) = 1;
    Return(SECCOMP_RET_TRAP);
  }

  std::vector<sock_filter> code_;
  std::vector<size_t> open_;
};

void CheckWord(Program& program, uint32_t offset, uint32_t mask, uint32_t value) {
  if (mask == 0) return;
  program.Load(offset);
  if (mask != ~uint32_t{0}) program.And(mask);
  program.SkipUnlessEqual(value);
}

}  // namespace

std::span<const FilterRule> StubProcessFilter() { return kProcessRules; }
std::span<const FilterRule> StubGuestFilter() { return kGuestRules; }

std::vector<sock_filter> CompileFilter(std::span<const FilterRule> rules, uint64_t text_start,
                                       uint64_t text_end) {
  CHECK(text_start < text_end && text_start >> 32 == (text_end - 1) >> 32);
  Program program;
  program.Load(kOffsetArch);
  program.RequireEqual(AUDIT_ARCH_X86_64);
  program.Load(kOffsetIp + 4);
  program.RequireEqual(static_cast<uint32_t>(text_start >> 32));
  program.Load(kOffsetIp);
  program.RequireAtLeast(static_cast<uint32_t>(text_start));
  program.RequireBelow(static_cast<uint32_t>(text_end));
  for (const FilterRule& rule : rules) {
    program.Load(kOffsetNumber);
    program.SkipUnlessEqual(rule.number);
    for (const ArgCheck& check : rule.checks) {
      const uint32_t offset = kOffsetArgs + 8 * uint32_t{check.index};
      CheckWord(program, offset, static_cast<uint32_t>(check.mask),
                static_cast<uint32_t>(check.value));
      CheckWord(program, offset + 4, static_cast<uint32_t>(check.mask >> 32),
                static_cast<uint32_t>(check.value >> 32));
    }
    program.Return(SECCOMP_RET_ALLOW);
    program.Land();
  }
  program.Return(SECCOMP_RET_TRAP);
  return program.Take();
}

}  // namespace platform
