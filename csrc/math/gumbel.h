// Standard Gumbel variates g = -log(-log u), and what is made of them, in binary logarithms: with h = log2(-log2 u),
// g = kGumbelShift - ln2 h, and exp(a g) = 2^(a (kGumbelShift log2(e) - h)).
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

inline constexpr double kGumbelShift = 0.36651292058166432701;  // -log(log 2)
inline constexpr double kLn2 = 0.69314718055994530942;

namespace detail {

// log2(1 + f) / f on [sqrt(1/2), sqrt(2)] - 1: a Remez fit, relative error 1.7e-7, which is enough for noise. It is
// evaluated by pairs, because a short chain of dependent operations is what matters here.
template <class F>
DVAE_EXT_HD F log2_quotient(F f) {
  const F square = f * f;
  const F low = fma(fma(F(-0.360239655f), f, F(0.480923235f)), square, fma(F(-0.721352816f), f, F(1.4426949f)));
  const F high = fma(fma(F(-0.145811766f), f, F(0.234042406f)), square, fma(F(-0.248876855f), f, F(0.287098706f)));
  return fma(high, square * square, low);
}

// log2(-log2 u) for u = odd * 2^-22. The inner logarithm keeps its relative accuracy as u approaches 1.
template <class F>
DVAE_EXT_HD F gumbel_exponent_float(F odd) {
  constexpr int32_t root_half = 0x3f3504f3, scale = 22 << 23;  // bits of sqrt(1/2); of the factor 2^22
  const auto bits = bits_of(odd);
  const auto n = (bits - (root_half + scale)) >> 23;
  const F f = fma(from_bits(bits - (n << 23)), F(0x1p-22f), F(-1.0f));
  const F inner = -fma(log2_quotient(f), f, to_float(n));
  const auto inner_bits = bits_of(inner);
  const auto inner_n = (inner_bits - root_half) >> 23;
  const F inner_f = from_bits(inner_bits - (inner_n << 23)) - F(1.0f);
  return fma(log2_quotient(inner_f), inner_f, to_float(inner_n));
}

// 2^x for x <= 126, zero for results near the end of the normal range: a Remez fit on |r| <= 1/2, relative error 8e-8.
template <class F>
DVAE_EXT_HD F exp2_flushed_float(F x) {
  const F shifted = x + F(kRoundShift);
  const F r = x - (shifted - F(kRoundShift));
  const F square = r * r;
  const F high = fma(fma(F(0.00132764714f), r, F(0.0096755413f)), square, fma(F(0.0555071328f), r, F(0.240221197f)));
  const F p = fma(high, square, fma(F(0.693146967f), r, F(1.00000007f)));
  // Adding kRoundShift left the nearest integer in the low bits, which the shift moves to the exponent.
  return select(x < F(-125.0f), F(0.0f), p * from_bits((bits_of(shifted) << 23) + 0x3f800000));
}

}  // namespace detail

// log2(-log2 u) for the uniform u that the upper 21 bits of a generator word make: on {1, 3, ..., 2^22 - 1} / 2^22,
// neither 0 nor 1, symmetric about 1/2.
template <class Word>
DVAE_EXT_HD Word odd_of(Word word) {
  return (word >> 10) | 1u;
}
template <class T>
DVAE_EXT_HD T gumbel_exponent(uint32_t word);
template <>
DVAE_EXT_HD float gumbel_exponent<float>(uint32_t word) {
  return detail::gumbel_exponent_float(static_cast<float>(static_cast<int32_t>(odd_of(word))));
}
template <>
DVAE_EXT_HD double gumbel_exponent<double>(uint32_t word) {
  return ::log2(-::log2(static_cast<double>(odd_of(word)) * 0x1p-22));
}
template <class T>
DVAE_EXT_HD T gumbel_from_word(uint32_t word) {
  return fma(T(-kLn2), gumbel_exponent<T>(word), T(kGumbelShift));
}

DVAE_EXT_HD float exp2_flushed(float x) { return detail::exp2_flushed_float(x); }
DVAE_EXT_HD double exp2_flushed(double x) { return ::exp2(x); }
#if DVAE_EXT_HAS_SIMD
DVAE_EXT_HD Simd gumbel_exponent(Simd odd) { return detail::gumbel_exponent_float(odd); }
DVAE_EXT_HD Simd exp2_flushed(Simd x) { return detail::exp2_flushed_float(x); }
#endif

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
