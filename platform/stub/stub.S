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
#define SYS_getpid 39
#define SYS_clone 56
#define SYS_getuid 102
#define SYS_getgid 104
#define SYS_geteuid 107
#define SYS_getppid 110
#define SYS_sigaltstack 131
#define SYS_prctl 157
#define SYS_gettid 186
#define SYS_futex 202
#define SYS_exit_group 231
#define SYS_seccomp 317
#define SYS_close_range 436

#define ARITHMETIC_FLAGS 0x8d5 // CF PF AF ZF SF OF

#define FUTEX_WAIT 0
#define FUTEX_WAKE 1
#define FUTEX_PRIVATE 128
#define EVERYBODY 0x7fffffff

// Linux's vDSO finds out the CPU from the limit of this segment.
#define CPU_SELECTOR 0x7b
#define CPU_MASK 0xfff

// CLONE_FILES | CLONE_PIDFD | SIGCHLD
#define CLONE_PROCESS (0x400 | 0x1000 | 17)

  .section .ravelin_stub, "a", @progbits
  .balign 4096
  .globl ravelin_stub_begin
  .hidden ravelin_stub_begin
ravelin_stub_begin:

// Waits until it is the guest's turn. rbx is the context; changes rax, rcx, rdx, rsi, rdi, r10, r11, r12.
// `turn`: where to go on.
  .macro wait_for_turn turn
  movl CONTEXT_SPINS(%rbx), %ecx
1:
  movl CONTEXT_STATE(%rbx), %eax
  cmpl $STATE_GUEST, %eax
  je \turn
  cmpl $STATE_BLOCKED, %eax
  je 3f
  pause
  decl %ecx
  jg 1b
  movl CONTEXT_YIELDS(%rbx), %r12d
2:
  movl CONTEXT_STATE(%rbx), %eax
  cmpl $STATE_GUEST, %eax
  je \turn
  cmpl $STATE_BLOCKED, %eax
  je 3f
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
  jmp \turn
  .endm

// Wakes the sentry if it sleeps. rbx is the context; changes rax, rcx, rdx, rsi, rdi, r11.
  .macro wake_sentry
  cmpl $0, CONTEXT_SENTRY_SLEEPS(%rbx)
  je 1f
  movl $CPU_SELECTOR, %eax
  lsll %eax, %eax
  andl $CPU_MASK, %eax
  movl %eax, CONTEXT_CPU(%rbx)
  leaq CONTEXT_STATE(%rbx), %rdi
  movl $FUTEX_WAKE, %esi
  movl $EVERYBODY, %edx
  movl $SYS_futex, %eax
  syscall
1:
  .endm

// ---- Fast entry --------------------------------------------------------------------------------
//
// Rewritten system calls come here instead of trapping: rax is the number, rcx the return address, r11
// free; all else is the guest's, flags, stack and red zone included. The thread's context is where the gs
// base points, as long as the guest has none of its own.
//
// A signal may come at each instruction; it is the interrupt, a single step, or the fault of a guest
// pointer. What was done so far can always be forgotten: systrap/fast_entry.cc finds the guest's
// registers from rip, and the sentry sees a system call. The table there follows the order of the
// labels here:
//   up to fast_flags    rax, rcx and the flags are the guest's
//   up to fast_pack     r11 is the number
//   at fast_pack        and the flags are in the upper 16 bits of rax
//   up to fast_rdx      of rcx; its lower 48 bits are the return address
//   up to fast_stored   and rdx is in the context; but
//     at fast_answered  all but rax and r11 is the guest's again,
//     in the yield      rdx is what rcx was, and the number is known
//   up to fast_whole    all general registers are, but the flags are in rcx
//   up to fast_published      the flags are in the context too
  .macro stub_symbols name:req, others:vararg
  .globl ravelin_stub_\name
  .hidden ravelin_stub_\name
  .ifnb \others
  stub_symbols \others
  .endif
  .endm
  stub_symbols fast_flags, fast_pack, fast_packed, fast_rdx, fast_stored, fast_whole, fast_published
  stub_symbols fast_answered, fast_yield, fast_yielded
fast_entry:
  movq %rax, %r11
ravelin_stub_fast_flags:
  lahf
  seto %al
  shlq $48, %rax
ravelin_stub_fast_pack:
  orq %rax, %rcx
ravelin_stub_fast_packed:
  rdgsbase %rax
  subq contexts(%rip), %rax
  testq %rax, not_contexts(%rip)
  jnz fast_trap
  addq contexts(%rip), %rax
  movq %rdx, CONTEXT_RDX(%rax)
ravelin_stub_fast_rdx:
  cmpq $ANSWERED_MAX, %r11
  jae fast_save
  leaq answers_by_number(%rip), %rdx
  movzbl (%rdx, %r11), %edx
  testl %edx, %edx
  jz fast_save
  subq contexts(%rip), %rax
  shrq $ANSWER_SHIFT, %rax
  addq answers(%rip), %rax
  cmpl $0, ANSWER_VALID(%rax)
  je fast_ask
  cmpl $ANSWER_BY_CODE, %edx
  jae fast_by_code
  movl (%rax, %rdx), %edx

// Back to the guest with the result in rdx.
fast_answer:
  movq %rcx, %rax
  shlq $16, %rax
  sarq $16, %rax
  movq %rax, %gs:CONTEXT_RIP
  movq %rcx, %rax
  shrq $48, %rax
  addb $0x7f, %al  // Sets OF if al was 1.
  sahf
  movq %rdx, %rax
  movq %gs:CONTEXT_RDX, %rdx
  movq %gs:CONTEXT_RIP, %rcx
ravelin_stub_fast_answered:
  jmp *%rcx

fast_by_code:
  cmpl $ANSWER_YIELD, %edx
  jne fast_futex
  movq %rcx, %rdx
ravelin_stub_fast_yield:
  movl $SYS_sched_yield, %eax
  syscall
  movl $SYS_sched_yield, %r11d
  movq %rdx, %rcx
ravelin_stub_fast_yielded:
  xorl %edx, %edx
  jmp fast_answer

// A wait whose word has changed. With a timeout it would have to be looked at, too.
fast_futex:
  movl %esi, %eax
  andl $~FUTEX_PRIVATE, %eax
  jnz fast_ask  // Not FUTEX_WAIT.
  testq %r10, %r10
  jnz fast_ask
  testl $3, %edi
  jnz fast_ask
  movq %gs:CONTEXT_RDX, %rdx
  cmpl (%rdi), %edx  // A fault here is the sentry's to report.
  je fast_ask
  movq $-11, %rdx  // -EAGAIN
  jmp fast_answer

fast_ask:
  rdgsbase %rax
fast_save:
  movq %r11, CONTEXT_RAX(%rax)
  movq %rdi, CONTEXT_RDI(%rax)
  movq %rsi, CONTEXT_RSI(%rax)
  movq %r10, CONTEXT_R10(%rax)
  movq %r8, CONTEXT_R8(%rax)
  movq %r9, CONTEXT_R9(%rax)
  movq %rcx, %rdx
  shlq $16, %rdx
  sarq $16, %rdx
  movq %rdx, CONTEXT_RIP(%rax)
  movq %rsp, CONTEXT_RSP(%rax)
  movq %rbx, CONTEXT_RBX(%rax)
  movq %rbp, CONTEXT_RBP(%rax)
  movq %r12, CONTEXT_R12(%rax)
  movq %r13, CONTEXT_R13(%rax)
  movq %r14, CONTEXT_R14(%rax)
  movq %r15, CONTEXT_R15(%rax)
ravelin_stub_fast_stored:
  movq %rax, %rbx
  rdfsbase %rax
  movq %rax, CONTEXT_FAST_FS_BASE(%rbx)
  leaq CONTEXT_FAST_FS_BASE(%rbx), %rsp
  pushfq
  popq %rax
  andl $~ARITHMETIC_FLAGS, %eax
  movq %rcx, %rdx
  shrq $48, %rdx
  movzbl %dh, %esi
  andl $1, %edx
  shll $11, %edx
  orl %esi, %eax
  orl %edx, %eax
  movq %rax, CONTEXT_EFLAGS(%rbx)
ravelin_stub_fast_whole:
  movl $STATE_FAST_CALL, %eax
fast_publish:
  xchgl %eax, CONTEXT_STATE(%rbx)
// An interrupt from here on: while the sentry has the turn, dropped, as in the handler below; else the
// guest is as the context says, and the thread goes on at fast_interrupted.
ravelin_stub_fast_published:
fast_published:
  wake_sentry
  wait_for_turn fast_resume

fast_resume:
  incl CONTEXT_TAKEN(%rbx)
  movl CONTEXT_COMMAND(%rbx), %eax
  testl $(COMMAND_XRSTOR | COMMAND_XSAVE | COMMAND_TRAP), %eax
  jnz fast_extended
1:
  cmpl $0, CONTEXT_SET_BASES(%rbx)
  je 2f
  movq CONTEXT_FS_BASE(%rbx), %rax
  wrfsbase %rax
2:
  movq CONTEXT_RIP(%rbx), %rcx
  movq CONTEXT_EFLAGS(%rbx), %r11
  testl $COMMAND_ALL, CONTEXT_COMMAND(%rbx)
  jz 3f
  movq CONTEXT_RCX(%rbx), %rcx
  movq CONTEXT_R11(%rbx), %r11
3:
  leaq CONTEXT_EFLAGS(%rbx), %rsp
  popfq
  movq CONTEXT_RAX(%rbx), %rax
  movq CONTEXT_RDI(%rbx), %rdi
  movq CONTEXT_RSI(%rbx), %rsi
  movq CONTEXT_RDX(%rbx), %rdx
  movq CONTEXT_R10(%rbx), %r10
  movq CONTEXT_R8(%rbx), %r8
  movq CONTEXT_R9(%rbx), %r9
  movq CONTEXT_RSP(%rbx), %rsp
  movq CONTEXT_RBP(%rbx), %rbp
  movq CONTEXT_R12(%rbx), %r12
  movq CONTEXT_R13(%rbx), %r13
  movq CONTEXT_R14(%rbx), %r14
  movq CONTEXT_R15(%rbx), %r15
  movq CONTEXT_RBX(%rbx), %rbx
  jmp *%gs:CONTEXT_RIP

fast_extended:
  testl $COMMAND_TRAP, %eax
  jz 4f
  // SIGILL: the handler hands over, on a frame with the extended state. Off the signal stack, so that the
  // frame is where it always is.
  leaq CONTEXT_STACK(%rbx), %rsp
  ud2
4:
  movl %eax, %ecx
  movl $-1, %eax
  movl $-1, %edx
  testl $COMMAND_XSAVE, %ecx
  jz 5f
  xsave64 CONTEXT_XSAVE(%rbx)
  movl $STATE_FAST_CALL, %eax
  jmp fast_publish_again
5:
  xrstor64 CONTEXT_XSAVE(%rbx)
  jmp 1b

// After an interrupt. rbx is the context. The guest has not run since the sentry gave the turn away, so what
// it was to run with is published; what does not stay in the context is loaded first.
fast_interrupted:
  movl CONTEXT_COMMAND(%rbx), %eax
  testl $(COMMAND_XSAVE | COMMAND_TRAP), %eax
  jnz fast_extended
  testl $COMMAND_XRSTOR, %eax
  jz 6f
  movl $-1, %eax
  movl $-1, %edx
  xrstor64 CONTEXT_XSAVE(%rbx)
6:
  cmpl $0, CONTEXT_SET_BASES(%rbx)
  je 7f
  movq CONTEXT_FS_BASE(%rbx), %rax
  wrfsbase %rax
7:
  rdfsbase %rax
  movq %rax, CONTEXT_FAST_FS_BASE(%rbx)
  movl $STATE_FAST_INTERRUPTED, %eax
fast_publish_again:
  xchgl %eax, CONTEXT_STATE(%rbx)
  jmp fast_published
fast_end:

// The gs base is the guest's own.
  .globl ravelin_stub_fast_trap
  .hidden ravelin_stub_fast_trap
ravelin_stub_fast_trap:
fast_trap:
  ud2

  .balign 8
contexts:
  .quad STUB_CONTEXTS
not_contexts:
  .quad ~((CONTEXTS_MAX - 1) * CONTEXT_BYTES)
answers:
  .quad STUB_ANSWERS

// For each number where in the thread's line its answer is; 0: the sentry's to answer.
answers_by_number:
  .fill SYS_sched_yield, 1, 0
  .byte ANSWER_YIELD
  .fill SYS_getpid - SYS_sched_yield - 1, 1, 0
  .byte ANSWER_PID
  .fill SYS_getuid - SYS_getpid - 1, 1, 0
  .byte ANSWER_UID
  .fill SYS_getgid - SYS_getuid - 1, 1, 0
  .byte ANSWER_GID
  .fill SYS_geteuid - SYS_getgid - 1, 1, 0
  .byte ANSWER_EFFECTIVE_UID, ANSWER_EFFECTIVE_GID  // geteuid, getegid
  .fill SYS_getppid - SYS_geteuid - 2, 1, 0
  .byte ANSWER_PARENT, ANSWER_PROCESS_GROUP  // getppid, getpgrp
  .fill SYS_gettid - SYS_getppid - 2, 1, 0
  .byte ANSWER_TID
  .fill SYS_futex - SYS_gettid - 1, 1, 0
  .byte ANSWER_FUTEX
  .fill ANSWERED_MAX - SYS_futex - 1, 1, 0
  .balign 8

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
  movl $0x8011, %r10d  // MAP_SHARED | MAP_FIXED | MAP_POPULATE
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
  wake_sentry
  wait_for_turn handler_resume

handler_resume:
  incl CONTEXT_TAKEN(%rbx)
  // Before anything that an interrupt could make us forget: see handler_in_stub.
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
  movq FRAME_RIP(%rsp), %rax
  leaq fast_published(%rip), %rcx
  cmpq %rcx, %rax
  jb handler_publish  // In the fast entry: the sentry finds out how far the call had come.
  leaq fast_end(%rip), %rcx
  cmpq %rcx, %rax
  jb handler_in_fast
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
  // The sentry may have given the turn away together with new bases that are not loaded yet: what
  // is published now must be the guest's.
  cmpl $0, CONTEXT_SET_BASES(%rbx)
  je handler_publish
  movq CONTEXT_FS_BASE(%rbx), %rax
  wrfsbase %rax
  movq CONTEXT_GS_BASE(%rbx), %rax
  wrgsbase %rax
  jmp handler_publish

// An interrupt while the thread hands over, waits or goes back on the fast path.
handler_in_fast:
  cmpl $STATE_GUEST, CONTEXT_STATE(%rbx)
  jne handler_sigreturn
  movq %rbx, FRAME_RBX(%rsp)
  leaq fast_interrupted(%rip), %rax
  movq %rax, FRAME_RIP(%rsp)
  jmp handler_sigreturn

die:
  movl $1, %edi
  movl $SYS_exit_group, %eax
  syscall
  ud2

  .globl ravelin_stub_end
  .hidden ravelin_stub_end
ravelin_stub_end:

  .section .note.GNU-stack, "", @progbits
