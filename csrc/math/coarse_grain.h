// Coarse-grained densities on [-1, 1]: R grid points, logits given by a polynomial (CG-BPEF-VAE eqs. 2-4).
#pragma once

#include "math/remainders.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// Point r of the grid, symmetric about zero to the last bit.
template <class T>
DVAE_EXT_HD T grid_point(int64_t r, int64_t num_points) {
  return static_cast<T>(2 * r - (num_points - 1)) / static_cast<T>(num_points - 1);
}

// 1 / temperature, held where no product with it overflows: perturbed logits that differ at all differ by so much more
// than 1e-20 that one point has all the weight long before.
DVAE_EXT_HD double inverse_temperature(double temperature) { return 1.0 / (temperature > 1e-20 ? temperature : 1e-20); }

// sum over m = 1..order of coefficients[m - 1] x^m.
template <class T, class Storage>
DVAE_EXT_HD T polynomial(const Storage* coefficients, int64_t order, T x) {
  T sum = T(0);
  for (int64_t m = order - 1; m >= 0; --m) sum = fma(sum, x, static_cast<T>(load(coefficients[m])));
  return sum * x;
}

// One grid point's share of KL(q : p). With x = log p - log q it is q (exp(x) - 1 - x): the shares sum to the same
// total as q (-x), but none is negative and nothing cancels when q and p are close.
template <class T>
DVAE_EXT_HD T categorical_kl_term(T q, T p, T log_ratio) {
  const bool small = fabs(log_ratio) < T(0.75);
  const ExpRemainder<T> series(select(small, log_ratio, T(0)));
  const T near = q * (series.even + series.odd);
  const T far = select(q == T(0), p, (p - q) - q * log_ratio);
  return select(small, near, far);
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
