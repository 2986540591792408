#include "kernels/coarse_grain_kl.h"

#include "kernels/cuda/coarse_grain.h"

namespace dvae_ext::kernels {

namespace {

using math::compute_t;

struct Shape {
  int64_t batch, dims, order;
  int num_points;
};

// Turns shifted logits into log-probabilities in place.
template <class T, class S>
__device__ void log_probabilities(const S* coefficients, const Shape& shape, int lane, T* out) {
  coarse_grain::shifted_logits<T>(coefficients, shape.order, shape.num_points, lane, out);
  T mass = T(0);
  for (int r = lane; r < shape.num_points; r += 32) mass += math::exp_of_minus(-out[r]);
  const T log_mass = math::log(warp_sum(mass));
  for (int r = lane; r < shape.num_points; r += 32) out[r] -= log_mass;
}

template <class T>
__device__ T kl_of(const T* log_q, const T* log_p, int num_points, int lane) {
  T sum = T(0);
  for (int r = lane; r < num_points; r += 32) {
    sum += math::categorical_kl_term(math::exp_of_minus(-log_q[r]), math::exp_of_minus(-log_p[r]), log_p[r] - log_q[r]);
  }
  return warp_sum(sum);
}

template <class S>
__global__ void __launch_bounds__(32 * coarse_grain::kMaxWarps, 4)
    coarse_grain_kl_kernel(Shape shape, const S* __restrict__ q, const S* __restrict__ p, S* __restrict__ kl) {
  using T = compute_t<S>;
  DVAE_EXT_DYNAMIC_SHARED(T, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  if (item >= shape.batch * shape.dims) return;  // whole warps leave, and no barrier follows
  T* log_q = shared + warp * 2 * shape.num_points;
  T* log_p = log_q + shape.num_points;
  log_probabilities<T>(q + item * shape.order, shape, lane, log_q);
  log_probabilities<T>(p + item % shape.dims * shape.order, shape, lane, log_p);
  const T value = kl_of(log_q, log_p, shape.num_points, lane);
  if (lane == 0) kl[item] = math::store<S>(value);
}

// A warp takes one dimension of a chunk of the batch, and leaves its part of the prior's gradient in `partial`.
template <class S>
__global__ void __launch_bounds__(32 * coarse_grain::kMaxWarps, 4)
    coarse_grain_kl_backward_kernel(Shape shape, const S* __restrict__ q, const S* __restrict__ p,
                                    const S* __restrict__ grad_kl, S* __restrict__ grad_q,
                                    double* __restrict__ partial) {
  using T = compute_t<S>;
  DVAE_EXT_DYNAMIC_SHARED(T, shared);
  const int lane = static_cast<int>(threadIdx.x) % 32, warp = static_cast<int>(threadIdx.x) / 32;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * (blockDim.x / 32) + warp;
  const int64_t chunk = item / shape.dims, dim = item % shape.dims, order = shape.order;
  const int64_t begin = chunk * kCoarseGrainKlChunk;
  if (begin >= shape.batch) return;  // whole warps leave, and no barrier follows
  const int64_t end = begin + kCoarseGrainKlChunk < shape.batch ? begin + kCoarseGrainKlChunk : shape.batch;
  T* log_q = shared + warp * 4 * shape.num_points;
  T* log_p = log_q + shape.num_points;
  T* by_q = log_p + shape.num_points;
  T* by_p = by_q + shape.num_points;
  log_probabilities<T>(p + dim * order, shape, lane, log_p);
  for (int r = lane; r < shape.num_points; r += 32) by_p[r] = T(0);
  for (int64_t b = begin; b < end; ++b) {
    const int64_t index = b * shape.dims + dim;
    log_probabilities<T>(q + index * order, shape, lane, log_q);
    const T kl = kl_of(log_q, log_p, shape.num_points, lane);
    const T weight = static_cast<T>(math::load(grad_kl[index]));
    for (int r = lane; r < shape.num_points; r += 32) {
      const T prob_q = math::exp_of_minus(-log_q[r]), prob_p = math::exp_of_minus(-log_p[r]);
      const T surprise = (log_q[r] - log_p[r]) - kl;
      by_q[r] = math::select(prob_q == T(0), T(0), weight * prob_q * surprise);
      by_p[r] = math::fma(weight, prob_p - prob_q, by_p[r]);
    }
    coarse_grain::moments(by_q, shape.num_points, order, lane, [&](int64_t m, T value) {
      if (lane == 0) grad_q[index * order + m] = math::store<S>(value);
    });
  }
  coarse_grain::moments(by_p, shape.num_points, order, lane, [&](int64_t m, T value) {
    if (lane == 0) partial[(chunk * shape.dims + dim) * order + m] = static_cast<double>(value);
  });
}

template <class S>
__global__ void coarse_grain_kl_prior_kernel(const double* __restrict__ partial, int64_t chunks, int64_t size,
                                             S* __restrict__ grad_p) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= size) return;
  double sum = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += partial[chunk * size + i];
  grad_p[i] = math::store<S>(static_cast<compute_t<S>>(sum));
}

template <class Params>
Shape shape_of(const Params& p) {
  return {p.batch, p.dims, p.order, static_cast<int>(p.num_points)};
}

dim3 blocks(int64_t items, int64_t per_block) {
  return dim3(static_cast<unsigned>((items + per_block - 1) / per_block));
}

}  // namespace

int coarse_grain_kl_cuda(const CoarseGrainKl& p, void* stream) {
  if (p.batch * p.dims == 0) return 0;
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const int warps = coarse_grain::warps(p.num_points);
    const size_t bytes = sizeof(compute_t<S>) * static_cast<size_t>(2 * warps * p.num_points);
    return DVAE_EXT_LAUNCH((coarse_grain_kl_kernel<S>), blocks(p.batch * p.dims, warps),
                           dim3(static_cast<unsigned>(32 * warps)), bytes, stream, shape_of(p),
                           static_cast<const S*>(p.q_coefficients), static_cast<const S*>(p.p_coefficients),
                           static_cast<S*>(p.kl));
  });
}

int coarse_grain_kl_backward_cuda(const CoarseGrainKlBackward& p, void* stream) {
  const int64_t chunks = coarse_grain_kl_chunks(p.batch), size = p.dims * p.order;
  if (size == 0) return 0;
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    if (chunks > 0) {
      const int warps = coarse_grain::warps(p.num_points);
      const size_t bytes = sizeof(compute_t<S>) * static_cast<size_t>(4 * warps * p.num_points);
      const int code = DVAE_EXT_LAUNCH(
          (coarse_grain_kl_backward_kernel<S>), blocks(chunks * p.dims, warps), dim3(static_cast<unsigned>(32 * warps)),
          bytes, stream, shape_of(p), static_cast<const S*>(p.q_coefficients), static_cast<const S*>(p.p_coefficients),
          static_cast<const S*>(p.grad_kl), static_cast<S*>(p.grad_q_coefficients), p.partial);
      if (code != 0) return code;
    }
    return DVAE_EXT_LAUNCH((coarse_grain_kl_prior_kernel<S>), blocks(size, 256), dim3(256), 0, stream, p.partial,
                           chunks, size, static_cast<S*>(p.grad_p_coefficients));
  });
}

}  // namespace dvae_ext::kernels
