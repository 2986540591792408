// Standard Gumbel variates -log(-log u) from uniforms in (0, 1).
#pragma once

#include "math/elementary.h"
#include "math/philox.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

namespace detail {

// log(x) for positive, finite, not denormal x, relative error below 4e-7: a Remez fit to log(1 + f) / f on
// [sqrt(1/2), sqrt(2)] - 1 (error 1.7e-7). Half the work of log, which the noise does not need.
// Evaluated by pairs rather than by Horner's rule: a short chain of dependent operations is what matters here.
template <class F>
DVAE_EXT_HD F noise_log(F x) {
  const auto bits = bits_of(x);
  const auto n = (bits - 0x3f3504f3) >> 23;  // mantissa in [sqrt(1/2), sqrt(2))
  const F f = from_bits(bits - (n << 23)) - F(1.0f);
  const F square = f * f;
  const F low = fma(fma(F(-0.249699086f), f, F(0.333350599f)), square, fma(F(-0.500003636f), f, F(0.99999994f)));
  const F high = fma(fma(F(-0.101068981f), f, F(0.162225798f)), square, fma(F(-0.172508284f), f, F(0.199001655f)));
  return fma(to_float(n), F(0.693147182f), fma(high, square * square, low) * f);
}

}  // namespace detail

// The uniforms of uniform_open lie in [2^-24, 1 - 2^-24], so the inner logarithm lies in [-16.7, -5.9e-8].
DVAE_EXT_HD float gumbel(float u) { return -detail::noise_log(-detail::noise_log(u)); }
#if DVAE_EXT_HAS_SIMD
DVAE_EXT_HD Simd gumbel(Simd u) { return -detail::noise_log(-detail::noise_log(u)); }
#endif
DVAE_EXT_HD double gumbel(double u) { return -log(-log(u)); }

template <class T>
DVAE_EXT_HD T gumbel_from_word(uint32_t word) {
  return gumbel(static_cast<T>(uniform_open(word)));
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
