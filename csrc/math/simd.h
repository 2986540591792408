// Two vector registers of floats with the interface of a float, so that a formula written once also runs a vector at a
// time. The compiler's own vectoriser gives up on formulas with many selects; this never does.
#pragma once

#include "math/macros.h"

#if !defined(__CUDACC__) && defined(__GNUC__)
#define DVAE_EXT_HAS_SIMD 1

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#include <cmath>

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

struct Simd {
#if defined(__AVX512F__)
  static constexpr int kLanes = 16;
#elif defined(__AVX2__)
  static constexpr int kLanes = 8;
#else
  static constexpr int kLanes = 4;
#endif
  // Two registers: the two chains of dependent operations overlap, and these formulas are long chains.
  static constexpr int kRegisters = 2, kWidth = kRegisters * kLanes;
  typedef float Native __attribute__((vector_size(4 * kLanes)));
  typedef int32_t NativeInt __attribute__((vector_size(4 * kLanes)));
  struct Integers {
    NativeInt v[kRegisters];
  };
  struct Mask {
    NativeInt v[kRegisters];
  };

  Native v[kRegisters];
  Simd() = default;
  DVAE_EXT_HD explicit Simd(float x) : v{Native{} + x, Native{} + x} {}
  DVAE_EXT_HD explicit Simd(double x) : Simd(static_cast<float>(x)) {}
  DVAE_EXT_HD explicit Simd(int x) : Simd(static_cast<float>(x)) {}
  DVAE_EXT_HD Simd(Native first, Native second) : v{first, second} {}
  DVAE_EXT_HD static Simd load(const float* from) {
    const Native* source = reinterpret_cast<const Native*>(from);
    return Simd(source[0], source[1]);
  }
  DVAE_EXT_HD void store(float* to) const {
    reinterpret_cast<Native*>(to)[0] = v[0];
    reinterpret_cast<Native*>(to)[1] = v[1];
  }
};

#define DVAE_EXT_SIMD_OPERATOR(Result, op, Argument) \
  DVAE_EXT_HD Result operator op(Argument a, Argument b) { return {a.v[0] op b.v[0], a.v[1] op b.v[1]}; }
DVAE_EXT_SIMD_OPERATOR(Simd, +, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd, -, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd, *, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd, /, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, <, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, >, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, <=, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, >=, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, ==, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, !=, Simd)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, &, Simd::Mask)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, |, Simd::Mask)
DVAE_EXT_SIMD_OPERATOR(Simd::Mask, ==, Simd::Mask)
DVAE_EXT_SIMD_OPERATOR(Simd::Integers, +, Simd::Integers)
DVAE_EXT_SIMD_OPERATOR(Simd::Integers, -, Simd::Integers)
#undef DVAE_EXT_SIMD_OPERATOR

DVAE_EXT_HD Simd operator-(Simd a) { return {-a.v[0], -a.v[1]}; }
DVAE_EXT_HD Simd::Mask operator!(Simd::Mask a) { return {~a.v[0], ~a.v[1]}; }
DVAE_EXT_HD Simd::Integers operator+(Simd::Integers a, int32_t b) { return {a.v[0] + b, a.v[1] + b}; }
DVAE_EXT_HD Simd::Integers operator-(Simd::Integers a, int32_t b) { return {a.v[0] - b, a.v[1] - b}; }
DVAE_EXT_HD Simd::Integers operator-(int32_t a, Simd::Integers b) { return {a - b.v[0], a - b.v[1]}; }
DVAE_EXT_HD Simd::Integers operator<<(Simd::Integers a, int b) { return {a.v[0] << b, a.v[1] << b}; }
DVAE_EXT_HD Simd::Integers operator>>(Simd::Integers a, int b) { return {a.v[0] >> b, a.v[1] >> b}; }

DVAE_EXT_HD Simd select(Simd::Mask condition, Simd if_true, Simd if_false) {
  return {condition.v[0] ? if_true.v[0] : if_false.v[0], condition.v[1] ? if_true.v[1] : if_false.v[1]};
}

DVAE_EXT_HD Simd::Native fma(Simd::Native a, Simd::Native b, Simd::Native c) {
#if defined(__AVX512F__)
  return _mm512_fmadd_ps(a, b, c);
#elif defined(__AVX2__)
  return _mm256_fmadd_ps(a, b, c);
#else
  return a * b + c;
#endif
}
DVAE_EXT_HD Simd fma(Simd a, Simd b, Simd c) { return {fma(a.v[0], b.v[0], c.v[0]), fma(a.v[1], b.v[1], c.v[1])}; }

DVAE_EXT_HD Simd::Native sqrt(Simd::Native x) {
#if defined(__AVX512F__)
  return _mm512_sqrt_ps(x);
#elif defined(__AVX2__)
  return _mm256_sqrt_ps(x);
#elif defined(__x86_64__)
  return _mm_sqrt_ps(x);
#else
  for (int i = 0; i < Simd::kLanes; ++i) x[i] = ::sqrtf(x[i]);
  return x;
#endif
}
DVAE_EXT_HD Simd sqrt(Simd x) { return {sqrt(x.v[0]), sqrt(x.v[1])}; }

namespace detail {

DVAE_EXT_HD Simd::Integers bits_of(Simd x) { return {Simd::NativeInt(x.v[0]), Simd::NativeInt(x.v[1])}; }
DVAE_EXT_HD Simd from_bits(Simd::Integers n) { return {Simd::Native(n.v[0]), Simd::Native(n.v[1])}; }
DVAE_EXT_HD Simd to_float(Simd::Integers n) {
  return {__builtin_convertvector(n.v[0], Simd::Native), __builtin_convertvector(n.v[1], Simd::Native)};
}

}  // namespace detail

DVAE_EXT_HD Simd fabs(Simd x) {
  return {Simd::Native(Simd::NativeInt(x.v[0]) & 0x7fffffff), Simd::Native(Simd::NativeInt(x.v[1]) & 0x7fffffff)};
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math

#else
#define DVAE_EXT_HAS_SIMD 0
#endif
