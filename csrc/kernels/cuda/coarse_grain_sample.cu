#include "kernels/coarse_grain_sample.h"

#include "kernels/cuda/coarse_grain.h"
#include "math/gumbel.h"

namespace dvae_ext::kernels {

namespace {

using math::compute_t;

struct Relaxed {
  int64_t num_samples, batch, dims, order;
  int num_points;
  const double* temperature;
  const int64_t* key;
};

// Sums over the grid of one sample, relative to the largest perturbed logit.
template <class T>
struct Sums {
  T largest, mass, moment;
};

// The perturbed logits of one sample. A lane makes whole generator calls, six grid points each; it leaves the
// perturbed logits of its points in `perturbed` where that is not null.
template <class T>
__device__ Sums<T> relax(const Relaxed& p, uint32_t row, T inverse_temperature, int lane, const T* logits,
                         T* perturbed) {
  const uint64_t seed = static_cast<uint64_t>(p.key[0]), offset = static_cast<uint64_t>(p.key[1]);
  const coarse_grain::Grid<T> grid(p.num_points);
  Sums<T> sums{-static_cast<T>(INFINITY), T(0), T(0)};
  constexpr int kWords = 6;
  for (int call = lane; kWords * call < p.num_points; call += 32) {
    const math::Words4 w = math::philox4x32(static_cast<uint32_t>(call), row, static_cast<uint32_t>(offset),
                                            static_cast<uint32_t>(offset >> 32), static_cast<uint32_t>(seed),
                                            static_cast<uint32_t>(seed >> 32));
    const uint32_t words[kWords] = {w.x, w.y, w.z, w.w, math::spare_word(w.x, w.y), math::spare_word(w.z, w.w)};
    T values[kWords];
    T largest = sums.largest;
#pragma unroll
    for (int q = 0; q < kWords; ++q) {
      const int r = kWords * call + q;
      if (r < p.num_points) {
        values[q] = logits[r] + math::gumbel_from_word<T>(words[q]);
        if (perturbed != nullptr) perturbed[r] = values[q];
        largest = values[q] > largest ? values[q] : largest;
      }
    }
    const T rescale = math::exp_of_minus((largest - sums.largest) * inverse_temperature);
    sums.mass *= rescale;
    sums.moment *= rescale;
    sums.largest = largest;
#pragma unroll
    for (int q = 0; q < kWords; ++q) {
      const int r = kWords * call + q;
      if (r < p.num_points) {
        const T weight = math::exp_of_minus((largest - values[q]) * inverse_temperature);
        sums.mass += weight;
        sums.moment = math::fma(weight, grid(r), sums.moment);
      }
    }
  }
  const T largest = warp_max(sums.largest);
  const T rescale = math::exp_of_minus((largest - sums.largest) * inverse_temperature);
  return {largest, warp_sum(sums.mass * rescale), warp_sum(sums.moment * rescale)};
}

template <class S>
__global__ void __launch_bounds__(32 * coarse_grain::kMaxWarps, 4)
    coarse_grain_sample_kernel(Relaxed p, const S* __restrict__ coefficients, S* __restrict__ z) {
  using T = compute_t<S>;
  DVAE_EXT_DYNAMIC_SHARED(T, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (item >= p.batch * p.dims) return;  // whole warps leave, and no barrier follows
  T* logits = shared + warp * p.num_points;
  const T inverse_temperature = static_cast<T>(math::inverse_temperature(*p.temperature));
  coarse_grain::shifted_logits<T>(coefficients + item * p.order, p.order, p.num_points, lane, logits);
  __syncwarp();
  for (int64_t l = 0; l < p.num_samples; ++l) {
    const int64_t row = l * p.batch * p.dims + item;
    const Sums<T> sums =
        relax<T>(p, static_cast<uint32_t>(row), inverse_temperature, lane, logits, static_cast<T*>(nullptr));
    if (lane == 0) z[row] = math::store<S>(sums.moment / sums.mass);
  }
}

template <class S>
__global__ void __launch_bounds__(32 * coarse_grain::kMaxWarps, 4)
    coarse_grain_sample_backward_kernel(Relaxed p, const S* __restrict__ coefficients, const S* __restrict__ grad_z,
                                        S* __restrict__ grad_coefficients) {
  using T = compute_t<S>;
  DVAE_EXT_DYNAMIC_SHARED(T, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (item >= p.batch * p.dims) return;  // whole warps leave, and no barrier follows
  T* logits = shared + warp * 3 * p.num_points;
  T* perturbed = logits + p.num_points;
  T* grad_logits = perturbed + p.num_points;
  const T inverse_temperature = static_cast<T>(math::inverse_temperature(*p.temperature));
  coarse_grain::shifted_logits<T>(coefficients + item * p.order, p.order, p.num_points, lane, logits);
  const coarse_grain::Grid<T> grid(p.num_points);
  for (int r = lane; r < p.num_points; r += 32) grad_logits[r] = T(0);
  __syncwarp();
  // dz/dlogit_r = y_r (grid_r - z) / T; summed over samples before it meets the powers of the grid.
  for (int64_t l = 0; l < p.num_samples; ++l) {
    const int64_t row = l * p.batch * p.dims + item;
    const Sums<T> sums = relax<T>(p, static_cast<uint32_t>(row), inverse_temperature, lane, logits, perturbed);
    __syncwarp();
    const T z = sums.moment / sums.mass;
    const T scale = static_cast<T>(math::load(grad_z[row])) * inverse_temperature / sums.mass;
    for (int r = lane; r < p.num_points; r += 32) {
      const T weight = math::exp_of_minus((sums.largest - perturbed[r]) * inverse_temperature);
      grad_logits[r] = math::fma(scale * weight, grid(r) - z, grad_logits[r]);
    }
    __syncwarp();
  }
  coarse_grain::moments(grad_logits, p.num_points, p.order, lane, [&](int64_t m, T value) {
    if (lane == 0) grad_coefficients[item * p.order + m] = math::store<S>(value);
  });
}

template <class Params>
Relaxed relaxed(const Params& p) {
  return {p.num_samples, p.batch, p.dims, p.order, static_cast<int>(p.num_points), p.temperature, p.key};
}

dim3 blocks(int64_t items, int warps) { return dim3(static_cast<unsigned>((items + warps - 1) / warps)); }

}  // namespace

int coarse_grain_sample_cuda(const CoarseGrainSample& p, void* stream) {
  if (p.batch * p.dims * p.num_samples == 0) return 0;
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const int warps = coarse_grain::warps(p.num_points);
    const size_t bytes = sizeof(compute_t<S>) * static_cast<size_t>(warps * p.num_points);
    return DVAE_EXT_LAUNCH((coarse_grain_sample_kernel<S>), blocks(p.batch * p.dims, warps),
                           dim3(static_cast<unsigned>(32 * warps)), bytes, stream, relaxed(p),
                           static_cast<const S*>(p.coefficients), static_cast<S*>(p.z));
  });
}

int coarse_grain_sample_backward_cuda(const CoarseGrainSampleBackward& p, void* stream) {
  if (p.batch * p.dims == 0) return 0;
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const int warps = coarse_grain::warps(p.num_points);
    const size_t bytes = sizeof(compute_t<S>) * static_cast<size_t>(3 * warps * p.num_points);
    return DVAE_EXT_LAUNCH((coarse_grain_sample_backward_kernel<S>), blocks(p.batch * p.dims, warps),
                           dim3(static_cast<unsigned>(32 * warps)), bytes, stream, relaxed(p),
                           static_cast<const S*>(p.coefficients), static_cast<const S*>(p.grad_z),
                           static_cast<S*>(p.grad_coefficients));
  });
}

}  // namespace dvae_ext::kernels
