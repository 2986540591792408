#include "kernels/pairwise_kl_bernoulli.h"

#include "kernels/cpu/pairwise.h"
#include "math/pairwise_kl_bernoulli.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

void pairwise_kl_bernoulli(const PairwiseKlBernoulli& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const S* const inputs[] = {static_cast<const S*>(p.logits)};
    pairwise::forward<math::BernoulliPairs>(inputs, p.batch, p.dims, static_cast<S*>(p.kl), parallel);
  });
}

void pairwise_kl_bernoulli_backward(const PairwiseKlBernoulliBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const S* const inputs[] = {static_cast<const S*>(p.logits)};
    S* const grads[] = {static_cast<S*>(p.grad_logits)};
    const S* grad_kl = static_cast<const S*>(p.grad_kl);
    const auto weight = [](math::compute_t<S> grad) { return grad; };
    pairwise::backward<math::BernoulliPairs, false>(inputs, p.batch, p.dims, grad_kl, weight, {}, grads, parallel);
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
