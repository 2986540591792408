// Marks for functions that serve the host, the device and the interpreter alike.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define DVAE_EXT_HD __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define DVAE_EXT_HD inline __attribute__((always_inline))
#else
#define DVAE_EXT_HD inline
#endif

// CPU kernels are compiled once per instruction set. The inline namespace keeps the linker from merging a function
// compiled for AVX-512 into the path of a machine that lacks it.
#ifndef DVAE_EXT_ISA
#define DVAE_EXT_ISA host
#endif

// One rounding where the target has the instruction; a library call would be slower than the two roundings.
#if defined(__CUDACC__) || defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define DVAE_EXT_HAS_FMA 1
#else
#define DVAE_EXT_HAS_FMA 0
#endif

// The loop after it has a constant number of steps and should not remain a loop.
#if defined(__CUDACC__)
#define DVAE_EXT_UNROLL _Pragma("unroll")
#else
#define DVAE_EXT_UNROLL _Pragma("GCC unroll 16")
#endif
