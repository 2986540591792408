// exp, log and their relatives for float and double.
//
// The float versions are branch-free, so that loops over them become vector code, and they are the same arithmetic on
// every backend. Polynomials: Remez fits to (exp(r)-1-r)/r^2 on |r| <= ln2/2 (error 3.4e-9) and to
// (log(1+f)-f+f^2/2)/f^3 on [sqrt(1/2), sqrt(2)] (error 6.8e-9 |f|). The double versions call the C library.
#pragma once

#include <cfloat>
#include <cmath>
#include <cstring>

#include "math/macros.h"

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
  return (a > b || a != a) ? a : b;
}
template <class T>
DVAE_EXT_HD T minimum(T a, T b) {
  return (a < b || a != a) ? a : b;
}
template <class T>
DVAE_EXT_HD T nan() {
  return static_cast<T>(NAN);
}
template <class T>
DVAE_EXT_HD T smallest_normal();
template <>
DVAE_EXT_HD float smallest_normal<float>() {
  return FLT_MIN;
}
template <>
DVAE_EXT_HD double smallest_normal<double>() {
  return DBL_MIN;
}

namespace detail {

constexpr float kLn2High = 0.693145752f;  // 17 bits: its product with an exponent is exact
constexpr float kLn2Low = 1.42860677e-6f;
constexpr float kRoundShift = 12582912.0f;  // 1.5 * 2^23: adding it leaves the nearest integer in the low bits

// x = n ln2 + r with |r| <= ln2/2; returns r and writes n.
DVAE_EXT_HD float reduce_exp(float x, int32_t& n) {
  const float shifted = fma(x, 1.44269504f, kRoundShift);
  n = bit_cast<int32_t>(shifted) - bit_cast<int32_t>(kRoundShift);
  const float integer = shifted - kRoundShift;
  return fma(integer, -kLn2Low, fma(integer, -kLn2High, x));
}
// exp(r) - 1 for the reduced r.
DVAE_EXT_HD float expm1_polynomial(float r) {
  float p = 0.00139517203f;
  p = fma(p, r, 0.0083695982f);
  p = fma(p, r, 0.0416661872f);
  p = fma(p, r, 0.166665129f);
  p = fma(p, r, 0.50000001f);
  return fma(p, r * r, r);
}
DVAE_EXT_HD float power_of_two(int32_t n) { return bit_cast<float>((n + 127) << 23); }

// log(u + c) for |c| much smaller than u: the one place where float logarithms are computed.
DVAE_EXT_HD float log_corrected(float u, float c) {
  const bool denormal = u < FLT_MIN;
  const float scaled = denormal ? u * 8388608.0f : u;
  const float scaled_c = denormal ? c * 8388608.0f : c;
  const int32_t bits = bit_cast<int32_t>(scaled);
  const int32_t n = (bits - 0x3f3504f3) >> 23;  // mantissa in [sqrt(1/2), sqrt(2))
  const float mantissa = bit_cast<float>(bits - (n << 23));
  const float f = fma(scaled_c, bit_cast<float>((127 - n) << 23), mantissa - 1.0f);
  float p = -0.079267998f;
  p = fma(p, f, 0.129751556f);
  p = fma(p, f, -0.13146039f);
  p = fma(p, f, 0.141690208f);
  p = fma(p, f, -0.166217256f);
  p = fma(p, f, 0.200027502f);
  p = fma(p, f, -0.250008946f);
  p = fma(p, f, 0.333333118f);
  const float square = f * f;
  const float exponent = static_cast<float>(n) - (denormal ? 23.0f : 0.0f);
  float result = fma(p * f, square, -0.5f * square);
  result = fma(exponent, kLn2Low, result);
  result = fma(exponent, kLn2High, result + f);
  result = u > FLT_MAX ? u : result;
  result = u == 0.0f ? -INFINITY : result;
  return u >= 0.0f ? result : NAN;
}

}  // namespace detail

DVAE_EXT_HD float exp(float x) {
  const float low = x < -104.0f ? -104.0f : x;
  const float clamped = low > 89.0f ? 89.0f : low;
  int32_t n;
  const float r = detail::reduce_exp(clamped, n);
  const int32_t half = n >> 1;  // two factors, so that denormal results are reached
  const float y = 1.0f + detail::expm1_polynomial(r);
  return y * detail::power_of_two(half) * detail::power_of_two(n - half);
}
DVAE_EXT_HD double exp(double x) { return ::exp(x); }

DVAE_EXT_HD float expm1(float x) {
  const float low = x < -18.0f ? -18.0f : x;
  const float clamped = low > 89.0f ? 89.0f : low;
  int32_t n;
  const float r = detail::reduce_exp(clamped, n);
  const float half = detail::power_of_two(n - 1);  // 2^n itself overflows at the upper end
  return 2.0f * fma(half, detail::expm1_polynomial(r), half - 0.5f);
}
DVAE_EXT_HD double expm1(double x) { return ::expm1(x); }

DVAE_EXT_HD float log(float x) { return detail::log_corrected(x, 0.0f); }
DVAE_EXT_HD double log(double x) { return ::log(x); }

// log(u + c) where c holds the digits that u lost.
DVAE_EXT_HD float log_corrected(float u, float c) { return detail::log_corrected(u, c); }
DVAE_EXT_HD double log_corrected(double u, double c) { return ::log(u) + c / u; }

DVAE_EXT_HD float log1p(float x) {
  const float u = 1.0f + x;
  const float c = x > 1.0f ? 1.0f - (u - x) : x - (u - 1.0f);
  return detail::log_corrected(u, u > FLT_MAX ? 0.0f : c);
}
DVAE_EXT_HD double log1p(double x) { return ::log1p(x); }

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

// sqrt(a^2 + b^2) that neither overflows nor underflows.
template <class T>
DVAE_EXT_HD T hypot(T a, T b) {
  const T x = fabs(a), y = fabs(b);
  const T large = select(x > y, x, y), small = select(x > y, y, x);
  const T ratio = small / select(large > T(0), large, T(1));
  return large * sqrt(T(1) + ratio * ratio);
}

template <class T>
DVAE_EXT_HD T asinh(T x) {
  const T a = fabs(x);
  const T capped = select(a > T(1e9), T(1e9), a);
  const T near = log1p(capped + capped * capped / (T(1) + sqrt(T(1) + capped * capped)));
  const T far = log(a) + T(0.693147180559945309);
  const T result = select(a > T(1e9), far, near);
  return select(x < T(0), -result, result);
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
