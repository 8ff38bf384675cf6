#include "sentry/fs/anon/signalfd.h"

#include <fcntl.h>
#include <sys/signalfd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <optional>

#include "sentry/kernel/current_task.h"
#include "sentry/kernel/task.h"

namespace sentry {

using base::Errno;
using base::Result;

static_assert(sizeof(signalfd_siginfo) == SignalFile::kRecordBytes);

namespace {

signalfd_siginfo ToRecord(const SignalInfo& info) {
  signalfd_siginfo record{};
  record.ssi_signo = static_cast<uint32_t>(info.signal);
  record.ssi_errno = info.error;
  record.ssi_code = info.code;
  record.ssi_pid = static_cast<uint32_t>(info.pid);
  record.ssi_uid = info.uid;
  record.ssi_fd = info.fd;
  record.ssi_tid = static_cast<uint32_t>(info.timer_id);
  record.ssi_band = static_cast<uint32_t>(info.band);
  record.ssi_overrun = static_cast<uint32_t>(info.overrun);
  record.ssi_status = info.status;
  record.ssi_int = static_cast<int32_t>(info.value);
  record.ssi_ptr = info.value;
  record.ssi_utime = static_cast<uint64_t>(info.user_time);
  record.ssi_stime = static_cast<uint64_t>(info.system_time);
  record.ssi_addr = info.address;
  record.ssi_addr_lsb = static_cast<uint16_t>(info.address_lsb);
  record.ssi_syscall = info.syscall;
  record.ssi_call_addr = info.call_address;
  record.ssi_arch = info.architecture;
  if (info.raw) {
    // What rt_sigqueueinfo(2) passed on: si_pid, si_uid, si_value.
    std::memcpy(&record.ssi_pid, info.raw_bytes.data(), sizeof(record.ssi_pid));
    std::memcpy(&record.ssi_uid, info.raw_bytes.data() + 4, sizeof(record.ssi_uid));
    std::memcpy(&record.ssi_ptr, info.raw_bytes.data() + 8, sizeof(record.ssi_ptr));
    record.ssi_int = static_cast<int32_t>(record.ssi_ptr);
  }
  return record;
}

}  // namespace

SignalFile::SignalFile(Task& task, SignalSet mask, uint32_t flags)
    : AnonymousFile(task, "[signalfd]", O_RDWR | flags), maker_(task.shared_from_this()) {
  set_mask(mask);
}

void SignalFile::set_mask(SignalSet mask) {
  mask_.store(mask & ~kUnblockable, std::memory_order_relaxed);
  // Who waits here may find what it waits for in the new set.
  if (WaitQueue* const queue = wait_queue()) queue->Notify(kPollReadable);
}

Result<size_t> SignalFile::Read(Task& task, IoBuffer& to, uint64_t* offset) {
  (void)offset;
  if (to.remaining() < kRecordBytes) return Errno(EINVAL);
  size_t total = 0;
  while (to.remaining() >= kRecordBytes) {
    const std::optional<SignalInfo> info =
        task.DequeueSignal(mask_.load(std::memory_order_relaxed));
    if (!info.has_value()) break;
    const signalfd_siginfo record = ToRecord(*info);
    const Result<size_t> copied = to.CopyOut(std::as_bytes(std::span(&record, 1)));
    if (!copied.ok() || copied.value() < kRecordBytes) {
      if (total == 0) return Errno(EFAULT);
      break;
    }
    total += kRecordBytes;
  }
  if (total == 0) return Errno(EAGAIN);
  return total;
}

PollMask SignalFile::Poll(PollMask interest) {
  (void)interest;
  SignalSet pending = 0;
  if (const Task* const caller = CurrentTask()) {
    pending = caller->pending_signals();
  } else if (const std::shared_ptr<Task> maker = maker_.lock()) {
    pending = maker->pending_signals();
  }
  return (pending & mask_.load(std::memory_order_relaxed)) != 0 ? kPollReadable : 0;
}

WaitQueue* SignalFile::wait_queue() {
  if (Task* const caller = CurrentTask()) return &caller->signal_queue();
  if (const std::shared_ptr<Task> maker = maker_.lock()) return &maker->signal_queue();
  return &no_signals_;
}

std::string SignalFile::FdInfo() const {
  char text[48];
  std::snprintf(text, sizeof(text), "sigmask:\t%016" PRIx64 "\n",
                mask_.load(std::memory_order_relaxed));
  return text;
}

}  // namespace sentry
