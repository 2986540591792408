// What a pair of neighbouring levels contributes to the statistics of a tempering run in one sweep.
#pragma once

#include "math/scaled.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

struct PairTerms {
  Scaled forward;         // e^{forward - shift}
  Scaled reverse;         // e^{reverse + shift}
  double bridge_forward;  // sigmoid(forward - shift)
  double bridge_reverse;  // sigmoid(reverse + shift)
  double acceptance;      // min(1, e^{forward + reverse})
};

// forward = f_{l+1}(v) - f_l(v) for v at level l and reverse = f_l(v') - f_{l+1}(v') for v' at level l + 1.
DVAE_EXT_HD PairTerms pair_terms(double forward, double reverse, double shift) {
  PairTerms terms;
  terms.forward = scaled_exp(forward - shift);
  terms.reverse = scaled_exp(reverse + shift);
  const SoftplusFactor f = softplus_factor(terms.forward);
  const SoftplusFactor r = softplus_factor(terms.reverse);
  terms.bridge_forward = f.one / f.factor;
  terms.bridge_reverse = r.one / r.factor;
  const Scaled odds = times(terms.forward, terms.reverse);
  terms.acceptance = smaller(1.0, odds.mantissa * power_of_two(smaller(odds.exponent, 8.0)));
  return terms;
}

DVAE_EXT_HD Scaled scaled_from_log(double x) { return x > kNoExponent ? scaled_exp(x) : Scaled{0.0, kNoExponent}; }

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
