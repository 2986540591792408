#include "kernels/pairwise_kl_bernoulli.h"

#include "kernels/cuda/pairwise.h"
#include "math/pairwise_kl_bernoulli.h"

namespace dvae_ext::kernels {

using math::BernoulliPairs;

int pairwise_kl_bernoulli_cuda(const PairwiseKlBernoulli& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const pairwise::Inputs<BernoulliPairs, S> inputs{{static_cast<const S*>(p.logits)}, p.batch, p.dims};
    return pairwise::launch_forward<BernoulliPairs, false>(inputs, static_cast<S*>(p.kl), nullptr, stream);
  });
}

int pairwise_kl_bernoulli_backward_cuda(const PairwiseKlBernoulliBackward& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const pairwise::Inputs<BernoulliPairs, S> inputs{{static_cast<const S*>(p.logits)}, p.batch, p.dims};
    const pairwise::MatrixSource<S> source{static_cast<const S*>(p.grad_kl), p.batch};
    return pairwise::launch_backward<BernoulliPairs, false>(inputs, source, static_cast<S*>(p.grad_logits),
                                                            static_cast<S*>(nullptr), stream);
  });
}

}  // namespace dvae_ext::kernels
