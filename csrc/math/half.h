// 16-bit storage types and their conversion to the type that formulas compute in.
#pragma once

#include "math/elementary.h"

namespace dvae_ext::math {
inline namespace DVAE_EXT_ISA {

struct BFloat16 {
  uint16_t bits;
};
struct Float16 {
  uint16_t bits;
};

template <class Storage>
struct ComputeType {
  using type = float;
};
template <>
struct ComputeType<double> {
  using type = double;
};
template <class Storage>
using compute_t = typename ComputeType<Storage>::type;

DVAE_EXT_HD float load(float x) { return x; }
DVAE_EXT_HD double load(double x) { return x; }
DVAE_EXT_HD float load(BFloat16 x) { return bit_cast<float>(static_cast<uint32_t>(x.bits) << 16); }
DVAE_EXT_HD float load(Float16 x) {
  // Shift mantissa and exponent into place and scale by 2^112: right for denormals too.
  const uint32_t magnitude = static_cast<uint32_t>(x.bits & 0x7fffu) << 13;
  const uint32_t sign = static_cast<uint32_t>(x.bits & 0x8000u) << 16;
  const float scaled = bit_cast<float>(magnitude) * 5.192296858534828e33f;
  const uint32_t special = magnitude >= 0x0f800000u ? 0x7f800000u : 0u;  // infinity and NaN keep their exponent
  return bit_cast<float>(bit_cast<uint32_t>(scaled) | sign | special);
}

template <class Storage>
DVAE_EXT_HD Storage store(compute_t<Storage> x);
template <>
DVAE_EXT_HD float store<float>(float x) {
  return x;
}
template <>
DVAE_EXT_HD double store<double>(double x) {
  return x;
}
template <>
DVAE_EXT_HD BFloat16 store<BFloat16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;  // to nearest, ties to even
  return {static_cast<uint16_t>(x != x ? 0x7fc0u : rounded)};
}
template <>
DVAE_EXT_HD Float16 store<Float16>(float x) {
  const uint32_t bits = bit_cast<uint32_t>(x);
  const uint32_t sign = (bits >> 16) & 0x8000u;
  const float magnitude = fabs(x);
  const uint32_t magnitude_bits = bits & 0x7fffffffu;
  // Normal: re-bias the exponent and round to nearest even. Denormal: the addition of 0.5 does the rounding.
  const uint32_t normal = (magnitude_bits - 0x38000000u + 0xfffu + ((magnitude_bits >> 13) & 1u)) >> 13;
  const uint32_t denormal = bit_cast<uint32_t>(magnitude + 0.5f) - 0x3f000000u;
  uint32_t result = magnitude < 6.103515625e-5f ? denormal : normal;
  result = magnitude >= 65520.0f ? 0x7c00u : result;
  result = x != x ? 0x7e00u : result;
  return {static_cast<uint16_t>(result | sign)};
}

}  // namespace DVAE_EXT_ISA
}  // namespace dvae_ext::math
