#pragma once

// A ControlBlock with a lock, a place in the table, a path and a timer: what a socket holds. It
// lives on by itself after the socket's Close, until TCP is done.

#include <atomic>
#include <cstdint>
#include <memory>

#include "absl/synchronization/mutex.h"
#include "netstack/stack/stack.h"
#include "netstack/stack/timer.h"
#include "netstack/stack/transport.h"
#include "netstack/tcp/control_block.h"
#include "platform/base/result.h"

namespace netstack::tcp {

class Listener;

// Who waits for a connection or a listener. Called without locks of the stack.
class Observer {
 public:
  virtual ~Observer() = default;
  virtual void OnEvents(uint32_t events) = 0;  // Event
};

class Connection final : public TimerTarget, private ControlBlock::Wire {
 public:
  struct Options {
    FlowKey flow = {};        // local any: chosen. Ports are the caller's choice.
    int interface_index = 0;  // 0: any.
    uint8_t hop_limit = 64;
    uint8_t traffic_class = 0;
    Settings settings = {};
  };
  // Sends a SYN. EADDRINUSE: there is such a connection; what FindPath says.
  static base::Result<std::shared_ptr<Connection>> Connect(Stack& stack, Options options,
                                                           std::shared_ptr<Observer> observer);
  // After a handshake; `path` leads to the peer.
  static std::shared_ptr<Connection> Accept(Stack& stack, const Options& options, const Path& path,
                                            const ControlBlock::Handshake& handshake);
  Connection(Stack& stack, const Options& options, const Path& path);
  ~Connection() override;

  const FlowKey& flow() const { return flow_; }
  void SetObserver(std::shared_ptr<Observer> observer) ABSL_LOCKS_EXCLUDED(mu_);

  // --- The user.
  size_t SendRoom() ABSL_LOCKS_EXCLUDED(mu_);
  // EPIPE: this side is shut; the connection's error; ENOTCONN.
  base::Result<void> Send(Slice slice, bool push, bool urgent = false) ABSL_LOCKS_EXCLUDED(mu_);
  size_t Readable() ABSL_LOCKS_EXCLUDED(mu_);
  // Up to `count` bytes from `from` on, shared. Returns how many.
  size_t Peek(size_t from, size_t count, Slices& out) ABSL_LOCKS_EXCLUDED(mu_);
  // Precondition: no more than was peeked; one reader at a time.
  void Consume(size_t count) ABSL_LOCKS_EXCLUDED(mu_);
  std::optional<uint8_t> TakeUrgent(bool peek) ABSL_LOCKS_EXCLUDED(mu_);
  void ShutdownWrite() ABSL_LOCKS_EXCLUDED(mu_);
  void ShutdownRead() ABSL_LOCKS_EXCLUDED(mu_);
  // `reset`: SO_LINGER with 0.
  void Close(bool reset) ABSL_LOCKS_EXCLUDED(mu_);
  // `change` is called with the lock held.
  template <typename Change>
  void ChangeSettings(Change change) ABSL_LOCKS_EXCLUDED(mu_) {
    Run([&](ControlBlock& block) {
      change(block.settings());
      block.SettingsChanged();
    });
  }
  void SetHeaderFields(uint8_t hop_limit, uint8_t traffic_class);

  // What poll(2) wants to know, at one moment.
  struct Status {
    State state;
    int error;
    size_t readable;
    size_t send_room;
    size_t bytes_to_mark;
    bool peer_finished, write_finished, read_shut, has_urgent;
  };
  Status GetStatus() ABSL_LOCKS_EXCLUDED(mu_);
  ControlBlock::Info GetInfo() ABSL_LOCKS_EXCLUDED(mu_);
  int TakeError() ABSL_LOCKS_EXCLUDED(mu_);

  // --- The stack.
  void OnSegment(Segment segment) ABSL_LOCKS_EXCLUDED(mu_);
  void OnError(const TransportError& error) ABSL_LOCKS_EXCLUDED(mu_);
  void OnTimer() override ABSL_LOCKS_EXCLUDED(mu_);

 private:
  // Calls `work(block)` with the lock held, then does what came of it without: timer, table,
  // observer.
  template <typename Work>
  void Run(Work work) ABSL_LOCKS_EXCLUDED(mu_) {
    Aftermath after;
    {
      const absl::MutexLock lock(&mu_);
      RefreshPathLocked();
      work(block_);
      after = CollectLocked();
    }
    Finish(after);
  }
  struct Aftermath {
    uint32_t events = 0;
    int64_t deadline_ns = kNever;
    bool confirm = false;
    IpAddress next_hop;
    Interface* interface = nullptr;
    State state = State::kClosed;
    std::shared_ptr<Observer> observer;
    ControlBlock::Info info = {};
  };
  void RefreshPathLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  Aftermath CollectLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  void Finish(const Aftermath& after) ABSL_LOCKS_EXCLUDED(mu_);
  // Called by block_, so with the lock held.
  void Transmit(const Outgoing& segment) override ABSL_NO_THREAD_SAFETY_ANALYSIS;
  int64_t NowNs() const override { return stack_.clock().NowNs(); }

  Stack& stack_;
  const FlowKey flow_;
  const int interface_index_;
  std::atomic<uint8_t> hop_limit_, traffic_class_;
  absl::Mutex mu_;
  Path path_ ABSL_GUARDED_BY(mu_);
  ControlBlock block_ ABSL_GUARDED_BY(mu_);
  std::shared_ptr<Observer> observer_ ABSL_GUARDED_BY(mu_);
  int64_t armed_ns_ ABSL_GUARDED_BY(mu_) = kNever;
  bool left_ ABSL_GUARDED_BY(mu_) = false;  // Out of the table.
};

// The payload of a segment without options on `path`.
uint32_t LinkMss(const Path& path, bool v4);

}  // namespace netstack::tcp
