#include "kernels/mutual_posterior_divergence.h"

#include "kernels/cpu/pairwise.h"
#include "math/pairwise_kl_normal.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {
namespace {

using math::NormalPairs;

// Sum of f(j) over [0, count) without i, in float64 and in an order that does not depend on threads.
template <class F>
double sum_without(int64_t i, int64_t count, const F& f) {
  constexpr int64_t lanes = 16;
  double sums[lanes] = {};
  const int64_t bounds[3] = {0, i, count};
  for (int part = 0; part < 2; ++part) {
    const int64_t begin = bounds[part] + part, end = bounds[part + 1];  // the second part starts after i
    int64_t j = begin;
    for (; j + lanes <= end; j += lanes) {
      for (int64_t lane = 0; lane < lanes; ++lane) sums[lane] += f(j + lane);
    }
    for (int64_t lane = 0; j + lane < end; ++lane) sums[lane] += f(j + lane);
  }
  double total = 0;
  for (double sum : sums) total += sum;
  return total;
}

template <bool kWide, class S>
void forward(const pairwise::Features<NormalPairs, math::compute_t<S>>& x, const MutualPosteriorDivergence& p,
             const Parallel& parallel) {
  using T = math::compute_t<S>;
  const int64_t batch = p.batch;
  const auto body = [&](int64_t i, const T* row, const T* terms) {
    memcpy(static_cast<T*>(p.kl) + i * batch, row, static_cast<size_t>(batch) * sizeof(T));
    const double mean =
        sum_without(i, batch, [=](int64_t j) { return static_cast<double>(row[j]); }) / static_cast<double>(batch - 1);
    double* statistics = p.row_statistics + 3 * i;
    statistics[0] = sum_without(i, batch, [=](int64_t j) { return static_cast<double>(terms[j]); });
    statistics[1] = mean;
    statistics[2] = sum_without(i, batch, [=](int64_t j) {
      const double deviation = static_cast<double>(row[j]) - mean;
      return deviation * deviation;
    });
  };
  pairwise::for_each_row<NormalPairs, kWide, true, T>(x, parallel, body);
}

}  // namespace

void mutual_posterior_divergence(const MutualPosteriorDivergence& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = math::compute_t<S>;
    const S* const inputs[] = {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)};
    const pairwise::Features<NormalPairs, T> x(inputs, p.batch, p.dims, parallel);
    x.wide() ? forward<true, S>(x, p, parallel) : forward<false, S>(x, p, parallel);

    const double rows = static_cast<double>(p.batch), pairs = rows * (rows - 1);
    double softplus_sum = 0, mean = 0, squares = 0;
    for (int64_t i = 0; i < p.batch; ++i) {
      softplus_sum += p.row_statistics[3 * i];
      mean += p.row_statistics[3 * i + 1];
    }
    mean /= rows;
    for (int64_t i = 0; i < p.batch; ++i) {
      const double deviation = p.row_statistics[3 * i + 1] - mean;
      squares += p.row_statistics[3 * i + 2] + (rows - 1) * deviation * deviation;
    }
    p.statistics[kMpdDiverse] = softplus_sum / pairs;
    // Beside an infinite divergence the deviations are differences of infinities.
    p.statistics[kMpdSmooth] = mean - mean == 0 ? std::sqrt(squares / (pairs - 1)) : mean;
    p.statistics[kMpdMean] = mean;
    *static_cast<S*>(p.diverse) = math::store<S>(static_cast<T>(p.statistics[kMpdDiverse]));
    *static_cast<S*>(p.smooth) = math::store<S>(static_cast<T>(p.statistics[kMpdSmooth]));
    *static_cast<S*>(p.mpd) = math::store<S>(static_cast<T>(p.statistics[kMpdMean]));
  });
}

void mutual_posterior_divergence_backward(const MutualPosteriorDivergenceBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = math::compute_t<S>;
    const S* const inputs[] = {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)};
    S* const grads[] = {static_cast<S*>(p.grad_mean), static_cast<S*>(p.grad_logvar)};
    const auto scalar = [](const void* pointer) {
      return static_cast<double>(math::load(*static_cast<const S*>(pointer)));
    };
    const double rows = static_cast<double>(p.batch), pairs = rows * (rows - 1);
    const double smooth = p.statistics[kMpdSmooth], mean = p.statistics[kMpdMean];
    // All divergences equal: the standard deviation has no derivative there and zero is a subgradient.
    const double slope = smooth == 0 ? 0 : scalar(p.grad_smooth) / ((pairs - 1) * smooth);
    const double level = scalar(p.grad_mpd) / pairs;
    const T* kl = static_cast<const T*>(p.kl);
    const auto weight = [=](T value) {
      return static_cast<T>(slope == 0 ? level : level + slope * (static_cast<double>(value) - mean));
    };
    const T softplus_scale = static_cast<T>(scalar(p.grad_diverse) / pairs);
    pairwise::backward<math::NormalGradients<T>, true>(inputs, p.batch, p.dims, kl, weight, softplus_scale, grads,
                                                       parallel);
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
