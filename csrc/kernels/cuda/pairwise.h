// What the three pairwise kernels share on the GPU. Features of posteriors are computed once per tile and kept in
// shared memory; nothing is accumulated with atomics.
#pragma once

#include "kernels/cuda/reduce.h"
#include "kernels/dtype.h"
#include "math/mutual_posterior_divergence.h"

namespace dvae_ext::kernels::pairwise {

using math::compute_t;

template <class Family, class S>
struct Inputs {
  const S* tensor[Family::kInputs];  // [batch, dims]
  int64_t batch, dims;

  __device__ auto side(int64_t row, int64_t k) const {
    const int64_t index = row * dims + k;
    if constexpr (Family::kInputs == 2) {
      return Family::side(math::load(tensor[0][index]), math::load(tensor[1][index]));
    } else {
      return Family::side(math::load(tensor[0][index]));
    }
  }
  __device__ bool needs_wide(int64_t row, int64_t k) const {
    const int64_t index = row * dims + k;
    if constexpr (Family::kInputs == 2) {
      return Family::needs_wide(math::load(tensor[0][index]), math::load(tensor[1][index]));
    } else {
      return Family::needs_wide(math::load(tensor[0][index]));
    }
  }
};

// Whether any thread of the block has met inputs that need the wide form: a flag for each warp, read after a barrier.
template <int kWarps>
struct WideFlags {
  __device__ static void set(int* flags, bool wide) {
    const int any = __any_sync(0xffffffffu, wide);
    if (threadIdx.x % 32 == 0) flags[threadIdx.x / 32] = any;
  }
  __device__ static bool get(const int* flags) {
    int any = 0;
#pragma unroll
    for (int warp = 0; warp < kWarps; ++warp) any |= flags[warp];
    return any != 0;
  }
};

// Blocks that a multiprocessor should hold: the compiler then has registers enough to spill none.
template <class S>
inline constexpr int kBlocks = sizeof(compute_t<S>) == sizeof(float) ? 2 : 1;

inline constexpr int kTile = 64;  // posteriors per side of a tile of pairs
inline constexpr int kEdge = 16;  // threads per side of a block; each has kPer x kPer pairs
inline constexpr int kPer = kTile / kEdge;
template <class T>
inline constexpr int kDims = sizeof(T) == sizeof(float) ? 16 : 8;  // dimensions in shared memory at a time

template <class Family, bool kWide, bool kSoftplus, class T>
__device__ void tile_dimension(const T* rows, const T* columns, int ty, int tx, T (&kl)[kPer][kPer],
                               T (&chain)[kPer][kPer]) {
#pragma unroll
  for (int b = 0; b < kPer; ++b) {
    const auto right = Family::load(columns, kTile, tx + kEdge * b);
#pragma unroll
    for (int a = 0; a < kPer; ++a) {
      const auto left = Family::load(rows, kTile, ty + kEdge * a);
      const typename Family::template Pair<kWide, T> pair(left, right);
      const T value = pair.kl_ab();
      kl[a][b] += value;
      if (kSoftplus) chain[a][b] = math::softplus_chain(chain[a][b], value);
    }
  }
}

// kl[i, j] for one tile of pairs; with kSoftplus also the tile's sum of softplus(-KL_k) over pairs i != j.
template <class Family, bool kSoftplus, class S, class Out>
__global__ void __launch_bounds__(kEdge* kEdge, kBlocks<S>)
    forward_kernel(Inputs<Family, S> inputs, Out* __restrict__ kl, double* __restrict__ partial_softplus) {
  using T = compute_t<S>;
  constexpr int features = Family::kFeatures, threads = kEdge * kEdge;
  DVAE_EXT_DYNAMIC_SHARED(T, shared);
  T* rows = shared;
  T* columns = shared + kDims<T> * features * kTile;
  using Flags = WideFlags<threads / 32>;
  __shared__ int wide_flags[threads / 32];
  __shared__ double scratch[threads];
  const int thread = static_cast<int>(threadIdx.x), tx = thread % kEdge, ty = thread / kEdge;
  const int64_t i0 = static_cast<int64_t>(blockIdx.y) * kTile, j0 = static_cast<int64_t>(blockIdx.x) * kTile;
  T sums[kPer][kPer] = {};
  T softplus = T(0);
  bool wide = false;  // what this thread has met so far
  for (int64_t k0 = 0; k0 < inputs.dims; k0 += kDims<T>) {
    const int count = inputs.dims - k0 < kDims<T> ? static_cast<int>(inputs.dims - k0) : kDims<T>;
    __syncthreads();
    for (int n = thread; n < 2 * kTile * count; n += threads) {
      const int k = n % count, row = n / count % kTile;
      const bool left = n < kTile * count;
      const int64_t index = (left ? i0 : j0) + row;
      if (index < inputs.batch) {
        Family::store(inputs.side(index, k0 + k), (left ? rows : columns) + k * features * kTile, kTile, row);
        wide |= inputs.needs_wide(index, k0 + k);
      } else {
        Family::store(decltype(inputs.side(0, 0)){}, (left ? rows : columns) + k * features * kTile, kTile, row);
      }
    }
    Flags::set(wide_flags, wide);
    __syncthreads();
    T chain[kPer][kPer] = {};
    if (Flags::get(wide_flags)) {
      for (int k = 0; k < count; ++k) {
        tile_dimension<Family, true, kSoftplus, T>(rows + k * features * kTile, columns + k * features * kTile, ty, tx,
                                                   sums, chain);
      }
    } else {
      for (int k = 0; k < count; ++k) {
        tile_dimension<Family, false, kSoftplus, T>(rows + k * features * kTile, columns + k * features * kTile, ty, tx,
                                                    sums, chain);
      }
    }
    if (kSoftplus) {
#pragma unroll
      for (int a = 0; a < kPer; ++a) {
#pragma unroll
        for (int b = 0; b < kPer; ++b) {
          const int64_t i = i0 + ty + kEdge * a, j = j0 + tx + kEdge * b;
          if (i < inputs.batch && j < inputs.batch && i != j) softplus += math::log1p(chain[a][b]);
        }
      }
    }
  }
#pragma unroll
  for (int a = 0; a < kPer; ++a) {
#pragma unroll
    for (int b = 0; b < kPer; ++b) {
      const int64_t i = i0 + ty + kEdge * a, j = j0 + tx + kEdge * b;
      if (i < inputs.batch && j < inputs.batch) kl[i * inputs.batch + j] = math::store<Out>(sums[a][b]);
    }
  }
  if (kSoftplus) {
    const double total = block_sum(static_cast<double>(softplus), scratch);
    if (thread == 0) partial_softplus[static_cast<int64_t>(blockIdx.y) * gridDim.x + blockIdx.x] = total;
  }
}

template <class Family, bool kSoftplus, class S, class Out>
int launch_forward(const Inputs<Family, S>& inputs, Out* kl, double* partial_softplus, void* stream) {
  using T = compute_t<S>;
  if (inputs.batch == 0) return 0;
  const unsigned tiles = static_cast<unsigned>((inputs.batch + kTile - 1) / kTile);
  const size_t bytes = sizeof(T) * 2 * kDims<T> * Family::kFeatures * kTile;
  return DVAE_EXT_LAUNCH((forward_kernel<Family, kSoftplus, S, Out>), dim3(tiles, tiles), dim3(kEdge * kEdge), bytes,
                         stream, inputs, kl, partial_softplus);
}

inline constexpr int kRowsPerBlock = 16;  // posteriors whose gradient a block computes
inline constexpr int kLaneDims = 32;      // dimensions: one per lane
inline constexpr int kWarps = 8;
inline constexpr int kRowsPerThread = kRowsPerBlock / kWarps;
template <class T>
inline constexpr int kOthers = sizeof(T) == sizeof(float) ? 32 : 16;  // the other sides of the pairs, a tile at a time

template <class Family, bool kWide, bool kSoftplus, class T, class Side>
__device__ void gradient_tile(const T* features, const T (*w_ij)[kOthers<T> + 1], const T (*w_ji)[kOthers<T> + 1],
                              int count, int warp, int lane, T scale, const Side (&own)[kRowsPerThread],
                              T (&total)[kRowsPerThread][Family::kInputs]) {
  T sums[kRowsPerThread][Family::kInputs] = {};
  for (int j = 0; j < count; ++j) {
    const auto other = Family::load(features + j * Family::kFeatures * kLaneDims, kLaneDims, lane);
#pragma unroll
    for (int n = 0; n < kRowsPerThread; ++n) {
      const int row = warp * kRowsPerThread + n;
      const typename Family::template Pair<kWide, T> pair(own[n], other);
      T weight_ab = w_ij[row][j], weight_ba = w_ji[row][j];
      if (kSoftplus) {
        math::subtract_sigmoids(math::exp_of_minus(pair.kl_ab()), math::exp_of_minus(pair.kl_ba()), scale, weight_ab,
                                weight_ba);
      }
      const auto gradient = pair.gradient(weight_ab, weight_ba);
#pragma unroll
      for (int input = 0; input < Family::kInputs; ++input) sums[n][input] += gradient.a[input];
    }
  }
#pragma unroll
  for (int n = 0; n < kRowsPerThread; ++n) {
#pragma unroll
    for (int input = 0; input < Family::kInputs; ++input) total[n][input] += sums[n][input];
  }
}

// The gradient at 16 posteriors and 32 dimensions: each thread goes through all pairs of its own ones.
template <class Family, bool kSoftplus, class S, class Source>
__global__ void __launch_bounds__(32 * kWarps, kBlocks<S>)
    backward_kernel(Inputs<Family, S> inputs, Source source, S* __restrict__ grad0, S* __restrict__ grad1) {
  using T = compute_t<S>;
  constexpr int threads = 32 * kWarps;
  DVAE_EXT_DYNAMIC_SHARED(T, features);  // [kOthers<T>][features][kLaneDims]
  __shared__ T w_ij[kRowsPerBlock][kOthers<T> + 1], w_ji[kRowsPerBlock][kOthers<T> + 1];
  using Flags = WideFlags<kWarps>;
  __shared__ int wide_flags[kWarps];
  const int thread = static_cast<int>(threadIdx.x), lane = thread % 32, warp = thread / 32;
  const int64_t i0 = static_cast<int64_t>(blockIdx.x) * kRowsPerBlock;
  const int64_t k = static_cast<int64_t>(blockIdx.y) * kLaneDims + lane;
  const auto weight = source.prepare();
  bool wide = false;  // what this thread has met so far
  decltype(inputs.side(0, 0)) own[kRowsPerThread];
#pragma unroll
  for (int n = 0; n < kRowsPerThread; ++n) {
    const int64_t i = i0 + warp * kRowsPerThread + n;
    const bool inside = i < inputs.batch && k < inputs.dims;
    own[n] = inside ? inputs.side(i, k) : decltype(inputs.side(0, 0)){};
    wide |= inside && inputs.needs_wide(i, k);
  }
  T total[kRowsPerThread][Family::kInputs] = {};
  for (int64_t j0 = 0; j0 < inputs.batch; j0 += kOthers<T>) {
    const int count = inputs.batch - j0 < kOthers<T> ? static_cast<int>(inputs.batch - j0) : kOthers<T>;
    __syncthreads();
    for (int j = warp; j < count; j += kWarps) {
      T* columns = features + j * Family::kFeatures * kLaneDims;
      if (k < inputs.dims) {
        Family::store(inputs.side(j0 + j, k), columns, kLaneDims, lane);
        wide |= inputs.needs_wide(j0 + j, k);
      } else {
        Family::store(decltype(inputs.side(0, 0)){}, columns, kLaneDims, lane);
      }
    }
    for (int n = thread; n < kRowsPerBlock * kOthers<T>; n += threads) {
      const int row = n / kOthers<T>, j = n % kOthers<T>;
      const bool inside = i0 + row < inputs.batch && j < count;
      w_ij[row][j] = inside ? weight(i0 + row, j0 + j) : T(0);
    }
    for (int n = thread; n < kRowsPerBlock * kOthers<T>; n += threads) {
      const int row = n % kRowsPerBlock, j = n / kRowsPerBlock;  // neighbours read neighbouring i
      const bool inside = i0 + row < inputs.batch && j < count;
      w_ji[row][j] = inside ? weight(j0 + j, i0 + row) : T(0);
    }
    Flags::set(wide_flags, wide);
    __syncthreads();
    if (Flags::get(wide_flags)) {
      gradient_tile<Family, true, kSoftplus, T>(features, w_ij, w_ji, count, warp, lane, weight.softplus_scale, own,
                                                total);
    } else {
      gradient_tile<Family, false, kSoftplus, T>(features, w_ij, w_ji, count, warp, lane, weight.softplus_scale, own,
                                                 total);
    }
  }
#pragma unroll
  for (int n = 0; n < kRowsPerThread; ++n) {
    const int64_t i = i0 + warp * kRowsPerThread + n;
    if (i < inputs.batch && k < inputs.dims) {
      grad0[i * inputs.dims + k] = math::store<S>(total[n][0]);
      if constexpr (Family::kInputs == 2) grad1[i * inputs.dims + k] = math::store<S>(total[n][1]);
    }
  }
}

// Weights of a matrix of gradients.
template <class S>
struct MatrixSource {
  const S* grad;
  int64_t batch;

  struct Weight {
    const S* grad;
    int64_t batch;
    compute_t<S> softplus_scale;
    __device__ compute_t<S> operator()(int64_t i, int64_t j) const { return math::load(grad[i * batch + j]); }
  };
  __device__ Weight prepare() const { return {grad, batch, compute_t<S>(0)}; }
};

template <class Family, bool kSoftplus, class S, class Source>
int launch_backward(const Inputs<Family, S>& inputs, const Source& source, S* grad0, S* grad1, void* stream) {
  using T = compute_t<S>;
  if (inputs.batch == 0 || inputs.dims == 0) return 0;
  const dim3 grid(static_cast<unsigned>((inputs.batch + kRowsPerBlock - 1) / kRowsPerBlock),
                  static_cast<unsigned>((inputs.dims + kLaneDims - 1) / kLaneDims));
  const size_t bytes = sizeof(T) * kOthers<T> * Family::kFeatures * kLaneDims;
  return DVAE_EXT_LAUNCH((backward_kernel<Family, kSoftplus, S, Source>), grid, dim3(32 * kWarps), bytes, stream,
                         inputs, source, grad0, grad1);
}

}  // namespace dvae_ext::kernels::pairwise
