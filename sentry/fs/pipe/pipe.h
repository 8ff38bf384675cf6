#pragma once

// Pipes and FIFOs (pipe(7), fifo(7)).
//
// A pipe is a queue of at most `capacity` pages, as in Linux: a small write is appended to the last
// page if all of it fits there, else it begins a new one. Counting pages and not bytes is what
// makes "writable" (a free page) imply that PIPE_BUF bytes can be written at once, and programs do
// measure how much a pipe takes.

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>

#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "sentry/kernel/wait_queue.h"
#include "sentry/mm/io_buffer.h"
#include "sentry/vfs/file.h"

namespace sentry {

// Thread-safe. Its lock is held while guest memory is copied and while splice(2) calls the other
// file: see README.md.
class Pipe {
 public:
  static constexpr size_t kPageBytes = 4096;  // PIPE_BUF too.
  static constexpr size_t kPagesDefault = 16;
  static constexpr size_t kBytesMax = size_t{1} << 20;  // /proc/sys/fs/pipe-max-size
  static constexpr size_t kPrivilegedBytesMax = size_t{1} << 31;

  Pipe() = default;
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  // --- Ends. Each Open is matched by a Close with the same roles; the content goes with the last
  // end.
  void Open(bool reader, bool writer) ABSL_LOCKS_EXCLUDED(mu_);
  void Close(bool reader, bool writer) ABSL_LOCKS_EXCLUDED(mu_);
  // How often either end was opened: FIFO opens wait for a change. And how many are open.
  struct Ends {
    uint64_t readers_ever = 0;
    uint64_t writers_ever = 0;
    uint32_t readers = 0;
    uint32_t writers = 0;
  };
  Ends ends() const ABSL_LOCKS_EXCLUDED(mu_);

  // --- Data. 0 at end of file; EAGAIN.
  base::Result<size_t> Read(IoBuffer& to) ABSL_LOCKS_EXCLUDED(mu_);
  // EPIPE; EAGAIN: full. With `partial`, what fits is the result, else EAGAIN until all is taken.
  // `packets`: O_DIRECT.
  base::Result<size_t> Write(IoBuffer& from, bool packets, bool partial) ABSL_LOCKS_EXCLUDED(mu_);
  // splice(2) from and to something else: at most `length` bytes, passed on until `sink` takes less
  // than given / taken until `source` gives less than asked. Errors are theirs, if nothing was
  // moved before.
  using Sink = std::function<base::Result<size_t>(std::span<const std::byte>)>;
  using Source = std::function<base::Result<size_t>(std::span<std::byte>)>;
  base::Result<size_t> SpliceOut(size_t length, const Sink& sink) ABSL_LOCKS_EXCLUDED(mu_);
  base::Result<size_t> SpliceIn(size_t length, const Source& source) ABSL_LOCKS_EXCLUDED(mu_);
  // splice(2) and tee(2) (`keep`) between two different pipes. `from_empty` tells which one EAGAIN
  // is about.
  static base::Result<size_t> Move(Pipe& from, Pipe& to, size_t length, bool keep,
                                   bool* from_empty);

  PollMask Poll(bool reader, bool writer, uint64_t writers_ever_at_open) const
      ABSL_LOCKS_EXCLUDED(mu_);
  WaitQueue& queue() { return queue_; }
  size_t bytes() const ABSL_LOCKS_EXCLUDED(mu_);
  size_t capacity_bytes() const ABSL_LOCKS_EXCLUDED(mu_);
  // F_SETPIPE_SZ. EINVAL, EPERM, EBUSY.
  base::Result<size_t> SetCapacity(uint64_t bytes, bool privileged) ABSL_LOCKS_EXCLUDED(mu_);

 private:
  using Page = std::unique_ptr<std::byte[]>;
  struct Slot {
    Page page;
    uint32_t offset = 0;
    uint32_t length = 0;
    bool packet = false;
  };
  bool IsFull() const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_) { return slots_.size() >= capacity_; }
  Page TakePage() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void PopFront() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  // Bytes appended to the last page, 0 if they do not fit there.
  base::Result<size_t> Merge(IoBuffer& from) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  static base::Result<size_t> MoveLocked(Pipe& from, Pipe& to, size_t length, bool keep);

  WaitQueue queue_;
  mutable absl::Mutex mu_;
  std::deque<Slot> slots_ ABSL_GUARDED_BY(mu_);
  size_t capacity_ ABSL_GUARDED_BY(mu_) = kPagesDefault;
  Page spare_ ABSL_GUARDED_BY(mu_);
  Ends ends_ ABSL_GUARDED_BY(mu_);
};

// One end of a pipe, or both (a FIFO opened O_RDWR).
class PipeFile : public File {
 public:
  // Opens the end; the destructor closes it. `writers_ever`: POLLHUP is for those who have seen a
  // writer.
  PipeFile(std::shared_ptr<Pipe> pipe, Path path, uint32_t flags, CredentialsRef credentials,
           bool is_fifo);
  ~PipeFile() override;

  const std::shared_ptr<Pipe>& pipe() const { return pipe_; }
  bool is_fifo() const { return is_fifo_; }
  void set_writers_ever_at_open(uint64_t count) { writers_ever_at_open_ = count; }

  base::Result<size_t> Read(Task& task, IoBuffer& to, uint64_t* offset) override;
  base::Result<size_t> Write(Task& task, IoBuffer& from, uint64_t* offset) override;
  base::Result<uint64_t> Ioctl(Task& task, uint32_t command, uint64_t argument) override;
  base::Result<uint64_t> Fcntl(Task& task, int command, uint64_t argument) override;
  PollMask Poll(PollMask interest) override;
  WaitQueue* wait_queue() override { return &pipe_->queue(); }
  bool SupportsAsync() const override { return true; }

 private:
  const std::shared_ptr<Pipe> pipe_;
  const bool is_fifo_;
  uint64_t writers_ever_at_open_ = ~uint64_t{0};
};

struct PipeEnds {
  FileRef reader;
  FileRef writer;
};
// pipe2(2). `flags`: O_NONBLOCK, O_DIRECT.
PipeEnds MakePipe(Task& task, uint32_t flags);

// open(2) of a FIFO: waits for the other end as fifo(7) says. ENXIO, kRestartSys.
base::Result<FileRef> OpenFifo(Task& task, const Path& path, uint32_t flags);

}  // namespace sentry
