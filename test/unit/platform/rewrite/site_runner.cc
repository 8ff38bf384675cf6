#include "test/unit/platform/rewrite/site_runner.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>

#include <cstring>

#include "platform/base/check.h"

// Neither side's stack is used while the other's registers are loaded.
asm(R"(
  .text
  .globl ravelin_test_run_site
ravelin_test_run_site:            # rdi: start, rsi: SiteRegisters
  pushq %rbx
  pushq %rbp
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rdi, run_target(%rip)
  pushq 128(%rsi)
  popfq
  movq %rsp, run_stack(%rip)
  movq (%rsi), %rax
  movq 8(%rsi), %rcx
  movq 16(%rsi), %rdx
  movq 24(%rsi), %rbx
  movq 32(%rsi), %rsp
  movq 40(%rsi), %rbp
  movq 56(%rsi), %rdi
  movq 64(%rsi), %r8
  movq 72(%rsi), %r9
  movq 80(%rsi), %r10
  movq 88(%rsi), %r11
  movq 96(%rsi), %r12
  movq 104(%rsi), %r13
  movq 112(%rsi), %r14
  movq 120(%rsi), %r15
  movq 48(%rsi), %rsi
  jmp *run_target(%rip)

  .globl ravelin_test_site_entry
ravelin_test_site_entry:
  movq %rax, ravelin_test_seen(%rip)
  movq %rcx, 8+ravelin_test_seen(%rip)
  movq %rdx, 16+ravelin_test_seen(%rip)
  movq %rbx, 24+ravelin_test_seen(%rip)
  movq %rsp, 32+ravelin_test_seen(%rip)
  movq %rbp, 40+ravelin_test_seen(%rip)
  movq %rsi, 48+ravelin_test_seen(%rip)
  movq %rdi, 56+ravelin_test_seen(%rip)
  movq %r8, 64+ravelin_test_seen(%rip)
  movq %r9, 72+ravelin_test_seen(%rip)
  movq %r10, 80+ravelin_test_seen(%rip)
  movq %r11, 88+ravelin_test_seen(%rip)
  movq %r12, 96+ravelin_test_seen(%rip)
  movq %r13, 104+ravelin_test_seen(%rip)
  movq %r14, 112+ravelin_test_seen(%rip)
  movq %r15, 120+ravelin_test_seen(%rip)
  movq run_stack(%rip), %rsp
  pushfq
  popq 128+ravelin_test_seen(%rip)
  .globl ravelin_test_site_back
ravelin_test_site_back:
  movq run_stack(%rip), %rsp
  cld
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbp
  popq %rbx
  ret

  .bss
  .balign 8
run_target: .quad 0
run_stack: .quad 0
  .globl ravelin_test_seen
ravelin_test_seen: .zero 136
  .text
)");

extern "C" {
void ravelin_test_run_site(uint64_t start, const test::SiteRegisters* registers);
extern const char ravelin_test_site_entry[], ravelin_test_site_back[];
extern test::SiteRegisters ravelin_test_seen;
}

namespace test {
namespace {

using namespace platform::rewrite;

constexpr size_t kCodeBytes = 4 * 4096;
uint64_t stopped = 0;

void OnIllegal(int, siginfo_t*, void* context) {
  auto& registers = static_cast<ucontext_t*>(context)->uc_mcontext.gregs;
  stopped = static_cast<uint64_t>(registers[REG_RIP]);
  registers[REG_RIP] = reinterpret_cast<greg_t>(ravelin_test_site_back);
}

}  // namespace

SiteRunner::SiteRunner() {
  void* table = mmap(reinterpret_cast<void*>(kTableStart), kTableEnd - kTableStart,
                     PROT_READ | PROT_WRITE | PROT_EXEC,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  CHECK(table != MAP_FAILED);
  table_ = static_cast<uint8_t*>(table);
  memcpy(table_, FirstEntry(reinterpret_cast<uint64_t>(ravelin_test_site_entry)).data(),
         kEntryBytes);
  void* code = mmap(nullptr, kCodeBytes, PROT_READ | PROT_WRITE | PROT_EXEC,
                    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  CHECK(code != MAP_FAILED);
  code_ = static_cast<uint8_t*>(code);
  static std::array<char, 65536> stack;
  const stack_t alternate{stack.data(), 0, stack.size()};
  CHECK(sigaltstack(&alternate, nullptr) == 0);
  struct sigaction action{};
  action.sa_sigaction = OnIllegal;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  CHECK(sigaction(SIGILL, &action, nullptr) == 0);
}

SiteRunner::~SiteRunner() {
  munmap(table_, kTableEnd - kTableStart);
  munmap(code_, kCodeBytes);
}

std::span<uint8_t> SiteRunner::Place(uint64_t address, size_t length) {
  memset(code_, 0x06, kCodeBytes);
  return {code_ + address % 4096, length};
}

void SiteRunner::SetEntry(size_t index, const Trampoline& trampoline) {
  memcpy(table_ + index * kEntryBytes, EntryCode(index, trampoline).data(), kEntryBytes);
}

SiteRegisters SiteRunner::Run(uint64_t start, const SiteRegisters& registers,
                              uint64_t* stopped_at) {
  stopped = 0;
  ravelin_test_seen = {};
  ravelin_test_run_site(start, &registers);
  if (stopped_at != nullptr) *stopped_at = stopped;
  return ravelin_test_seen;
}

}  // namespace test
