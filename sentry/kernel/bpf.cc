// The rules are those of net/core/filter.c (bpf_check_classic) and kernel/seccomp.c of Linux 6.12.
// Only forward jumps exist, so a program of n instructions takes at most n steps.

#include "sentry/kernel/bpf.h"

#include <linux/bpf_common.h>
#include <linux/filter.h>

#include <vector>

namespace sentry {
namespace {

using base::Errno;
using base::Result;

constexpr uint32_t kDataBytes = kSeccompDataWords * 4;
constexpr uint32_t kNumberOffset = 0;
constexpr uint32_t kArchitectureOffset = 4;

// Codes that a seccomp filter may have, without regard to k.
bool IsKnown(uint16_t code) {
  switch (code) {
    case BPF_LD | BPF_W | BPF_ABS:
    case BPF_LD | BPF_W | BPF_LEN:
    case BPF_LDX | BPF_W | BPF_LEN:
    case BPF_LD | BPF_IMM:
    case BPF_LDX | BPF_IMM:
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
    case BPF_RET | BPF_K:
    case BPF_RET | BPF_A:
    case BPF_ALU | BPF_ADD | BPF_K:
    case BPF_ALU | BPF_ADD | BPF_X:
    case BPF_ALU | BPF_SUB | BPF_K:
    case BPF_ALU | BPF_SUB | BPF_X:
    case BPF_ALU | BPF_MUL | BPF_K:
    case BPF_ALU | BPF_MUL | BPF_X:
    case BPF_ALU | BPF_DIV | BPF_K:
    case BPF_ALU | BPF_DIV | BPF_X:
    case BPF_ALU | BPF_AND | BPF_K:
    case BPF_ALU | BPF_AND | BPF_X:
    case BPF_ALU | BPF_OR | BPF_K:
    case BPF_ALU | BPF_OR | BPF_X:
    case BPF_ALU | BPF_XOR | BPF_K:
    case BPF_ALU | BPF_XOR | BPF_X:
    case BPF_ALU | BPF_LSH | BPF_K:
    case BPF_ALU | BPF_LSH | BPF_X:
    case BPF_ALU | BPF_RSH | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_X:
    case BPF_ALU | BPF_NEG:
    case BPF_MISC | BPF_TAX:
    case BPF_MISC | BPF_TXA:
    case BPF_JMP | BPF_JA:
    case BPF_JMP | BPF_JEQ | BPF_K:
    case BPF_JMP | BPF_JEQ | BPF_X:
    case BPF_JMP | BPF_JGE | BPF_K:
    case BPF_JMP | BPF_JGE | BPF_X:
    case BPF_JMP | BPF_JGT | BPF_K:
    case BPF_JMP | BPF_JGT | BPF_X:
    case BPF_JMP | BPF_JSET | BPF_K:
    case BPF_JMP | BPF_JSET | BPF_X:
      return true;
    default:
      return false;
  }
}

bool OperandIsValid(const BpfInstruction& instruction, size_t at, size_t length) {
  switch (instruction.code) {
    case BPF_ALU | BPF_DIV | BPF_K:
      return instruction.k != 0;
    case BPF_ALU | BPF_LSH | BPF_K:
    case BPF_ALU | BPF_RSH | BPF_K:
      return instruction.k < 32;
    case BPF_LD | BPF_MEM:
    case BPF_LDX | BPF_MEM:
    case BPF_ST:
    case BPF_STX:
      return instruction.k < BPF_MEMWORDS;
    case BPF_LD | BPF_W | BPF_ABS:
      return instruction.k < kDataBytes && instruction.k % 4 == 0;
    case BPF_JMP | BPF_JA:
      return instruction.k < length - at - 1;
    default:
      break;
  }
  if (BPF_CLASS(instruction.code) != BPF_JMP) return true;
  return at + instruction.jump_true + 1 < length && at + instruction.jump_false + 1 < length;
}

// check_load_and_stores: no path reads a word of memory that it has not written. `written[i]` is
// what every path to i has written.
bool ReadsOnlyWhatIsWritten(std::span<const BpfInstruction> program) {
  constexpr uint16_t kAll = 0xffff;
  std::vector<uint16_t> written(program.size(), kAll);
  uint16_t now = 0;
  for (size_t at = 0; at < program.size(); ++at) {
    now = static_cast<uint16_t>(now & written[at]);
    const BpfInstruction& instruction = program[at];
    const auto flow_to = [&](size_t target) {
      written[target] = static_cast<uint16_t>(written[target] & now);
    };
    switch (instruction.code) {
      case BPF_ST:
      case BPF_STX:
        now = static_cast<uint16_t>(now | (1U << instruction.k));
        break;
      case BPF_LD | BPF_MEM:
      case BPF_LDX | BPF_MEM:
        if ((now & (1U << instruction.k)) == 0) return false;
        break;
      case BPF_JMP | BPF_JA:
        flow_to(at + 1 + instruction.k);
        now = kAll;
        break;
      default:
        if (BPF_CLASS(instruction.code) != BPF_JMP) break;
        flow_to(at + 1 + instruction.jump_true);
        flow_to(at + 1 + instruction.jump_false);
        now = kAll;
        break;
    }
  }
  return true;
}

struct Machine {
  uint32_t a = 0;
  uint32_t x = 0;
  std::array<uint32_t, BPF_MEMWORDS> memory{};
};

// False: division by zero, which ends the program with 0.
bool Calculate(Machine& machine, uint16_t code, uint32_t operand) {
  switch (BPF_OP(code)) {
    case BPF_ADD:
      machine.a += operand;
      break;
    case BPF_SUB:
      machine.a -= operand;
      break;
    case BPF_MUL:
      machine.a *= operand;
      break;
    case BPF_DIV:
      if (operand == 0) return false;
      machine.a /= operand;
      break;
    case BPF_AND:
      machine.a &= operand;
      break;
    case BPF_OR:
      machine.a |= operand;
      break;
    case BPF_XOR:
      machine.a ^= operand;
      break;
    case BPF_LSH:
      machine.a <<= operand & 31;
      break;
    case BPF_RSH:
      machine.a >>= operand & 31;
      break;
    default:  // BPF_NEG
      machine.a = 0U - machine.a;
      break;
  }
  return true;
}

bool Compare(const Machine& machine, uint16_t code, uint32_t operand) {
  switch (BPF_OP(code)) {
    case BPF_JEQ:
      return machine.a == operand;
    case BPF_JGT:
      return machine.a > operand;
    case BPF_JGE:
      return machine.a >= operand;
    default:  // BPF_JSET
      return (machine.a & operand) != 0;
  }
}

void Load(Machine& machine, const BpfInstruction& instruction, const SeccompWords& data) {
  uint32_t value = instruction.k;  // BPF_IMM
  switch (BPF_MODE(instruction.code)) {
    case BPF_ABS:
      value = data[instruction.k / 4];
      break;
    case BPF_LEN:
      value = kDataBytes;
      break;
    case BPF_MEM:
      value = machine.memory[instruction.k];
      break;
    default:
      break;
  }
  (BPF_CLASS(instruction.code) == BPF_LD ? machine.a : machine.x) = value;
}

// `readable`: which words of the data may be read; *unknown is set when another one is.
uint32_t Run(std::span<const BpfInstruction> program, const SeccompWords& data, uint32_t readable,
             bool* unknown) {
  Machine machine;
  for (size_t at = 0; at < program.size(); ++at) {
    const BpfInstruction& instruction = program[at];
    const uint16_t code = instruction.code;
    const uint32_t operand = BPF_SRC(code) == BPF_X ? machine.x : instruction.k;
    switch (BPF_CLASS(code)) {
      case BPF_LD:
      case BPF_LDX:
        if (BPF_MODE(code) == BPF_ABS && ((readable >> (instruction.k / 4)) & 1) == 0) {
          *unknown = true;
          return 0;
        }
        Load(machine, instruction, data);
        break;
      case BPF_ST:
        machine.memory[instruction.k] = machine.a;
        break;
      case BPF_STX:
        machine.memory[instruction.k] = machine.x;
        break;
      case BPF_ALU:
        if (!Calculate(machine, code, operand)) return 0;
        break;
      case BPF_JMP:
        if (BPF_OP(code) == BPF_JA) {
          at += instruction.k;
        } else {
          at += Compare(machine, code, operand) ? instruction.jump_true : instruction.jump_false;
        }
        break;
      case BPF_RET:
        return BPF_RVAL(code) == BPF_A ? machine.a : instruction.k;
      default:  // BPF_MISC
        if (BPF_MISCOP(code) == BPF_TAX) {
          machine.x = machine.a;
        } else {
          machine.a = machine.x;
        }
        break;
    }
  }
  return 0;  // Not reached: the last instruction returns.
}

}  // namespace

Result<void> CheckSeccompProgram(std::span<const BpfInstruction> program) {
  if (program.empty() || program.size() > kBpfInstructionsMax) return Errno(EINVAL);
  for (size_t at = 0; at < program.size(); ++at) {
    if (!IsKnown(program[at].code) || !OperandIsValid(program[at], at, program.size()))
      return Errno(EINVAL);
  }
  if (BPF_CLASS(program.back().code) != BPF_RET) return Errno(EINVAL);
  if (!ReadsOnlyWhatIsWritten(program)) return Errno(EINVAL);
  return {};
}

uint32_t RunSeccompProgram(std::span<const BpfInstruction> program, const SeccompWords& data) {
  bool unknown = false;
  return Run(program, data, ~uint32_t{0}, &unknown);
}

bool VerdictByNumber(std::span<const BpfInstruction> program, uint32_t number,
                     uint32_t architecture, uint32_t* verdict) {
  SeccompWords data{};
  data[kNumberOffset / 4] = number;
  data[kArchitectureOffset / 4] = architecture;
  bool unknown = false;
  *verdict = Run(program, data, 0b11, &unknown);
  return !unknown;
}

}  // namespace sentry
