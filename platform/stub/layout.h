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
#pragma once

#define STUB_START 0x7fff00000000
#define STUB_END 0x7ffffffff000
#define STUB_TEXT 0x7fff00010000
#define STUB_TEXT_BYTES 0x10000
#define STUB_DATA 0x7fff00020000
#define STUB_DATA_BYTES 0x4000
#define STUB_COMMAND 0x7fff00040000
#define STUB_MAILBOX 0x7fff00050000
#define STUB_CONTEXTS 0x7fff10000000
#define CONTEXT_BYTES 0x4000
#define CONTEXTS_MAX 0x8000

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

/* Of a thread's context. Its signal stack is [CONTEXT_STACK, CONTEXT_BYTES). */
#define CONTEXT_STATE 0
#define CONTEXT_STUB_SLEEPS 4
#define CONTEXT_SENTRY_SLEEPS 8
#define CONTEXT_SPINS 12
#define CONTEXT_YIELDS 16
#define CONTEXT_SET_BASES 20
#define CONTEXT_FRAME 24
#define CONTEXT_FS_BASE 32
#define CONTEXT_GS_BASE 40
#define CONTEXT_STACK 0x1000

/* Values of CONTEXT_STATE. */
#define STATE_GUEST 0
#define STATE_SENTRY 1
#define STATE_STARTING 2

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
