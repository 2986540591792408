#include "kernels/overlap_logistic.h"

#include "kernels/cpu/elementwise.h"
#include "math/overlap_logistic.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

void overlap_logistic_icdf(const Elementwise& params, const Parallel& parallel) {
  elementwise<Forward<math::OverlapLogisticIcdf>>(params, parallel);
}
void overlap_logistic_icdf_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapLogisticIcdf>>(params, parallel);
}
void overlap_logistic_icdf_backward_logits(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapLogisticIcdf, 1>>(params, parallel);
}

void overlap_logistic_log_prob(const Elementwise& params, const Parallel& parallel) {
  elementwise<Forward<math::OverlapLogisticLogProb>>(params, parallel);
}
void overlap_logistic_log_prob_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapLogisticLogProb>>(params, parallel);
}
void overlap_logistic_log_prob_backward_logits(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapLogisticLogProb, 1>>(params, parallel);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
