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

template <class T>
struct OverlapLogistic {
  T logits, mu0, mu1, scale, h;

  DVAE_EXT_HD OverlapLogistic(T logits_, T mu0_, T mu1_, T scale_)
      : logits(logits_), mu0(mu0_), mu1(mu1_), scale(scale_), h((mu1_ - mu0_) / (T(2) * scale_)) {}

  DVAE_EXT_HD auto valid() const { return (scale > T(0)) & (mu1 > mu0) & (fabs(logits) >= T(0)); }

  DVAE_EXT_HD T icdf(T rho_) const {
    const T one(1), two(2), half(0.5), margin = rho_margin<T>();
    const T rho = select(rho_ < margin, margin, select(rho_ > one - margin, one - margin, rho_));
    const T upper = select(rho_ > half, select(rho_ > one - margin, margin, one - rho_), one - rho);
    const T p = sigmoid(-logits), q = sigmoid(logits), shrink = exp(-two * h);
    const T b = select(rho <= half, rho * (one + shrink) - (p + q * shrink), (q + p * shrink) - upper * (one + shrink));
    const T t_factor = two * sqrt(rho * upper) * exp(-h);
    const T root = hypot(b, t_factor);
    const T ratio = b / select(t_factor > T(0), t_factor, one);
    const T far = log(half * (fabs(b) + root));
    // Away from the middle the two logarithms of asinh(B/T) + logit(rho)/2 combine, and e^{-h} never appears alone.
    const T t_far = select(b >= T(0), h - log(upper) + far, log(rho) - h - far);
    const T t_near = half * (log(rho) - log(upper)) + asinh(ratio);
    const T t = select(fabs(b) <= half * t_factor, t_near, t_far);
    const T zeta = half * (mu0 + mu1) + scale * t;
    return select(valid() & (rho_ >= T(0)) & (rho_ <= one), zeta, nan<T>());
  }

  // log r(zeta | z) for the standardised distance x, without its scale.
  DVAE_EXT_HD static T log_kernel(T x) { return -fabs(x) - T(2) * log1p(exp(-fabs(x))); }

  DVAE_EXT_HD T posterior_logits(T zeta) const {
    return logits + log_kernel((zeta - mu1) / scale) - log_kernel((zeta - mu0) / scale);
  }

  DVAE_EXT_HD T log_prob(T zeta) const {
    const T zero_term = log_sigmoid(-logits) + log_kernel((zeta - mu0) / scale);
    const T one_term = log_sigmoid(logits) + log_kernel((zeta - mu1) / scale);
    const T large = maximum(zero_term, one_term);
    const T value = large + log1p(exp(-fabs(zero_term - one_term))) - log(scale);
    return select(valid(), value, nan<T>());
  }
};

struct OverlapLogisticIcdf {
  static constexpr int kInputs = 2, kParameters = 3;  // rho, logits; mu0, mu1, scale
  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    return OverlapLogistic<T>(x[1], x[2], x[3], x[4]).icdf(x[0]);
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const OverlapLogistic<T> at(x[1], x[2], x[3], x[4]);
    const T zeta = at.icdf(x[0]);
    const T posterior = at.posterior_logits(zeta);
    const T one_share = sigmoid(posterior), zero_share = sigmoid(-posterior);
    const T from_zero = (zeta - at.mu0) / at.scale, from_one = (zeta - at.mu1) / at.scale;
    // (R0 - R1) / q(zeta) in log space: its factors under- and overflow on their own.
    const T log_gap = log_sigmoid(at.logits) + log_sigmoid(-posterior) + log(-expm1(T(-2) * at.h)) +
                      (softplus(from_zero) - softplus(from_one));
    const auto valid = at.valid() & (zeta == zeta);
    slope[0] = select(valid, exp(-at.log_prob(zeta)), nan<T>());
    slope[1] = select(valid, at.scale * exp(log_gap), nan<T>());
    slope[2] = select(valid, zero_share, nan<T>());
    slope[3] = select(valid, one_share, nan<T>());
    slope[4] = select(valid, zero_share * from_zero + one_share * from_one, nan<T>());
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
    const OverlapLogistic<T> at(x[1], x[2], x[3], x[4]);
    const T from_zero = (x[0] - at.mu0) / at.scale, from_one = (x[0] - at.mu1) / at.scale;
    const T posterior = at.posterior_logits(x[0]);
    const T one_share = sigmoid(posterior), zero_share = sigmoid(-posterior);
    // d log r / dx of the standard logistic is -tanh(x/2) = 1 - 2 sigmoid(x).
    const T zero_slope = sigmoid(-from_zero) - sigmoid(from_zero);
    const T one_slope = sigmoid(-from_one) - sigmoid(from_one);
    const auto valid = at.valid() & (x[0] == x[0]);
    // posterior - prior through the smaller of the two pairs, where it does not cancel.
    const T shift = select(at.logits < T(0), one_share - sigmoid(at.logits), sigmoid(-at.logits) - zero_share);
    slope[0] = select(valid, (zero_share * zero_slope + one_share * one_slope) / at.scale, nan<T>());
    slope[1] = select(valid, shift, nan<T>());
    slope[2] = select(valid, -zero_share * zero_slope / at.scale, nan<T>());
    slope[3] = select(valid, -one_share * one_slope / at.scale, nan<T>());
    slope[4] = select(
        valid, -(T(1) + zero_share * zero_slope * from_zero + one_share * one_slope * from_one) / at.scale, nan<T>());
  }
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
