// Positive numbers far outside the range of a double, held as mantissa * 2^exponent.
//
// Sums over the states of a Boltzmann machine overflow a double; keeping the exponent apart lets
// them be multiplied and added without a logarithm. Everything is branch-free, so that loops over
// it vectorise.
#pragma once

#include <cstdint>

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

struct Scaled {
  double mantissa;
  double exponent;  // an integer
};

// An exponent so low that the number is zero beside any other; it stays finite when added to.
inline constexpr double kNoExponent = -1e300;
inline constexpr double kRoundToInteger = 6755399441055744.0;  // 1.5 * 2^52

DVAE_EXT_HD double larger(double a, double b) { return a > b ? a : b; }
DVAE_EXT_HD double smaller(double a, double b) { return a < b ? a : b; }

// 2^k for an integer k <= 1023; zero below the normal range.
DVAE_EXT_HD double power_of_two(double k) {
  const double shifted = larger(k, -1023.0) + (kRoundToInteger + 1023.0);
  return bit_cast<double>(bit_cast<uint64_t>(shifted) << 52);
}

// Splits a normal positive number: mantissa in [1, 2).
DVAE_EXT_HD Scaled split(double x) {
  const uint64_t bits = bit_cast<uint64_t>(x);
  const uint64_t exponent = (bits >> 52) | 0x4330000000000000ull;  // 2^52 + biased exponent
  const uint64_t mantissa = (bits & 0x000fffffffffffffull) | 0x3ff0000000000000ull;
  return {bit_cast<double>(mantissa), bit_cast<double>(exponent) - (4503599627370496.0 + 1023.0)};
}

// e^x with mantissa in about [0.7, 1.42], for every finite x.
DVAE_EXT_HD Scaled scaled_exp(double x) {
  const double k = (x * 1.4426950408889634 + kRoundToInteger) - kRoundToInteger;
  double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
  r = smaller(larger(r, -1.0), 1.0);  // rounding alone takes r out of it, past |x| = 2^50
  double p = 1.0 / 6227020800.0;
  p = p * r + 1.0 / 479001600.0;
  p = p * r + 1.0 / 39916800.0;
  p = p * r + 1.0 / 3628800.0;
  p = p * r + 1.0 / 362880.0;
  p = p * r + 1.0 / 40320.0;
  p = p * r + 1.0 / 5040.0;
  p = p * r + 1.0 / 720.0;
  p = p * r + 1.0 / 120.0;
  p = p * r + 1.0 / 24.0;
  p = p * r + 1.0 / 6.0;
  p = p * r + 0.5;
  p = p * r + 1.0;
  p = p * r + 1.0;
  return {p, k};
}

// 1 + e^x = factor * 2^exponent for any field x, and sigmoid(x) = one / factor. The factor lies in [0.7, 2.5], so a few
// hundred of them multiply without overflow.
struct SoftplusFactor {
  double factor;
  double exponent;
  double one;
};
DVAE_EXT_HD SoftplusFactor softplus_factor(Scaled exponential) {
  const double one = exponential.mantissa * power_of_two(smaller(exponential.exponent, 0.0));
  const double up = larger(exponential.exponent, 0.0);
  return {one + power_of_two(-up), up, one};
}
DVAE_EXT_HD SoftplusFactor softplus_factor(double x) { return softplus_factor(scaled_exp(x)); }

DVAE_EXT_HD Scaled times(Scaled a, Scaled b) { return {a.mantissa * b.mantissa, a.exponent + b.exponent}; }

DVAE_EXT_HD Scaled plus(Scaled a, Scaled b) {
  const double top = larger(a.exponent, b.exponent);
  return {a.mantissa * power_of_two(a.exponent - top) + b.mantissa * power_of_two(b.exponent - top), top};
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
