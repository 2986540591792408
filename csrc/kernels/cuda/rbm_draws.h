// Bernoulli draws of a warp's units for 8 chains, as the kernels of RBMs make them.
#pragma once

#include "kernels/gpu.h"
#include "math/bernoulli.h"
#include "math/philox.h"

namespace dvae_ext::kernels {

namespace {

constexpr int kChains = 8;
constexpr unsigned kWarp = 0xffffffffu;

struct Draws {
  uint32_t k0, k1, c2, c3, stream;
  uint32_t first_chain;
};

// Word `index` (0 to 3) without an array, which would go to local memory.
__device__ __forceinline__ uint32_t pick(uint32_t a, uint32_t b, uint32_t c, uint32_t d, unsigned index) {
  return index & 2 ? (index & 1 ? d : c) : (index & 1 ? b : a);
}

// States of the unit for the 8 chains, bit c for chain c. Four threads with consecutive units share a Philox call per
// chain: each computes two of the eight and they trade words. All threads of a warp take part.
template <class T>
__device__ __forceinline__ uint32_t sample(const T (&field)[kChains], int64_t unit, const Draws& draws) {
  const unsigned lane = threadIdx.x & 31u;
  const unsigned own = lane & 3u;
  const uint32_t c0 = static_cast<uint32_t>(unit >> 2) | draws.stream;
  uint32_t states = 0;
#pragma unroll
  for (unsigned half = 0; half < 2; ++half) {
    const math::Words4 w =
        math::philox4x32(c0, draws.first_chain + half * 4 + own, draws.c2, draws.c3, draws.k0, draws.k1);
    uint32_t received[4];  // received[r] comes from the thread of chain (own + r) % 4
#pragma unroll
    for (unsigned r = 0; r < 4; ++r) {
      received[r] = __shfl_sync(kWarp, pick(w.x, w.y, w.z, w.w, (own - r) & 3u), (lane & ~3u) | ((own + r) & 3u));
    }
#pragma unroll
    for (unsigned s = 0; s < 4; ++s) {
      const uint32_t word = pick(received[0], received[1], received[2], received[3], (s - own) & 3u);
      const unsigned chain = half * 4 + s;
      states |= math::bernoulli(field[chain], static_cast<T>(math::uniform_open(word))) ? 1u << chain : 0u;
    }
  }
  return states;
}

}  // namespace

}  // namespace dvae_ext::kernels
