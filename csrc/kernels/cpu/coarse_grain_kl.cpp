#include "kernels/coarse_grain_kl.h"

#include "kernels/cpu/coarse_grain.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using math::compute_t;

// Stands for a log-probability in the padding: its exponential is zero and differences of two of them are finite.
constexpr double kNever = -1e30;

// Log-probabilities and probabilities of one coarse-grained density.
template <class T>
struct Categorical {
  std::vector<T> log_p, p;

  explicit Categorical(int64_t num_points)
      : log_p(static_cast<size_t>(coarse_grain::padded(num_points))), p(log_p.size()) {}

  template <class S>
  void set(const S* coefficients, int64_t order, const T* grid, int64_t num_points) {
    const int64_t count = coarse_grain::padded(num_points);
    T* __restrict logs = log_p.data();
    T* __restrict probabilities = p.data();
    coarse_grain::shifted_logits<T>(coefficients, order, grid, num_points, static_cast<T>(kNever), logs);
    for (int64_t r = 0; r < count; ++r) probabilities[r] = math::exp_of_minus(-logs[r]);
    const T mass = coarse_grain::sum_over<T>(count, probabilities);
    const T log_mass = math::log(mass);
    for (int64_t r = 0; r < count; ++r) logs[r] -= log_mass;
    for (int64_t r = 0; r < count; ++r) probabilities[r] /= mass;
  }
};

template <class T>
T kl_of(const Categorical<T>& q, const Categorical<T>& p, std::vector<T>& terms) {
  const int64_t count = static_cast<int64_t>(terms.size());
  const T *log_q = q.log_p.data(), *log_p = p.log_p.data(), *prob_q = q.p.data(), *prob_p = p.p.data();
  T* __restrict out = terms.data();
#pragma GCC ivdep
  for (int64_t r = 0; r < count; ++r) {
    out[r] = math::categorical_kl_term(prob_q[r], prob_p[r], log_p[r] - log_q[r]);
  }
  return coarse_grain::sum_over<T>(count, out);
}

// Calls body(chunk, dimension, batch begin, batch end, q, p) with p set to the prior of that dimension.
template <class S, class Params, class Body>
void for_each_chunk(const Params& params, const std::vector<compute_t<S>>& grid, const Parallel& parallel,
                    const Body& body) {
  using T = compute_t<S>;
  const int64_t chunks = coarse_grain_kl_chunks(params.batch);
  parallel_for(parallel, 0, chunks * params.dims, 1, [&](int64_t begin, int64_t end) {
    Categorical<T> q(params.num_points), p(params.num_points);
    for (int64_t task = begin; task < end; ++task) {
      const int64_t chunk = task / params.dims, d = task % params.dims;
      p.set(static_cast<const S*>(params.p_coefficients) + d * params.order, params.order, grid.data(),
            params.num_points);
      const int64_t first = chunk * kCoarseGrainKlChunk;
      body(chunk, d, first, std::min(first + kCoarseGrainKlChunk, params.batch), q, p);
    }
  });
}

}  // namespace

void coarse_grain_kl(const CoarseGrainKl& params, const Parallel& parallel) {
  dispatch_dtype(params.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::padded_grid<T>(params.num_points);
    for_each_chunk<S>(params, grid, parallel,
                      [&](int64_t, int64_t d, int64_t begin, int64_t end, Categorical<T>& q, Categorical<T>& p) {
                        std::vector<T> terms(q.p.size());
                        for (int64_t b = begin; b < end; ++b) {
                          const int64_t index = b * params.dims + d;
                          q.set(static_cast<const S*>(params.q_coefficients) + index * params.order, params.order,
                                grid.data(), params.num_points);
                          static_cast<S*>(params.kl)[index] = math::store<S>(kl_of(q, p, terms));
                        }
                      });
  });
}

void coarse_grain_kl_backward(const CoarseGrainKlBackward& params, const Parallel& parallel) {
  dispatch_dtype(params.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const int64_t order = params.order, count = coarse_grain::padded(params.num_points);
    const std::vector<T> grid = coarse_grain::padded_grid<T>(params.num_points);
    for_each_chunk<S>(
        params, grid, parallel,
        [&](int64_t chunk, int64_t d, int64_t begin, int64_t end, Categorical<T>& q, Categorical<T>& p) {
          std::vector<T> grad_q(static_cast<size_t>(count)), grad_p(static_cast<size_t>(count), T(0));
          const T *log_q = q.log_p.data(), *log_p = p.log_p.data(), *prob_q = q.p.data(), *prob_p = p.p.data();
          T* __restrict by_q = grad_q.data(), * __restrict by_p = grad_p.data();
          for (int64_t b = begin; b < end; ++b) {
            const int64_t index = b * params.dims + d;
            q.set(static_cast<const S*>(params.q_coefficients) + index * order, order, grid.data(), params.num_points);
            const T kl = kl_of(q, p, grad_q);
            const T weight = static_cast<T>(math::load(static_cast<const S*>(params.grad_kl)[index]));
#pragma GCC ivdep
            for (int64_t r = 0; r < count; ++r) {
              const T surprise = (log_q[r] - log_p[r]) - kl;
              by_q[r] = math::select(prob_q[r] == T(0), T(0), weight * prob_q[r] * surprise);
              by_p[r] = math::fma(weight, prob_p[r] - prob_q[r], by_p[r]);
            }
            S* grad = static_cast<S*>(params.grad_q_coefficients) + index * order;
            coarse_grain::moments(by_q, grid.data(), params.num_points, order,
                                  [=](int64_t m, T value) { grad[m] = math::store<S>(value); });
          }
          double* partial = params.partial + (chunk * params.dims + d) * order;
          coarse_grain::moments(by_p, grid.data(), params.num_points, order,
                                [=](int64_t m, T value) { partial[m] = static_cast<double>(value); });
        });
    const int64_t chunks = coarse_grain_kl_chunks(params.batch), size = params.dims * order;
    for (int64_t i = 0; i < size; ++i) {
      double sum = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += params.partial[chunk * size + i];
      static_cast<S*>(params.grad_p_coefficients)[i] = math::store<S>(static_cast<T>(sum));
    }
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
