#pragma once

// A guest thread under ptrace. The tracee is stopped whenever no Switch is under way; its extended
// state stays in it unless somebody asks.

#include <sys/types.h>
#include <sys/user.h>

#include <atomic>
#include <cstdint>
#include <memory>

#include "platform/base/result.h"
#include "platform/platform.h"
#include "platform/stub/cpu_pair.h"
#include "platform/stub/process.h"

namespace platform {

class PtraceContext final : public Context {
 public:
  // `cpus` must outlive the context.
  explicit PtraceContext(CpuSet& cpus);
  ~PtraceContext() override;

  base::Result<void> Prepare(AddressSpace& address_space) override;
  Event Switch(AddressSpace& address_space, Registers& registers) override;
  void Interrupt() override;
  uint64_t GuestNs() const override;
  void GetFpu(FpuState& state) override;
  base::Result<void> SetFpu(const FpuState& state) override;
  void ResetFpu() override;

  // Takes a thread of the address space and stops it, as Switch does. EPERM if the host does not
  // let us.
  base::Result<void> Attach(AddressSpace& address_space);

 private:
  base::Result<void> Bind(const std::shared_ptr<StubProcess>& process);
  base::Result<void> Seize();
  void Unbind();
  base::Result<void> LoadFpu();
  base::Result<void> StoreFpu();
  bool WriteRegisters(const Registers& registers);
  bool ReadRegisters(Registers& registers) const;
  // Resumes by `request` with `signal` and waits for the next stop; false if the thread is dead.
  bool Resume(int request, int signal, int& status);
  bool Wait(int& status);
  // Keeps our thread and the tracee on one CPU for most of the time.
  void Pair();
  // What a stop means. kDead also for errors; nothing for stops that are of no interest.
  enum class Verdict { kEvent, kIgnore, kDead };
  Verdict ReadStop(int status, Registers& registers, Event& event);
  Verdict ReadSignal(int signal, Registers& registers, Event& event);
  // Lets the kernel build a frame for the signal at hand: trap and error numbers are nowhere else.
  bool ReadFrame(int signal, Event& event);

  std::shared_ptr<StubProcess> process_;
  StubThread* thread_ = nullptr;  // Of process_.
  bool seized_ = false;
  CpuSet& cpus_;
  CpuPair pair_;
  uint32_t trips_ = 0;  // Since the pair was last joined or parted.
  FpuState fpu_;
  bool fpu_in_thread_ = false;

  std::atomic<uint64_t> guest_ns_ = 0;
  std::atomic<uint64_t> entered_ns_ = 0;  // 0: not in guest code.
  std::atomic<bool> interrupted_ = false;
  std::atomic<uint64_t> running_ = 0;  // pid and tid to interrupt, 0 while in the sentry.
};

}  // namespace platform
