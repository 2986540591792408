// What math/gumbel.h computes with longer polynomials, by table for AVX-512: the top 5 bits of a mantissa choose one of
// 32 intervals (one vpermi2ps), and the polynomials on what is left are short.
#pragma once

#if defined(__AVX512F__)

// GCC 12 reports the intrinsics' own "undefined" operands as uninitialised.
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include <immintrin.h>

#include <cmath>

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

class GumbelTables {
 public:
  explicit GumbelTables(double inverse_temperature) {
    const double p = inverse_temperature, half_width = 1.0 / 64;
    for (int i = 0; i < 32; ++i) {
      // The last interval, next to 2, is reduced by exactly 1/2: numbers just below 1 keep the digits of their
      // logarithm.
      // Logarithms that are multiples of 2^-19 can be moved by 32 exactly.
      const double log2 = i == 31 ? 1 : std::round(0x1p19 * std::log2((65 + 2 * i) / 64.0)) * 0x1p-19;
      inverse_[i] = static_cast<float>(std::exp2(-log2));
      log2_[i] = static_cast<float>(log2);
      log2_less_32_[i] = static_cast<float>(log2 - 32);
      exp2_[i] = bit_cast<int32_t>(static_cast<float>(std::exp2(i / 32.0))) - (i << 18);
      interval_power_[i] = static_cast<float>(std::pow(static_cast<double>(inverse_[i]), p));
      // The exponents -27 to 4 of numbers that weight() takes, by their low 5 bits.
      const int exponent = (i + 28) % 32 - 27;
      exponent_power_[i] = static_cast<float>(std::exp2(-p * exponent));
    }
    // (1 + f)^-p: the binomial series to the fourth power, that power replaced by its best quadratic on |f| <= 1/64.
    const double c2 = p * (p + 1) / 2, c3 = -c2 * (p + 2) / 3, c4 = -c3 * (p + 3) / 4;
    const double square = half_width * half_width;
    power_[0] = static_cast<float>(1 - c4 * square * square / 8);
    power_[1] = static_cast<float>(-p);
    power_[2] = static_cast<float>(c2 + c4 * square);
    power_[3] = static_cast<float>(c3);
  }

  // log2 x of positive normal numbers; on the uniforms of the generator with a relative error below 1.1e-6, enough for
  // noise: log2(-log2 u) has an absolute error of 1.8e-6.
  DVAE_EXT_HD __m512 log2(__m512 x) const {
    __m512 f, base, quotient;
    split(x, log2_, f, base, quotient);
    return _mm512_fmadd_ps(quotient, f, base);
  }
  // -log2(2^-32 x)
  DVAE_EXT_HD __m512 minus_log2_scaled(__m512 x) const {
    __m512 f, base, quotient;
    split(x, log2_less_32_, f, base, quotient);
    return _mm512_fnmsub_ps(quotient, f, base);
  }

  // 2^x for -125 <= x <= 126: relative error 1.7e-7.
  DVAE_EXT_HD __m512 exp2(__m512 x) const {
    const __m512 shift = _mm512_set1_ps(0x1.8p18f);  // adding it leaves the nearest multiple of 1/32 in the low bits
    const __m512 shifted = _mm512_add_ps(x, shift);
    const __m512 r = _mm512_sub_ps(x, _mm512_sub_ps(shifted, shift));
    const __m512i bits = _mm512_castps_si512(shifted);
    const __m512i fraction = _mm512_permutex2var_epi32(_mm512_load_si512(exp2_), bits, _mm512_load_si512(exp2_ + 16));
    const __m512 scale = _mm512_castsi512_ps(_mm512_add_epi32(fraction, _mm512_slli_epi32(bits, 18)));
    const __m512 quotient = _mm512_fmadd_ps(r, _mm512_set1_ps(0.240228855f), _mm512_set1_ps(0.693157199f));
    return _mm512_fmadd_ps(_mm512_mul_ps(scale, quotient), r, scale);
  }

  // scale x^-(1/T) for x in [2^-27, 2^5) and 1/T <= 3.4: relative error of the power 4e-7.
  DVAE_EXT_HD __m512 weight(__m512 x, __m512 scale) const {
    __m512i interval;
    const __m512 f = reduce(x, interval);
    const __m512i exponent = _mm512_srli_epi32(_mm512_castps_si512(x), 23);
    const __m512 high = _mm512_fmadd_ps(_mm512_set1_ps(power_[3]), f, _mm512_set1_ps(power_[2]));
    const __m512 low =
        _mm512_fmadd_ps(_mm512_fmadd_ps(high, f, _mm512_set1_ps(power_[1])), f, _mm512_set1_ps(power_[0]));
    const __m512 table = _mm512_mul_ps(entry(exponent_power_, exponent), entry(interval_power_, interval));
    return _mm512_mul_ps(_mm512_mul_ps(scale, table), low);
  }

 private:
  // log2 x = base + quotient f, with a Remez fit of log2(1 + f) / f on |f| <= 1/64, relative error 2.4e-7.
  DVAE_EXT_HD void split(__m512 x, const float* table, __m512& f, __m512& base, __m512& quotient) const {
    __m512i interval;
    f = reduce(x, interval);
    base = _mm512_add_ps(entry(table, interval), _mm512_getexp_ps(x));
    quotient = _mm512_fmadd_ps(f, _mm512_set1_ps(0.480964399f), _mm512_set1_ps(-0.721413571f));
    quotient = _mm512_fmadd_ps(quotient, f, _mm512_set1_ps(1.44269504f));
  }
  // x = 2^n (1 + f) / inverse_[interval]; of `interval` the low 5 bits count.
  DVAE_EXT_HD __m512 reduce(__m512 x, __m512i& interval) const {
    const __m512i bits = _mm512_castps_si512(x);
    interval = _mm512_srli_epi32(bits, 18);
    const __m512i fraction = _mm512_set1_epi32(0x7fffff), one = _mm512_set1_epi32(0x3f800000);
    const __m512 mantissa = _mm512_castsi512_ps(_mm512_ternarylogic_epi32(bits, fraction, one, 0xea));  // and, then or
    return _mm512_fmsub_ps(mantissa, entry(inverse_, interval), _mm512_set1_ps(1.0f));
  }
  DVAE_EXT_HD static __m512 entry(const float* table, __m512i index) {
    return _mm512_permutex2var_ps(_mm512_load_ps(table), index, _mm512_load_ps(table + 16));
  }

  alignas(64) float inverse_[32];
  alignas(64) float log2_[32];
  alignas(64) float log2_less_32_[32];
  alignas(64) int32_t exp2_[32];
  alignas(64) float interval_power_[32];
  alignas(64) float exponent_power_[32];
  float power_[4];
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math

#pragma GCC diagnostic pop

#endif  // __AVX512F__
