#include "kernels/pairwise_kl_normal.h"

#include "kernels/cpu/pairwise.h"
#include "math/pairwise_kl_normal.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

void pairwise_kl_normal(const PairwiseKlNormal& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const S* const inputs[] = {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)};
    pairwise::forward<math::NormalPairs>(inputs, p.batch, p.dims, static_cast<S*>(p.kl), parallel);
  });
}

void pairwise_kl_normal_backward(const PairwiseKlNormalBackward& p, const Parallel& parallel) {
  dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const S* const inputs[] = {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)};
    S* const grads[] = {static_cast<S*>(p.grad_mean), static_cast<S*>(p.grad_logvar)};
    const S* grad_kl = static_cast<const S*>(p.grad_kl);
    const auto weight = [](math::compute_t<S> grad) { return grad; };
    pairwise::backward<math::NormalGradients<math::compute_t<S>>, false>(inputs, p.batch, p.dims, grad_kl, weight, {},
                                                                         grads, parallel);
  });
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
