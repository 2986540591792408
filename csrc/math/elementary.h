// exp, log and their relatives for float, for a vector of floats, and for double.
//
// The float versions are branch-free and the same arithmetic on every backend, one lane or many. Polynomials: Remez
// fits to (exp(r)-1-r)/r^2 on |r| <= ln2/2 (error 3.4e-9) and to (log(1+f)-f+f^2/2)/f^3 on [sqrt(1/2), sqrt(2)] (error
// 6.8e-9 |f|). The double versions call the C library.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "math/macros.h"
#include "math/simd.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

template <class To, class From>
DVAE_EXT_HD To bit_cast(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  memcpy(&to, &from, sizeof(to));
  return to;
}

template <class T>
DVAE_EXT_HD T select(bool condition, T if_true, T if_false) {
  return condition ? if_true : if_false;
}

DVAE_EXT_HD float fma(float a, float b, float c) {
#if DVAE_EXT_HAS_FMA
  return ::fmaf(a, b, c);
#else
  return a * b + c;
#endif
}
DVAE_EXT_HD double fma(double a, double b, double c) {
#if DVAE_EXT_HAS_FMA
  return ::fma(a, b, c);
#else
  return a * b + c;
#endif
}

DVAE_EXT_HD float sqrt(float x) { return ::sqrtf(x); }
DVAE_EXT_HD double sqrt(double x) { return ::sqrt(x); }
DVAE_EXT_HD float fabs(float x) { return ::fabsf(x); }
DVAE_EXT_HD double fabs(double x) { return ::fabs(x); }
// A NaN in either argument comes out, unlike with the C library's fmin and fmax.
template <class T>
DVAE_EXT_HD T maximum(T a, T b) {
  return select((a > b) | (a != a), a, b);
}
template <class T>
DVAE_EXT_HD T minimum(T a, T b) {
  return select((a < b) | (a != a), a, b);
}
// x held to [-bound, bound]; a NaN stays one.
template <class T>
DVAE_EXT_HD T within(T x, T bound) {
  const T lowered = select(x > bound, bound, x);
  return select(lowered < -bound, -bound, lowered);
}
// A slope beyond the range is held to its end: an incoming gradient of 0, which switches it off, would make infinity
// NaN.
template <class T>
DVAE_EXT_HD T finite_slope(T slope) {
  return within(slope, T(FLT_MAX));
}
DVAE_EXT_HD double finite_slope(double slope) { return within(slope, DBL_MAX); }
template <class T>
DVAE_EXT_HD T nan() {
  return T(NAN);
}
template <class T>
DVAE_EXT_HD T smallest_normal() {
  return T(FLT_MIN);
}
template <>
DVAE_EXT_HD double smallest_normal<double>() {
  return DBL_MIN;
}

namespace detail {

// The integers that lie behind the bits of a float, of a vector of floats.
DVAE_EXT_HD int32_t bits_of(float x) { return bit_cast<int32_t>(x); }
DVAE_EXT_HD float from_bits(int32_t bits) { return bit_cast<float>(bits); }
DVAE_EXT_HD float to_float(int32_t n) { return static_cast<float>(n); }

constexpr float kLn2High = 0.693145752f;  // 17 bits: its product with an exponent is exact
constexpr float kLn2Low = 1.42860677e-6f;
constexpr float kRoundShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits
constexpr int32_t kRoundShiftBits = 0x4b400000;

// exp(r) - 1 for x = n ln2 + r, |r| <= ln2/2; writes n.
template <class F, class I>
DVAE_EXT_HD F expm1_reduced(F x, I& n) {
  const F shifted = fma(x, F(1.44269504f), F(kRoundShift));
  n = bits_of(shifted) - kRoundShiftBits;
  const F integer = shifted - F(kRoundShift);
  const F r = fma(integer, F(-kLn2Low), fma(integer, F(-kLn2High), x));
  F p = F(0.00139517203f);
  p = fma(p, r, F(0.0083695982f));
  p = fma(p, r, F(0.0416661872f));
  p = fma(p, r, F(0.166665129f));
  p = fma(p, r, F(0.50000001f));
  return fma(p, r * r, r);
}

template <class F>
DVAE_EXT_HD F held(F x, float low, float high) {
  const F raised = select(x < F(low), F(low), x);
  return select(raised > F(high), F(high), raised);
}

template <class F>
DVAE_EXT_HD F exp_float(F x) {
  decltype(bits_of(x)) n;
  const F y = F(1.0f) + expm1_reduced(held(x, -104.0f, 89.0f), n);
  const auto half = n >> 1;  // two factors, so that denormal results are reached
  return y * from_bits((half + 127) << 23) * from_bits((n - half + 127) << 23);
}

template <class F>
DVAE_EXT_HD F expm1_float(F x) {
  decltype(bits_of(x)) n;
  const F y = expm1_reduced(held(x, -18.0f, 89.0f), n);
  const F half = from_bits((n + 126) << 23);  // 2^n itself overflows at the upper end
  return F(2.0f) * fma(half, y, half - F(0.5f));
}

// log(u + c) for |c| much smaller than u: the one place where float logarithms are computed.
template <class F>
DVAE_EXT_HD F log_float(F u, F c) {
  const auto denormal = u < F(FLT_MIN);
  const F lift = select(denormal, F(8388608.0f), F(1.0f));
  const auto bits = bits_of(u * lift);
  const auto n = (bits - 0x3f3504f3) >> 23;  // mantissa in [sqrt(1/2), sqrt(2))
  const F f = fma(c * lift, from_bits((127 - n) << 23), from_bits(bits - (n << 23)) - F(1.0f));
  F p = F(-0.079267998f);
  p = fma(p, f, F(0.129751556f));
  p = fma(p, f, F(-0.13146039f));
  p = fma(p, f, F(0.141690208f));
  p = fma(p, f, F(-0.166217256f));
  p = fma(p, f, F(0.200027502f));
  p = fma(p, f, F(-0.250008946f));
  p = fma(p, f, F(0.333333118f));
  const F square = f * f;
  const F exponent = to_float(n) - select(denormal, F(23.0f), F(0.0f));
  F result = fma(p * f, square, F(-0.5f) * square);
  result = fma(exponent, F(kLn2Low), result);
  result = fma(exponent, F(kLn2High), result + f);
  result = select(u > F(FLT_MAX), u, result);
  result = select(u == F(0.0f), F(-INFINITY), result);
  return select(u >= F(0.0f), result, F(NAN));
}

template <class F>
DVAE_EXT_HD F log1p_float(F x) {
  const F one(1.0f);
  const F u = one + x;
  const F c = select(x > one, one - (u - x), x - (u - one));
  return log_float(u, select(u > F(FLT_MAX), F(0.0f), c));
}

}  // namespace detail

DVAE_EXT_HD float exp(float x) { return detail::exp_float(x); }
DVAE_EXT_HD float expm1(float x) { return detail::expm1_float(x); }
DVAE_EXT_HD float log(float x) { return detail::log_float(x, 0.0f); }
DVAE_EXT_HD float log1p(float x) { return detail::log1p_float(x); }
// log(u + c) where c holds the digits that u lost.
DVAE_EXT_HD float log_corrected(float u, float c) { return detail::log_float(u, c); }

#if DVAE_EXT_HAS_SIMD
DVAE_EXT_HD Simd exp(Simd x) { return detail::exp_float(x); }
DVAE_EXT_HD Simd expm1(Simd x) { return detail::expm1_float(x); }
DVAE_EXT_HD Simd log(Simd x) { return detail::log_float(x, Simd(0.0f)); }
DVAE_EXT_HD Simd log1p(Simd x) { return detail::log1p_float(x); }
DVAE_EXT_HD Simd log_corrected(Simd u, Simd c) { return detail::log_float(u, c); }
#endif

DVAE_EXT_HD double exp(double x) { return ::exp(x); }
DVAE_EXT_HD double expm1(double x) { return ::expm1(x); }
DVAE_EXT_HD double log(double x) { return ::log(x); }
DVAE_EXT_HD double log1p(double x) { return ::log1p(x); }
DVAE_EXT_HD double log_corrected(double u, double c) { return ::log(u) + c / u; }

template <class T>
DVAE_EXT_HD T softplus(T x) {
  return select(x > T(0), x, T(0)) + log1p(exp(-fabs(x)));
}

template <class T>
DVAE_EXT_HD T sigmoid(T x) {
  const T e = exp(-fabs(x));
  return select(x >= T(0), T(1), e) / (T(1) + e);
}

template <class T>
DVAE_EXT_HD T log_sigmoid(T x) {
  return -softplus(-x);
}

// sqrt(a^2 + b^2) for |a|, |b| up to 1e15, without underflow: both are scaled by a power of two where they are small,
// by one that lifts the square of the smallest denormal number into the normal range.
template <class T>
DVAE_EXT_HD T hypot(T a, T b) {
  constexpr bool wide = std::is_same_v<T, double>;
  const T small(wide ? 0x1p-400 : 0x1p-32), up(wide ? 0x1p600 : 0x1p90), one(1);
  const auto tiny = (fabs(a) < small) & (fabs(b) < small);
  const T scale = select(tiny, up, one), back = select(tiny, one / up, one);
  const T x = a * scale, y = b * scale;
  return sqrt(x * x + y * y) * back;
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
