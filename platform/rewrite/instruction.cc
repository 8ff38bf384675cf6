// Opcode maps as in the SDM, volume 2, appendix A (order number 253667-080), for 64-bit mode only.

#include "platform/rewrite/instruction.h"

#include <algorithm>
#include <array>

namespace platform::rewrite {
namespace {

// What follows an opcode byte.
enum Operands : uint8_t {
  kNone = 0,
  kModrm = 1,
  kImm8 = 2,
  kImm16 = 4,
  kImmZ = 8,  // 2 bytes with an operand-size prefix, else 4.
  kInvalid = 16,
};

using Map = std::array<uint8_t, 256>;

constexpr void Fill(Map& map, int first, int last, int operands) {
  for (int i = first; i <= last; i++) map[static_cast<size_t>(i)] = static_cast<uint8_t>(operands);
}

// Prefixes, VEX and EVEX, A0-A3, B8-BF, C8, F6 and F7 are dealt with elsewhere.
constexpr Map OneByteMap() {
  Map map{};
  for (int row = 0; row < 0x40; row += 8) {
    Fill(map, row, row + 3, kModrm);
    Fill(map, row + 4, row + 4, kImm8);
    Fill(map, row + 5, row + 5, kImmZ);
    Fill(map, row + 6, row + 7, kInvalid);
  }
  Fill(map, 0x60, 0x62, kInvalid);
  Fill(map, 0x63, 0x63, kModrm);
  Fill(map, 0x68, 0x68, kImmZ);
  Fill(map, 0x69, 0x69, kModrm | kImmZ);
  Fill(map, 0x6a, 0x6a, kImm8);
  Fill(map, 0x6b, 0x6b, kModrm | kImm8);
  Fill(map, 0x70, 0x7f, kImm8);
  Fill(map, 0x80, 0x80, kModrm | kImm8);
  Fill(map, 0x81, 0x81, kModrm | kImmZ);
  Fill(map, 0x82, 0x82, kInvalid);
  Fill(map, 0x83, 0x83, kModrm | kImm8);
  Fill(map, 0x84, 0x8f, kModrm);
  Fill(map, 0x9a, 0x9a, kInvalid);
  Fill(map, 0xa8, 0xa8, kImm8);
  Fill(map, 0xa9, 0xa9, kImmZ);
  Fill(map, 0xb0, 0xb7, kImm8);
  Fill(map, 0xb8, 0xbf, kImmZ);
  Fill(map, 0xc0, 0xc1, kModrm | kImm8);
  Fill(map, 0xc2, 0xc2, kImm16);
  Fill(map, 0xc6, 0xc6, kModrm | kImm8);
  Fill(map, 0xc7, 0xc7, kModrm | kImmZ);
  Fill(map, 0xc8, 0xc8, kImm16 | kImm8);
  Fill(map, 0xca, 0xca, kImm16);
  Fill(map, 0xcd, 0xcd, kImm8);
  Fill(map, 0xce, 0xce, kInvalid);
  Fill(map, 0xd0, 0xd3, kModrm);
  Fill(map, 0xd4, 0xd6, kInvalid);
  Fill(map, 0xd8, 0xdf, kModrm);
  Fill(map, 0xe0, 0xe7, kImm8);
  Fill(map, 0xe8, 0xe9, kImmZ);
  Fill(map, 0xea, 0xea, kInvalid);
  Fill(map, 0xeb, 0xeb, kImm8);
  Fill(map, 0xf6, 0xf7, kModrm);
  Fill(map, 0xfe, 0xff, kModrm);
  return map;
}

constexpr Map TwoByteMap() {
  Map map{};
  Fill(map, 0x00, 0xff, kModrm);
  for (int opcode : {0x04, 0x0a, 0x0c, 0x0e, 0x0f, 0x20, 0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27,
                     0x36, 0x37, 0x39, 0x3b, 0x3c, 0x3d, 0x3e, 0x3f, 0x7a, 0x7b, 0xa6, 0xa7}) {
    Fill(map, opcode, opcode, kInvalid);
  }
  for (int opcode : {0x05, 0x06, 0x07, 0x08, 0x09, 0x0b, 0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x77,
                     0xa0, 0xa1, 0xa2, 0xa8, 0xa9, 0xaa}) {
    Fill(map, opcode, opcode, kNone);
  }
  Fill(map, 0xc8, 0xcf, kNone);
  Fill(map, 0x80, 0x8f, kImmZ);
  for (int opcode : {0x70, 0x71, 0x72, 0x73, 0xa4, 0xac, 0xba, 0xc2, 0xc4, 0xc5, 0xc6}) {
    Fill(map, opcode, opcode, kModrm | kImm8);
  }
  return map;
}

constexpr Map kOneByte = OneByteMap();
constexpr Map kTwoByte = TwoByteMap();

class Decoder {
 public:
  explicit Decoder(std::span<const uint8_t> bytes)
      : bytes_(bytes.first(std::min(bytes.size(), kInstructionBytesMax))) {}

  std::optional<Instruction> Run() {
    Prefixes();
    const uint8_t opcode = Next();
    if (opcode == 0xc4 || opcode == 0xc5 || opcode == 0x62) {
      Vex(opcode);
    } else if (opcode == 0x0f) {
      TwoByte();
    } else {
      OneByte(opcode);
    }
    if (bad_ || at_ > bytes_.size()) return std::nullopt;
    result_.length = static_cast<uint8_t>(at_);
    result_.target += static_cast<int32_t>(at_);
    return result_;
  }

 private:
  uint8_t Next() { return at_ < bytes_.size() ? bytes_[at_++] : Fail(); }
  uint8_t Fail() {
    bad_ = true;
    return 0;
  }

  void Prefixes() {
    while (at_ < bytes_.size()) {
      switch (bytes_[at_]) {
        case 0x66:
          operand_size_ = true;
          break;
        case 0x67:
          address_size_ = true;
          break;
        case 0xf2:
        case 0xf3:
          repeat_ = true;
          break;
        case 0xf0:
          lock_ = true;
          break;
        case 0x26:
        case 0x2e:
        case 0x36:
        case 0x3e:
        case 0x64:
        case 0x65:
          break;
        default:
          if ((bytes_[at_] & 0xf0) == 0x40) rex_ = bytes_[at_++];
          return;  // What follows REX is the opcode; another prefix there is refused as such.
      }
      at_++;
    }
  }

  void Modrm() {
    const uint8_t modrm = Next();
    const int mod = modrm >> 6;
    reg_ = (modrm >> 3) & 7;
    if (mod == 3) return;
    int base = modrm & 7;
    if (base == 4) base = Next() & 7;
    if (mod == 1) at_ += 1;
    if (mod == 2 || (mod == 0 && base == 5)) at_ += 4;
  }

  void Apply(uint8_t operands) {
    if ((operands & kInvalid) != 0) bad_ = true;
    if ((operands & kModrm) != 0) Modrm();
    if ((operands & kImm16) != 0) at_ += 2;
    if ((operands & kImm8) != 0) at_ += 1;
    if ((operands & kImmZ) != 0) at_ += operand_size_ && (rex_ & 8) == 0 ? 2 : 4;
  }

  void Relative(Flow flow, size_t size) {
    result_.flow = flow;
    // With a 66 prefix the size depends on who made the CPU.
    if (operand_size_ || at_ > bytes_.size()) {
      bad_ = true;
      return;
    }
    uint32_t value = 0;
    for (size_t i = 0; i < size; i++) value |= uint32_t{bytes_[at_ - size + i]} << (8 * i);
    result_.target = size == 1 ? static_cast<int8_t>(value) : static_cast<int32_t>(value);
  }

  void OneByte(uint8_t opcode) {
    if (rex_ != 0 && IsPrefix(opcode)) bad_ = true;
    if (opcode >= 0xa0 && opcode <= 0xa3) {
      at_ += address_size_ ? 4 : 8;
      return;
    }
    if (opcode >= 0xb8 && opcode <= 0xbf && (rex_ & 8) != 0) {
      at_ += 8;
      return;
    }
    Apply(kOneByte[opcode]);
    if (opcode == 0xf6 && reg_ < 2) at_ += 1;
    if (opcode == 0xf7 && reg_ < 2) at_ += operand_size_ && (rex_ & 8) == 0 ? 2 : 4;
    if (opcode == 0x8f && reg_ != 0) bad_ = true;                      // XOP
    if ((opcode == 0xc6 || opcode == 0xc7) && reg_ != 0) bad_ = true;  // XABORT, XBEGIN
    Classify(opcode);
  }

  void Classify(uint8_t opcode) {
    if ((opcode & 0xf0) == 0x70 || (opcode >= 0xe0 && opcode <= 0xe3)) {
      Relative(Flow::kConditional, 1);
    } else if (opcode == 0xe8) {
      Relative(Flow::kCall, 4);
    } else if (opcode == 0xe9) {
      Relative(Flow::kJump, 4);
    } else if (opcode == 0xeb) {
      Relative(Flow::kJump, 1);
    } else if (opcode == 0xff && (reg_ == 2 || reg_ == 3)) {
      result_.flow = Flow::kCallFar;
    } else if (opcode == 0xff && (reg_ == 4 || reg_ == 5)) {
      result_.flow = Flow::kLeave;
    } else if (opcode == 0xc2 || opcode == 0xc3 || opcode == 0xca || opcode == 0xcb ||
               opcode == 0xcf || opcode == 0xf4) {
      result_.flow = Flow::kLeave;
    } else if (opcode == 0xcc) {
      result_.flow = Flow::kLeave;
      result_.is_nop = at_ == 1;
    } else if (opcode == 0x90) {
      result_.is_nop = rex_ == 0 && !repeat_ && !lock_;
    }
  }

  void TwoByte() {
    const uint8_t opcode = Next();
    if (opcode == 0x38) {
      Next();
      Apply(kModrm);
      return;
    }
    if (opcode == 0x3a) {
      Next();
      Apply(kModrm | kImm8);
      return;
    }
    // EXTRQ and INSERTQ take two more bytes.
    if (opcode == 0x78 && (operand_size_ || repeat_)) bad_ = true;
    Apply(kTwoByte[opcode]);
    if ((opcode & 0xf0) == 0x80) Relative(Flow::kConditional, 4);
    if (opcode == 0x0b) result_.flow = Flow::kLeave;
    if (opcode == 0x1f) result_.is_nop = reg_ == 0 && !repeat_ && !lock_;
  }

  // VEX and EVEX: a map number, then as in that map. Legacy prefixes make them undefined.
  void Vex(uint8_t first) {
    if (operand_size_ || repeat_ || lock_ || rex_ != 0) bad_ = true;
    int map = 1;
    if (first == 0xc4) {
      map = Next() & 0x1f;
      Next();
    } else if (first == 0xc5) {
      Next();
    } else {
      map = Next() & 7;
      Next();
      Next();
    }
    const uint8_t opcode = Next();
    const bool evex = first == 0x62;
    if (map == 1) {
      if (kTwoByte[opcode] == kImmZ) bad_ = true;
      if (opcode == 0x77 && !evex) return;
      // Fewer than the legacy map has: A4, AC and BA are general-purpose instructions.
      const bool imm = (opcode >= 0x70 && opcode <= 0x73) || opcode == 0xc2 ||
                       (opcode >= 0xc4 && opcode <= 0xc6);
      Apply(imm ? kModrm | kImm8 : kModrm);
    } else if (map == 2 || (evex && (map == 5 || map == 6))) {
      Apply(map == 5 && opcode == 0xc2 ? kInvalid : kModrm);
    } else if (map == 3) {
      Apply(kModrm | kImm8);
    } else {
      bad_ = true;
    }
  }

  static bool IsPrefix(uint8_t byte) {
    switch (byte) {
      case 0x26:
      case 0x2e:
      case 0x36:
      case 0x3e:
      case 0x64:
      case 0x65:
      case 0x66:
      case 0x67:
      case 0xf0:
      case 0xf2:
      case 0xf3:
        return true;
      default:
        return (byte & 0xf0) == 0x40;
    }
  }

  std::span<const uint8_t> bytes_;
  size_t at_ = 0;
  bool bad_ = false;
  bool operand_size_ = false;
  bool address_size_ = false;
  bool repeat_ = false;
  bool lock_ = false;
  uint8_t rex_ = 0;
  int reg_ = 0;
  Instruction result_;
};

}  // namespace

std::optional<Instruction> Decode(std::span<const uint8_t> bytes) { return Decoder(bytes).Run(); }

}  // namespace platform::rewrite
