#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// kl[i, j] = KL(q_i || q_j), summed over the dimensions.
struct PairwiseKlNormal {
  DType dtype;
  int64_t batch, dims;
  const void *mean, *logvar;  // [batch, dims]
  void* kl;                   // [batch, batch]
};

struct PairwiseKlNormalBackward {
  DType dtype;
  int64_t batch, dims;
  const void *mean, *logvar, *grad_kl;
  void *grad_mean, *grad_logvar;
};

DVAE_EXT_DECLARE_CPU(pairwise_kl_normal, PairwiseKlNormal);
DVAE_EXT_DECLARE_CPU(pairwise_kl_normal_backward, PairwiseKlNormalBackward);
int pairwise_kl_normal_cuda(const PairwiseKlNormal& params, void* stream);
int pairwise_kl_normal_backward_cuda(const PairwiseKlNormalBackward& params, void* stream);

}  // namespace dvae_ext::kernels
