// Reductions whose order is fixed, so that results are the same from run to run.
#pragma once

#include "kernels/gpu.h"

namespace dvae_ext::kernels {

template <class T>
__device__ T warp_sum(T x) {
  for (int offset = 16; offset > 0; offset /= 2) x += __shfl_xor_sync(0xffffffffu, x, offset);
  return x;
}
template <class T>
__device__ T warp_max(T x) {
  for (int offset = 16; offset > 0; offset /= 2) {
    const T other = __shfl_xor_sync(0xffffffffu, x, offset);
    x = x > other ? x : other;
  }
  return x;
}
// The sum over a block whose size is a power of two; all threads get it. `scratch` holds one value per thread.
__device__ inline double block_sum(double x, double* scratch) {
  const int thread = static_cast<int>(threadIdx.x);
  scratch[thread] = x;
  __syncthreads();
  for (int half = static_cast<int>(blockDim.x) / 2; half > 0; half /= 2) {
    if (thread < half) scratch[thread] += scratch[thread + half];
    __syncthreads();
  }
  const double total = scratch[0];
  __syncthreads();
  return total;
}

}  // namespace dvae_ext::kernels
