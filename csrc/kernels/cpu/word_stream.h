// Rows of words from the counter-based generator, a vector of generator calls at a time.
#pragma once

#if defined(__AVX512F__)
#include <immintrin.h>
#endif

#include "math/philox.h"

#if defined(__AVX512F__) && defined(__GNUC__) && !defined(__clang__)
// GCC 12 takes the deliberately undefined operand inside its own intrinsics for a mistake.
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

namespace dvae_ext::kernels::DVAE_EXT_ISA {

class WordStream {
 public:
  static constexpr int64_t kStep = 64;  // words per step: 16 generator calls

  explicit WordStream(const int64_t* key)
      : seed_low_(low(key[0])), seed_high_(high(key[0])), offset_low_(low(key[1])), offset_high_(high(key[1])) {
    set_keys();
  }

  // Calls body(i, words) for i = 0, kStep, ... below count, with the words of units 4 * first_call + i, ... of a
  // counter row, kStep of them.
  template <class Body>
  void for_each_step(uint32_t row, uint32_t first_call, int64_t count, const Body& body) const {
    for (int64_t i = 0; i < count; i += kStep) {
      alignas(64) uint32_t words[kStep];
      step(row, first_call + static_cast<uint32_t>(i / 4), words);
      body(i, words);
    }
  }

 private:
  static uint32_t low(int64_t x) { return static_cast<uint32_t>(x); }
  static uint32_t high(int64_t x) { return static_cast<uint32_t>(static_cast<uint64_t>(x) >> 32); }

#if defined(__AVX512F__)
  // The round keys, one per 64-bit lane: loaded, not broadcast, in every round.
  void set_keys() {
    uint32_t key0 = seed_low_, key1 = seed_high_;
    for (int round = 0; round < math::kPhiloxRounds; ++round) {
      for (int lane = 0; lane < 8; ++lane) keys_[round][0][lane] = key0, keys_[round][1][lane] = key1;
      key0 += math::kPhiloxWeyl0;
      key1 += math::kPhiloxWeyl1;
    }
  }

  // Each 64-bit lane holds one counter word in its lower half; the multiplier ignores whatever is above it, so the
  // products are used without splitting them.
  void step(uint32_t row, uint32_t first_call, uint32_t* words) const {
    const __m512i multiplier0 = _mm512_set1_epi64(math::kPhiloxMultiplier0);
    const __m512i multiplier1 = _mm512_set1_epi64(math::kPhiloxMultiplier1);
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i first = _mm512_set_epi64(11, 3, 10, 2, 9, 1, 8, 0);
    const __m512i second = _mm512_set_epi64(15, 7, 14, 6, 13, 5, 12, 4);
    __m512i c0[2], c1[2], c2[2], c3[2];
    for (int half = 0; half < 2; ++half) {
      c0[half] = _mm512_add_epi64(_mm512_set1_epi64(static_cast<int64_t>(first_call) + 8 * half), lane);
      c1[half] = _mm512_set1_epi64(row);
      c2[half] = _mm512_set1_epi64(offset_low_);
      c3[half] = _mm512_set1_epi64(offset_high_);
    }
#pragma GCC unroll 10
    for (int round = 0; round < math::kPhiloxRounds; ++round) {
      const __m512i k0 = _mm512_load_si512(keys_[round][0]), k1 = _mm512_load_si512(keys_[round][1]);
      for (int half = 0; half < 2; ++half) {
        const __m512i product0 = _mm512_mul_epu32(c0[half], multiplier0);
        const __m512i product1 = _mm512_mul_epu32(c2[half], multiplier1);
        c0[half] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product1, 32), c1[half], k0, 0x96);
        c1[half] = product1;
        c2[half] = _mm512_ternarylogic_epi64(_mm512_srli_epi64(product0, 32), c3[half], k1, 0x96);
        c3[half] = product0;
      }
    }
    for (int half = 0; half < 2; ++half) {
      const __m512i xy = _mm512_mask_mov_epi32(c0[half], 0xaaaa, _mm512_slli_epi64(c1[half], 32));
      const __m512i zw = _mm512_mask_mov_epi32(c2[half], 0xaaaa, _mm512_slli_epi64(c3[half], 32));
      _mm512_store_si512(words + 32 * half, _mm512_permutex2var_epi64(xy, first, zw));
      _mm512_store_si512(words + 32 * half + 16, _mm512_permutex2var_epi64(xy, second, zw));
    }
  }
  alignas(64) uint64_t keys_[math::kPhiloxRounds][2][8];
#else
  void set_keys() {}
  void step(uint32_t row, uint32_t first_call, uint32_t* words) const {
#pragma GCC ivdep
    for (uint32_t call = 0; call < kStep / 4; ++call) {
      const math::Words4 w = math::philox4x32(first_call + call, row, offset_low_, offset_high_, seed_low_, seed_high_);
      words[4 * call] = w.x;
      words[4 * call + 1] = w.y;
      words[4 * call + 2] = w.z;
      words[4 * call + 3] = w.w;
    }
  }
#endif

  uint32_t seed_low_, seed_high_, offset_low_, offset_high_;
};

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
