#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// z[l, b, d] = sum_r y_r grid_r with y = softmax((logits + Gumbel) / temperature) over the grid of [-1, 1].
//
// The Gumbel variate of (l, b, d, r) comes from word r % 4 of call r / 4 of the counter row that is z's own index,
// (l * batch + b) * dims + d.
struct CoarseGrainSample {
  DType dtype;
  int64_t num_samples, batch, dims, order, num_points;
  const double* temperature;  // where the coefficients are, so that a graph that is captured may change it
  const void* coefficients;   // [batch, dims, order], powers 1..order
  const int64_t* key;         // seed, offset
  void* z;                    // [num_samples, batch, dims]
};

struct CoarseGrainSampleBackward {
  DType dtype;
  int64_t num_samples, batch, dims, order, num_points;
  const double* temperature;
  const void* coefficients;
  const int64_t* key;
  const void* grad_z;
  void* grad_coefficients;
};

DVAE_EXT_DECLARE_CPU(coarse_grain_sample, CoarseGrainSample);
DVAE_EXT_DECLARE_CPU(coarse_grain_sample_backward, CoarseGrainSampleBackward);
int coarse_grain_sample_cuda(const CoarseGrainSample& params, void* stream);
int coarse_grain_sample_backward_cuda(const CoarseGrainSampleBackward& params, void* stream);

}  // namespace dvae_ext::kernels
