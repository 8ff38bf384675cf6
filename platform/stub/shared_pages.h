#pragma once

// The pages that sentry and stub share, as the sentry sees them. Offsets agree with layout.h.
//
// The command page cannot be written by guest code; what the memory thread says in it can be
// believed. A thread's context can be written by every guest thread of its process at any moment:
// each field is input, read once, then checked.

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "platform/stub/layout.h"

namespace platform {

struct alignas(64) CommandEntry {
  uint64_t number = 0;
  std::array<uint64_t, 6> args{};
  uint64_t flags = 0;
};

struct alignas(4096) CommandPage {
  std::atomic<uint32_t> sequence;  // Futex: the memory thread sleeps on it.
  std::atomic<uint32_t> count;
  uint64_t pad;
  uint64_t control_fd;
  uint64_t page_offset;  // Of this page in the control file.
  // Futex: the sentry sleeps on it. Low byte: 0 while under way, 1 + errno then; next byte: index
  // of the command that failed.
  std::atomic<uint32_t> result;
  uint32_t pad2;
  std::atomic<uint32_t> value;  // What the last entry with ENTRY_REPORTS_VALUE returned.
  uint32_t pad3;
  std::array<uint64_t, 2> reserved;
  struct {  // stack_t
    uint64_t sp;
    uint32_t flags;
    uint32_t pad;
    uint64_t size;
  } stack;
  std::array<uint64_t, 5> reserved2;
  std::array<CommandEntry, COMMAND_ENTRIES_MAX> entries;
};

struct Mailbox {
  std::atomic<uint32_t> request;  // Futex: the spawner sleeps on it.
  std::atomic<uint32_t> done;     // Futex: the sentry sleeps on it.
  uint64_t reserved;
  uint64_t control_fd;
  uint64_t command_offset;
  std::atomic<int64_t> result;  // Process id or -errno.
  std::atomic<int32_t> pidfd;
};

// The general registers at the fast entry. Read as one copy, written word by word.
struct FastRegisters {
  uint32_t state, command;  // As in ThreadContext.
  uint64_t rax, rdi, rsi, rdx, r10, r8, r9;
  uint64_t rip, rsp, rbx, rbp, r12, r13, r14, r15;
  uint64_t eflags, fs_base, rcx, r11;
};

struct ThreadContext {
  std::atomic<uint32_t> state;                           // Futex, both sides. STATE_*.
  std::atomic<uint32_t> command;                         // COMMAND_*
  std::array<std::atomic<uint64_t>, 19> fast_registers;  // See FastRegisters.
  std::atomic<uint32_t> taken;
  std::atomic<uint32_t> cpu;
  std::array<uint64_t, 3> reserved;
  std::atomic<uint32_t> stub_sleeps;
  std::atomic<uint32_t> sentry_sleeps;
  std::atomic<uint32_t> spins;   // Looks at `state` before the stub yields,
  std::atomic<uint32_t> yields;  // and yields before it sleeps.
  std::atomic<uint32_t> set_bases;
  std::atomic<uint64_t> frame;  // Stack pointer in the handler.
  std::atomic<uint64_t> fs_base;
  std::atomic<uint64_t> gs_base;
};

// Read-only for the guest.
struct alignas(64) Answers {
  std::atomic<uint32_t> valid;  // 0: ask the sentry.
  std::atomic<int32_t> pid, tid, parent, process_group;
  std::atomic<uint32_t> uid, effective_uid, gid, effective_gid;
};

static_assert(sizeof(CommandPage) == 4096 && sizeof(CommandEntry) == 64);
static_assert(offsetof(CommandPage, sequence) == COMMAND_SEQUENCE);
static_assert(offsetof(CommandPage, count) == COMMAND_COUNT);
static_assert(offsetof(CommandPage, control_fd) == COMMAND_CONTROL_FD);
static_assert(offsetof(CommandPage, page_offset) == COMMAND_PAGE_OFFSET);
static_assert(offsetof(CommandPage, result) == COMMAND_RESULT);
static_assert(COMMAND_FAILED_INDEX == COMMAND_RESULT + 1);
static_assert(offsetof(CommandPage, value) == COMMAND_VALUE);
static_assert(offsetof(CommandPage, stack) == COMMAND_STACK);
static_assert(offsetof(CommandPage, entries) == COMMAND_ENTRIES);
static_assert(offsetof(CommandEntry, flags) == COMMAND_ENTRY_FLAGS);
static_assert(offsetof(Mailbox, request) == MAILBOX_REQUEST);
static_assert(offsetof(Mailbox, done) == MAILBOX_DONE);
static_assert(offsetof(Mailbox, control_fd) == MAILBOX_CONTROL_FD);
static_assert(offsetof(Mailbox, command_offset) == MAILBOX_COMMAND_OFFSET);
static_assert(offsetof(Mailbox, result) == MAILBOX_RESULT);
static_assert(offsetof(Mailbox, pidfd) == MAILBOX_PIDFD);
static_assert(offsetof(ThreadContext, state) == CONTEXT_STATE);
static_assert(sizeof(Answers) == ANSWER_BYTES && CONTEXT_BYTES >> ANSWER_SHIFT == ANSWER_BYTES);
static_assert(offsetof(Answers, valid) == ANSWER_VALID);
static_assert(offsetof(Answers, pid) == ANSWER_PID);
static_assert(offsetof(Answers, tid) == ANSWER_TID);
static_assert(offsetof(Answers, parent) == ANSWER_PARENT);
static_assert(offsetof(Answers, process_group) == ANSWER_PROCESS_GROUP);
static_assert(offsetof(Answers, uid) == ANSWER_UID);
static_assert(offsetof(Answers, effective_uid) == ANSWER_EFFECTIVE_UID);
static_assert(offsetof(Answers, gid) == ANSWER_GID);
static_assert(offsetof(Answers, effective_gid) == ANSWER_EFFECTIVE_GID);
static_assert(offsetof(ThreadContext, command) == CONTEXT_COMMAND);
static_assert(offsetof(FastRegisters, rax) == CONTEXT_RAX);
static_assert(offsetof(FastRegisters, rdi) == CONTEXT_RDI);
static_assert(offsetof(FastRegisters, rsi) == CONTEXT_RSI);
static_assert(offsetof(FastRegisters, rdx) == CONTEXT_RDX);
static_assert(offsetof(FastRegisters, r10) == CONTEXT_R10);
static_assert(offsetof(FastRegisters, r8) == CONTEXT_R8);
static_assert(offsetof(FastRegisters, r9) == CONTEXT_R9);
static_assert(offsetof(FastRegisters, rip) == CONTEXT_RIP);
static_assert(offsetof(FastRegisters, rsp) == CONTEXT_RSP);
static_assert(offsetof(FastRegisters, rbx) == CONTEXT_RBX);
static_assert(offsetof(FastRegisters, rbp) == CONTEXT_RBP);
static_assert(offsetof(FastRegisters, r12) == CONTEXT_R12);
static_assert(offsetof(FastRegisters, r13) == CONTEXT_R13);
static_assert(offsetof(FastRegisters, r14) == CONTEXT_R14);
static_assert(offsetof(FastRegisters, r15) == CONTEXT_R15);
static_assert(offsetof(FastRegisters, eflags) == CONTEXT_EFLAGS);
static_assert(offsetof(FastRegisters, fs_base) == CONTEXT_FAST_FS_BASE);
static_assert(offsetof(FastRegisters, rcx) == CONTEXT_RCX);
static_assert(offsetof(FastRegisters, r11) == CONTEXT_R11);
static_assert(offsetof(ThreadContext, taken) == CONTEXT_TAKEN);
static_assert(offsetof(ThreadContext, cpu) == CONTEXT_CPU);
static_assert(offsetof(ThreadContext, stub_sleeps) == CONTEXT_STUB_SLEEPS);
static_assert(offsetof(ThreadContext, sentry_sleeps) == CONTEXT_SENTRY_SLEEPS);
static_assert(offsetof(ThreadContext, spins) == CONTEXT_SPINS);
static_assert(offsetof(ThreadContext, yields) == CONTEXT_YIELDS);
static_assert(offsetof(ThreadContext, set_bases) == CONTEXT_SET_BASES);
static_assert(offsetof(ThreadContext, frame) == CONTEXT_FRAME);
static_assert(offsetof(ThreadContext, fs_base) == CONTEXT_FS_BASE);
static_assert(offsetof(ThreadContext, gs_base) == CONTEXT_GS_BASE);

}  // namespace platform
