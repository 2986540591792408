#include "kernels/overlap_exponential.h"

#include "kernels/cuda/elementwise.h"
#include "math/overlap_exponential.h"

namespace dvae_ext::kernels {

int overlap_exponential_icdf_cuda(const Elementwise& params, void* stream) {
  return elementwise<Forward<math::OverlapExponentialIcdf>>(params, stream);
}
int overlap_exponential_icdf_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapExponentialIcdf>>(params, stream);
}
int overlap_exponential_icdf_backward_logits_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapExponentialIcdf, 1>>(params, stream);
}
int overlap_exponential_icdf_backward_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<SecondBackward<math::OverlapExponentialIcdf>>(params, stream);
}

int overlap_exponential_log_prob_cuda(const Elementwise& params, void* stream) {
  return elementwise<Forward<math::OverlapExponentialLogProb>>(params, stream);
}
int overlap_exponential_log_prob_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapExponentialLogProb>>(params, stream);
}
int overlap_exponential_log_prob_backward_logits_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapExponentialLogProb, 1>>(params, stream);
}
int overlap_exponential_log_prob_backward_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<SecondBackward<math::OverlapExponentialLogProb>>(params, stream);
}

}  // namespace dvae_ext::kernels
