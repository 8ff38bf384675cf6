#pragma once

// A guest thread under systrap.
//
// While it is not bound, its extended state is in `fpu_`; while it is bound to a stub thread and
// nobody set another one, in that thread's signal frame. The position of the frame is learnt once,
// when the stub thread is new: the kernel starts at the signal stack's top, so it never moves
// (unless guest code puts its stack pointer there, and fools itself), and what guest code writes
// cannot send us elsewhere.

#include <atomic>
#include <cstdint>
#include <memory>

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
  void GetFpu(FpuState& state) override;
  base::Result<void> SetFpu(const FpuState& state) override;
  void ResetFpu() override;

 private:
  base::Result<void> Bind(const std::shared_ptr<StubProcess>& process);
  void Unbind();
  // Learns the frame's position and format from the thread's first frame.
  base::Result<void> LearnFrame(StubThread& thread);
  void LoadFpu(StubThread& thread);
  void WriteRegisters(const Registers& registers);
  void SignalGuest();
  // Lets the guest run and waits until it stopped. False if the process is dead.
  bool RunGuest();
  // Waits for the guest's event. False if the process is dead or had to be killed.
  bool AwaitGuest(Handover::Patience patience);
  bool SleepUntilEvent();
  // What the frame says. False for an interrupt that nobody asked for any more.
  bool ReadEvent(Registers& registers, Event& event);

  Handover handover_;
  std::shared_ptr<StubProcess> process_;
  StubThread* thread_ = nullptr;       // Of process_.
  SignalRegisters frame_registers_{};  // What the frame held when we last looked.
  FpuState fpu_;
  bool fpu_in_frame_ = false;
  uint64_t fs_base_ = 0;  // As the stub thread has them.
  uint64_t gs_base_ = 0;
  bool bases_known_ = false;

  std::atomic<bool> interrupted_ = false;
  std::atomic<uint64_t> running_ = 0;  // pid and tid to interrupt, 0 while in the sentry.
};

}  // namespace platform
