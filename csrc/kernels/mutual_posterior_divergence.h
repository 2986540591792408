#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// The statistics that forward leaves for backward, float64.
enum { kMpdDiverse, kMpdSmooth, kMpdMean, kMpdStatistics };

// MAE eqs. 4-8 over the ordered pairs i != j of a batch of normals.
struct MutualPosteriorDivergence {
  DType dtype;
  int64_t batch, dims;
  const void *mean, *logvar;  // [batch, dims]
  void* kl;                   // [batch, batch] in the type of computation: float, or double for float64
  double* row_statistics;     // [batch, 3], workspace: sum of softplus, mean and sum of squared deviations of KL
  double* partial_softplus;   // workspace of the CUDA kernel: one entry per pair of tiles
  double* statistics;         // [kMpdStatistics]
  void *diverse, *smooth, *mpd;
};

// Tiles per side in the CUDA kernel, which sizes partial_softplus.
inline constexpr int kMpdTile = 64;
inline int64_t mutual_posterior_divergence_tiles(int64_t batch) { return (batch + kMpdTile - 1) / kMpdTile; }

struct MutualPosteriorDivergenceBackward {
  DType dtype;
  int64_t batch, dims;
  const void *mean, *logvar, *kl;
  const double* statistics;
  const void *grad_diverse, *grad_smooth, *grad_mpd;  // scalars
  void *grad_mean, *grad_logvar;
};

DVAE_EXT_DECLARE_CPU(mutual_posterior_divergence, MutualPosteriorDivergence);
DVAE_EXT_DECLARE_CPU(mutual_posterior_divergence_backward, MutualPosteriorDivergenceBackward);
int mutual_posterior_divergence_cuda(const MutualPosteriorDivergence& params, void* stream);
int mutual_posterior_divergence_backward_cuda(const MutualPosteriorDivergenceBackward& params, void* stream);

}  // namespace dvae_ext::kernels
