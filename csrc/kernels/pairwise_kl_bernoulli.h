#pragma once

#include "kernels/cpu_dispatch.h"
#include "kernels/dtype.h"

namespace dvae_ext::kernels {

// kl[i, j] = KL(q_i || q_j), summed over the dimensions.
struct PairwiseKlBernoulli {
  DType dtype;
  int64_t batch, dims;
  const void* logits;  // [batch, dims]
  void* kl;            // [batch, batch]
};

struct PairwiseKlBernoulliBackward {
  DType dtype;
  int64_t batch, dims;
  const void *logits, *grad_kl;
  void* grad_logits;
};

DVAE_EXT_DECLARE_CPU(pairwise_kl_bernoulli, PairwiseKlBernoulli);
DVAE_EXT_DECLARE_CPU(pairwise_kl_bernoulli_backward, PairwiseKlBernoulliBackward);
int pairwise_kl_bernoulli_cuda(const PairwiseKlBernoulli& params, void* stream);
int pairwise_kl_bernoulli_backward_cuda(const PairwiseKlBernoulliBackward& params, void* stream);

}  // namespace dvae_ext::kernels
