// What runs in stub processes: a spawner loop, a memory thread per process, guest threads' start and
// their signal handler. Position-independent; copied to STUB_TEXT of the spawner, inherited from there.
//
// Guest code runs in the same address space and can write any page that is writable, so the spawner
// and memory threads have no stack and no writable memory: all their state is in registers, and what
// they tell the sentry goes through pwrite(2) of constants into the control file, which guest threads,
// having no descriptors, cannot do. Nothing here protects itself from a guest thread that jumps in: such
// a thread is held by its seccomp filter (filter_table.cc), whatever it executes.

#include "platform/stub/layout.h"

#define SYS_mmap 9
#define SYS_munmap 11
#define SYS_rt_sigprocmask 14
#define SYS_rt_sigreturn 15
#define SYS_pwrite64 18
#define SYS_sched_yield 24
#define SYS_clone 56
#define SYS_sigaltstack 131
#define SYS_prctl 157
#define SYS_futex 202
#define SYS_exit_group 231
#define SYS_seccomp 317
#define SYS_close_range 436

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define EVERYBODY 0x7fffffff

// CLONE_FILES | CLONE_PIDFD | SIGCHLD
#define CLONE_PROCESS (0x400 | 0x1000 | 17)

  .section .ravelin_stub, "a", @progbits
  .balign 4096
  .globl ravelin_stub_begin
  .hidden ravelin_stub_begin
ravelin_stub_begin:

// ---- Spawner -----------------------------------------------------------------------------------

// The bootstrap jumps here when the stub's pages are mapped; everything else goes now.
  .globl ravelin_stub_spawner
  .hidden ravelin_stub_spawner
ravelin_stub_spawner:
  xorl %edi, %edi
  movabsq $STUB_START, %rsi
  movl $SYS_munmap, %eax
  syscall
  testq %rax, %rax
  jnz die
  movl $1, %edi  // SECCOMP_SET_MODE_FILTER
  xorl %esi, %esi
  movabsq $(STUB_DATA + DATA_PROCESS_PROG), %rdx
  movl $SYS_seccomp, %eax
  syscall
  testq %rax, %rax
  jnz die
  movabsq $STUB_MAILBOX, %rbx
  xorl %r12d, %r12d  // The last request that was answered.

spawner_wait:
  movl MAILBOX_REQUEST(%rbx), %eax
  cmpl %r12d, %eax
  jne spawner_clone
  leaq MAILBOX_REQUEST(%rbx), %rdi
  movl $FUTEX_WAIT, %esi
  movl %r12d, %edx
  xorl %r10d, %r10d
  movl $SYS_futex, %eax
  syscall
  jmp spawner_wait

spawner_clone:
  movl %eax, %r12d
  movq MAILBOX_CONTROL_FD(%rbx), %r14
  movq MAILBOX_COMMAND_OFFSET(%rbx), %r15
  movl $CLONE_PROCESS, %edi
  xorl %esi, %esi
  leaq MAILBOX_PIDFD(%rbx), %rdx
  xorl %r10d, %r10d
  xorl %r8d, %r8d
  movl $SYS_clone, %eax
  syscall
  testq %rax, %rax
  jz process_start
  movq %rax, MAILBOX_RESULT(%rbx)
  movl %r12d, MAILBOX_DONE(%rbx)
  leaq MAILBOX_DONE(%rbx), %rdi
  movl $FUTEX_WAKE, %esi
  movl $EVERYBODY, %edx
  movl $SYS_futex, %eax
  syscall
  jmp spawner_wait

// ---- Memory thread -----------------------------------------------------------------------------
//
// rbx command page, r12 last sequence number seen, r13 index in the batch, rbp entry at hand.

process_start:
  movl $1, %edi  // PR_SET_PDEATHSIG
  movl $9, %esi
  movl $SYS_prctl, %eax
  syscall
  testq %rax, %rax
  jnz die
  movabsq $STUB_COMMAND, %rdi
  movl $0x1000, %esi
  movl $1, %edx     // PROT_READ
  movl $0x11, %r10d  // MAP_SHARED | MAP_FIXED
  movq %r14, %r8
  movq %r15, %r9
  movl $SYS_mmap, %eax
  syscall
  movabsq $STUB_COMMAND, %rbx
  cmpq %rbx, %rax
  jne die
  jmp batch  // The first one waits already; its acknowledgement says that the process is there.

memory_wait:
  leaq COMMAND_SEQUENCE(%rbx), %rdi
  movl $FUTEX_WAIT, %esi
  movl %r12d, %edx
  xorl %r10d, %r10d
  movl $SYS_futex, %eax
  syscall
  cmpl COMMAND_SEQUENCE(%rbx), %r12d
  je memory_wait
batch:
  movl COMMAND_SEQUENCE(%rbx), %r12d
  xorl %r13d, %r13d
batch_next:
  cmpl COMMAND_COUNT(%rbx), %r13d
  jae batch_succeeded
  movl %r13d, %ebp
  shlq $6, %rbp
  leaq COMMAND_ENTRIES(%rbx, %rbp), %rbp
  movq 0(%rbp), %rax
  movq 8(%rbp), %rdi
  movq 16(%rbp), %rsi
  movq 24(%rbp), %rdx
  movq 32(%rbp), %r10
  movq 40(%rbp), %r8
  movq 48(%rbp), %r9
  syscall
  cmpq $SYS_clone, 0(%rbp)
  jne 1f
  testq %rax, %rax
  jz thread_start
1:
  cmpq $-4095, %rax
  jae batch_failed
  testl $ENTRY_REPORTS_VALUE, COMMAND_ENTRY_FLAGS(%rbp)
  jz 4f
  movq %rax, %r15
  movl $COMMAND_VALUE, %r14d
2:
  leaq 3f(%rip), %r8
  jmp write_byte
3:
  shrq $8, %r15
  incl %r14d
  cmpl $(COMMAND_VALUE + 4), %r14d
  jb 2b
4:
  incl %r13d
  jmp batch_next

batch_failed:
  negl %eax
  movl %eax, %ebp
  movl %r13d, %r15d
  movl $COMMAND_FAILED_INDEX, %r14d
  leaq 1f(%rip), %r8
  jmp write_byte
1:
  leal 1(%rbp), %r15d
  jmp batch_acknowledge
batch_succeeded:
  movl $1, %r15d
batch_acknowledge:
  movl $COMMAND_RESULT, %r14d
  leaq 1f(%rip), %r8
  jmp write_byte
1:
  leaq COMMAND_RESULT(%rbx), %rdi
  movl $FUTEX_WAKE, %esi
  movl $EVERYBODY, %edx
  movl $SYS_futex, %eax
  syscall
  jmp memory_wait

// Writes r15's low byte to the command page at offset r14, through the control file. Returns to r8.
write_byte:
  movq COMMAND_CONTROL_FD(%rbx), %rdi
  movabsq $(STUB_DATA + DATA_BYTES), %rsi
  movzbl %r15b, %edx
  addq %rdx, %rsi
  movl $1, %edx
  movq COMMAND_PAGE_OFFSET(%rbx), %r10
  addq %r14, %r10
  movl $SYS_pwrite64, %eax
  syscall
  cmpq $1, %rax
  jne die
  jmp *%r8

// ---- Guest threads -----------------------------------------------------------------------------

// rbx command page, r8 the thread's context, r9 its mode. All signals are blocked. The sentry leaves
// the command page alone until the context's state says that the thread is there.
thread_start:
  movq %r8, %r12
  movq %r9, %r13
  xorl %edi, %edi
  movl $0xffffffff, %esi
  movl $2, %edx  // CLOSE_RANGE_UNSHARE
  movl $SYS_close_range, %eax
  syscall
  testq %rax, %rax
  jnz die
  leaq COMMAND_STACK(%rbx), %rdi
  xorl %esi, %esi
  movl $SYS_sigaltstack, %eax
  syscall
  testq %rax, %rax
  jnz die
  movl $2, %edi  // SIG_SETMASK
  movabsq $(STUB_DATA + DATA_ZERO), %rsi
  xorl %edx, %edx
  movl $8, %r10d
  movl $SYS_rt_sigprocmask, %eax
  syscall
  testq %rax, %rax
  jnz die
  testl $THREAD_DISPATCH, %r13d
  jz 1f
  movl $59, %edi  // PR_SET_SYSCALL_USER_DISPATCH
  movl $1, %esi
  movabsq $STUB_TEXT, %rdx
  movl $STUB_TEXT_BYTES, %r10d
  xorl %r8d, %r8d
  movl $SYS_prctl, %eax
  syscall  // A host without it traps by seccomp, a little slower.
1:
  movl $1, %edi  // SECCOMP_SET_MODE_FILTER
  xorl %esi, %esi
  movabsq $(STUB_DATA + DATA_GUEST_PROG), %rdx
  movl $SYS_seccomp, %eax
  syscall
  testq %rax, %rax
  jnz die
  testl $THREAD_TRAPS, %r13d
  jz 2f
  // Refused by the filter: the handler below takes over, on a frame that the kernel made.
  movl $SYS_exit_group, %eax
  syscall
2:
  movq %r12, %rbx
  // Falls through: a thread that will be traced waits here for its tracer.

// Where a thread without a tracer waits. rbx is its context.
  .globl ravelin_stub_park
  .hidden ravelin_stub_park
ravelin_stub_park:
  movl $STATE_SENTRY, %eax
  xchgl %eax, CONTEXT_STATE(%rbx)
  leaq CONTEXT_STATE(%rbx), %rdi
  movl $FUTEX_WAKE, %esi
  movl $EVERYBODY, %edx
  movl $SYS_futex, %eax
  syscall
1:
  leaq CONTEXT_STATE(%rbx), %rdi
  movl $FUTEX_WAIT, %esi
  movl $STATE_SENTRY, %edx
  xorl %r10d, %r10d
  movl $SYS_futex, %eax
  syscall
  jmp 1b

// The handler of every signal that a guest thread can get, on the signal stack in the thread's context.
//
// The common way back is not rt_sigreturn but XRSTOR and IRETQ, at half the price. So that there is no
// signal mask to restore, no signal is blocked here but the interrupt in its own handler; and the
// interrupt may arrive anywhere in this code:
//   before the event is published: dropped; the sentry remembers that it interrupted and sees the event;
//   while the sentry has the turn: dropped; the sentry looks again when it has given the turn away;
//   while we have the turn: the guest's frame becomes the interrupt's.
  .globl ravelin_stub_handler
  .hidden ravelin_stub_handler
ravelin_stub_handler:
  movq %rsp, %rbx
  andq $-CONTEXT_BYTES, %rbx
  movq FRAME_RIP(%rsp), %rax
  movabsq $STUB_TEXT, %rcx
  subq %rcx, %rax
  cmpq $STUB_TEXT_BYTES, %rax
  jb handler_in_stub
handler_publish:
  rdfsbase %rax
  movq %rax, CONTEXT_FS_BASE(%rbx)
  rdgsbase %rax
  movq %rax, CONTEXT_GS_BASE(%rbx)
  movq %rsp, CONTEXT_FRAME(%rbx)
  movl $STATE_SENTRY, %eax
  xchgl %eax, CONTEXT_STATE(%rbx)
handler_published:
  cmpl $0, CONTEXT_SENTRY_SLEEPS(%rbx)
  je handler_wait
  leaq CONTEXT_STATE(%rbx), %rdi
  movl $FUTEX_WAKE, %esi
  movl $EVERYBODY, %edx
  movl $SYS_futex, %eax
  syscall

handler_wait:
  movl CONTEXT_SPINS(%rbx), %ecx
1:
  cmpl $STATE_GUEST, CONTEXT_STATE(%rbx)
  je handler_resume
  pause
  decl %ecx
  jg 1b
  movl CONTEXT_YIELDS(%rbx), %r12d
2:
  cmpl $STATE_GUEST, CONTEXT_STATE(%rbx)
  je handler_resume
  decl %r12d
  js 3f
  movl $SYS_sched_yield, %eax
  syscall
  jmp 2b
3:
  movl $1, %eax
  xchgl %eax, CONTEXT_STUB_SLEEPS(%rbx)
4:
  movl CONTEXT_STATE(%rbx), %edx
  cmpl $STATE_GUEST, %edx
  je 5f
  leaq CONTEXT_STATE(%rbx), %rdi
  movl $FUTEX_WAIT, %esi
  xorl %r10d, %r10d
  movl $SYS_futex, %eax
  syscall
  jmp 4b
5:
  movl $0, CONTEXT_STUB_SLEEPS(%rbx)

handler_resume:
  cmpl $0, CONTEXT_SET_BASES(%rbx)
  je 1f
  movq CONTEXT_FS_BASE(%rbx), %rax
  wrfsbase %rax
  movq CONTEXT_GS_BASE(%rbx), %rax
  wrgsbase %rax
1:
  cmpl $INTERRUPT_SIGNAL, FRAME_SIGNAL(%rsp)
  je handler_sigreturn
  movq FRAME_FPSTATE(%rsp), %rcx
  movl $-1, %eax
  movl $-1, %edx
  xrstor64 (%rcx)
  pushq $0x202  // NT, which the guest may have set, would make IRETQ fault.
  popfq
  // What IRETQ takes, in the red zone, which a nested signal leaves alone.
  movq FRAME_RIP(%rsp), %rax
  movq %rax, -40(%rsp)
  movq $0x33, -32(%rsp)
  movq FRAME_EFLAGS(%rsp), %rax
  movq %rax, -24(%rsp)
  movq FRAME_RSP(%rsp), %rax
  movq %rax, -16(%rsp)
  movq $0x2b, -8(%rsp)
  movq FRAME_R8(%rsp), %r8
  movq FRAME_R9(%rsp), %r9
  movq FRAME_R10(%rsp), %r10
  movq FRAME_R11(%rsp), %r11
  movq FRAME_R12(%rsp), %r12
  movq FRAME_R13(%rsp), %r13
  movq FRAME_R14(%rsp), %r14
  movq FRAME_R15(%rsp), %r15
  movq FRAME_RDI(%rsp), %rdi
  movq FRAME_RSI(%rsp), %rsi
  movq FRAME_RBP(%rsp), %rbp
  movq FRAME_RBX(%rsp), %rbx
  movq FRAME_RDX(%rsp), %rdx
  movq FRAME_RAX(%rsp), %rax
  movq FRAME_RCX(%rsp), %rcx
  leaq -40(%rsp), %rsp
  iretq

handler_sigreturn:
  addq $8, %rsp  // The kernel expects the return address to be popped.
  .globl ravelin_stub_restorer
  .hidden ravelin_stub_restorer
ravelin_stub_restorer:
  movl $SYS_rt_sigreturn, %eax
  syscall
handler_end:

// A signal while the thread was in the stub's text. edi is the signal, rsp its frame, rbx the context.
handler_in_stub:
  // Not an interrupt: a new thread's first trap, or a guest that jumped here and gets what it deserves.
  cmpl $INTERRUPT_SIGNAL, %edi
  jne handler_publish
  // Not on our stack: a guest that jumped here too.
  movq FRAME_RSP(%rsp), %rax
  andq $-CONTEXT_BYTES, %rax
  cmpq %rbx, %rax
  jne handler_publish
  movq FRAME_RIP(%rsp), %rax
  leaq handler_published(%rip), %rcx
  cmpq %rcx, %rax
  jb handler_sigreturn
  leaq handler_end(%rip), %rcx
  cmpq %rcx, %rax
  jae handler_sigreturn
  cmpl $STATE_GUEST, CONTEXT_STATE(%rbx)
  jne handler_sigreturn
  // Forget this frame. The guest's is as it was; going back by rt_sigreturn unblocks the signal.
  movq CONTEXT_FRAME(%rbx), %rsp
  movl $INTERRUPT_SIGNAL, FRAME_SIGNAL(%rsp)
  jmp handler_publish

die:
  movl $1, %edi
  movl $SYS_exit_group, %eax
  syscall
  ud2

  .globl ravelin_stub_end
  .hidden ravelin_stub_end
ravelin_stub_end:

  .section .note.GNU-stack, "", @progbits
