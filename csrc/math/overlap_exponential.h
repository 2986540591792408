// Overlapping exponential smoothing (DVAE++ eq. 3, appendix A) in forms that hold at every logit and temperature.
//
// With q = sigmoid(logits), p = 1 - q, E = exp(-beta), D = 1 - E, the point m = exp(-beta zeta) solves
// p m² + B m - q E = 0. The textbook root divides by p and cancels for B > 0; here both 1 - m and 1 - E/m come from
// quotients of positive terms, and zeta from the one of them that is small.
#pragma once

#include "math/dual.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

template <class T>
struct OverlapExponential {
  T rho, logits, beta;
  T q, p, spread, norm;   // spread = sqrt(p q), norm = 1 + exp(-|logits|)
  T half_e, e, d;         // exp(-beta/2), exp(-beta), 1 - exp(-beta)
  T b, root;              // the quadratic's B and sqrt(B² + 4 p q E)
  T from_zero, from_one;  // 1 - exp(-beta zeta), 1 - exp(-beta (1 - zeta))
  T half_sum;             // (root + |B|) / 2

  DVAE_EXT_HD OverlapExponential(T rho_, T logits_, T beta_) : rho(rho_), logits(logits_), beta(beta_) {
    const T zero(0), half(0.5), one(1), two(2);
    const T decay = exp(-half * fabs(logits));  // the square root of exp(-|logits|), which T needs on its own
    norm = one + decay * decay;
    const T large = one / norm, small = floored(decay * decay * large);
    spread = decay * large;
    q = select(logits >= zero, large, small);
    p = select(logits >= zero, small, large);
    half_e = exp(-half * beta);
    e = exp(-beta);
    d = -expm1(-beta);
    const T upper = one - rho;
    b = select(rho <= half, rho * d + (q * e - p), q - upper * d - p * e);
    root = hypot(b, two * spread * half_e);  // T = 2 sqrt(p q E); the product would underflow
    half_sum = half * (root + fabs(b));
    // One division for both quotients: the denominators add up to at least 2 and neither is below the floor of p and q,
    // so their product is safe.
    const T lower_sum = p + q * e + rho * d + root, upper_sum = q + p * e + upper * d + root;
    const T inverse = two * d / (lower_sum * upper_sum);
    from_zero = rho * inverse * upper_sum;
    from_one = upper * inverse * lower_sum;
  }

  // rho = 1 - q exactly, so that zeta = 1/2 - logits / (2 beta), and T too small for its logarithm.
  DVAE_EXT_HD auto tied() const {
    const T half(0.5);
    return (b == T(0)) & (root < smallest_normal<T>()) & (from_zero > half) & (from_one > half);
  }

  DVAE_EXT_HD static T floored(T x) { return select(x < smallest_normal<T>(), smallest_normal<T>(), x); }

  // zeta and 1 - zeta, each to full relative accuracy where it is the small one.
  DVAE_EXT_HD void ends(T& zeta, T& rest) const {
    const T half(0.5), one(1), zero(0);
    const auto near_zero = from_zero <= half, near_one = from_one <= half, falling = b <= zero;
    const auto near = near_zero | near_one;
    // One logarithm serves the three cases: of 1 - from_zero, of 1 - from_one, of half_sum · (1 + exp(-|logits|)).
    const T a = select(near_zero, from_zero, from_one);
    const T u = select(near, one - a, floored(half_sum * norm));
    const T c = select(near, (one - u) - a, zero);
    const T offset = select((!near) & (falling == (logits >= zero)), fabs(logits), zero);
    const T logarithm = select(tied(), -half * (fabs(logits) + beta), log_corrected(u, c));
    const T length = -(logarithm + offset) / beta;
    const T positive = select(length > zero, length, zero), distance = select(positive > one, one, positive);
    const auto measured_from_zero = near_zero | ((!near_one) & falling);
    zeta = select(measured_from_zero, distance, one - distance);
    rest = select(measured_from_zero, one - distance, distance);
  }

  DVAE_EXT_HD T icdf() const {
    T zeta, rest;
    ends(zeta, rest);
    return select(valid(), zeta, nan<T>());
  }

  // Densities and probabilities exist for beta > 0 and rho in [0, 1]; a NaN anywhere is not valid either.
  DVAE_EXT_HD auto valid() const { return (beta > T(0)) & (rho >= T(0)) & (rho <= T(1)) & (fabs(logits) >= T(0)); }

  // Implicit differentiation of the CDF. Every factor of the first two is positive, so nothing cancels.
  DVAE_EXT_HD T d_rho() const { return select(valid(), d / (beta * floored(root)), nan<T>()); }
  DVAE_EXT_HD T d_logits() const {
    // sqrt(p q) twice: their product leaves the normal range at logits where the slope is still in it.
    return select(valid(), from_zero * from_one * (spread / floored(beta * root) * spread), nan<T>());
  }
  // -[p (zeta m - E from_zero/D) + q (E from_one/D - (1 - zeta) v)] / (beta root), where the bracket's terms are
  // written in the quantities that are small at the nearer end.
  DVAE_EXT_HD T d_beta() const {
    const T one(1), zero(0);
    T zeta, rest;
    ends(zeta, rest);
    // m = exp(-beta zeta) and v = exp(-beta (1 - zeta)) from the root of the quadratic, where the larger is exact.
    const auto falling = b <= zero, lower = from_zero <= from_one;
    const T s = floored(half_sum);
    const T small = select(falling, p, q) * half_e / s * half_e;  // exp(-beta) alone would be denormal
    const T m = select(falling, s / p, small), v = select(falling, small, s / q);
    const T near = select(lower, from_zero, from_one), length = select(lower, zeta, rest);
    const T own = select(lower, m, v), far = select(lower, v, m);
    const T near_term = length * select(own > one, one, own) - e * near / d;
    const T far_term = far * (near / d - length);
    const T slope = select(lower, q * far_term - p * near_term, q * near_term - p * far_term);
    const T value = select(tied(), T(0.5) * logits / (beta * beta), slope / floored(beta * root));
    return select(valid(), value, nan<T>());
  }
};

// log q(zeta) and its gradient. Written about the nearer end of the interval: the terms that cancel stay small.
template <class T>
struct OverlapExponentialDensity {
  T zeta, logits, beta;
  T distance, spread;  // distance to the nearer end; |beta (2 zeta - 1)|
  T facing, d;         // logits seen from the nearer end; 1 - exp(-beta)

  DVAE_EXT_HD OverlapExponentialDensity(T zeta_, T logits_, T beta_) : zeta(zeta_), logits(logits_), beta(beta_) {
    const T one(1), two(2);
    const auto lower = zeta <= T(0.5);
    distance = select(lower, zeta, one - zeta);
    spread = beta * (one - two * distance);
    facing = select(lower, logits, -logits);
    d = -expm1(-beta);
  }

  DVAE_EXT_HD auto defined() const { return (beta > T(0)) & (fabs(logits) >= T(0)) & (zeta == zeta); }
  DVAE_EXT_HD auto inside() const { return (zeta >= T(0)) & (zeta <= T(1)); }
  DVAE_EXT_HD T checked(T value, T outside) const {
    return select(defined(), select(inside(), value, outside), nan<T>());
  }

  DVAE_EXT_HD T log_prob() const {
    // softplus(facing - spread) - softplus(facing), whose linear parts cancel before they become infinite.
    const T zero(0);
    const T linear = select(facing > spread, spread, select(facing > zero, facing, zero));
    const T curved = log1p(exp(-fabs(facing - spread))) - log1p(exp(-fabs(facing)));
    return checked(log(beta) - log(d) - beta * distance - linear + curved, T(-INFINITY));
  }
  DVAE_EXT_HD T d_zeta() const {
    const T posterior = logits + beta * (T(2) * zeta - T(1));
    return checked(beta * (sigmoid(posterior) - sigmoid(-posterior)), T(0));
  }
  DVAE_EXT_HD T d_logits() const {
    // posterior - prior = q p expm1(-spread) / (p + q exp(-spread)), seen from the nearer end.
    const T q = sigmoid(facing), p = sigmoid(-facing);
    const T denominator = p + q * exp(-spread);
    const T tiny = smallest_normal<T>();
    const T shift = q * (p / select(denominator < tiny, tiny, denominator)) * expm1(-spread);
    return checked(select(zeta <= T(0.5), shift, -shift), T(0));
  }
  DVAE_EXT_HD T d_beta() const {
    const T one(1);
    const T posterior = logits + beta * (T(2) * zeta - one);
    const T slope = one / beta - exp(-beta) / d - (zeta * sigmoid(-posterior) + (one - zeta) * sigmoid(posterior));
    return checked(slope, T(0));
  }
};

// The two functions as elementwise kernels see them: x holds the inputs, then the parameters.
struct OverlapExponentialIcdf {
  static constexpr int kInputs = 2, kParameters = 1;  // rho, logits; beta
  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    return OverlapExponential<T>(x[0], x[1], x[2]).icdf();
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const OverlapExponential<T> at(x[0], x[1], x[2]);
    slope[0] = at.d_rho();
    slope[1] = at.d_logits();
    slope[2] = at.d_beta();
  }
};

struct OverlapExponentialLogProb {
  static constexpr int kInputs = 2, kParameters = 1;  // zeta, logits; beta
  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    return OverlapExponentialDensity<T>(x[0], x[1], x[2]).log_prob();
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const OverlapExponentialDensity<T> at(x[0], x[1], x[2]);
    slope[0] = at.d_zeta();
    slope[1] = at.d_logits();
    slope[2] = at.d_beta();
  }
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
