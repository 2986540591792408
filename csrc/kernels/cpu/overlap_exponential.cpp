#include "kernels/overlap_exponential.h"

#include "kernels/cpu/elementwise.h"
#include "math/overlap_exponential.h"

namespace dvae_ext::kernels::DVAE_EXT_ISA {

void overlap_exponential_icdf(const Elementwise& params, const Parallel& parallel) {
  elementwise<Forward<math::OverlapExponentialIcdf>>(params, parallel);
}
void overlap_exponential_icdf_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapExponentialIcdf>>(params, parallel);
}
void overlap_exponential_icdf_backward_logits(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapExponentialIcdf, 1>>(params, parallel);
}
void overlap_exponential_icdf_backward_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<SecondBackward<math::OverlapExponentialIcdf>>(params, parallel);
}

void overlap_exponential_log_prob(const Elementwise& params, const Parallel& parallel) {
  elementwise<Forward<math::OverlapExponentialLogProb>>(params, parallel);
}
void overlap_exponential_log_prob_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapExponentialLogProb>>(params, parallel);
}
void overlap_exponential_log_prob_backward_logits(const Elementwise& params, const Parallel& parallel) {
  elementwise<Backward<math::OverlapExponentialLogProb, 1>>(params, parallel);
}
void overlap_exponential_log_prob_backward_backward(const Elementwise& params, const Parallel& parallel) {
  elementwise<SecondBackward<math::OverlapExponentialLogProb>>(params, parallel);
}

}  // namespace dvae_ext::kernels::DVAE_EXT_ISA
