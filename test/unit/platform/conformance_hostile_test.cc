// Guests that attack the stub: whatever they do to it, the sentry gets some event or can interrupt,
// a process that does not answer dies alone, and other guests do not notice.

#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <optional>
#include <thread>
#include <vector>

#include "platform/stub/image.h"
#include "platform/stub/layout.h"
#include "test/unit/platform/guest_machine.h"

GUEST_CODE(hostile_calls,
           "1: movl $110, %eax\n leaq 2f(%rip), %rcx\n movabsq $0x7fff00010000, %r11\n jmp *%r11\n"
           "2: jmp 1b\n")
// Writes random words to random places of [rdi, rdi + 256), or of the four pages from there on.
GUEST_CODE(
    hostile_scribble,
    "1: movq %rax, %rcx\n shlq $13, %rcx\n xorq %rcx, %rax\n movq %rax, %rcx\n shrq $7, %rcx\n"
    "xorq %rcx, %rax\n movq %rax, %rcx\n shlq $17, %rcx\n xorq %rcx, %rax\n"
    "movq %rax, %rcx\n shrq $32, %rcx\n andq %rsi, %rcx\n movl %eax, %edx\n andl %ebx, %edx\n"
    "movl %edx, (%rdi, %rcx)\n jmp 1b\n")

namespace {

using platform::Context;
using platform::Event;
using platform::EventKind;
using platform::PlatformKind;
using platform::Registers;
using test::Guest;
using test::kCode;
using test::kData;
using test::kPage;
using test::Machine;

Machine& TheMachine() { return Machine::Of(PlatformKind::kSystrap); }

// Ends Switches that do not end by themselves.
class Watchdog {
 public:
  Watchdog() : thread_([this] { Watch(); }) {}
  ~Watchdog() {
    stop_ = true;
    thread_.join();
  }
  Event Run(Guest& guest, Context& context, Registers& registers) {
    host_pid_ = guest.space().host_pid();
    context_ = &context;
    turn_++;
    const Event event = context.Switch(guest.space(), registers);
    turn_++;
    while (busy_) std::this_thread::yield();
    return event;
  }

 private:
  void Watch() {
    while (!stop_) {
      const uint64_t turn = turn_;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
      for (int tries = 0; tries < 40 && turn % 2 == 1; tries++) {
        busy_ = true;
        const bool same = turn_ == turn;
        if (same) context_.load()->Interrupt();
        if (same && tries == 39) kill(host_pid_, SIGKILL);
        busy_ = false;
        if (!same) break;
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
      }
    }
  }

  std::atomic<bool> stop_ = false;
  std::atomic<uint64_t> turn_ = 0;  // Odd while a Switch is under way.
  std::atomic<bool> busy_ = false;
  std::atomic<Context*> context_ = nullptr;
  std::atomic<int> host_pid_ = 0;
  std::thread thread_;
};

class Dice {
 public:
  uint64_t Next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }

 private:
  uint64_t state_ = 0x9e3779b97f4a7c15;
};

// Anything, with a liking for what the stub works with.
uint64_t SomeWord(Dice& dice) {
  const uint64_t word = dice.Next();
  switch (word % 8) {
    case 0:
      return STUB_CONTEXTS + (word >> 8) % 4 * CONTEXT_BYTES;
    case 1:
      return STUB_CONTEXTS + (word >> 8) % (4 * CONTEXT_BYTES);
    case 2:
      return kData + (word >> 8) % kPage;
    case 3:
      return (word >> 8) % 512;  // A system call's number.
    case 4:
      return STUB_TEXT + (word >> 8) % 4096;
    default:
      return word;
  }
}

Registers SomeRegisters(Dice& dice, const Registers& start) {
  Registers registers = start;
  for (uint64_t Registers::* word :
       {&Registers::rax, &Registers::rbx, &Registers::rcx, &Registers::rdx, &Registers::rsi,
        &Registers::rdi, &Registers::rbp, &Registers::rsp, &Registers::r8, &Registers::r9,
        &Registers::r10, &Registers::r11, &Registers::r12, &Registers::r13, &Registers::r14,
        &Registers::r15}) {
    registers.*word = SomeWord(dice);
  }
  if (dice.Next() % 8 == 0) registers.fs_base = SomeWord(dice);
  if (dice.Next() % 8 == 0) registers.gs_base = SomeWord(dice);
  return registers;
}

void CheckBystander(Guest& bystander) {
  Registers registers = bystander.Start();
  for (int i = 0; i < 3; i++) {
    REQUIRE(bystander.Switch(registers).kind == EventKind::kSyscall);
    REQUIRE(registers.orig_rax == SYS_getppid);
    REQUIRE(registers.rsp == bystander.Start().rsp);
  }
}

TEST_CASE("a jump to any byte of the stub hurts nobody else", "[hostile][entry]") {
  const auto image = platform::MakeStubImage();
  REQUIRE(image.ok());
  std::vector<unsigned char> text(image->text_bytes);
  REQUIRE(pread(image->memfd.get(), text.data(), text.size(), 0) ==
          static_cast<ssize_t>(text.size()));
  while (!text.empty() && text.back() == 0) text.pop_back();
  REQUIRE(text.size() > 1000);
  Guest bystander(TheMachine(), hostile_calls());
  Dice dice;
  Watchdog watchdog;
  auto guest = std::make_unique<Guest>(TheMachine(), hostile_calls());
  int events = 0;
  for (uint64_t at = 0; at < text.size(); at++) {
    auto context = TheMachine().platform().NewContext().value();
    Registers registers = SomeRegisters(dice, guest->Start());
    registers.rip = STUB_TEXT + at;
    Event event;
    for (int i = 0; i < 4; i++) {
      event = watchdog.Run(*guest, *context, registers);
      if (event.kind == EventKind::kDead) break;
      events++;
    }
    if (event.kind == EventKind::kDead) {
      context.reset();
      guest = std::make_unique<Guest>(TheMachine(), hostile_calls());
    }
    if (at % 64 == 0) CheckBystander(bystander);
  }
  CheckBystander(bystander);
  CHECK(events > 1000);
}

TEST_CASE("a sibling that scribbles over a thread's context hurts their process only",
          "[hostile][entry]") {
  Guest bystander(TheMachine(), hostile_calls());
  // The fast path's words; small numbers, which mean something to the stub; or all of the region.
  struct Aim {
    uint64_t offsets;
    uint64_t values;
  };
  const Aim aim =
      GENERATE(Aim{0xfc, ~uint64_t{0}}, Aim{0xfc, 7}, Aim{0x4, 15}, Aim{0x3ffc, ~uint64_t{0}});
  CAPTURE(aim.offsets, aim.values);
  Watchdog watchdog;
  for (int round = 0; round < 4; round++) {
    Guest guest(TheMachine(), hostile_calls());
    memcpy(guest.machine().pool().Window(guest.code_range()).data() + 2048,
           hostile_scribble().data(), hostile_scribble().size());
    auto victim = TheMachine().platform().NewContext().value();
    Registers calls = guest.Start();
    REQUIRE(victim->Switch(guest.space(), calls).kind == EventKind::kSyscall);
    std::atomic<bool> done = false;
    std::thread attacker([&] {
      Registers registers = guest.Start();
      registers.rip = kCode + 2048;
      registers.rdi = STUB_CONTEXTS;  // The first thread's.
      registers.rsi = aim.offsets;
      registers.rbx = aim.values;
      registers.rax = 88172645463325252 + static_cast<uint64_t>(round);
      while (!done && guest.Switch(registers).kind == EventKind::kInterrupted) {
      }
    });
    platform::FpuState state;
    for (int i = 0; i < 2000; i++) {
      if (watchdog.Run(guest, *victim, calls).kind == EventKind::kDead) break;
      if (i % 64 == 0) (void)victim->SetFpu(state);
    }
    done = true;
    guest.context().Interrupt();
    attacker.join();
    CheckBystander(bystander);
  }
}

}  // namespace
