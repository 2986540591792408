// Spike-and-exponential smoothing of Rolfe (2016): zeta = 0 with probability 1 - q, else density ∝ exp(beta zeta).
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

struct SpikeExponentialIcdf {
  static constexpr int kInputs = 2, kParameters = 1;  // rho, logits; beta

  template <class T>
  struct At {
    T beta, e, t, weight, zeta;  // t = (rho - p) / q; weight = exp(beta (zeta - 1))
    DVAE_EXT_HD At(T rho, T logits, T beta_) : beta(beta_) {
      const T one(1), zero(0);
      e = exp(-beta);
      t = -expm1(log1p(-rho) + softplus(-logits));
      const T above = select(spike(), zero, t);
      weight = above + (one - above) * e;
      // Near the spike zeta is a small number, not one minus a number near one; exp(beta) stays finite there.
      const T capped = select(beta < T(80), beta, T(80));
      const T near = log1p(above * expm1(capped)) / beta;
      const T far = one + log(weight) / beta;
      const T value = select((beta < T(80)) & (above * expm1(capped) < one), near, far);
      zeta = select(spike() | (value < zero), zero, value);
      zeta = select((beta > zero) & (rho >= zero) & (rho <= one) & (fabs(logits) >= zero), zeta, nan<T>());
    }
    // t is NaN at rho = 1 for the logit -infinity, where all of the mass is the spike.
    DVAE_EXT_HD auto spike() const { return !(t > T(0)); }
    // A NaN where the arguments have no meaning, 0 on the spike.
    DVAE_EXT_HD T checked(T slope) const { return select(zeta == zeta, select(spike(), T(0), slope), nan<T>()); }
  };

  template <class T>
  DVAE_EXT_HD static T value(const T* x) {
    const At<T> at(x[0], x[1], x[2]);
    return at.zeta;
  }
  template <class T>
  DVAE_EXT_HD static void gradient(const T* x, T* slope) {
    const T one(1);
    const At<T> at(x[0], x[1], x[2]);
    const T rise = -expm1(-at.beta) / (at.beta * at.weight);  // d zeta / d t
    const T from_spike = at.t / at.weight - at.zeta, from_one = (one - at.zeta) - (one - at.t) * at.e / at.weight;
    const T d_rho = finite_slope(rise * (one + exp(-x[1])));
    const T d_logits = rise * (one - at.t) * sigmoid(-x[1]);
    const T d_beta = select(at.zeta < T(0.5), from_spike, from_one) / at.beta;
    slope[0] = at.checked(d_rho);
    slope[1] = at.checked(d_logits);
    slope[2] = at.checked(d_beta);
  }
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
