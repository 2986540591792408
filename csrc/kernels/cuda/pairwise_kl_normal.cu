#include "kernels/pairwise_kl_normal.h"

#include "kernels/cuda/pairwise.h"
#include "math/pairwise_kl_normal.h"

namespace dvae_ext::kernels {

using math::NormalPairs;

int pairwise_kl_normal_cuda(const PairwiseKlNormal& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const pairwise::Inputs<NormalPairs, S> inputs{
        {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)}, p.batch, p.dims};
    return pairwise::launch_forward<NormalPairs, false>(inputs, static_cast<S*>(p.kl), nullptr, stream);
  });
}

int pairwise_kl_normal_backward_cuda(const PairwiseKlNormalBackward& p, void* stream) {
  return dispatch_dtype(p.dtype, [&]<class S>(S*) {
    const pairwise::Inputs<NormalPairs, S> inputs{
        {static_cast<const S*>(p.mean), static_cast<const S*>(p.logvar)}, p.batch, p.dims};
    const pairwise::MatrixSource<S> source{static_cast<const S*>(p.grad_kl), p.batch};
    return pairwise::launch_backward<NormalPairs, false>(inputs, source, static_cast<S*>(p.grad_mean),
                                                         static_cast<S*>(p.grad_logvar), stream);
  });
}

}  // namespace dvae_ext::kernels
