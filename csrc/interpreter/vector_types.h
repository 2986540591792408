// CUDA's vector types, with CUDA's alignments.
#pragma once

#include <cstdint>

namespace dvae_ext::interpreter {

#define DVAE_EXT_VECTOR2(name, type, bytes) \
  struct alignas(bytes) name {              \
    type x, y;                              \
  };                                        \
  inline name make_##name(type x, type y) { return {x, y}; }
#define DVAE_EXT_VECTOR3(name, type) \
  struct name {                      \
    type x, y, z;                    \
  };                                 \
  inline name make_##name(type x, type y, type z) { return {x, y, z}; }
#define DVAE_EXT_VECTOR4(name, type, bytes) \
  struct alignas(bytes) name {              \
    type x, y, z, w;                        \
  };                                        \
  inline name make_##name(type x, type y, type z, type w) { return {x, y, z, w}; }

DVAE_EXT_VECTOR2(uchar2, unsigned char, 2)
DVAE_EXT_VECTOR4(uchar4, unsigned char, 4)
DVAE_EXT_VECTOR2(short2, short, 4)
DVAE_EXT_VECTOR2(ushort2, unsigned short, 4)
DVAE_EXT_VECTOR4(ushort4, unsigned short, 8)
DVAE_EXT_VECTOR2(int2, int, 8)
DVAE_EXT_VECTOR3(int3, int)
DVAE_EXT_VECTOR4(int4, int, 16)
DVAE_EXT_VECTOR2(uint2, unsigned, 8)
DVAE_EXT_VECTOR3(uint3, unsigned)
DVAE_EXT_VECTOR4(uint4, unsigned, 16)
DVAE_EXT_VECTOR2(longlong2, long long, 16)
DVAE_EXT_VECTOR2(ulonglong2, unsigned long long, 16)
DVAE_EXT_VECTOR2(float2, float, 8)
DVAE_EXT_VECTOR3(float3, float)
DVAE_EXT_VECTOR4(float4, float, 16)
DVAE_EXT_VECTOR2(double2, double, 16)

#undef DVAE_EXT_VECTOR2
#undef DVAE_EXT_VECTOR3
#undef DVAE_EXT_VECTOR4

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

}  // namespace dvae_ext::interpreter
