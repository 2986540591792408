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
  T q, p, log_odds_shift;  // log_odds_shift = log1p(exp(-|logits|))
  T e, d;                  // exp(-beta), 1 - exp(-beta)
  T b, root;               // the quadratic's B and sqrt(B² + 4 p q E)
  T from_zero, from_one;   // 1 - exp(-beta zeta), 1 - exp(-beta (1 - zeta))
  T half_sum;              // (root + |B|) / 2

  DVAE_EXT_HD OverlapExponential(T rho_, T logits_, T beta_) : rho(rho_), logits(logits_), beta(beta_) {
    const T one(1), two(2);
    q = sigmoid(logits);
    p = sigmoid(-logits);
    log_odds_shift = log1p(exp(-fabs(logits)));
    e = exp(-beta);
    d = -expm1(-beta);
    const T upper = one - rho;
    b = select(rho <= T(0.5), rho * d + (q * e - p), q - upper * d - p * e);
    // exp of a sum: the product p q E itself would underflow.
    const T t = two * exp(T(-0.5) * (fabs(logits) + two * log_odds_shift + beta));
    root = hypot(b, t);
    half_sum = T(0.5) * (root + fabs(b));
    from_zero = two * rho * d / floored(p + q * e + rho * d + root);
    from_one = two * upper * d / floored(q + p * e + upper * d + root);
  }

  DVAE_EXT_HD static T floored(T x) { return select(x < smallest_normal<T>(), smallest_normal<T>(), x); }

  DVAE_EXT_HD T icdf() const {
    const T half(0.5), one(1), zero(0);
    const bool near_zero = from_zero <= half, near_one = from_one <= half, falling = b <= zero;
    // One logarithm serves the three cases: of 1 - from_zero, of 1 - from_one, of half_sum.
    const T a = select(near_zero, from_zero, from_one);
    const T middle = floored(half_sum);
    const T u = select(near_zero || near_one, one - a, middle);
    const T c = select(near_zero || near_one, (one - u) - a, zero);
    const T offset =
        select(near_zero || near_one, zero, log_odds_shift + select(falling == (logits >= zero), fabs(logits), zero));
    const T length = (log_corrected(u, c) + offset) / beta;
    const bool measured_from_zero = near_zero || (!near_one && falling);
    const T zeta = select(measured_from_zero, -length, one + length);
    const T clamped = select(zeta < zero, zero, select(zeta > one, one, zeta));
    return valid() ? clamped : nan<T>();
  }

  // Densities and probabilities exist for beta > 0 and rho in [0, 1]; a NaN anywhere is not valid either.
  DVAE_EXT_HD bool valid() const { return beta > T(0) && rho >= T(0) && rho <= T(1) && fabs(logits) >= T(0); }

  // Implicit differentiation of the CDF. Every factor of the first two is positive, so nothing cancels.
  DVAE_EXT_HD T d_rho() const { return d / (beta * floored(root)); }
  DVAE_EXT_HD T d_logits() const {
    const T slope = from_zero * from_one * (p / floored(root)) * q / beta;
    return valid() ? slope : nan<T>();
  }
  DVAE_EXT_HD T d_beta(T zeta) const {
    const T one(1), zero(0);
    // m = exp(-beta zeta) and v = exp(-beta (1 - zeta)) from the root of the quadratic, where the larger is exact.
    const bool falling = b <= zero;
    const T s = floored(half_sum);
    const T m = select(falling, s / floored(p), q * e / s);
    const T v = select(falling, p * e / s, s / floored(q));
    const T below = p * (zeta * select(m > one, one, m) - e * from_zero / d);
    const T above = q * ((one - zeta) * select(v > one, one, v) - e * from_one / d);
    const T slope = (above - below) / (beta * floored(root));
    return valid() ? slope : nan<T>();
  }
};

// log q(zeta) and its gradient. Written about the nearer end of the interval: the terms that cancel stay small.
template <class T>
struct OverlapExponentialDensity {
  T zeta, logits, beta;
  T distance, spread;  // distance to the nearer end; |beta (2 zeta - 1)|
  T facing, d;         // logits seen from the nearer end; 1 - exp(-beta)
  bool lower;

  DVAE_EXT_HD OverlapExponentialDensity(T zeta_, T logits_, T beta_) : zeta(zeta_), logits(logits_), beta(beta_) {
    const T one(1), two(2);
    lower = zeta <= T(0.5);
    distance = select(lower, zeta, one - zeta);
    spread = beta * (one - two * distance);
    facing = select(lower, logits, -logits);
    d = -expm1(-beta);
  }

  DVAE_EXT_HD bool valid() const { return beta > T(0) && zeta >= T(0) && zeta <= T(1) && fabs(logits) >= T(0); }
  DVAE_EXT_HD bool outside() const { return beta > T(0) && (zeta < T(0) || zeta > T(1)) && fabs(logits) >= T(0); }

  DVAE_EXT_HD T log_prob() const {
    const T value = log(beta) - log(d) - beta * distance + (softplus(facing - spread) - softplus(facing));
    return valid() ? value : (outside() ? T(-INFINITY) : nan<T>());
  }
  DVAE_EXT_HD T d_zeta() const {
    const T posterior = logits + beta * (T(2) * zeta - T(1));
    const T slope = beta * (sigmoid(posterior) - sigmoid(-posterior));
    return valid() ? slope : (outside() ? T(0) : nan<T>());
  }
  DVAE_EXT_HD T d_logits() const {
    // posterior - prior = q p expm1(-spread) / (p + q exp(-spread)), seen from the nearer end.
    const T q = sigmoid(facing), p = sigmoid(-facing);
    const T denominator = p + q * exp(-spread);
    const T tiny = smallest_normal<T>();
    const T shift = q * (p / select(denominator < tiny, tiny, denominator)) * expm1(-spread);
    const T slope = select(lower, shift, -shift);
    return valid() ? slope : (outside() ? T(0) : nan<T>());
  }
  DVAE_EXT_HD T d_beta() const {
    const T one(1);
    const T posterior = logits + beta * (T(2) * zeta - one);
    const T slope = one / beta - exp(-beta) / d - (zeta * sigmoid(-posterior) + (one - zeta) * sigmoid(posterior));
    return valid() ? slope : (outside() ? T(0) : nan<T>());
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
    slope[0] = at.valid() ? at.d_rho() : nan<T>();
    slope[1] = at.d_logits();
    slope[2] = at.d_beta(at.icdf());
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
