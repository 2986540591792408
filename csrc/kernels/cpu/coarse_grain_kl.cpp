#include "kernels/coarse_grain_kl.h"

#include <algorithm>

#include "kernels/cpu/coarse_grain.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using coarse_grain::kLanes;
using coarse_grain::Row;
using coarse_grain::Vector;
using math::compute_t;

static_assert(kLanes % kCoarseGrainKlChunk == 0);

// Log-probabilities and probabilities of kLanes densities.
template <class T>
struct Categorical {
  std::vector<Row<T>> log_p, p;

  explicit Categorical(size_t num_points) : log_p(num_points), p(num_points) {}

  void set(const Row<T>* coefficients, int64_t order, const std::vector<T>& grid) {
    coarse_grain::shifted_logits(coefficients, order, grid, log_p.data());
    for (size_t r = 0; r < grid.size(); ++r) {
#pragma GCC ivdep
      for (int64_t lane = 0; lane < kLanes; ++lane) p[r].lane[lane] = math::exp_of_minus(-log_p[r].lane[lane]);
    }
    Row<T> mass, log_mass;
    coarse_grain::sum_rows<T, 1>(grid.size(), {&mass},
                                 [&](size_t r, int64_t column, Vector<T>* sums) { sums[0] += load(p[r], column); });
#pragma GCC ivdep
    for (int64_t lane = 0; lane < kLanes; ++lane) {
      log_mass.lane[lane] = math::log(mass.lane[lane]);
      mass.lane[lane] = T(1) / mass.lane[lane];
    }
    for (size_t r = 0; r < grid.size(); ++r) {
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        log_p[r].lane[lane] -= log_mass.lane[lane];
        p[r].lane[lane] *= mass.lane[lane];
      }
    }
  }
};

// The prior of every dimension: log-probabilities and probabilities [dims, R].
template <class T>
struct Prior {
  std::vector<T> log_p, p;

  template <class S>
  Prior(const S* coefficients, int64_t dims, int64_t order, const std::vector<T>& grid)
      : log_p(static_cast<size_t>(dims) * grid.size()), p(log_p.size()) {
    Categorical<T> block(grid.size());
    std::vector<Row<T>> loaded(static_cast<size_t>(order));
    for (int64_t first = 0; first < dims; first += kLanes) {
      const int64_t count = std::min(kLanes, dims - first);
      coarse_grain::load_coefficients(coefficients + first * order, order, count, order, loaded.data());
      block.set(loaded.data(), order, grid);
      for (int64_t lane = 0; lane < count; ++lane) {
        for (size_t r = 0; r < grid.size(); ++r) {
          const size_t index = static_cast<size_t>(first + lane) * grid.size() + r;
          log_p[index] = block.log_p[r].lane[lane];
          p[index] = block.p[r].lane[lane];
        }
      }
    }
  }
};

// Posteriors of kLanes rows of the batch in one dimension, and their divergence from its prior.
template <class T>
struct Block {
  Categorical<T> q;
  const T *log_p, *p;  // the prior's
  Row<T> kl;
  std::vector<Row<T>> terms;  // of the divergence, later the gradient of each logit

  explicit Block(size_t num_points) : q(num_points), terms(num_points) {}

  void diverge() {
    for (size_t r = 0; r < terms.size(); ++r) {
      const T prior = p[r], log_prior = log_p[r];
#pragma GCC ivdep
      for (int64_t lane = 0; lane < kLanes; ++lane) {
        terms[r].lane[lane] = math::categorical_kl_term(q.p[r].lane[lane], prior, log_prior - q.log_p[r].lane[lane]);
      }
    }
    coarse_grain::sum_rows<T, 1>(terms.size(), {&kl},
                                 [&](size_t r, int64_t column, Vector<T>* sums) { sums[0] += load(terms[r], column); });
  }
};

// Calls body(block, dimension, first row of the batch, rows) for blocks with their divergences in place.
template <class S, class Params, class Body>
void for_each_block(const Params& params, const std::vector<compute_t<S>>& grid, const Parallel& parallel,
                    const Body& body) {
  using T = compute_t<S>;
  const int64_t order = params.order, dims = params.dims, blocks = (params.batch + kLanes - 1) / kLanes;
  const Prior<T> prior(static_cast<const S*>(params.p_coefficients), dims, order, grid);
  parallel_for(parallel, 0, blocks * dims, 1, [&](int64_t begin, int64_t end) {
    Block<T> block(grid.size());
    std::vector<Row<T>> loaded(static_cast<size_t>(order));
    for (int64_t task = begin; task < end; ++task) {
      const int64_t first = task / dims * kLanes, d = task % dims;
      const int64_t count = std::min(kLanes, params.batch - first);
      coarse_grain::load_coefficients(static_cast<const S*>(params.q_coefficients) + (first * dims + d) * order, order,
                                      count, dims * order, loaded.data());
      block.q.set(loaded.data(), order, grid);
      block.log_p = prior.log_p.data() + d * params.num_points;
      block.p = prior.p.data() + d * params.num_points;
      block.diverge();
      body(block, d, first, count);
    }
  });
}

}  // namespace

void coarse_grain_kl(const CoarseGrainKl& params, const Parallel& parallel) {
  dispatch_dtype(params.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const std::vector<T> grid = coarse_grain::grid_points<T>(params.num_points);
    for_each_block<S>(params, grid, parallel, [&](const Block<T>& block, int64_t d, int64_t first, int64_t count) {
      S* kl = static_cast<S*>(params.kl) + first * params.dims + d;
      for (int64_t lane = 0; lane < count; ++lane) kl[lane * params.dims] = math::store<S>(block.kl.lane[lane]);
    });
  });
}

void coarse_grain_kl_backward(const CoarseGrainKlBackward& params, const Parallel& parallel) {
  dispatch_dtype(params.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const int64_t order = params.order, dims = params.dims;
    const std::vector<T> grid = coarse_grain::grid_points<T>(params.num_points);
    for_each_block<S>(params, grid, parallel, [&](Block<T>& block, int64_t d, int64_t first, int64_t count) {
      std::vector<Row<T>>& by_q = block.terms;
      std::vector<Row<T>> by_p(grid.size());
      const S* grad_kl = static_cast<const S*>(params.grad_kl) + first * dims + d;
      Row<T> weight{};
      for (int64_t lane = 0; lane < count; ++lane) weight.lane[lane] = static_cast<T>(math::load(grad_kl[lane * dims]));
      for (size_t r = 0; r < grid.size(); ++r) {
        const T log_p = block.log_p[r], prob_p = block.p[r];
#pragma GCC ivdep
        for (int64_t lane = 0; lane < kLanes; ++lane) {
          const T prob_q = block.q.p[r].lane[lane], scale = weight.lane[lane];
          const T surprise = (block.q.log_p[r].lane[lane] - log_p) - block.kl.lane[lane];
          by_q[r].lane[lane] = math::select(prob_q == T(0), T(0), scale * prob_q * surprise);
          by_p[r].lane[lane] = scale * (prob_p - prob_q);
        }
      }
      S* grad_q = static_cast<S*>(params.grad_q_coefficients) + (first * dims + d) * order;
      coarse_grain::moments(by_q.data(), grid, order, [&](int64_t m, const Row<T>& sums) {
        for (int64_t lane = 0; lane < count; ++lane) grad_q[lane * dims * order + m] = math::store<S>(sums.lane[lane]);
      });
      coarse_grain::moments(by_p.data(), grid, order, [&](int64_t m, const Row<T>& sums) {
        for (int64_t lane = 0; lane < count; lane += kCoarseGrainKlChunk) {
          double sum = 0;
          const int64_t end = std::min(lane + kCoarseGrainKlChunk, count);
          for (int64_t i = lane; i < end; ++i) sum += static_cast<double>(sums.lane[i]);
          params.partial[((first + lane) / kCoarseGrainKlChunk * dims + d) * order + m] = sum;
        }
      });
    });
    const int64_t chunks = coarse_grain_kl_chunks(params.batch), size = dims * order;
    for (int64_t i = 0; i < size; ++i) {
      double sum = 0;
      for (int64_t chunk = 0; chunk < chunks; ++chunk) sum += params.partial[chunk * size + i];
      static_cast<S*>(params.grad_p_coefficients)[i] = math::store<S>(static_cast<T>(sum));
    }
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
