// KL(a || b) of two univariate normals given by mean and log-variance, and its derivatives.
//
//   KL = 1/2 [ exp(d) - 1 - d + (mean_a - mean_b)² exp(-logvar_b) ],   d = logvar_a - logvar_b.
//
// exp(d) is the product of one factor per side, so a batch of B posteriors needs 2 B exponentials, not B². Beyond
// kFactorLimit the factors could overflow where the quotient does not: the wide form takes the exponential per pair,
// and multiplies by the fourth root of a precision so often that nothing overflows on the way to a finite result.
#pragma once

#include <type_traits>

#include "math/remainders.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

// The derivatives of a weighted sum of KL(a || b) and KL(b || a) by the mean and log-variance of either side.
template <class T>
struct NormalPairGradient {
  T a[2], b[2];
};

struct NormalPairs {
  static constexpr int kInputs = 2;    // mean, log-variance
  static constexpr int kFeatures = 4;  // what a posterior contributes to all of its pairs
  static constexpr double kFactorLimit = 40.0;

  template <class T>
  struct Side {
    T mean, logvar, variance, precision;
  };

  template <class T>
  DVAE_EXT_HD static Side<T> side(T mean, T logvar) {
    return {mean, logvar, exp(logvar), exp(-logvar)};
  }
  template <class T>
  DVAE_EXT_HD static bool needs_wide(T /*mean*/, T logvar) {
    return fabs(logvar) > T(kFactorLimit);
  }
  // Element j of feature columns that lie `stride` apart.
  template <class T>
  DVAE_EXT_HD static Side<T> load(const T* columns, int64_t stride, int64_t j) {
    return {columns[j], columns[stride + j], columns[2 * stride + j], columns[3 * stride + j]};
  }
  template <class T>
  DVAE_EXT_HD static void store(const Side<T>& side, T* columns, int64_t stride, int64_t j) {
    columns[j] = side.mean;
    columns[stride + j] = side.logvar;
    columns[2 * stride + j] = side.variance;
    columns[3 * stride + j] = side.precision;
  }

  // One of the derivatives times the weight of its divergence. A weight of 0 switches an infinite one off: the padding
  // has it, and divergences that nobody asked for.
  template <class T>
  DVAE_EXT_HD static T weighted(T weight, T slope) {
    return select((weight == T(0)) & (fabs(slope) == T(INFINITY)), T(0), weight * slope);
  }

  // Both directions of one pair share the differences and the series.
  template <bool kWide, class T>
  struct Pair;
  template <class T>
  struct Pair<false, T> {
    T mean_difference, logvar_difference;
    T scaled_ab, scaled_ba;  // mean_difference * precision of the second argument
    T excess_ab, excess_ba;  // exp(d) - 1 - d and exp(-d) - 1 + d

    DVAE_EXT_HD Pair(const Side<T>& a, const Side<T>& b) {
      mean_difference = a.mean - b.mean;
      logvar_difference = a.logvar - b.logvar;
      scaled_ab = mean_difference * b.precision;
      scaled_ba = mean_difference * a.precision;
      const T ratio = a.variance * b.precision, inverse = b.variance * a.precision;
      const T d = logvar_difference;
      const ExpRemainder<T> series(d);
      const bool small = fabs(d) < T(0.75);
      excess_ab = select(small, series.even + series.odd, (ratio - T(1)) - d);
      excess_ba = select(small, series.even - series.odd, (inverse - T(1)) + d);
    }

    DVAE_EXT_HD T kl_ab() const { return T(0.5) * fma(scaled_ab, mean_difference, excess_ab); }
    DVAE_EXT_HD T kl_ba() const { return T(0.5) * fma(scaled_ba, mean_difference, excess_ba); }

    DVAE_EXT_HD NormalPairGradient<T> gradient(T w_ab, T w_ba) const {
      const T mean = fma(w_ab, scaled_ab, w_ba * scaled_ba);
      const T growth = excess_ab + logvar_difference;  // exp(d) - 1
      const T decay = logvar_difference - excess_ba;   // 1 - exp(-d)
      const T logvar_a = fma(w_ab, growth, w_ba * (decay - scaled_ba * mean_difference));
      const T logvar_b = -fma(w_ba, decay, w_ab * (growth + scaled_ab * mean_difference));
      return {{mean, T(0.5) * logvar_a}, {-mean, T(0.5) * logvar_b}};
    }
  };
  template <class T>
  struct Pair<true, T> {
    T root_a, root_b;          // fourth roots of the precisions
    T distance_a, distance_b;  // mean_difference over either standard deviation
    T excess_ab, excess_ba;    // exp(d) - 1 - d and exp(-d) - 1 + d
    T growth, decay;           // exp(d) - 1 and 1 - exp(-d)

    DVAE_EXT_HD Pair(const Side<T>& a, const Side<T>& b)
        : root_a(exp(T(-0.25) * a.logvar)), root_b(exp(T(-0.25) * b.logvar)) {
      const T difference = a.mean - b.mean, d = a.logvar - b.logvar;
      // An infinite root times a zero difference is zero, as in the limit.
      distance_a = select(difference == T(0), T(0), difference * root_a * root_a);
      distance_b = select(difference == T(0), T(0), difference * root_b * root_b);
      const ExpRemainder<T> series(d);
      const bool small = fabs(d) < T(0.75);
      const T rise = exp(d) - T(1), fall = exp(-d) - T(1);
      excess_ab = select(small, series.even + series.odd, rise - d);
      excess_ba = select(small, series.even - series.odd, fall + d);
      growth = select(small, excess_ab + d, rise);
      decay = select(small, d - excess_ba, -fall);
    }

    // The weight first: what it scales down need not overflow. Again the root may be infinite.
    DVAE_EXT_HD static T by_mean(T weight, T distance, T root) {
      const T moved = weighted(weight, distance);
      return select(moved == T(0), T(0), moved * root * root);
    }
    DVAE_EXT_HD T kl_ab() const { return T(0.5) * fma(distance_b, distance_b, excess_ab); }
    DVAE_EXT_HD T kl_ba() const { return T(0.5) * fma(distance_a, distance_a, excess_ba); }

    DVAE_EXT_HD NormalPairGradient<T> gradient(T w_ab, T w_ba) const {
      const T mean = by_mean(w_ab, distance_b, root_b) + by_mean(w_ba, distance_a, root_a);
      const T logvar_a = weighted(w_ab, growth) + weighted(w_ba, decay - distance_a * distance_a);
      const T logvar_b = weighted(w_ab, growth + distance_b * distance_b) + weighted(w_ba, decay);
      return {{mean, T(0.5) * logvar_a}, {-mean, T(-0.5) * logvar_b}};
    }
  };
  template <bool kWide, class T>
  using Divergence = Pair<kWide, T>;
};

// The derivatives alone, for float: they need exp(d) - 1 and no series. With the two exponentials of a side kept in two
// floats each, their product less one has all its digits, however small d is.
struct NormalSlopes {
  static constexpr int kInputs = 2;
  static constexpr int kFeatures = 6;

  template <class T>
  struct Side : NormalPairs::Side<T> {
    T variance_rest, precision_rest;
  };

  static Side<float> side(float mean, float logvar) {
    const double variance = exp(static_cast<double>(logvar)), precision = 1.0 / variance;
    const float high = static_cast<float>(variance), low = static_cast<float>(precision);
    return {{mean, logvar, high, low}, static_cast<float>(variance - high), static_cast<float>(precision - low)};
  }
  static bool needs_wide(float mean, float logvar) { return NormalPairs::needs_wide(mean, logvar); }
  template <class T>
  DVAE_EXT_HD static Side<T> load(const T* columns, int64_t stride, int64_t j) {
    return {NormalPairs::load(columns, stride, j), columns[4 * stride + j], columns[5 * stride + j]};
  }
  template <class T>
  DVAE_EXT_HD static void store(const Side<T>& side, T* columns, int64_t stride, int64_t j) {
    NormalPairs::store(side, columns, stride, j);
    columns[4 * stride + j] = side.variance_rest;
    columns[5 * stride + j] = side.precision_rest;
  }

  template <class T>
  struct Narrow {
    T mean_difference, precision_a, precision_b, variance_b;
    T growth;  // exp(d) - 1

    DVAE_EXT_HD Narrow(const Side<T>& a, const Side<T>& b)
        : mean_difference(a.mean - b.mean),
          precision_a(a.precision),
          precision_b(b.precision),
          variance_b(b.variance),
          growth(fma(a.variance, b.precision, T(-1)) +
                 fma(a.variance, b.precision_rest, a.variance_rest * b.precision)) {}

    // 1 - exp(-d) = growth exp(-d).
    DVAE_EXT_HD NormalPairGradient<T> gradient(T w_ab, T w_ba) const {
      const T weighted = w_ba * precision_a;
      const T moved_ab = w_ab * precision_b * mean_difference, moved_ba = weighted * mean_difference;
      const T mean = moved_ab + moved_ba;
      const T ratio = T(0.5) * growth * fma(weighted, variance_b, w_ab), half = T(0.5) * mean_difference;
      return {{mean, fma(-moved_ba, half, ratio)}, {-mean, -fma(moved_ab, half, ratio)}};
    }
  };
  template <bool kWide, class T>
  using Pair = std::conditional_t<kWide, NormalPairs::Pair<true, T>, Narrow<T>>;
  template <bool kWide, class T>
  using Divergence = NormalPairs::Pair<kWide, T>;
};

// What the gradients of a type of computation are made with: a product less one has its digits by a fused multiply-add.
template <class T>
using NormalGradients = std::conditional_t<std::is_same_v<T, float> && DVAE_EXT_HAS_FMA, NormalSlopes, NormalPairs>;

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
