// Dual numbers a + b ε, ε² = 0: a gradient formula evaluated on them yields its directional derivative, so second-order
// terms need no formula of their own.
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

template <class T>
struct Dual {
  T value;
  T tangent;
  DVAE_EXT_HD Dual() : value(0), tangent(0) {}
  template <class U>
  DVAE_EXT_HD explicit Dual(U v) : value(T(v)), tangent(0) {}
  DVAE_EXT_HD Dual(T v, T t) : value(v), tangent(t) {}
};

template <class T>
DVAE_EXT_HD Dual<T> operator-(Dual<T> a) {
  return {-a.value, -a.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> operator+(Dual<T> a, Dual<T> b) {
  return {a.value + b.value, a.tangent + b.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> operator-(Dual<T> a, Dual<T> b) {
  return {a.value - b.value, a.tangent - b.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> operator*(Dual<T> a, Dual<T> b) {
  return {a.value * b.value, a.tangent * b.value + a.value * b.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> operator/(Dual<T> a, Dual<T> b) {
  const T quotient = a.value / b.value;
  return {quotient, (a.tangent - quotient * b.tangent) / b.value};
}
template <class T>
DVAE_EXT_HD bool operator<(Dual<T> a, Dual<T> b) {
  return a.value < b.value;
}
template <class T>
DVAE_EXT_HD bool operator>(Dual<T> a, Dual<T> b) {
  return a.value > b.value;
}
template <class T>
DVAE_EXT_HD bool operator<=(Dual<T> a, Dual<T> b) {
  return a.value <= b.value;
}
template <class T>
DVAE_EXT_HD bool operator>=(Dual<T> a, Dual<T> b) {
  return a.value >= b.value;
}
template <class T>
DVAE_EXT_HD bool operator==(Dual<T> a, Dual<T> b) {
  return a.value == b.value;
}
template <class T>
DVAE_EXT_HD bool operator!=(Dual<T> a, Dual<T> b) {
  return a.value != b.value;
}

template <class T>
DVAE_EXT_HD Dual<T> exp(Dual<T> x) {
  const T y = exp(x.value);
  return {y, y * x.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> expm1(Dual<T> x) {
  return {expm1(x.value), exp(x.value) * x.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> log(Dual<T> x) {
  return {log(x.value), x.tangent / x.value};
}
template <class T>
DVAE_EXT_HD Dual<T> log_corrected(Dual<T> u, Dual<T> c) {
  return {log_corrected(u.value, c.value), (u.tangent + c.tangent) / u.value};
}
template <class T>
DVAE_EXT_HD Dual<T> log1p(Dual<T> x) {
  return {log1p(x.value), x.tangent / (T(1) + x.value)};
}
template <class T>
DVAE_EXT_HD Dual<T> sqrt(Dual<T> x) {
  const T y = sqrt(x.value);
  return {y, x.tangent / (T(2) * y)};
}
template <class T>
DVAE_EXT_HD Dual<T> fabs(Dual<T> x) {
  return {fabs(x.value), x.value < T(0) ? -x.tangent : x.tangent};  // from the right at 0
}
// The generic forms go through |x|, which has a kink at 0 that these functions do not have.
template <class T>
DVAE_EXT_HD Dual<T> softplus(Dual<T> x) {
  return {softplus(x.value), sigmoid(x.value) * x.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> sigmoid(Dual<T> x) {
  const T y = sigmoid(x.value);
  return {y, y * sigmoid(-x.value) * x.tangent};
}
template <class T>
DVAE_EXT_HD Dual<T> hypot(Dual<T> a, Dual<T> b) {
  const T y = hypot(a.value, b.value);
  const T safe = y > T(0) ? y : T(1);
  return {y, (a.value / safe) * a.tangent + (b.value / safe) * b.tangent};
}

template <>
DVAE_EXT_HD Dual<double> smallest_normal<Dual<double>>() {
  return Dual<double>(DBL_MIN);
}
template <>
DVAE_EXT_HD Dual<double> nan<Dual<double>>() {
  return Dual<double>(NAN, NAN);
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
