// What the coarse-grain kernels share on the GPU: one warp per density, its R values in shared memory.
#pragma once

#include "kernels/cuda/reduce.h"
#include "math/coarse_grain.h"

namespace dvae_ext::kernels::coarse_grain {

inline constexpr int kMaxWarps = 4;

// Warps of a block, fewer for grids so large that shared memory would run out.
inline int warps(int64_t num_points) { return num_points > 512 ? 1 : kMaxWarps; }

// Points of the grid by one multiplication: a division is a subroutine on the GPU, and calls spill registers.
template <class T>
struct Grid {
  int num_points;
  T inverse;

  __device__ explicit Grid(int num_points_)
      : num_points(num_points_), inverse(T(1) / static_cast<T>(num_points_ - 1)) {}
  __device__ T operator()(int64_t r) const {
    return static_cast<T>(2 * static_cast<int>(r) - (num_points - 1)) * inverse;
  }
};

// out[r] = polynomial(grid_r) - max; lanes own the points r = lane, lane + 32, ...
template <class T, class S>
__device__ void shifted_logits(const S* coefficients, int64_t order, int num_points, int lane, T* out) {
  const Grid<T> grid(num_points);
  T largest = -static_cast<T>(INFINITY);
  for (int r = lane; r < num_points; r += 32) {
    const T value = math::polynomial<T>(coefficients, order, grid(r));
    out[r] = value;
    largest = value > largest ? value : largest;
  }
  largest = warp_max(largest);
  for (int r = lane; r < num_points; r += 32) out[r] -= largest;
}

// Calls result(m, sum_r weights[r] grid[r]^(m + 1)) on every lane; overwrites weights, which lanes own as above.
template <class T, class Result>
__device__ void moments(T* weights, int num_points, int64_t order, int lane, const Result& result) {
  const Grid<T> grid(num_points);
  for (int64_t m = 0; m < order; ++m) {
    T sum = T(0);
    for (int r = lane; r < num_points; r += 32) {
      weights[r] *= grid(r);
      sum += weights[r];
    }
    result(m, warp_sum(sum));
  }
}

}  // namespace dvae_ext::kernels::coarse_grain
