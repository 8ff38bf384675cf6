#pragma once

// A guest thread under systrap.
//
// It hands over in one of two ways, and waits for its turn where it handed over:
//  - by a signal (SIGSYS, a fault, the interrupt): the kernel's frame on the signal stack has its
//  registers and
//    its extended state. The position of the frame is learnt once, when the stub thread is new: the
//    kernel starts at the signal stack's top, so it never moves (unless guest code puts its stack
//    pointer there, and fools itself), and what guest code writes cannot send us elsewhere;
//  - by the fast entry: general registers are in the context, the extended state is still in the
//  CPU and is
//    stored when somebody asks for it. What this way back cannot do (a gs base of the guest's own,
//    single steps) begins with a trap that turns it into the other.

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/stub/frame.h"
#include "platform/stub/process.h"
#include "platform/systrap/handover.h"

namespace platform {

class SystrapContext final : public Context {
 public:
  // `cpus` must outlive the context; `spins`: see Handover.
  SystrapContext(CpuSet& cpus, uint32_t spins);
  ~SystrapContext() override;

  base::Result<void> Prepare(AddressSpace& address_space) override;
  Event Switch(AddressSpace& address_space, Registers& registers) override;
  void Interrupt() override;
  uint64_t GuestNs() const override;
  void SetIdentity(const Identity* identity) override ABSL_LOCKS_EXCLUDED(identity_mu_);
  void Blocks() override;
  void Unblocks() override { handover_.Unblocks(); }
  void Waking() override { handover_.Waking(); }
  void GetFpu(FpuState& state) override;
  base::Result<void> SetFpu(const FpuState& state) override;
  void ResetFpu() override;

 private:
  // Where the extended state is.
  enum class FpuPlace { kHere, kFrame, kCpu };

  base::Result<void> Bind(const std::shared_ptr<StubProcess>& process);
  void Unbind();
  // Learns the frame's position and format from the thread's first frame.
  base::Result<void> LearnFrame(StubThread& thread);
  void LoadFpu(StubThread& thread);
  // Gives the stub thread what the guest is to go on with. False if the process is dead.
  bool Load(const Registers& registers);
  void WriteFrame(const Registers& registers);
  void WriteFast(const Registers& registers);
  void WriteBases(uint64_t fs_base, uint64_t gs_base);
  void SignalGuest();
  // Lets the guest run and waits until it stopped. False if the process is dead.
  bool RunGuest();
  // Has the stub of a thread that waits in the fast path do something else than go on. False if the
  // process is dead.
  bool Command(uint32_t command);
  // Makes a thread that waits in the fast path wait in the signal handler.
  bool LeaveFastPath();
  // Passes the turn on and waits for it. `answers`: the stub itself answers, so it must.
  bool PassTurn(bool answers);
  // Tells the stub how long to wait from its next hand-over on.
  void SetPatience(Handover::Patience patience);
  // Waits for the guest's event. False if the process is dead or had to be killed.
  bool AwaitGuest(Handover::Patience patience, uint32_t taken, bool answers);
  bool YieldOrSleep(Handover::Patience patience, uint64_t start, bool answers);
  bool SleepUntilEvent(uint64_t start, bool answers);
  // What the stub has published. False for an interrupt that nobody asked for any more.
  bool ReadEvent(Registers& registers, Event& event);
  bool ReadFrame(Registers& registers, Event& event);
  bool ReadFast(uint32_t state, Registers& registers, Event& event);

  Handover handover_;
  Handover::Patience patience_;  // As the stub knows it.
  std::shared_ptr<StubProcess> process_;
  StubThread* thread_ = nullptr;       // Of process_.
  uint64_t target_ = 0;                // Its pid and tid, as in running_.
  SignalRegisters frame_registers_{};  // What the frame held when we last looked.
  Registers fast_registers_;           // What the context held, if fast_known_.
  bool fast_known_ = false;
  FpuState fpu_;
  FpuPlace fpu_place_ = FpuPlace::kHere;
  uint64_t fs_base_ = 0;  // As the stub thread has them, but gs 0 where it has its context's.
  uint64_t gs_base_ = 0;
  bool bases_known_ = false;
  bool bases_set_ = false;  // The stub has been asked to.

  void PublishIdentityLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(identity_mu_);

  // Guest time: looks at the state while spinning, and time that was measured.
  const uint32_t spins_;
  std::atomic<uint64_t> spun_ = 0;
  std::atomic<uint64_t> waited_ns_ = 0;
  std::atomic<uint64_t> waits_since_ns_ = 0;  // 0: not yielding or sleeping.

  absl::Mutex identity_mu_;  // A leaf.
  std::optional<Identity> identity_ ABSL_GUARDED_BY(identity_mu_);
  Answers* answers_ ABSL_GUARDED_BY(identity_mu_) = nullptr;  // Of thread_.

  std::atomic<bool> interrupted_ = false;
  std::atomic<uint64_t> running_ = 0;  // pid and tid to interrupt, 0 while in the sentry.
};

}  // namespace platform
