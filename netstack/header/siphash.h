#pragma once

// SipHash-2-4 (Aumasson and Bernstein 2012): a keyed hash for what strangers must not guess.

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <span>

namespace netstack {

class SipHash {
 public:
  explicit SipHash(const std::array<uint64_t, 2>& key)
      : v_{key[0] ^ 0x736f6d6570736575, key[1] ^ 0x646f72616e646f6d, key[0] ^ 0x6c7967656e657261,
           key[1] ^ 0x7465646279746573} {}
  SipHash& Add(uint64_t word) {
    v_[3] ^= word;
    Round();
    Round();
    v_[0] ^= word;
    count_ += 8;
    return *this;
  }
  SipHash& Add(const std::array<uint8_t, 16>& bytes) {
    uint64_t words[2];
    std::memcpy(words, bytes.data(), sizeof(words));
    return Add(words[0]).Add(words[1]);
  }
  uint64_t Value() {
    const uint64_t last = uint64_t{count_} << 56;
    v_[3] ^= last;
    Round();
    Round();
    v_[0] ^= last;
    v_[2] ^= 0xff;
    for (int i = 0; i < 4; ++i) Round();
    return v_[0] ^ v_[1] ^ v_[2] ^ v_[3];
  }

 private:
  void Round() {
    v_[0] += v_[1];
    v_[1] = std::rotl(v_[1], 13) ^ v_[0];
    v_[0] = std::rotl(v_[0], 32);
    v_[2] += v_[3];
    v_[3] = std::rotl(v_[3], 16) ^ v_[2];
    v_[0] += v_[3];
    v_[3] = std::rotl(v_[3], 21) ^ v_[0];
    v_[2] += v_[1];
    v_[1] = std::rotl(v_[1], 17) ^ v_[2];
    v_[2] = std::rotl(v_[2], 32);
  }
  std::array<uint64_t, 4> v_;
  uint8_t count_ = 0;
};

}  // namespace netstack
