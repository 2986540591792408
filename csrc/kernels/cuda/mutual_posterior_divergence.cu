#include "kernels/mutual_posterior_divergence.h"

#include "kernels/cuda/pairwise.h"
#include "math/pairwise_kl_normal.h"

namespace dvae_ext::kernels {

namespace {

using math::compute_t;
using math::NormalPairs;

constexpr int kThreads = 256;
static_assert(kMpdTile == pairwise::kTile);

// Mean and sum of squared deviations of KL over one row of pairs.
template <class T>
__global__ void __launch_bounds__(kThreads)
    mpd_rows_kernel(const T* __restrict__ kl, int64_t batch, double* __restrict__ row_statistics) {
  __shared__ double scratch[kThreads];
  const int64_t i = blockIdx.x;
  const T* row = kl + i * batch;
  double sum = 0;
  for (int64_t j = threadIdx.x; j < batch; j += kThreads) sum += j == i ? 0.0 : static_cast<double>(row[j]);
  const double mean = block_sum(sum, scratch) / static_cast<double>(batch - 1);
  double squares = 0;
  for (int64_t j = threadIdx.x; j < batch; j += kThreads) {
    const double deviation = j == i ? 0.0 : static_cast<double>(row[j]) - mean;
    squares += deviation * deviation;
  }
  squares = block_sum(squares, scratch);
  if (threadIdx.x == 0) {
    row_statistics[3 * i] = 0;
    row_statistics[3 * i + 1] = mean;
    row_statistics[3 * i + 2] = squares;
  }
}

// On sm_90 it spills 8 bytes, around the out-of-line double division of its one last thread: no loop is touched.
template <class S>
__global__ void __launch_bounds__(kThreads)
    mpd_total_kernel(const double* __restrict__ row_statistics, const double* __restrict__ partial_softplus,
                     int64_t batch, int64_t partials, double* statistics, S* diverse, S* smooth, S* mpd) {
  using T = compute_t<S>;
  __shared__ double scratch[kThreads];
  const double rows = static_cast<double>(batch), pairs = rows * (rows - 1);
  double softplus = 0, sum = 0;
  for (int64_t n = threadIdx.x; n < partials; n += kThreads) softplus += partial_softplus[n];
  for (int64_t i = threadIdx.x; i < batch; i += kThreads) sum += row_statistics[3 * i + 1];
  softplus = block_sum(softplus, scratch);
  const double mean = block_sum(sum, scratch) / rows;
  double squares = 0;
  for (int64_t i = threadIdx.x; i < batch; i += kThreads) {
    const double deviation = row_statistics[3 * i + 1] - mean;
    squares += row_statistics[3 * i + 2] + (rows - 1) * deviation * deviation;
  }
  squares = block_sum(squares, scratch);
  if (threadIdx.x == 0) {
    statistics[kMpdDiverse] = softplus / pairs;
    // Beside an infinite divergence the deviations are differences of infinities.
    statistics[kMpdSmooth] = mean - mean == 0 ? math::sqrt(squares / (pairs - 1)) : mean;
    statistics[kMpdMean] = mean;
    *diverse = math::store<S>(static_cast<T>(statistics[kMpdDiverse]));
    *smooth = math::store<S>(static_cast<T>(statistics[kMpdSmooth]));
    *mpd = math::store<S>(static_cast<T>(statistics[kMpdMean]));
  }
}

template <class S>
struct DivergenceSource {
  using T = compute_t<S>;
  const T* kl;
  int64_t batch;
  const double* statistics;
  const S *grad_diverse, *grad_smooth, *grad_mpd;

  struct Weight {
    const T* kl;
    int64_t batch;
    double level, slope, mean;
    T softplus_scale;
    __device__ T operator()(int64_t i, int64_t j) const {
      return static_cast<T>(slope == 0 ? level : level + slope * (static_cast<double>(kl[i * batch + j]) - mean));
    }
  };
  __device__ Weight prepare() const {
    const double rows = static_cast<double>(batch), pairs = rows * (rows - 1), smooth = statistics[kMpdSmooth];
    // All divergences equal: the standard deviation has no derivative there and zero is a subgradient.
    const double slope = smooth == 0 ? 0 : static_cast<double>(math::load(*grad_smooth)) / ((pairs - 1) * smooth);
    return {kl,
            batch,
            static_cast<double>(math::load(*grad_mpd)) / pairs,
            slope,
            statistics[kMpdMean],
            static_cast<T>(static_cast<double>(math::load(*grad_diverse)) / pairs)};
  }
};

}  // namespace

int mutual_posterior_divergence_cuda(const MutualPosteriorDivergence& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    using T = compute_t<S>;
    const pairwise::Inputs<NormalPairs, S> inputs{
        {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)}, p.batch, p.dims};
    int code = pairwise::launch_forward<NormalPairs, true>(inputs, static_cast<T*>(p.kl), p.partial_softplus, stream);
    if (code != 0) return code;
    code = DVAE_EXT_LAUNCH((mpd_rows_kernel<T>), dim3(static_cast<unsigned>(p.batch)), dim3(kThreads), 0, stream,
                           static_cast<const T*>(p.kl), p.batch, p.row_statistics);
    if (code != 0) return code;
    const int64_t tiles = mutual_posterior_divergence_tiles(p.batch);
    return DVAE_EXT_LAUNCH((mpd_total_kernel<S>), dim3(1), dim3(kThreads), 0, stream, p.row_statistics,
                           p.partial_softplus, p.batch, tiles * tiles, p.statistics, static_cast<S*>(p.diverse),
                           static_cast<S*>(p.smooth), static_cast<S*>(p.mpd));
  });
}

int mutual_posterior_divergence_backward_cuda(const MutualPosteriorDivergenceBackward& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const pairwise::Inputs<NormalPairs, S> inputs{
        {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)}, p.batch, p.dims};
    const DivergenceSource<S> source{static_cast<const compute_t<S>*>(p.kl),
                                     p.batch,
                                     p.statistics,
                                     static_cast<const S*>(p.grad_diverse),
                                     static_cast<const S*>(p.grad_smooth),
                                     static_cast<const S*>(p.grad_mpd)};
    return pairwise::launch_backward<NormalPairs, true>(inputs, source, static_cast<S*>(p.grad_mean),
                                                        static_cast<S*>(p.grad_logvar), stream);
  });
}

}  // namespace dvae_ext::kernels
