// The stub's addresses and the offsets of what it shares with the sentry: read by the assembler and
// by C++ alike, hence macros only. shared_pages.h checks the offsets against the structs.
//
// Guest code owns the address space below STUB_START. Above lie, in every stub process:
//
//   STUB_TEXT      stub.S, read and execute
//   STUB_DATA      constants: seccomp programs, a table of all bytes; read-only
//   STUB_COMMAND   the sentry's commands to the memory thread; read-only
//   STUB_MAILBOX   the spawner's only: requests for new processes
//   STUB_CONTEXTS  one region of CONTEXT_BYTES per guest thread; read-write, so it is input to the
//   sentry
//   STUB_ANSWERS   one line per guest thread, in the order of the contexts: what the stub answers
//   without the sentry; read-only
#pragma once

#define STUB_START 0x7fff00000000
#define STUB_END 0x7ffffffff000
#define STUB_TEXT 0x7fff00010000
#define STUB_TEXT_BYTES 0x10000
#define STUB_FAST_ENTRY STUB_TEXT /* Where rewritten system calls arrive; see stub.S. */
#define STUB_DATA 0x7fff00020000
#define STUB_DATA_BYTES 0x4000
#define STUB_COMMAND 0x7fff00040000
#define STUB_MAILBOX 0x7fff00050000
#define STUB_CONTEXTS 0x7fff10000000
#define STUB_ANSWERS 0x7fff40000000
#define CONTEXT_BYTES 0x4000
#define CONTEXTS_MAX 0x8000
#define ANSWER_BYTES 0x40
#define ANSWER_SHIFT 8 /* CONTEXT_BYTES / ANSWER_BYTES is 1 << ANSWER_SHIFT. */

/* Of STUB_DATA. */
#define DATA_BYTES 0x0          /* 256 bytes: 0, 1, ... 255. */
#define DATA_ZERO 0x100         /* 8 bytes of zero: the empty signal mask. */
#define DATA_PROCESS_PROG 0x110 /* struct sock_fprog of spawner and memory threads. */
#define DATA_GUEST_PROG 0x120   /* struct sock_fprog of guest threads. */
#define DATA_PROGRAMS 0x200     /* Their instructions. */

/* Of the command page. */
#define COMMAND_SEQUENCE 0
#define COMMAND_COUNT 4
#define COMMAND_CONTROL_FD 16
#define COMMAND_PAGE_OFFSET 24
#define COMMAND_RESULT 32
#define COMMAND_FAILED_INDEX 33
#define COMMAND_VALUE 40
#define COMMAND_STACK 64
#define COMMAND_ENTRIES 128
#define COMMAND_ENTRIES_MAX 62
#define COMMAND_ENTRY_FLAGS 56

#define ENTRY_REPORTS_VALUE 1

/* Of the mailbox. */
#define MAILBOX_REQUEST 0
#define MAILBOX_DONE 4
#define MAILBOX_CONTROL_FD 16
#define MAILBOX_COMMAND_OFFSET 24
#define MAILBOX_RESULT 32
#define MAILBOX_PIDFD 40

/* Of a thread's context: four lines of the cache, the extended state of the fast path, and from
   CONTEXT_STACK to CONTEXT_BYTES the signal stack. The first line has what a system call needs, so
   that a cheap call costs one line's way to the other CPU and back. */
#define CONTEXT_STATE 0
#define CONTEXT_COMMAND 4
#define CONTEXT_RAX 8
#define CONTEXT_RDI 16
#define CONTEXT_RSI 24
#define CONTEXT_RDX 32
#define CONTEXT_R10 40
#define CONTEXT_R8 48
#define CONTEXT_R9 56
/* Written by the stub at each call of the fast path. */
#define CONTEXT_RIP 64
#define CONTEXT_RSP 72
#define CONTEXT_RBX 80
#define CONTEXT_RBP 88
#define CONTEXT_R12 96
#define CONTEXT_R13 104
#define CONTEXT_R14 112
#define CONTEXT_R15 120
#define CONTEXT_EFLAGS 128
#define CONTEXT_FAST_FS_BASE 136
#define CONTEXT_RCX 144
#define CONTEXT_R11 152
#define CONTEXT_TAKEN 160 /* Counts the turns that the thread has noticed. */
#define CONTEXT_CPU 164   /* Where it last handed over to a sentry that slept. */
/* Seldom written. */
#define CONTEXT_STUB_SLEEPS 192
#define CONTEXT_SENTRY_SLEEPS 196
#define CONTEXT_SPINS 200
#define CONTEXT_YIELDS 204
#define CONTEXT_SET_BASES 208
#define CONTEXT_FRAME 216
#define CONTEXT_FS_BASE 224
#define CONTEXT_GS_BASE 232
#define CONTEXT_XSAVE 256
#define CONTEXT_STACK 0x1000

/* Values of CONTEXT_STATE: whose turn it is, and what the stub waits in. */
#define STATE_GUEST 0
#define STATE_SENTRY 1 /* After a signal; its frame has the guest's registers. */
#define STATE_STARTING 2
#define STATE_FAST_CALL 3 /* After a call at the fast entry; the context has the registers, */
#define STATE_FAST_INTERRUPTED 4 /* and after an interrupt of the way back from one. */
#define STATE_BLOCKED 5          /* The call sleeps in the sentry: so shall the stub, at once. */

/* Bits of CONTEXT_COMMAND: how a thread that waits in the fast path goes on. */
#define COMMAND_ALL 1    /* rcx and r11 are to be loaded too. */
#define COMMAND_XRSTOR 2 /* Load the extended state. */
#define COMMAND_XSAVE 4  /* Only store the extended state and hand over again. */
#define COMMAND_TRAP 8   /* Only get a signal frame made and hand over again. */

/* Of a line of answers. */
#define ANSWER_VALID 0
#define ANSWER_PID 4
#define ANSWER_TID 8
#define ANSWER_PARENT 12
#define ANSWER_PROCESS_GROUP 16
#define ANSWER_UID 20
#define ANSWER_EFFECTIVE_UID 24
#define ANSWER_GID 28
#define ANSWER_EFFECTIVE_GID 32
/* What has code instead of a place in the line. */
#define ANSWER_BY_CODE 64
#define ANSWER_YIELD 64
#define ANSWER_FUTEX 65
#define ANSWERED_MAX 256 /* System calls from here on are none of these. */

/* Of the kernel's signal frame; see frame.h. */
#define FRAME_R8 48
#define FRAME_R9 56
#define FRAME_R10 64
#define FRAME_R11 72
#define FRAME_R12 80
#define FRAME_R13 88
#define FRAME_R14 96
#define FRAME_R15 104
#define FRAME_RDI 112
#define FRAME_RSI 120
#define FRAME_RBP 128
#define FRAME_RBX 136
#define FRAME_RDX 144
#define FRAME_RAX 152
#define FRAME_RCX 160
#define FRAME_RSP 168
#define FRAME_RIP 176
#define FRAME_EFLAGS 184
#define FRAME_FPSTATE 232
#define FRAME_SIGNAL 312

#define INTERRUPT_SIGNAL 10 /* SIGUSR1. Nothing else in a stub uses it. */

/* Bits of the mode that a thread is created with (sixth argument of clone, which clone ignores). */
#define THREAD_TRAPS                                                           \
  1 /* Announce readiness by a trap, so that the kernel builds a signal frame. \
     */
#define THREAD_DISPATCH 2 /* Use syscall user dispatch too. */
