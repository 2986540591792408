// Overlapping logistic smoothing (DVAE++ appendix B): r(zeta | z) = Logistic(mu_z, scale), on the whole real line.
//
// In t = (zeta - (mu0 + mu1)/2) / scale and h = (mu1 - mu0) / (2 scale) the quadratic has the discriminant B² + T² with
// B = rho (1 + e^{-2h}) - p - q e^{-2h} and T = 2 sqrt(rho (1 - rho)) e^{-h}.
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// The ends of (0, 1) map to ±infinity, so rho stops one step of the compute type's uniform grid short of them.
template <class T>
DVAE_EXT_HD T rho_margin() {
  return T(5.9604644775390625e-8);
}
template <>
DVAE_EXT_HD double rho_margin<double>() {
  return 1.1102230246251565e-16;
}

// Standardised distances are held to this bound, so that differences of them are never those of two infinities.
template <class T>
DVAE_EXT_HD T far_away() {
  return T(FLT_MAX / 8);
}
template <>
DVAE_EXT_HD double far_away<double>() {
  return DBL_MAX / 8;
}

// sigmoid(x) and sigmoid(-x) from one exponential.
template <class T>
struct Shares {
  T one, zero;
  DVAE_EXT_HD explicit Shares(T x) {
    const T decay = exp(-fabs(x)), larger = T(1) / (T(1) + decay), smaller = decay * larger;
    one = select(x >= T(0), larger, smaller);
    zero = select(x >= T(0), smaller, larger);
  }
};

template <class T>
struct OverlapLogistic {
  T logits, mu0, mu1, scale, h;

  // A point of the real line as the formulas need it: its standardised distances from mu0 and mu1, and their sum 2t.
  struct Point {
    T zeta, from_zero, from_one, sum;
  };

  // The quadratic at rho.
  struct Quadratic {
    T rho, upper, q, p, b, t_factor, root;
  };

  DVAE_EXT_HD OverlapLogistic(T logits_, T mu0_, T mu1_, T scale_)
      : logits(logits_),
        mu0(mu0_),
        mu1(mu1_),
        scale(scale_),
        h(within((mu1_ - mu0_) / (T(2) * scale_), far_away<T>())) {}

  DVAE_EXT_HD auto valid() const { return (scale > T(0)) & (mu1 > mu0) & (fabs(logits) >= T(0)); }

  DVAE_EXT_HD auto valid_at(T rho) const { return valid() & (rho >= T(0)) & (rho <= T(1)); }

  DVAE_EXT_HD Quadratic quadratic(T rho_) const {
    const T one(1), two(2), half(0.5), margin = rho_margin<T>();
    const T rho = select(rho_ < margin, margin, select(rho_ > one - margin, one - margin, rho_));
    const T upper = select(rho_ > half, select(rho_ > one - margin, margin, one - rho_), one - rho);
    const Shares<T> prior(logits);
    const T q = prior.one, p = prior.zero, shrink = exp(-two * h);
    const T b = select(rho <= half, rho * (one + shrink) - (p + q * shrink), (q + p * shrink) - upper * (one + shrink));
    const T t_factor = two * sqrt(rho * upper) * exp(-h);
    return {rho, upper, q, p, b, t_factor, hypot(b, t_factor)};
  }

  DVAE_EXT_HD Point root_of(const Quadratic& x) const {
    const T zero(0), two(2), half(0.5);
    // t = asinh(B/T) + logit(rho)/2 in the middle, the logarithm of (B + root) e^h / (2 (1 - rho)). Away from it the
    // distance from the nearer component has neither h nor e^h: the scale may be as small as it likes.
    const auto middle = fabs(x.b) <= half * x.t_factor, high = x.b >= zero;
    const T size = half * (fabs(x.b) + x.root);
    const T central = select(x.t_factor >= smallest_normal<T>(), half * (x.b + x.root) * exp(h), sqrt(x.rho * x.upper));
    const T above = select(middle, central, size) / x.upper;
    const T offset = log(select(middle | high, above, x.rho / size));
    const T origin = select(middle, half * (mu0 + mu1), select(high, mu1, mu0));
    const T zeta = origin + scale * offset;
    const T shift = select(middle, zero, select(high, h, -h));  // of the origin from the centre
    const T t = offset + shift;
    return {zeta, offset + (shift + h), offset + (shift - h), two * t};
  }

  DVAE_EXT_HD Point at(T zeta) const {
    const T below = zeta - mu0, above = zeta - mu1, bound = far_away<T>();
    return {zeta, within(below / scale, bound), within(above / scale, bound), (below + above) / scale};
  }

  // softplus(x) = positive(x) + tail(x), and the standard logistic's log density is -|x| - 2 tail(x). Both signs of x
  // share the tail.
  DVAE_EXT_HD static T tail(T x) { return log1p(exp(-fabs(x))); }
  DVAE_EXT_HD static T positive(T x) { return select(x > T(0), x, T(0)); }

  // log q(zeta) but for the scale.
  DVAE_EXT_HD T log_density(const Point& x) const {
    const T two(2);
    const T prior = tail(logits);
    const T zero_term = -(positive(logits) + prior) - fabs(x.from_zero) - two * tail(x.from_zero);
    const T one_term = -(positive(-logits) + prior) - fabs(x.from_one) - two * tail(x.from_one);
    return maximum(zero_term, one_term) + log1p(exp(-fabs(zero_term - one_term)));
  }

  DVAE_EXT_HD T posterior_logits(const Point& x) const {
    const T two(2);
    return logits + within(x.sum, two * h) + two * (tail(x.from_zero) - tail(x.from_one));
  }

  // dt / dlogits: B is all that depends on the logits, its derivative by q is 1 - e^{-2h}, and asinh' is T / root.
  DVAE_EXT_HD T slope_by_logits(const Quadratic& x) const {
    const T tiny = smallest_normal<T>();
    return -expm1(T(-2) * h) * (x.q * x.p / select(x.root < tiny, tiny, x.root));
  }

  DVAE_EXT_HD T log_prob(T zeta) const {
    const T density = log_density(at(zeta));
    const T value = select(density <= -far_away<T>(), T(-INFINITY), density - log(scale));
    return select(valid(), value, nan<T>());
  }
};

struct OverlapLogisticIcdf {
  static constexpr int kInputs = 2, kParameters = 3;  // rho, logits; mu0, mu1, scale
  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    const OverlapLogistic<T> mixture(x[1], x[2], x[3], x[4]);
    return select(mixture.valid_at(x[0]), mixture.root_of(mixture.quadratic(x[0])).zeta, nan<T>());
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const OverlapLogistic<T> mixture(x[1], x[2], x[3], x[4]);
    const auto quadratic = mixture.quadratic(x[0]);
    const auto at = mixture.root_of(quadratic);
    const Shares<T> posterior(mixture.posterior_logits(at));
    const T one_share = posterior.one, zero_share = posterior.zero;
    const auto valid = mixture.valid_at(x[0]);
    slope[0] = select(valid, finite_slope(exp(log(mixture.scale) - mixture.log_density(at))), nan<T>());
    slope[1] = select(valid, mixture.scale * mixture.slope_by_logits(quadratic), nan<T>());
    slope[2] = select(valid, zero_share, nan<T>());
    slope[3] = select(valid, one_share, nan<T>());
    slope[4] = select(valid, zero_share * at.from_zero + one_share * at.from_one, nan<T>());
  }
};

struct OverlapLogisticLogProb {
  static constexpr int kInputs = 2, kParameters = 3;  // zeta, logits; mu0, mu1, scale
  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    return OverlapLogistic<T>(x[1], x[2], x[3], x[4]).log_prob(x[0]);
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const OverlapLogistic<T> mixture(x[1], x[2], x[3], x[4]);
    const auto at = mixture.at(x[0]);
    const Shares<T> posterior(mixture.posterior_logits(at));
    const T one_share = posterior.one, zero_share = posterior.zero;
    // d log r / dx of the standard logistic is -tanh(x/2) = 1 - 2 sigmoid(x).
    const Shares<T> from_zero(at.from_zero), from_one(at.from_one), prior(x[1]);
    const T zero_slope = zero_share * (from_zero.zero - from_zero.one);
    const T one_slope = one_share * (from_one.zero - from_one.one);
    const auto valid = mixture.valid() & (x[0] == x[0]);
    // posterior - prior through the smaller of the two pairs, where it does not cancel.
    const T shift = select(x[1] < T(0), one_share - prior.one, prior.zero - zero_share);
    const T by_scale = -(T(1) + zero_slope * at.from_zero + one_slope * at.from_one);
    slope[0] = select(valid, finite_slope((zero_slope + one_slope) / mixture.scale), nan<T>());
    slope[1] = select(valid, shift, nan<T>());
    slope[2] = select(valid, finite_slope(-zero_slope / mixture.scale), nan<T>());
    slope[3] = select(valid, finite_slope(-one_slope / mixture.scale), nan<T>());
    slope[4] = select(valid, finite_slope(by_scale / mixture.scale), nan<T>());
  }
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
