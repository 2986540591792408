// KL(a || b) of two Bernoulli variables given by logits, and its derivatives.
//
// KL is the Bregman divergence of softplus: softplus(l_b) - softplus(l_a) - sigmoid(l_a) (l_b - l_a). By symmetry
// the signs of both logits can be flipped so that l_a <= 0; the probability in the formula is then at most 1/2 and the
// tails keep their relative accuracy. Near l_a = l_b the three terms cancel and a form in remainders is used instead:
// with p = sigmoid(l_a), d = l_b - l_a, y = p (exp(d) - 1): KL = [log(1 + y) - y] + p [exp(d) - 1 - d].
//
// Infinite logits, the certain variables, take the wide form, which knows their limits, and so do logits so large that
// a difference of two may overflow.
#pragma once

#include "math/remainders.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// The derivatives of a weighted sum of KL(a || b) and KL(b || a) by the logit of either side.
template <class T>
struct BernoulliPairGradient {
  T a[1], b[1];
};

struct BernoulliPairs {
  static constexpr int kInputs = 1;
  static constexpr int kFeatures = 5;
  static constexpr double kLargeLogit = 1e38;

  template <class T>
  struct Side {
    T logit, softplus_plus, softplus_minus, p, q;  // softplus(±logit), sigmoid(±logit)
  };

  template <class T>
  DVAE_EXT_HD static Side<T> side(T logit) {
    return {logit, softplus(logit), softplus(-logit), sigmoid(logit), sigmoid(-logit)};
  }
  template <class T>
  DVAE_EXT_HD static bool needs_wide(T logit) {
    return fabs(logit) > T(kLargeLogit);
  }
  template <class T>
  DVAE_EXT_HD static bool infinite(T x) {
    return fabs(x) == T(INFINITY);
  }
  // Element j of feature columns that lie `stride` apart.
  template <class T>
  DVAE_EXT_HD static Side<T> load(const T* columns, int64_t stride, int64_t j) {
    return {columns[j], columns[stride + j], columns[2 * stride + j], columns[3 * stride + j], columns[4 * stride + j]};
  }
  template <class T>
  DVAE_EXT_HD static void store(const Side<T>& side, T* columns, int64_t stride, int64_t j) {
    columns[j] = side.logit;
    columns[stride + j] = side.softplus_plus;
    columns[2 * stride + j] = side.softplus_minus;
    columns[3 * stride + j] = side.p;
    columns[4 * stride + j] = side.q;
  }

  template <bool kWide, class T>
  struct Pair {
    const Side<T>&a, &b;

    DVAE_EXT_HD Pair(const Side<T>& a_, const Side<T>& b_) : a(a_), b(b_) {}

    // KL(0 || b) = -log(1 - q_b) and KL(1 || b) = -log q_b; no other variable has a finite KL from a certain one.
    DVAE_EXT_HD static T certain_kl(const Side<T>& a, const Side<T>& b) {
      const T from_certain = a.logit < T(0) ? b.softplus_plus : b.softplus_minus;
      const T to_certain = a.logit == a.logit ? T(INFINITY) : a.logit;
      return a.logit == b.logit ? T(0) : infinite(a.logit) ? from_certain : to_certain;
    }
    DVAE_EXT_HD static T kl(const Side<T>& a, const Side<T>& b) {
      if constexpr (kWide) {
        if (infinite(a.logit) | infinite(b.logit)) return certain_kl(a, b);
      }
      const bool flip = a.logit > T(0);
      const T d = select(flip, a.logit - b.logit, b.logit - a.logit);
      const T p = select(flip, a.q, a.p);
      const T above = select(flip, b.softplus_minus, b.softplus_plus);
      const T base = select(flip, a.softplus_minus, a.softplus_plus);
      const bool small = fabs(d) < T(1);
      const T near_d = select(small, d, T(0));
      const ExpRemainder<T> series(near_d);
      const T excess = series.even + series.odd;
      const T near = fma(p, excess, log1p_remainder(p * (near_d + excess)));
      T moved = p * d;
      if constexpr (kWide) moved = select(p == T(0), T(0), moved);  // where d is infinite, p is 0 long before
      const T far = (above - base) - moved;
      const T result = select(small, near, far);
      return select(result < T(0), T(0), result);
    }
    DVAE_EXT_HD T kl_ab() const { return kl(a, b); }
    DVAE_EXT_HD T kl_ba() const { return kl(b, a); }

    // d/d(logit_a) of KL(a || b), to be multiplied with the weight w.
    DVAE_EXT_HD static T slope(const Side<T>& a, const Side<T>& b, T w) {
      const T spread = a.p * a.q;
      if constexpr (kWide) {
        // A certain variable stays certain; a weight of 0 switches an infinite slope off.
        if (infinite(a.logit) | ((w == T(0)) & infinite(b.logit))) return T(0) * b.q;
        if (infinite(b.logit)) return a.logit - b.logit;
        if (spread == T(0)) return T(0) * b.q;  // the difference may be infinite
      }
      return spread * (a.logit - b.logit);
    }
    DVAE_EXT_HD BernoulliPairGradient<T> gradient(T w_ab, T w_ba) const {
      const T difference = select(a.logit > T(0), b.q - a.q, a.p - b.p);
      return {{fma(w_ab, slope(a, b, w_ab), w_ba * difference)}, {fma(w_ba, slope(b, a, w_ba), -w_ab * difference)}};
    }
  };
};

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
