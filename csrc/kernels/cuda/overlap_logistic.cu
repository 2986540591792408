#include "kernels/overlap_logistic.h"

#include "kernels/cuda/elementwise.h"
#include "math/overlap_logistic.h"

namespace dvae_ext::kernels {

int overlap_logistic_icdf_cuda(const Elementwise& params, void* stream) {
  return elementwise<Forward<math::OverlapLogisticIcdf>>(params, stream);
}
int overlap_logistic_icdf_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapLogisticIcdf>>(params, stream);
}
int overlap_logistic_icdf_backward_logits_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapLogisticIcdf, 1>>(params, stream);
}

int overlap_logistic_log_prob_cuda(const Elementwise& params, void* stream) {
  return elementwise<Forward<math::OverlapLogisticLogProb>>(params, stream);
}
int overlap_logistic_log_prob_backward_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapLogisticLogProb>>(params, stream);
}
int overlap_logistic_log_prob_backward_logits_cuda(const Elementwise& params, void* stream) {
  return elementwise<Backward<math::OverlapLogisticLogProb, 1>>(params, stream);
}

}  // namespace dvae_ext::kernels
