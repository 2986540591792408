#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// kl[b, d] = KL(softmax(polynomial q) : softmax(polynomial p)) over the grid of [-1, 1].
struct CoarseGrainKl {
  DType dtype;
  int64_t batch, dims, order, num_points;
  const void *q_coefficients, *p_coefficients;  // [batch, dims, order] and [dims, order], powers 1..order
  void* kl;                                     // [batch, dims]
};

struct CoarseGrainKlBackward {
  DType dtype;
  int64_t batch, dims, order, num_points;
  const void *q_coefficients, *p_coefficients;
  const void* grad_kl;
  void *grad_q_coefficients, *grad_p_coefficients;
  double* partial;  // [coarse_grain_kl_chunks(batch), dims, order], workspace
};

// The sum over the batch in the gradient of p is taken in chunks of fixed size, so its rounding does not depend on
// the number of threads or blocks.
inline constexpr int64_t kCoarseGrainKlChunk = 8;
inline int64_t coarse_grain_kl_chunks(int64_t batch) { return (batch + kCoarseGrainKlChunk - 1) / kCoarseGrainKlChunk; }

DVAE_EXT_DECLARE_CPU(coarse_grain_kl, CoarseGrainKl);
DVAE_EXT_DECLARE_CPU(coarse_grain_kl_backward, CoarseGrainKlBackward);
int coarse_grain_kl_cuda(const CoarseGrainKl& params, void* stream);
int coarse_grain_kl_backward_cuda(const CoarseGrainKlBackward& params, void* stream);

}  // namespace dvae_ext::kernels
