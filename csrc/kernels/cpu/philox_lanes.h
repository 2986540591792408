// The counter-based generator for 16 consecutive counter rows at a time, with AVX-512.
//
// Of the counter only the row differs between lanes, so that the first two rounds split: what depends on row and step
// (RowRounds), on call and step (CallRounds) and the other 8 rounds. Values sit in the low halves of 64-bit lanes, even
// and odd rows apart: vpmuludq ignores the high halves.
#pragma once

#if defined(__AVX512F__)

// GCC 12 reports the intrinsics' own "undefined" operands as uninitialised.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include "math/philox.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA::philox {

struct RowRounds {
  __m512i even, odd;  // round 2: multiplier 0 times counter word 0
};

struct RoundKeys {
  uint32_t k0[math::kPhiloxRounds], k1[math::kPhiloxRounds];
  uint32_t c2, c3;

  RoundKeys(uint64_t seed, uint64_t step) : c2(static_cast<uint32_t>(step)), c3(static_cast<uint32_t>(step >> 32)) {
    for (uint32_t r = 0; r < math::kPhiloxRounds; ++r) {
      k0[r] = static_cast<uint32_t>(seed) + r * math::kPhiloxWeyl0;
      k1[r] = static_cast<uint32_t>(seed >> 32) + r * math::kPhiloxWeyl1;
    }
  }
};

inline RowRounds row_rounds(const RoundKeys& key, uint32_t first_row) {
  const uint64_t product = static_cast<uint64_t>(math::kPhiloxMultiplier1) * key.c2;
  const __m512i mix = _mm512_set1_epi32(static_cast<int>(static_cast<uint32_t>(product >> 32) ^ key.k0[0]));
  const __m512i pairs = _mm512_setr_epi64(0, 2, 4, 6, 8, 10, 12, 14);
  const __m512i even = _mm512_add_epi32(_mm512_set1_epi32(static_cast<int>(first_row)), pairs);
  const __m512i odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
  const __m512i multiplier = _mm512_set1_epi64(math::kPhiloxMultiplier0);
  return {_mm512_mul_epu32(_mm512_xor_si512(even, mix), multiplier),
          _mm512_mul_epu32(_mm512_xor_si512(odd, mix), multiplier)};
}

// The scalar parts of rounds 1 to 3.
struct CallRounds {
  uint32_t round2_c0, round2_c1, round2_c2, round3_c2, round3_c3;

  CallRounds(const RoundKeys& key, uint32_t c0) {
    const uint64_t first0 = static_cast<uint64_t>(math::kPhiloxMultiplier0) * c0;
    const uint64_t first1 = static_cast<uint64_t>(math::kPhiloxMultiplier1) * key.c2;
    const uint32_t round1_c2 = static_cast<uint32_t>(first0 >> 32) ^ key.c3 ^ key.k1[0];
    const uint64_t second1 = static_cast<uint64_t>(math::kPhiloxMultiplier1) * round1_c2;
    round2_c0 = static_cast<uint32_t>(second1 >> 32) ^ static_cast<uint32_t>(first1) ^ key.k0[1];
    round2_c1 = static_cast<uint32_t>(second1);
    round2_c2 = static_cast<uint32_t>(first0) ^ key.k1[1];  // to be xored with the high half of the rows' product
    const uint64_t third0 = static_cast<uint64_t>(math::kPhiloxMultiplier0) * round2_c0;
    round3_c2 = static_cast<uint32_t>(third0 >> 32) ^ key.k1[2];  // to be xored with the low half of that product
    round3_c3 = static_cast<uint32_t>(third0);
  }
};

// One call of the generator for kGroups groups of 16 rows, a round at a time, so that other work can be put between the
// rounds: they are a long chain of dependent operations. begin() makes rounds 1 to 3.
template <int kGroups>
class Call {
 public:
  // Of those left to round(), which counts from 0; words() makes the last one.
  static constexpr int kFirstRound = 3, kEndRound = math::kPhiloxRounds - 1;

  inline void begin(const RowRounds* rows, const RoundKeys& key, const CallRounds& call) {
    const __m512i multiplier1 = _mm512_set1_epi64(math::kPhiloxMultiplier1);
#pragma GCC unroll 4
    for (int h = 0; h < 2 * kGroups; ++h) {
      const __m512i product = h % 2 == 0 ? rows[h / 2].even : rows[h / 2].odd;
      const __m512i c2 = _mm512_xor_si512(_mm512_srli_epi64(product, 32), splat(call.round2_c2));
      const __m512i third1 = _mm512_mul_epu32(c2, multiplier1);
      counters_[h] = {xor3(_mm512_srli_epi64(third1, 32), splat(call.round2_c1), splat(key.k0[2])), third1,
                      _mm512_xor_si512(product, splat(call.round3_c2)), splat(call.round3_c3)};
    }
  }

  inline void round(const RoundKeys& key, int round) {
    const __m512i multiplier0 = _mm512_set1_epi64(math::kPhiloxMultiplier0);
    const __m512i multiplier1 = _mm512_set1_epi64(math::kPhiloxMultiplier1);
#pragma GCC unroll 4
    for (Counter& c : counters_) {
      const __m512i product0 = _mm512_mul_epu32(c.c0, multiplier0);
      const __m512i product1 = _mm512_mul_epu32(c.c2, multiplier1);
      c = {xor3(_mm512_srli_epi64(product1, 32), c.c1, splat(key.k0[round])), product1,
           xor3(_mm512_srli_epi64(product0, 32), c.c3, splat(key.k1[round])), product0};
    }
  }

  // The last round, and words[group][word], one row per lane: with even and odd rows together it takes fewer
  // operations.
  inline void words(const RoundKeys& key, __m512i (&words)[kGroups][4]) const {
    constexpr int last = math::kPhiloxRounds - 1;
    const __m512i multiplier0 = _mm512_set1_epi64(math::kPhiloxMultiplier0);
    const __m512i multiplier1 = _mm512_set1_epi64(math::kPhiloxMultiplier1);
#pragma GCC unroll 2
    for (int g = 0; g < kGroups; ++g) {
      const Counter &even = counters_[2 * g], &odd = counters_[2 * g + 1];
      const __m512i even0 = _mm512_mul_epu32(even.c0, multiplier0), even1 = _mm512_mul_epu32(even.c2, multiplier1);
      const __m512i odd0 = _mm512_mul_epu32(odd.c0, multiplier0), odd1 = _mm512_mul_epu32(odd.c2, multiplier1);
      words[g][0] = xor3(high_halves(even1, odd1), low_halves(even.c1, odd.c1), splat(key.k0[last]));
      words[g][1] = low_halves(even1, odd1);
      words[g][2] = xor3(high_halves(even0, odd0), low_halves(even.c3, odd.c3), splat(key.k1[last]));
      words[g][3] = low_halves(even0, odd0);
    }
  }

 private:
  struct Counter {
    __m512i c0, c1, c2, c3;
  };

  static __m512i splat(uint32_t value) { return _mm512_set1_epi32(static_cast<int>(value)); }
  static __m512i xor3(__m512i a, __m512i b, __m512i c) { return _mm512_ternarylogic_epi32(a, b, c, 0x96); }
  static __m512i low_halves(__m512i even, __m512i odd) {
    return _mm512_mask_shuffle_epi32(even, 0xaaaa, odd, _MM_PERM_CCAA);
  }
  static __m512i high_halves(__m512i even, __m512i odd) {
    return _mm512_mask_shuffle_epi32(odd, 0x5555, even, _MM_PERM_DDBB);
  }

  Counter counters_[2 * kGroups];
};

// A whole call.
template <int kGroups>
inline void words_of(const RowRounds* rows, const RoundKeys& key, const CallRounds& call,
                     __m512i (&words)[kGroups][4]) {
  Call<kGroups> rounds;
  rounds.begin(rows, key, call);
#pragma GCC unroll 10
  for (int r = rounds.kFirstRound; r < rounds.kEndRound; ++r) rounds.round(key, r);
  rounds.words(key, words);
}

// 2^32 times a uniform of the upper kBits bits of a word, odd 2^-(kBits + 1): exactly, and without shifts.
template <int kBits>
inline __m512 scaled_uniform(__m512i word) {
  constexpr int half = 1 << (31 - kBits);
  const __m512i odd = _mm512_ternarylogic_epi32(word, _mm512_set1_epi32(-2 * half), _mm512_set1_epi32(half), 0xea);
  return _mm512_cvtepu32_ps(odd);
}

// spare_word of math/philox.h, with other low bits.
inline __m512i spare_word(__m512i a, __m512i b) {
  constexpr int choose = 0xca;  // bits of the second where the first has ones, otherwise of the third
  return _mm512_ternarylogic_epi32(_mm512_set1_epi32(~0x1fffff), _mm512_slli_epi32(a, 21), _mm512_slli_epi32(b, 10),
                                   choose);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA::philox

#pragma GCC diagnostic pop

#endif  // __AVX512F__
