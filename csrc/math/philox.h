// Philox4x32-10, the counter-based generator of Salmon, Moraes, Dror and Shaw, "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011). A draw is a pure function of a 128-bit counter and a
// 64-bit key, so it depends on what is drawn (chain, unit, sweep) and never on who draws it.
//
// Convention of all ops: key = (low, high) words of the seed; counter words 2 and 3 = (low, high)
// words of offset + step; word 1 = row (chain, sample); word 0 = block of 4 consecutive columns,
// one per output word, or of 6 (spare_word), with op-specific high bits that separate streams.
#pragma once

#include <cstdint>

#include "math/macros.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

inline constexpr uint32_t kPhiloxMultiplier0 = 0xD2511F53u;
inline constexpr uint32_t kPhiloxMultiplier1 = 0xCD9E8D57u;
inline constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
inline constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
inline constexpr int kPhiloxRounds = 10;

struct Words4 {
  uint32_t x, y, z, w;
};

DVAE_EXT_HD Words4 philox4x32(uint32_t c0, uint32_t c1, uint32_t c2, uint32_t c3, uint32_t k0, uint32_t k1) {
  // Plain 64-bit products: GCC turns them into vpmuludq, nvcc into mul.lo and mul.hi.
  for (int round = 0; round < kPhiloxRounds; ++round) {
    const uint64_t product0 = static_cast<uint64_t>(kPhiloxMultiplier0) * c0;
    const uint64_t product1 = static_cast<uint64_t>(kPhiloxMultiplier1) * c2;
    c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(product1);
    c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(product0);
    k0 += kPhiloxWeyl0;
    k1 += kPhiloxWeyl1;
  }
  return {c0, c1, c2, c3};
}

// Where 21 bits make a uniform, one call has six: the upper bits of its words, and the lower ones of each two of them.
DVAE_EXT_HD uint32_t spare_word(uint32_t first, uint32_t second) { return (first << 21) | ((second & 0x7feu) << 10); }

// Uniform on {0, 1, ..., 2^24 - 1} / 2^24: may be 0, never 1. Exact in float.
DVAE_EXT_HD float uniform_half_open(uint32_t word) {
  return static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
}

// Uniform on {1, 3, ..., 2^24 - 1} / 2^24: neither 0 nor 1, symmetric about 1/2. Exact in float.
DVAE_EXT_HD float uniform_open(uint32_t word) {
  return (static_cast<float>(static_cast<int32_t>(word >> 9)) + 0.5f) * 0x1p-23f;
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
