#include "elementwise.h"
#include "kernels/overlap_exponential.h"
#include "kernels/overlap_logistic.h"
#include "math/overlap_exponential.h"
#include "math/overlap_logistic.h"

namespace dvae_ext::tests {
namespace {

using namespace kernels;

TEST(overlap_exponential) {
  COMPARE(overlap_exponential_icdf, Forward<math::OverlapExponentialIcdf>);
  COMPARE(overlap_exponential_icdf_backward, Backward<math::OverlapExponentialIcdf>);
  COMPARE(overlap_exponential_log_prob, Forward<math::OverlapExponentialLogProb>);
  COMPARE(overlap_exponential_log_prob_backward, Backward<math::OverlapExponentialLogProb>);
}

TEST(overlap_logistic) {
  COMPARE(overlap_logistic_icdf, Forward<math::OverlapLogisticIcdf>);
  COMPARE(overlap_logistic_icdf_backward, Backward<math::OverlapLogisticIcdf>);
  COMPARE(overlap_logistic_log_prob, Forward<math::OverlapLogisticLogProb>);
  COMPARE(overlap_logistic_log_prob_backward, Backward<math::OverlapLogisticLogProb>);
}

}  // namespace
}  // namespace dvae_ext::tests
