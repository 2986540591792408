// exp(x) - 1 - x and log(1 + x) - x near zero, where the plain expressions cancel.
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// The even and the odd part of exp(x) - 1 - x = even + odd, as Taylor sums: relative error below 1e-7 (float) and
// 2e-16 (double) for |x| <= 1. Swapping the sign of odd gives the function at -x.
template <class T>
struct ExpRemainder {
  T even, odd;

  DVAE_EXT_HD explicit ExpRemainder(T x) {
    // 1/2!, 1/3!, ...
    constexpr T inverse_factorial[] = {T(0.5),
                                       T(1.0 / 6),
                                       T(1.0 / 24),
                                       T(1.0 / 120),
                                       T(1.0 / 720),
                                       T(1.0 / 5040),
                                       T(1.0 / 40320),
                                       T(1.0 / 362880),
                                       T(1.0 / 3628800),
                                       T(1.0 / 39916800),
                                       T(1.0 / 4.790016e8),
                                       T(1.0 / 6.2270208e9),
                                       T(1.0 / 8.71782912e10),
                                       T(1.0 / 1.307674368e12),
                                       T(1.0 / 2.0922789888e13),
                                       T(1.0 / 3.55687428096e14),
                                       T(1.0 / 6.402373705728e15),
                                       T(1.0 / 1.21645100408832e17)};
    constexpr int terms = sizeof(T) == sizeof(float) ? 10 : 18;
    const T square = x * x;
    T p_even = inverse_factorial[terms - 2], p_odd = inverse_factorial[terms - 1];
    DVAE_EXT_UNROLL
    for (int n = terms - 4; n >= 0; n -= 2) {
      p_even = fma(p_even, square, inverse_factorial[n]);
      p_odd = fma(p_odd, square, inverse_factorial[n + 1]);
    }
    even = p_even * square;
    odd = p_odd * square * x;
  }
};

// log(1 + x) - x for -0.4 <= x <= 0.9, by log(1 + x) = 2 atanh(s), s = x / (2 + x); both terms of the result are
// accurate by themselves and the first dominates.
template <class T>
DVAE_EXT_HD T log1p_remainder(T x) {
  constexpr int terms = sizeof(T) == sizeof(float) ? 7 : 15;
  const T s = x / (T(2) + x);
  const T square = s * s;
  T p = T(2) / T(2 * terms + 1);
  DVAE_EXT_UNROLL
  for (int n = terms - 1; n >= 1; --n) p = fma(p, square, T(2) / T(2 * n + 1));
  return fma(p * square, s, -s * x);
}

// exp(x) for x <= 87, zero where the result would be denormal in float: sums over many pairs or grid points meet that
// range all the time, and denormal arithmetic is a hundred times slower.
namespace detail {
template <class F>
DVAE_EXT_HD F exp_flushed_float(F x) {
  const F limit(-87.0f);
  const auto beyond = x < limit;
  decltype(bits_of(x)) n;
  const F y = F(1.0f) + expm1_reduced(select(beyond, limit, x), n);
  return select(beyond, F(0.0f), y * from_bits((n + 127) << 23));
}
}  // namespace detail
DVAE_EXT_HD float exp_flushed(float x) { return detail::exp_flushed_float(x); }
#if DVAE_EXT_HAS_SIMD
DVAE_EXT_HD Simd exp_flushed(Simd x) { return detail::exp_flushed_float(x); }
#endif
DVAE_EXT_HD double exp_flushed(double x) { return exp(x); }

template <class T>
DVAE_EXT_HD T exp_of_minus(T x) {
  return exp_flushed(-x);
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
